"""Care for a Postgres ledger: prove its rollups, mend them, drop old rows.

Other hosts write meanwhile. What takes long is done outside of the turn, one day or month
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from psycopg import Connection

from costmw.periods import midnight, next_month
from costmw.store.base import Difference
from costmw.store.postgres_epoch import begin_epoch
from costmw.store.postgres_insert import add_bins, add_sums
from costmw.store.postgres_partitions import drop, made, take_turn
from costmw.store.postgres_read import PRUNED
from costmw.store.postgres_replay import FIELDS, NOTHING, CellKey, Compared, Replay
from costmw.store.postgres_settings import keep, setting
from costmw.store.postgres_sql import integers
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import minutes

PATIENCE = 600.0
"""Seconds that a transaction of these may take: others wait for their turn meanwhile."""

DROPPED_AT_ONCE = 10_000
"""Tag sets that are dropped in one transaction."""

_REBUILT = "rebuilt"
_LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)

_DROP_EMPTY = f"""
DELETE FROM rollups WHERE every IN ({HOUR}, {DAY}) AND bucket >= $1 AND bucket < $2
    AND {" AND ".join(f"{name} = 0" for name in FIELDS)}
"""  # noqa: S608 - our own names


@contextmanager
def in_turn(connection: Connection) -> Iterator[None]:
    """A transaction during which nobody else writes."""
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{PATIENCE:.0f}s'")
        take_turn(connection)
        yield


def differences(replay: Replay, pruned_until: datetime | None) -> Iterator[Difference]:
    """Where the rollups differ from the rows that they were made of."""
    after = pruned_until
    while day := next_day(replay, after):
        after = day.stop
        keys, bins = day.differing(), day.differing_bins()
        for cells, in_rollups in ((day.told, True), (day.found, False)):
            for key in keys:
                if any(sums := cells.get(key, NOTHING)):
                    named = dict(zip(FIELDS, sums, strict=True))
                    yield _difference(replay, key, named, in_rollups=in_rollups)
        for counts, in_rollups in ((day.told_bins, True), (day.found_bins, False)):
            for bucket, facet, position in bins:
                if count := counts.get((bucket, facet, position), 0):
                    named = {f"bin_{position}": count}
                    yield _difference(replay, (DAY, bucket, 0, facet), named, in_rollups=in_rollups)


def _difference(
    replay: Replay, key: CellKey, sums: Mapping[str, int], *, in_rollups: bool
) -> Difference:
    every, bucket, *facets = key
    return Difference(
        every_minutes=every,
        bucket_minutes=bucket,
        facets=tuple(replay.name_of(facet) for facet in facets if facet),
        sums=sums,
        in_rollups=in_rollups,
    )


def next_day(replay: Replay, after: datetime | None) -> Compared | None:
    """The next day that has anything, compared; None when none is left."""
    found = replay.next_day(after or _LONG_AGO)
    return replay.compare(*found) if found else None


def rebuilt(connection: Connection) -> str:
    """Changes whenever someone mends the rollups."""
    return setting(connection, _REBUILT) or "0"


def mend(connection: Connection, day: Compared, seen: str) -> bool:
    """Add to the rollups of a day what they lack; gives whether it was done.

    What others have added since the day was compared stays, since this only adds. Not
    done when someone else has mended since `seen`: it would be added twice.
    """
    cells = []
    for key in day.differing():
        told, found = day.told.get(key, NOTHING), day.found.get(key, NOTHING)
        cells.append((*key, *(new - old for old, new in zip(told, found, strict=True))))
    bins = [
        (*bin_key, day.found_bins.get(bin_key, 0) - day.told_bins.get(bin_key, 0))
        for bin_key in day.differing_bins()
    ]
    if not cells and not bins:
        return True
    with in_turn(connection):
        if rebuilt(connection) != seen:
            return False
        keep(connection, _REBUILT, str(int(seen) + 1))
        add_sums(connection, cells)
        add_bins(connection, bins)
        span = (minutes(day.start), minutes(day.stop))
        connection.execute(_DROP_EMPTY, span)
        connection.execute(
            "DELETE FROM rollup_histograms WHERE bucket >= $1 AND bucket < $2 AND count = 0", span
        )
    return True


def prune(connection: Connection, before: datetime, zone: ZoneInfo) -> int:
    """Drop the rows of whole months before a moment; gives their number."""
    local = before.astimezone(zone).date()
    boundary = midnight(date(local.year, local.month, 1), zone)
    with in_turn(connection):
        # Never back again: mending would take away the sums of what is pruned already.
        kept = setting(connection, PRUNED)
        until = max(boundary, datetime.fromisoformat(kept)) if kept else boundary
        months = [m for m in made(connection) if midnight(next_month(m), zone) <= until]
        connection.execute(
            "DELETE FROM amendments a USING usage_events_default e "
            "WHERE a.event_id = e.id AND e.created_at < $1",
            (until,),
        )
        dropped = connection.execute(
            "WITH old AS (DELETE FROM usage_events_default WHERE created_at < $1 RETURNING id), "
            "ids AS (DELETE FROM undated_ids USING old WHERE undated_ids.id = old.id) "
            "SELECT id FROM old",
            (until,),
        ).rowcount
        if months or dropped:
            keep(connection, PRUNED, until.isoformat())
    for month in months:
        with in_turn(connection):
            if month in made(connection):  # another host may have dropped it
                dropped += drop(connection, month)
    return dropped


def drop_unused_tag_sets(connection: Connection) -> int:
    """Drop tag sets that no row has any more; their values stay, since rollups have them."""
    unused = (
        "NOT EXISTS (SELECT 1 FROM usage_events e WHERE e.tag_set_id = s.id) "
        "AND NOT EXISTS (SELECT 1 FROM submissions e WHERE e.tag_set_id = s.id) "
        "AND NOT EXISTS (SELECT 1 FROM call_outcomes e WHERE e.tag_set_id = s.id)"
    )
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{PATIENCE:.0f}s'")
        found = connection.execute(f"SELECT s.id FROM tag_sets s WHERE {unused}").fetchall()  # noqa: S608
    dropped = 0
    for first in range(0, len(found), DROPPED_AT_ONCE):
        ids = integers(row[0] for row in found[first : first + DROPPED_AT_ONCE])
        with in_turn(connection):
            begin_epoch(connection)
            # Rows may have come since that have one of them.
            gone = connection.execute(
                f"SELECT s.id FROM tag_sets s WHERE s.id = ANY($1::bigint[]) AND {unused}",  # noqa: S608
                (ids,),
            ).fetchall()
            gone_ids = (integers(row[0] for row in gone),)
            connection.execute("DELETE FROM tags WHERE tag_set_id = ANY($1::bigint[])", gone_ids)
            connection.execute("DELETE FROM tag_sets WHERE id = ANY($1::bigint[])", gone_ids)
            dropped += len(gone)
    return dropped
