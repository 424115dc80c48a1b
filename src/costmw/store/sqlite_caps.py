"""What balances need of an SQLite transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Mapping, Sequence
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.events import Amendment, Record, UsageEvent
from costmw.store.base import Found, Query
from costmw.store.caps_sql import Booked, marks, padded
from costmw.store.charges import Written
from costmw.store.fork_gate import ForkGate
from costmw.store.micros import from_micros
from costmw.store.sqlite_read import SqliteSnapshot

_BOOKED = """
SELECT e.id, e.created_at, s.tags, e.cost_pico_usd IS NOT NULL
FROM usage_events e JOIN tag_sets s ON s.id = e.tag_set_id
WHERE e.id IN ({})
"""

_AMENDED = """
SELECT event_id, sum(cost_pico_usd + estimated_cost_pico_usd), sum(unpriced)
FROM amendments WHERE event_id IN ({}) GROUP BY event_id
"""


class SqliteLedger:
    """A transaction as `costmw.store.caps_sql.Ledger`."""

    def __init__(self, connection: sqlite3.Connection, zone: ZoneInfo) -> None:
        self._connection = connection
        self._zone = zone

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; gives its rows."""
        return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that gives nothing."""
        self._connection.execute(sql, values)

    def totals(self, query: Query) -> Found:
        """Sum rows, as this transaction sees them."""
        factory = self._connection.row_factory
        try:
            return SqliteSnapshot(self._connection, ForkGate(), self._zone).totals(query)
        finally:
            self._connection.row_factory = factory

    def booked(self, ids: Sequence[UUID]) -> Mapping[UUID, Booked]:
        """What these rows say."""
        return {
            UUID(bytes=event_id): Booked(from_micros(created_at), json.loads(tags), bool(has_cost))
            for event_id, created_at, tags, has_cost in self._of(_BOOKED, ids)
        }

    def amended(self, ids: Sequence[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """What amendments add to these rows."""
        return {
            UUID(bytes=event_id): (cost, unpriced)
            for event_id, cost, unpriced in self._of(_AMENDED, ids)
        }

    def to_be_written(self, records: Sequence[Record], held: Container[UUID]) -> Written:
        """What of these records is new; call it before they are written.

        The rows of calls for which something is `held` are new.
        """
        events = [r.id for r in records if isinstance(r, UsageEvent) and r.id not in held]
        amendments = [record.id for record in records if isinstance(record, Amendment)]
        known = self._known("usage_events", events)
        return Written.of(records, known, self._known("amendments", amendments))

    def _known(self, table: str, ids: Sequence[UUID]) -> set[UUID]:
        found = self._of(f"SELECT id FROM {table} WHERE id IN ({{}})", ids)  # noqa: S608
        return {UUID(bytes=row[0]) for row in found}

    def _of(self, sql: str, ids: Sequence[UUID]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for some in padded(ids):
            rows += self.ask(sql.format(marks("?", len(some))), [one.bytes for one in some])
        return rows
