"""What balances need of a Postgres transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import Connection

from costmw.store.base import Found, Query
from costmw.store.caps_sql import Booked
from costmw.store.fork_gate import ForkGate
from costmw.store.postgres_read import PostgresSnapshot
from costmw.store.postgres_sql import PostgresSql, uuids

_BOOKED = """
SELECT e.id, e.created_at, s.tags, e.cost_pico_usd IS NOT NULL
FROM usage_events e JOIN tag_sets s ON s.id = e.tag_set_id
WHERE e.id = ANY($1::uuid[])
"""

_AMENDED = """
SELECT event_id, sum(cost_pico_usd + estimated_cost_pico_usd), sum(unpriced)
FROM amendments WHERE event_id = ANY($1::uuid[]) GROUP BY event_id
"""


class PostgresLedger:
    """A transaction as `costmw.store.caps_sql.Ledger`; `shown` is the store's URL."""

    def __init__(self, connection: Connection, zone: ZoneInfo, shown: str) -> None:
        self._connection = connection
        self._zone = zone
        self._shown = shown

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement; gives its rows."""
        put = PostgresSql()
        put.add(sql, *values)
        return self._connection.execute(*put.statement()).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that gives nothing."""
        put = PostgresSql()
        put.add(sql, *values)
        self._connection.execute(*put.statement())

    def totals(self, query: Query) -> Found:
        """Sum rows, as this transaction sees them."""
        snapshot = PostgresSnapshot(self._connection, ForkGate(), self._zone, self._shown)
        return snapshot.totals(query)

    def booked(self, ids: Sequence[UUID]) -> Mapping[UUID, Booked]:
        """What these rows say."""
        return {
            event_id: Booked(created_at.astimezone(UTC), json.loads(tags), bool(has_cost))
            for event_id, created_at, tags, has_cost in self._of(_BOOKED, ids)
        }

    def amended(self, ids: Sequence[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """What amendments add to these rows."""
        return {
            event_id: (int(cost), int(unpriced))
            for event_id, cost, unpriced in self._of(_AMENDED, ids)
        }

    def _of(self, sql: str, ids: Sequence[UUID]) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, (uuids(ids),)).fetchall() if ids else []
