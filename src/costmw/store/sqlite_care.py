"""Care for an SQLite ledger: prove its rollups, make them anew, drop old rows, forget a user.

Each works on a connection that the store lends, inside of a transaction; rows are
dropped in slices, so that calls are recorded meanwhile.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.store.base import Difference
from costmw.store.interned import digest_of_tags
from costmw.store.rollup_plan import HOUR
from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES
from costmw.store.sql import MILLION
from costmw.store.sqlite_rollups import COLUMNS, Roller, set_watermarks, watermarks
from costmw.store.sqlite_sql import micros

DROPPED_AT_ONCE = 1_000
"""Rows that are dropped in one transaction."""

_PRUNED = "pruned_until"
_MINUTE = 60_000_000
_REPLAYED_AT_ONCE = 10_000


def pruned_until(connection: sqlite3.Connection) -> int:
    """Rows that began before are dropped, and told of by the rollups alone; microseconds."""
    found = connection.execute("SELECT value FROM settings WHERE key = ?", (_PRUNED,)).fetchone()
    return int(found[0]) if found else 0


def prune_slice(connection: sqlite3.Connection, before: datetime) -> int:
    """Drop some of the rows that began before a day, and are rolled up; gives their number."""
    connection.execute(
        "INSERT INTO settings (key, value) VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET value = max(CAST(value AS INTEGER), excluded.value)",
        (_PRUNED, str(micros(before))),
    )
    rolled_up, amendments_rolled_up = watermarks(connection)
    dropped = connection.execute(
        "SELECT seq, id FROM usage_events WHERE created_at < ? AND seq <= ? "
        "ORDER BY created_at LIMIT ?",
        (micros(before), rolled_up, DROPPED_AT_ONCE),
    ).fetchall()
    connection.executemany(
        "DELETE FROM amendments WHERE event_id = ? AND seq <= ?",
        [(event_id, amendments_rolled_up) for _, event_id in dropped],
    )
    connection.executemany("DELETE FROM usage_events WHERE seq = ?", [(seq,) for seq, _ in dropped])
    return len(dropped)


def drop_unused_tag_sets(connection: sqlite3.Connection) -> int:
    """Drop tag sets that no row has any more; their values stay, since rollups have them."""
    unused = (
        "SELECT id FROM tag_sets WHERE id NOT IN (SELECT tag_set_id FROM usage_events) "
        "AND id NOT IN (SELECT tag_set_id FROM submissions) "
        "AND id NOT IN (SELECT tag_set_id FROM call_outcomes)"
    )
    connection.execute(f"DELETE FROM tags WHERE tag_set_id IN ({unused})")  # noqa: S608 - our own
    return connection.execute(f"DELETE FROM tag_sets WHERE id IN ({unused})").rowcount  # noqa: S608


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


def forget_value(
    connection: sqlite3.Connection, key: str, value: str, substitute: str | None
) -> int:
    """Put something else in the place of a tag's value, in all rows and rollups.

    `substitute` None erases it: a random name keeps its calls apart from others'. Gives
    the number of tag sets that had it. What was sums stays sums.
    """
    found = connection.execute(
        "SELECT f.id, f.key_id FROM facets f JOIN facet_keys k ON k.id = f.key_id "
        "WHERE k.key = ? AND f.value = ?",
        (f"tag:{key}", value),
    ).fetchone()
    if found is None:
        return 0
    facet_id, key_id = found
    name = substitute or f"(erased {secrets.token_hex(4)})"
    if connection.execute(
        "SELECT 1 FROM facets WHERE key_id = ? AND value = ?", (key_id, name)
    ).fetchone():
        # Calls since were recorded under the substitute already.
        name = f"{name} {secrets.token_hex(4)}"
    connection.execute("UPDATE facets SET value = ? WHERE id = ?", (name, facet_id))
    tag_sets = connection.execute(
        "SELECT s.id, s.tags FROM tag_sets s JOIN tags t ON t.tag_set_id = s.id "
        "WHERE t.facet_id = ?",
        (facet_id,),
    ).fetchall()
    for tag_set_id, text in tag_sets:
        tags = {**json.loads(text), key: name}
        connection.execute(
            "UPDATE tag_sets SET tags = ?, digest = ? WHERE id = ?",
            (*digest_of_tags(tags), tag_set_id),
        )
    return len(tag_sets)
