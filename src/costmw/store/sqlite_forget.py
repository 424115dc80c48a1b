"""Puts something else in the place of a tag's value, wherever an SQLite ledger has it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from costmw.store.alert_rows import retag
from costmw.store.interned import digest_of_tags
from costmw.store.sqlite_epoch import begin_epoch
from costmw.store.sqlite_rollups import COLUMNS
from costmw.store.sqlite_sql import executing

_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in COLUMNS)

# Beside the old facet in a pair stands what is left of the sum of both.
_MOVE_CELLS = f"""
INSERT INTO rollups (every, bucket, facet_id, other_facet_id, {", ".join(COLUMNS)})
SELECT every, bucket, min(:new, facet_id + other_facet_id - :old),
    max(:new, facet_id + other_facet_id - :old), {", ".join(COLUMNS)}
FROM rollups WHERE facet_id = :old OR other_facet_id = :old
ON CONFLICT DO UPDATE SET {_ADDED}
"""  # noqa: S608 - our own names

_MOVE_BINS = """
INSERT INTO rollup_histograms (bucket, facet_id, bin, count)
SELECT bucket, :new, bin, count FROM rollup_histograms WHERE facet_id = :old
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""

_MOVE_OUTCOMES = """
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
SELECT hour, kind, provider, model, :new, count FROM call_outcomes WHERE tag_set_id = :old
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""

Move = Mapping[str, int]
"""What was `old` becomes `new`."""


def forget_value(connection: sqlite3.Connection, key: str, value: str, name: str) -> int:
    """Put `name` in the place of a tag's value, in all rows and rollups.

    Where others have the name already, these calls become theirs. Gives the number of tag
    sets that had the value. What was sums stays sums.
    """
    old, key_id = _facet(connection, key, value)
    if old is None or name == value:
        return 0
    tag_sets = connection.execute(
        "SELECT s.id, s.tags FROM tag_sets s JOIN tags t ON t.tag_set_id = s.id "
        "WHERE t.facet_id = ?",
        (old,),
    ).fetchall()
    # What is deleted or written over is overwritten with zeros.
    connection.execute("PRAGMA secure_delete = ON")
    try:
        retag(executing(connection), key, value, name)
        for tag_set_id, text in tag_sets:
            _retag(connection, tag_set_id, {**json.loads(text), key: name})
        new, _ = _facet(connection, key, name)
        if new is None:
            connection.execute("UPDATE facets SET value = ? WHERE id = ?", (name, old))
        else:
            _merge(connection, {"old": old, "new": new, "key": key_id})
        begin_epoch(connection)
    finally:
        connection.execute("PRAGMA secure_delete = OFF")
    return len(tag_sets)


def _facet(connection: sqlite3.Connection, key: str, value: str) -> tuple[int | None, int]:
    """The ids of a value and of its key."""
    found: tuple[int, int] | None = connection.execute(
        "SELECT f.id, f.key_id FROM facets f JOIN facet_keys k ON k.id = f.key_id "
        "WHERE k.key = ? AND f.value = ?",
        (f"tag:{key}", value),
    ).fetchone()
    return found or (None, 0)


def _retag(connection: sqlite3.Connection, tag_set_id: int, tags: Mapping[str, str]) -> None:
    """Give a tag set other tags; one that there is already takes its rows."""
    text, digest = digest_of_tags(tags)
    found = connection.execute("SELECT id FROM tag_sets WHERE digest = ?", (digest,)).fetchone()
    if found is None:
        connection.execute(
            "UPDATE tag_sets SET tags = ?, digest = ? WHERE id = ?", (text, digest, tag_set_id)
        )
        return
    move = {"old": tag_set_id, "new": found[0]}
    for table in ("usage_events", "submissions"):
        connection.execute(
            f"UPDATE {table} SET tag_set_id = :new WHERE tag_set_id = :old",  # noqa: S608 - our own names
            move,
        )
    connection.execute(_MOVE_OUTCOMES, move)
    connection.execute("DELETE FROM call_outcomes WHERE tag_set_id = :old", move)
    connection.execute("DELETE FROM tags WHERE tag_set_id = :old", move)
    connection.execute("DELETE FROM tag_sets WHERE id = :old", move)


def _merge(connection: sqlite3.Connection, move: Move) -> None:
    """Let one facet have what another has. How many values its key has had stays as it is:
    cells are kept, or not, by that."""
    connection.execute(
        "UPDATE tags SET facet_id = :new WHERE facet_id = :old AND key_id = :key", move
    )
    connection.execute(_MOVE_CELLS, move)
    connection.execute("DELETE FROM rollups WHERE facet_id = :old OR other_facet_id = :old", move)
    connection.execute(_MOVE_BINS, move)
    connection.execute("DELETE FROM rollup_histograms WHERE facet_id = :old", move)
    connection.execute("DELETE FROM facets WHERE id = :old", move)
