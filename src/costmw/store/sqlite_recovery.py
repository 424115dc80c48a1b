"""Brings the rows of a file that was set aside into the ledger, a slice at a time.

How far it is stands in the ledger's settings, and changes in the transaction of each
slice: whoever goes on, in whichever process, does nothing twice. Ids of tag sets and
the like differ between the files; `recovered_ids` says which became which. Nothing is
rolled up meanwhile: answers add up the rows that are there.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from costmw.store.sqlite_care import forget_rollups
from costmw.store.sqlite_pages import Pages, Row
from costmw.store.sqlite_restore import Restorer
from costmw.store.sqlite_shapes import table_of

RECOVERING = "recovering:"
"""Settings of this beginning name the files that are being recovered, and how far it is."""

RECOVERED = "recovered:"
"""Settings of this beginning name those that were, and what came of it."""

ROWS_AT_ONCE = 200
"""Rows that are brought over in one transaction; calls that come meanwhile wait for it."""

PAGES_AT_ONCE = 2_000
"""Pages that are looked at for these rows at most."""

# What rows refer to comes first; facets refer to their keys.
STAGES = (
    frozenset({"settings", "facet_keys", "tag_sets", "prices", "call_kinds"}),
    frozenset({"facets"}),
    frozenset(
        {
            "usage_events",
            "amendments",
            "submissions",
            "call_outcomes",
            "rollups",
            "rollup_histograms",
            "budgets",
            "assumed_charges",
        }
    ),
)

_IDS = """
CREATE TABLE IF NOT EXISTS recovered_ids (
    source TEXT NOT NULL,          -- the file that was set aside
    kind TEXT NOT NULL,            -- the table
    old ANY NOT NULL,
    new INTEGER NOT NULL,
    PRIMARY KEY (source, kind, old)
) STRICT, WITHOUT ROWID
"""


@dataclass(slots=True)
class Progress:
    """How far the recovery of a file is, and what was found."""

    stage: int = 0
    page: int = 1
    events: int = 0
    amendments: int = 0
    other: int = 0
    damaged: int = 0

    def said(self) -> str:
        """In words, for a log."""
        found = (
            f"{self.events} events, {self.amendments} amendments and {self.other} rows of other "
            "kinds"
        )
        return found + (f"; {self.damaged} places cannot be read" if self.damaged else "")


def register(connection: sqlite3.Connection, name: str) -> None:
    """Have the rows of a file brought over, inside of a transaction."""
    connection.execute(_IDS)
    connection.execute(
        "INSERT OR IGNORE INTO settings (key, value) VALUES (?, ?)",
        (f"{RECOVERING}{name}", json.dumps(asdict(Progress()))),
    )
    forget_rollups(connection)


def sources(connection: sqlite3.Connection) -> list[str]:
    """The names of the files whose rows are being brought over."""
    rows = connection.execute(
        "SELECT key FROM settings WHERE key >= ? AND key < ? ORDER BY key",
        (RECOVERING, RECOVERING[:-1] + ";"),
    )
    return [key.removeprefix(RECOVERING) for (key,) in rows]


def claim(connection: sqlite3.Connection, file: str, sequences: dict[str, int]) -> bool:
    """Whether no other process brings the rows of a file over that was removed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        continue_sequences(connection, sequences)
        claimed = connection.execute(
            "INSERT OR IGNORE INTO settings (key, value) VALUES (?, '')", (f"claimed:{file}",)
        )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return claimed.rowcount > 0


def continue_sequences(connection: sqlite3.Connection, after: dict[str, int]) -> None:
    """Have new rows stand behind those that will be brought over."""
    for table, seq in after.items():
        found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        if (known := found.fetchone()) is None:
            connection.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, seq)
            )
        elif known[0] < seq:
            connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (seq, table))


class Recovery:
    """Brings over one file; `read` and `put` take turns, the one outside of a transaction."""

    def __init__(self, source: Path) -> None:
        self._name = source.name
        self._pages = Pages(source)
        self._progress = Progress()
        self._next = Progress()
        self._rows: list[tuple[str, Row]] = []
        self._restorer = Restorer(source.name)

    def close(self) -> None:
        """Close the file."""
        self._pages.close()

    def read(self) -> None:
        """Read the rows of the next slice."""
        self._rows = []
        self._next = following = replace(self._progress)
        last = min(following.page + PAGES_AT_ONCE, self._pages.count + 1)
        while following.page < last and len(self._rows) < ROWS_AT_ONCE:
            following.damaged += self._read_page(following.page, following.stage)
            following.page += 1
        if following.page > self._pages.count:
            following.stage, following.page = following.stage + 1, 1

    def _read_page(self, number: int, stage: int) -> int:
        """Add the rows of a page that this stage wants; gives how much of it is damaged."""
        damaged, found = self._pages.damaged, None
        for row in self._pages.rows(number):
            table = table_of(row)
            found = found or table
            if found is not None and found not in STAGES[stage]:
                return 0  # the rows of a page are of one table, and another stage wants them
            if table is not None and table in STAGES[stage]:
                self._rows.append((table, row))
        # Every stage comes by where nothing says whose page it is: it counts once.
        return self._pages.damaged - damaged if found or stage == 0 else 0

    def put(self, connection: sqlite3.Connection) -> Progress | None:
        """Write what was read, inside of a transaction; gives the outcome once all is done."""
        kept = connection.execute(
            "SELECT value FROM settings WHERE key = ?", (RECOVERING + self._name,)
        ).fetchone()
        if kept is None:
            return self._progress  # another process did the rest
        progress = Progress(**json.loads(kept[0]))
        if (progress.stage, progress.page) != (self._progress.stage, self._progress.page):
            self._progress = progress  # another process has gone on
            return None
        for table, row in self._rows:
            self._put_one(connection, table, row.values, row.rowid)
        if self._next.stage < len(STAGES):
            connection.execute(
                "UPDATE settings SET value = ? WHERE key = ?",
                (json.dumps(asdict(self._next)), RECOVERING + self._name),
            )
            self._progress = self._next
            return None
        finish(connection, self._name, self._next)
        return self._next

    def _put_one(
        self, connection: sqlite3.Connection, table: str, values: Sequence[Any], rowid: int | None
    ) -> None:
        if table == "settings" and values[0].startswith(RECOVERING):
            register(connection, values[0].removeprefix(RECOVERING))  # damaged before it was done
            return
        try:
            restored = self._restorer.restore(connection, table, values, rowid)
        except (sqlite3.IntegrityError, sqlite3.DataError, ValueError, TypeError, OverflowError):
            self._next.damaged += 1
            return
        if restored and table == "usage_events":
            self._next.events += 1
        elif restored and table == "amendments":
            self._next.amendments += 1
        elif restored:
            self._next.other += 1

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._restorer.forget_ids()


def finish(connection: sqlite3.Connection, name: str, outcome: Progress) -> None:
    """Say that a file is recovered, inside of a transaction; rollups can be made again."""
    connection.execute("DELETE FROM settings WHERE key = ?", (RECOVERING + name,))
    connection.execute(
        "INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)",
        (RECOVERED + name, json.dumps(asdict(outcome))),
    )
    connection.execute("DELETE FROM recovered_ids WHERE source = ?", (name,))
    if not sources(connection):
        connection.execute("DROP TABLE IF EXISTS recovered_ids")
