"""What SQLite says in its own way."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from costmw.store.claims import Execute
from costmw.store.micros import micros
from costmw.store.rollup_plan import Range
from costmw.store.sql import COUNTS, Sql


def executing(connection: sqlite3.Connection) -> Execute:
    """Runs statements that are the same for every database."""
    return lambda sql, values: connection.execute(sql, values).fetchall()


class SqliteSql(Sql):
    """A statement for SQLite."""

    JOIN = "CROSS JOIN"
    LEAST = "min"
    GREATEST = "max"

    @staticmethod
    def moment(at: datetime) -> str:
        """Microseconds since 1970."""
        return str(micros(at))

    def within(self, ranges: Sequence[Range]) -> None:
        """The join is enough."""

    @staticmethod
    def has_millions(name: str) -> bool:
        """All but what no ledger is long enough for to pass 64 bits."""
        return name not in COUNTS
