"""Care for an SQLite ledger: prove its rollups, make them anew, drop old rows.

Each works on a connection that the store lends, inside of a transaction; rows are
dropped in slices, so that calls are recorded meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.store.base import Difference
from costmw.store.micros import micros
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES
from costmw.store.sql import MILLION
from costmw.store.sqlite_epoch import begin_epoch
from costmw.store.sqlite_rollups import COLUMNS, Roller, set_watermarks, watermarks

DROPPED_AT_ONCE = 1_000
"""Rows that are dropped in one transaction."""

_PRUNED = "pruned_until"
_MINUTE = 60_000_000
_REPLAYED_AT_ONCE = 10_000


def pruned_until(connection: sqlite3.Connection) -> int:
    """Rows that began before are dropped, and told of by the rollups alone; microseconds."""
    found = connection.execute("SELECT value FROM settings WHERE key = ?", (_PRUNED,)).fetchone()
    return int(found[0]) if found else 0


def prune_slice(
    connection: sqlite3.Connection, before: datetime, most: int = DROPPED_AT_ONCE
) -> int:
    """Drop some of the rows that began before a day, and are rolled up; gives their number.

    Tag sets that no row has any more go with them; their values stay, since rollups have them.
    """
    connection.execute(
        "INSERT INTO settings (key, value) VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET value = max(CAST(value AS INTEGER), excluded.value)",
        (_PRUNED, str(micros(before))),
    )
    events_done, amendments_done = watermarks(connection)
    dropped = connection.execute(
        "SELECT e.seq, e.id, e.tag_set_id FROM usage_events e "
        "WHERE e.created_at < ? AND e.seq <= ? AND NOT EXISTS "
        "(SELECT 1 FROM amendments a WHERE a.event_id = e.id AND a.seq > ?) "
        "ORDER BY e.created_at LIMIT ?",
        (micros(before), events_done, amendments_done, most),
    ).fetchall()
    connection.executemany(
        "DELETE FROM amendments WHERE event_id = ?", [(event_id,) for _, event_id, _ in dropped]
    )
    connection.executemany(
        "DELETE FROM usage_events WHERE seq = ?", [(seq,) for seq, _, _ in dropped]
    )
    _drop_unused(connection, {tag_set_id for _, _, tag_set_id in dropped})
    return len(dropped)


def _drop_unused(connection: sqlite3.Connection, tag_set_ids: Iterable[int]) -> None:
    unused = [
        (tag_set_id,)
        for tag_set_id in tag_set_ids
        if not connection.execute(
            "SELECT EXISTS (SELECT 1 FROM usage_events WHERE tag_set_id = ?1) "
            "OR EXISTS (SELECT 1 FROM submissions WHERE tag_set_id = ?1) "
            "OR EXISTS (SELECT 1 FROM call_outcomes WHERE tag_set_id = ?1)",
            (tag_set_id,),
        ).fetchone()[0]
    ]
    if unused:
        connection.executemany("DELETE FROM tags WHERE tag_set_id = ?", unused)
        connection.executemany("DELETE FROM tag_sets WHERE id = ?", unused)
        begin_epoch(connection)


def forget_rollups(connection: sqlite3.Connection) -> None:
    """Drop the rollups of all rows that are still there; the next slices make them anew.

    Call it once nothing older than `pruned_until` is left: its rollups are all there is.
    """
    since = pruned_until(connection) // _MINUTE
    connection.execute("DELETE FROM rollups WHERE bucket >= ?", (since,))
    connection.execute("DELETE FROM rollup_histograms WHERE bucket >= ?", (since,))
    set_watermarks(connection, 0, 0)


# Cells that no question is answered from: of keys that have become too wide for them.
_USED = f"""
r.bucket >= ? AND NOT EXISTS (
    SELECT 1 FROM facets f JOIN facet_keys k ON k.id = f.key_id
    WHERE f.id IN (r.facet_id, r.other_facet_id) AND (
        k.value_count > {ROLLED_VALUES}
        OR (k.value_count > {PAIRED_VALUES} AND (r.every = {HOUR} OR r.facet_id <> 0))
    )
)
"""  # noqa: S608 - our own names

# Adding to a cell lets what is below a million grow beyond: whole ones are carried over.
_SUMS = ", ".join(
    f"r.{name[:-2]} / {MILLION} + r.{name}"
    if name.endswith("_m")
    else f"r.{name} % {MILLION}"
    if f"{name}_m" in COLUMNS
    else f"r.{name}"
    for name in COLUMNS
)

_BINS = f"""
SELECT h.bucket, h.facet_id, h.bin, h.count FROM {{}}.rollup_histograms h
WHERE h.bucket >= ? AND h.count <> 0 AND NOT EXISTS (
    SELECT 1 FROM facets f JOIN facet_keys k ON k.id = f.key_id
    WHERE f.id = h.facet_id AND k.value_count > {PAIRED_VALUES}
)
"""  # noqa: S608 - our own names

_CELLS = f"SELECT r.every, r.bucket, r.facet_id, r.other_facet_id, {_SUMS}"


def differences(connection: sqlite3.Connection, zone: ZoneInfo) -> Iterator[Difference]:
    """Where the rollups differ from the rows that they were made of.

    `connection` may be one to read with, inside of a transaction: the rollups are made
    anew in temporary tables, which stand before the real ones there.
    """
    until = watermarks(connection)
    since = pruned_until(connection) // _MINUTE
    for table in ("rollups", "rollup_histograms", "rollup_watermarks"):
        (made_by,) = connection.execute(
            "SELECT sql FROM main.sqlite_master WHERE name = ?", (table,)
        ).fetchone()
        connection.execute(made_by.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))
    try:
        # With all amendments done, each event is rolled up as it is now.
        set_watermarks(connection, 0, until[1])
        roller = Roller(zone)
        while roller.slice(connection, _REPLAYED_AT_ONCE, until=until):
            pass
        told = f"{_CELLS} FROM main.rollups r WHERE {_USED}"
        found = f"{_CELLS} FROM temp.rollups r WHERE {_USED}"
        for one, other, missing in ((told, found, False), (found, told, True)):
            rows = connection.execute(f"{one} EXCEPT {other} ORDER BY 1, 2, 3, 4", (since, since))
            for every, bucket, first, second, *sums in rows:
                if not any(sums):
                    continue  # an amendment has moved away what was in the cell
                yield Difference(
                    every_minutes=every,
                    bucket_minutes=bucket,
                    facets=tuple(_name_of(connection, facet) for facet in (first, second) if facet),
                    sums=dict(zip(COLUMNS, sums, strict=True)),
                    in_rollups=not missing,
                )
        told, found = _BINS.format("main"), _BINS.format("temp")
        for one, other, missing in ((told, found, False), (found, told, True)):
            rows = connection.execute(f"{one} EXCEPT {other} ORDER BY 1, 2, 3", (since, since))
            for bucket, facet_id, position, count in rows:
                yield Difference(
                    every_minutes=DAY,
                    bucket_minutes=bucket,
                    facets=(_name_of(connection, facet_id),) if facet_id else (),
                    sums={f"bin_{position}": count},
                    in_rollups=not missing,
                )
    finally:
        for table in ("rollups", "rollup_histograms", "rollup_watermarks"):
            connection.execute(f"DROP TABLE IF EXISTS temp.{table}")


def _name_of(connection: sqlite3.Connection, facet_id: int) -> str:
    (name,) = connection.execute(
        "SELECT k.key || '=' || f.value FROM facets f JOIN facet_keys k ON k.id = f.key_id "
        "WHERE f.id = ?",
        (facet_id,),
    ).fetchone()
    return str(name)
