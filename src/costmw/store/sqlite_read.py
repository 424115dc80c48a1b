"""Questions to the SQLite store: sums by group, newest events, counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.events import UsageEvent
from costmw.store.base import TagScope
from costmw.store.event_rows import AMENDMENT_COLUMNS, event_of
from costmw.store.fork_gate import ForkGate
from costmw.store.micros import from_micros, micros
from costmw.store.snapshots import SELECT_EVENTS, LedgerSnapshot
from costmw.store.sqlite_care import pruned_until
from costmw.store.sqlite_rollups import watermarks
from costmw.store.sqlite_sql import SqliteSql
from costmw.store.sqlite_write import OUTCOMES_COUNTED

_BOUND_AT_ONCE = 500


class SqliteSnapshot(LedgerSnapshot):
    """A read transaction; see `Snapshot`."""

    sql = SqliteSql

    def __init__(self, connection: sqlite3.Connection, gate: ForkGate, zone: ZoneInfo) -> None:
        super().__init__(zone)
        self._connection = connection
        self._gate = gate
        connection.row_factory = sqlite3.Row

    def begin(self) -> None:
        """See the ledger as it is now from here on."""
        self._rows("BEGIN")
        self._rows("SELECT 1 FROM settings")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._gate.inside():
            return self._connection.execute(sql, values).fetchall()

    def _watermarks(self) -> tuple[int, int]:
        with self._gate.inside():
            return watermarks(self._connection)

    def _newest_rows(self) -> list[datetime]:
        (found,) = self._rows(
            "SELECT (SELECT min(created_at) FROM usage_events), "
            "(SELECT max(created_at) FROM usage_events)"
        )
        return [from_micros(moment) for moment in found if moment is not None]

    def events(
        self, *, scope: TagScope, limit: int, before: int | None = None
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        sql = SqliteSql()
        sql.add(SELECT_EVENTS)
        sql.add("WHERE e.seq < ?", 2**62 if before is None else before)
        sql.having_tags(scope)
        sql.add("ORDER BY e.seq DESC LIMIT ?", limit)
        return [(row["seq"], self._event(row)) for row in self._rows(*sql.statement())]

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = SqliteSql()
        sql.add(SELECT_EVENTS)
        sql.add("WHERE e.id = ?", event_id.bytes)
        sql.having_tags(scope)
        return next(map(self._event, self._rows(*sql.statement())), None)

    def events_between(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        limit: int,
        after: int | None = None,
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The events of a span of time, oldest first."""
        if after is None:
            return self._oldest("e.created_at >= ?", (micros(start),), stop, scope, limit)
        # In two steps, each found by the index: imported rows may share one moment in millions.
        same = "e.created_at = ? AND e.seq > ?"
        found = self._oldest(same, (micros(start), after), stop, scope, limit)
        if len(found) < limit:
            later = "e.created_at > ?"
            found += self._oldest(later, (micros(start),), stop, scope, limit - len(found))
        return found

    def _oldest(
        self, beginning: str, values: Sequence[int], stop: datetime, scope: TagScope, limit: int
    ) -> list[tuple[int, UsageEvent]]:
        sql = SqliteSql()
        # By the tags it would find, and sort, all that is left for every page.
        sql.add(SELECT_EVENTS.replace("_events e", "_events e INDEXED BY usage_events_by_time"))
        sql.add(f"WHERE {beginning}", *values)
        sql.add("AND e.created_at < ?", micros(stop))
        sql.having_tags(scope)
        sql.add("ORDER BY e.created_at, e.seq LIMIT ?", limit)
        return [(row["seq"], self._event(row)) for row in self._rows(*sql.statement())]

    def known_ids(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids events have."""
        known: set[UUID] = set()
        for first in range(0, len(ids), _BOUND_AT_ONCE):
            some = [event_id.bytes for event_id in ids[first : first + _BOUND_AT_ONCE]]
            marks = ", ".join("?" * len(some))
            rows = self._rows(f"SELECT id FROM usage_events WHERE id IN ({marks})", some)  # noqa: S608 - placeholders
            known.update(UUID(bytes=row[0]) for row in rows)
        return known

    def pruned_until(self) -> datetime | None:
        """From when on there are rows, if others were dropped."""
        with self._gate.inside():
            moment = pruned_until(self._connection)
        return from_micros(moment) if moment else None

    def position(self) -> int:
        """Grows with every event, amendment and outcome."""
        ((position,),) = self._rows(
            "SELECT coalesce(sum(seq), 0) + coalesce("
            "(SELECT CAST(value AS INTEGER) FROM settings WHERE key = ?), 0) "
            "FROM sqlite_sequence WHERE name IN ('usage_events', 'amendments')",
            (OUTCOMES_COUNTED,),
        )
        return int(position)

    def _event(self, row: sqlite3.Row) -> UsageEvent:
        changes = self._rows(
            f"SELECT {AMENDMENT_COLUMNS} FROM amendments a "  # noqa: S608 - our own names
            "LEFT JOIN prices p ON p.id = a.price_id WHERE a.event_id = ? ORDER BY a.seq",
            (row["id"],),
        )
        return event_of(
            row,
            changes,
            event_id=UUID(bytes=row["id"]),
            created_at=from_micros(row["created_at"]),
            request_id=UUID(bytes=row["request_id"]) if row["request_id"] else None,
        )
