"""What is in the ledger already of a batch that is to be written."""

from __future__ import annotations

from psycopg import Connection

from costmw.store.budget_rows import EPOCH as BUDGETS_EPOCH
from costmw.store.postgres_batch import DATED_WITHIN, Asked, Batch, moment_of
from costmw.store.postgres_epoch import EPOCH
from costmw.store.postgres_insert import insert_submissions
from costmw.store.postgres_intern import Interner
from costmw.store.postgres_partitions import take_turn
from costmw.store.postgres_rolled import AMENDMENTS_OF
from costmw.store.postgres_sql import texts, uuids
from costmw.store.rollups import PAIRED_VALUES

_FIND_SUBMISSIONS = """
SELECT s.provider, s.result_id, s.created_at, s.tag_set_id, s.request_id, s.first_in_request,
    s.api_key_id
FROM submissions s JOIN unnest($1::text[], $2::text[]) w (provider, result_id)
    ON s.provider = w.provider AND s.result_id = w.result_id
"""

# Ids that say when are looked for near that moment, which is in one partition or two.
_KNOWN_EVENTS = """
SELECT id FROM usage_events
WHERE id = ANY($1::uuid[]) AND created_at >= $2 AND created_at < $3
"""

_KNOWN_UNDATED = "SELECT id FROM undated_ids WHERE id = ANY($1::uuid[])"

_KNOWN_AMENDMENTS = "SELECT id FROM amendments WHERE id = ANY($1::uuid[])"

_WIDE_KEYS = "SELECT id, value_count FROM facet_keys WHERE value_count > $1"

_BUDGETS_EPOCH = "SELECT value FROM settings WHERE key = $1"

_NEW_OUTCOMES = """
INSERT INTO counted_outcomes (id) SELECT * FROM unnest($1::uuid[])
ON CONFLICT DO NOTHING RETURNING id
"""


def look(connection: Connection, interner: Interner, batch: Batch) -> bool:
    """Take the turn and see what is there already, in one exchange with the server.

    Gives False when ids have changed their meaning since the batch was interned: it has to
    be interned once more then, in another transaction.
    """
    ids = uuids(batch.by_id)
    with connection.pipeline():
        connection.execute("BEGIN")
        take_turn(connection)
        epoch = connection.execute(EPOCH)
        insert_submissions(connection, interner, batch.submissions)
        asked = [(e.provider or "", e.submitted_as) for e in batch.events if e.submitted_as]
        submissions = (
            connection.execute(
                _FIND_SUBMISSIONS, (texts(p for p, _ in asked), texts(r for _, r in asked))
            )
            if asked
            else None
        )
        known = []
        if batch.by_id:
            known.append(connection.execute(_KNOWN_UNDATED, (ids,)))
        if dated := [at for at in map(moment_of, batch.by_id) if at is not None]:
            span = (min(dated) - DATED_WITHIN, max(dated) + DATED_WITHIN)
            known.append(connection.execute(_KNOWN_EVENTS, (ids, *span)))
        amended = uuids({a.event_id for a in batch.amendments} | batch.by_id.keys())
        changes = connection.execute(AMENDMENTS_OF, (amended,))
        known_amendments = (
            connection.execute(_KNOWN_AMENDMENTS, (uuids(a.id for a in batch.amendments),))
            if batch.amendments
            else None
        )
        counted = (
            connection.execute(_NEW_OUTCOMES, (uuids(o.id for o in batch.outcomes),))
            if batch.outcomes
            else None
        )
        widths = connection.execute(_WIDE_KEYS, (PAIRED_VALUES,))
        budgets = connection.execute(_BUDGETS_EPOCH, (BUDGETS_EPOCH,))
    if not interner.heed_epoch(epoch.fetchall()[0][0]):
        return False
    batch.budgets_epoch = "".join(row[0] for row in budgets.fetchall())
    interner.heed_widths(dict(widths.fetchall()))
    batch.known_ids = {found[0] for cursor in known for found in cursor.fetchall()}
    if submissions is not None:
        batch.submitted = {(row[0], row[1]): Asked(*row[2:]) for row in submissions.fetchall()}
    for event_id, *change in changes.fetchall():
        batch.changes.setdefault(event_id, []).append(change)
    if known_amendments is not None:
        batch.skip_amendments({found[0] for found in known_amendments.fetchall()})
    if counted is not None:
        new = {found[0] for found in counted.fetchall()}
        by_id = {outcome.id: outcome for outcome in batch.outcomes}
        batch.outcomes = [by_id[outcome_id] for outcome_id in new]
    return True
