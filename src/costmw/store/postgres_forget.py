"""Puts something else in the place of a tag's value, wherever a Postgres ledger has it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection

from costmw.store.alert_rows import retag
from costmw.store.interned import digest_of, digest_of_tags
from costmw.store.postgres_epoch import begin_epoch
from costmw.store.postgres_replay import FIELDS
from costmw.store.postgres_sql import executing, integers, storable, texts
from costmw.store.record_json import retagged

_ADDED = ", ".join(f"{name} = rollups.{name} + excluded.{name}" for name in FIELDS)

# Beside the old facet in a pair stands what is left of the sum of both.
_MOVE_CELLS = f"""
INSERT INTO rollups (every, bucket, facet_id, other_facet_id, {", ".join(FIELDS)})
SELECT every, bucket, least($2, facet_id + other_facet_id - $1),
    greatest($2, facet_id + other_facet_id - $1), {", ".join(FIELDS)}
FROM rollups WHERE facet_id = $1 OR other_facet_id = $1
ON CONFLICT (every, bucket, facet_id, other_facet_id) DO UPDATE SET {_ADDED}
"""  # noqa: S608 - our own names

_MOVE_BINS = """
INSERT INTO rollup_histograms (bucket, facet_id, bin, count)
SELECT bucket, $2, bin, count FROM rollup_histograms WHERE facet_id = $1
ON CONFLICT (bucket, facet_id, bin)
DO UPDATE SET count = rollup_histograms.count + excluded.count
"""

_RETAG = """
UPDATE tag_sets s SET tags = w.tags, digest = w.digest
FROM unnest($1::bigint[], $2::text[], $3::bytea[]) w (id, tags, digest) WHERE s.id = w.id
"""

# Tag sets that become the same as others give them their rows.
_MOVED = "unnest($1::bigint[], $2::bigint[]) w (old, new)"

_MOVE_OUTCOMES = f"""
WITH moved AS (
    DELETE FROM call_outcomes o USING {_MOVED} WHERE o.tag_set_id = w.old
    RETURNING o.hour, o.kind, o.provider, o.model, w.new, o.count
)
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
SELECT hour, kind, provider, model, new, sum(count) FROM moved GROUP BY 1, 2, 3, 4, 5
ON CONFLICT (hour, kind, provider, model, tag_set_id)
DO UPDATE SET count = call_outcomes.count + excluded.count
"""  # noqa: S608 - our own names


def forget_value(connection: Connection, key: str, value: str, name: str) -> int:
    """Put `name` in the place of a tag's value, for who has the turn.

    Where others have the name already, these calls become theirs. Gives the number of tag
    sets that had the value. What was sums stays sums.
    """
    begin_epoch(connection)
    name = storable(name)
    _retag_dead_letters(connection, key, value, name)
    key, value = storable(key), storable(value)
    old, new = (_facet(connection, key, text) for text in (value, name))
    if old is None or old == new:
        return 0
    retag(executing(connection), key, value, name)
    tag_sets = connection.execute(
        "SELECT s.id, s.tags FROM tag_sets s JOIN tags t ON t.tag_set_id = s.id "
        "WHERE t.facet_id = $1",
        (old,),
    ).fetchall()
    _retag(connection, {row: {**json.loads(text), key: name} for row, text in tag_sets})
    if new is None:
        connection.execute(
            "UPDATE facets SET value = $1, digest = $2 WHERE id = $3", (name, digest_of(name), old)
        )
    else:
        _merge(connection, old, new)
    return len(tag_sets)


def _facet(connection: Connection, key: str, value: str) -> int | None:
    found: Any = connection.execute(
        "SELECT f.id FROM facets f JOIN facet_keys k ON k.id = f.key_id "
        "WHERE k.key = $1 AND f.digest = $2",
        (f"tag:{key}", digest_of(value)),
    ).fetchone()
    return found and int(found[0])


def _retag(connection: Connection, wanted: Mapping[int, Mapping[str, str]]) -> None:
    """Give tag sets other tags; those that are there already take their rows."""
    said = {tag_set_id: digest_of_tags(tags) for tag_set_id, tags in wanted.items()}
    known: dict[bytes, int] = dict(
        connection.execute(
            "SELECT digest, id FROM tag_sets WHERE digest = ANY($1::bytea[])",
            ([digest for _, digest in said.values()],),
        ).fetchall()
    )
    moved = [(row, known[digest]) for row, (_, digest) in said.items() if digest in known]
    changed = [(row, *both) for row, both in said.items() if both[1] not in known]
    if changed:
        rows, tags, digests = zip(*changed, strict=True)
        connection.execute(_RETAG, (integers(rows), texts(tags), list(digests)))
    if moved:
        _move_rows(connection, moved)


def _move_rows(connection: Connection, moved: Sequence[tuple[int, int]]) -> None:
    pairs = (integers(old for old, _ in moved), integers(new for _, new in moved))
    for table in ("usage_events", "submissions"):
        connection.execute(
            f"UPDATE {table} e SET tag_set_id = w.new FROM {_MOVED} WHERE e.tag_set_id = w.old",  # noqa: S608 - our own names
            pairs,
        )
    connection.execute(_MOVE_OUTCOMES, pairs)
    connection.execute("DELETE FROM tags WHERE tag_set_id = ANY($1::bigint[])", pairs[:1])
    connection.execute("DELETE FROM tag_sets WHERE id = ANY($1::bigint[])", pairs[:1])


def _merge(connection: Connection, old: int, new: int) -> None:
    """Let one facet have what another has.

    How many values its key has had stays as it is: cells are kept, or not, by that.
    """
    connection.execute("UPDATE tags SET facet_id = $2 WHERE facet_id = $1", (old, new))
    connection.execute(_MOVE_CELLS, (old, new))
    connection.execute("DELETE FROM rollups WHERE facet_id = $1 OR other_facet_id = $1", (old,))
    connection.execute(_MOVE_BINS, (old, new))
    connection.execute("DELETE FROM rollup_histograms WHERE facet_id = $1", (old,))
    connection.execute("DELETE FROM facets WHERE id = $1", (old,))


def _retag_dead_letters(connection: Connection, key: str, value: str, name: str) -> None:
    for letter_id, record in connection.execute("SELECT id, record FROM dead_letters").fetchall():
        if (changed := retagged(record, key, value, name)) is not None:
            connection.execute(
                "UPDATE dead_letters SET record = $1 WHERE id = $2", (changed, letter_id)
            )
