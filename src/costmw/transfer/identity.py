"""Which row of a table is which event, so that a table imported twice adds nothing."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import UUID, uuid5

from costmw.transfer.cells import cell_text
from costmw.transfer.columns import json_text, moment_text
from costmw.transfer.table import Cells

NAMESPACE = UUID("5d4d3f0e-8f0c-5c4e-9a53-5f6f1f0c2b7a")
"""Of all ids that are derived from rows without a UUID."""


class Identities:
    """Gives the rows of one table their ids; used as a context manager.

    What has come before is kept in a temporary database, not in memory.
    """

    def __init__(self) -> None:
        self._seen = sqlite3.connect("", isolation_level=None)
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID")

    def __enter__(self) -> Self:
        self._seen.execute("BEGIN")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seen.close()

    def identify(self, cells: Cells, at: datetime) -> tuple[UUID, bool]:
        """The id of a row that began at a moment, and whether another row had it before.

        A UUID is kept. Any other id counts with the moment, since two tables may both
        number their rows from 1. Without an id it is the whole row, and how many rows
        equal to it came before.
        """
        text = (cell_text(cells.get("id", "")) or "").strip()
        if text:
            row_id = _uuid(text) or uuid5(NAMESPACE, f"id {text} {moment_text(at)}")
            return row_id, self._times(row_id) > 0
        same = uuid5(NAMESPACE, json_text(cells))
        return uuid5(NAMESPACE, f"row {same} {self._times(same)}"), False

    def _times(self, key: UUID) -> int:
        """How often this was asked before."""
        ((times,),) = self._seen.execute(
            "INSERT INTO seen (id, times) VALUES (?, 0) "
            "ON CONFLICT DO UPDATE SET times = times + 1 RETURNING times",
            (key.bytes,),
        ).fetchall()
        return int(times)


def _uuid(text: str) -> UUID | None:
    # UUID() takes braces and hyphens anywhere, and so other ids of 32 digits.
    if len(text) not in (32, 36):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
