"""Questions to the SQLite store: sums by group, newest events, counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.events import UsageEvent
from costmw.store.base import Filter, Query, TagScope
from costmw.store.event_rows import AMENDMENT_COLUMNS, event_of
from costmw.store.filters import filters_of
from costmw.store.fork_gate import ForkGate
from costmw.store.micros import from_micros, micros
from costmw.store.row_select import having
from costmw.store.snapshots import SELECT_EVENTS, LedgerSnapshot
from costmw.store.sqlite_care import pruned_until
from costmw.store.sqlite_rollups import watermarks
from costmw.store.sqlite_sql import SqliteSql
from costmw.store.sqlite_write import OUTCOMES_COUNTED

_BOUND_AT_ONCE = 500

_BY_TIME = SELECT_EVENTS.replace("_events e", "_events e INDEXED BY usage_events_by_time")
"""By their tags it would find, and sort, all that is left for every page."""

_BY_TAGS = SELECT_EVENTS.replace("_events e", "_events e INDEXED BY usage_events_by_tags")


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

    def _read_watermarks(self) -> tuple[int, int] | None:
        with self._gate.inside():
            done = watermarks(self._connection)
        ((events, amendments),) = self._rows(
            "SELECT coalesce((SELECT max(seq) FROM usage_events), 0), "
            "coalesce((SELECT max(seq) FROM amendments), 0)"
        )
        return None if events <= done[0] and amendments <= done[1] else done

    def _ends_of_rows(self) -> list[datetime]:
        (found,) = self._rows(
            "SELECT (SELECT min(created_at) FROM usage_events), "
            "(SELECT max(created_at) FROM usage_events)"
        )
        return [from_micros(moment) for moment in found if moment is not None]

    def _place_of(self, position: int) -> tuple[datetime, int] | None:
        found = self._rows("SELECT created_at FROM usage_events WHERE seq = ?", (position,))
        return (from_micros(found[0][0]), position) if found else None

    def _newest(
        self,
        query: Query,
        before: tuple[datetime, int] | None,
        limit: int,
        found_by: Filter | None,
    ) -> list[tuple[int, UsageEvent]]:
        sql = SqliteSql()
        sql.add(_BY_TIME if found_by is None else _BY_TAGS)
        sql.add(
            "WHERE e.created_at >= ? AND e.created_at < ?", *map(micros, (query.start, query.stop))
        )
        if before is not None:
            sql.add("AND (e.created_at, e.seq) < (?, ?)", micros(before[0]), before[1])
        for wanted in filters_of(query):
            having(sql, wanted, by_tag_sets=wanted == found_by)
        sql.add("ORDER BY e.created_at DESC, e.seq DESC LIMIT ?", limit)
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
        sql.add(_BY_TIME)
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
