"""What SQLite says in its own way."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from costmw.store.claims import Execute
from costmw.store.micros import from_micros, micros
from costmw.store.rollup_plan import Range
from costmw.store.sql import COUNTS, Sql


def executing(connection: sqlite3.Connection) -> Execute:
    """Runs statements that are the same for every database."""
    return lambda sql, values: connection.execute(sql, values).fetchall()


class SqliteSql(Sql):
    """A statement for SQLite."""

    LOOK_UP = "CROSS JOIN {} r ON {}"
    LEAST = "min"
    GREATEST = "max"
    CONTAINS = "instr(lower({}), ?) > 0"

    @staticmethod
    def moment(at: datetime) -> str:
        """Microseconds since 1970."""
        return str(micros(at))

    @staticmethod
    def from_moment(value: Any) -> datetime:
        """From microseconds since 1970."""
        return from_micros(value)

    @staticmethod
    def id_of(event_id: UUID) -> bytes:
        """Its 16 bytes."""
        return event_id.bytes

    def within(self, ranges: Sequence[Range]) -> None:
        """The join is enough."""

    @staticmethod
    def has_millions(name: str) -> bool:
        """All but what no ledger is long enough for to pass 64 bits."""
        return name not in COUNTS
