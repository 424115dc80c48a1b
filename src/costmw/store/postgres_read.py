"""Questions to the Postgres store: sums by group, newest events, counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import Connection, RawServerCursor
from psycopg.rows import dict_row, tuple_row

from costmw.events import UsageEvent
from costmw.store.base import Filter, Query, TagScope
from costmw.store.event_rows import AMENDMENT_COLUMNS, event_of
from costmw.store.filters import filters_of
from costmw.store.fork_gate import ForkGate
from costmw.store.postgres_errors import translated
from costmw.store.postgres_replay import Replay
from costmw.store.postgres_sql import PostgresSql, uuids
from costmw.store.row_select import having
from costmw.store.snapshots import SELECT_EVENTS, LedgerSnapshot

PRUNED = "pruned_until"
"""The setting that says from when on there are rows."""

SLICE = 5_000
"""Rows that are fetched at once where there may be many."""

_SELECT_AMENDMENTS = f"""
SELECT {AMENDMENT_COLUMNS}
FROM amendments a LEFT JOIN prices p ON p.id = a.price_id
WHERE a.event_id = ANY($1::uuid[]) ORDER BY a.seq
"""  # noqa: S608 - our own names


class PostgresSnapshot(LedgerSnapshot):
    """A read transaction; see `Snapshot`. The rollups have every event and amendment."""

    sql = PostgresSql

    def __init__(self, connection: Connection, gate: ForkGate, zone: ZoneInfo, shown: str) -> None:
        super().__init__(zone)
        self._connection = connection
        self._gate = gate
        self._shown = shown

    def begin(self) -> None:
        """See the ledger as it is now from here on."""
        with translated(self._shown), self._gate.inside(), self._connection.pipeline():
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._connection.execute("SELECT position FROM turn")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with translated(self._shown), self._gate.inside():
            cursor = self._connection.cursor(row_factory=tuple_row)
            return cursor.execute(sql, values).fetchall()

    def _named(self, sql: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        with translated(self._shown), self._gate.inside():
            cursor = self._connection.cursor(row_factory=dict_row)
            return cursor.execute(sql, values).fetchall()

    def _slices(self, sql: str, values: Sequence[Any]) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a statement, some at a time, so that they need not fit into memory."""
        with RawServerCursor(self._connection, "slices", row_factory=tuple_row) as cursor:
            with translated(self._shown), self._gate.inside():
                cursor.execute(sql, values)
            while True:
                with translated(self._shown), self._gate.inside():
                    rows = cursor.fetchmany(SLICE)
                if not rows:
                    return
                yield rows

    def replay(self) -> Replay:
        """Compares rollups and rows, however long that takes."""
        with translated(self._shown), self._gate.inside():
            self._connection.execute("SET LOCAL statement_timeout = 0")
        return Replay(self._rows, self._slices, self._zone)

    def _ends_of_rows(self) -> list[datetime]:
        ((last,),) = self._rows("SELECT max(created_at) FROM usage_events")
        return [] if last is None else [last]

    def _place_of(self, position: int) -> tuple[datetime, int] | None:
        found = self._rows("SELECT created_at FROM usage_events WHERE seq = $1", (position,))
        return (found[0][0].astimezone(UTC), position) if found else None

    def _newest(
        self,
        query: Query,
        before: tuple[datetime, int] | None,
        limit: int,
        found_by: Filter | None,
    ) -> list[tuple[int, UsageEvent]]:
        sql = PostgresSql()
        sql.add(SELECT_EVENTS)
        sql.add("WHERE e.created_at >= ? AND e.created_at < ?", query.start, query.stop)
        if before is not None:
            sql.add("AND (e.created_at, e.seq) < (?, ?)", *before)
        for wanted in filters_of(query):
            having(sql, wanted, by_tag_sets=wanted == found_by)
        sql.add("ORDER BY e.created_at DESC, e.seq DESC LIMIT ?", limit)
        return self._events(sql)

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = PostgresSql()
        sql.add(SELECT_EVENTS)
        sql.add("WHERE e.id = ?", event_id)
        sql.having_tags(scope)
        return next((event for _, event in self._events(sql)), None)

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
        sql = PostgresSql()
        sql.add(SELECT_EVENTS)
        sql.add("WHERE e.created_at >= ? AND e.created_at < ?", start, stop)
        if after is not None:
            sql.add("AND (e.created_at, e.seq) > (?, ?)", start, after)
        sql.having_tags(scope)
        sql.add("ORDER BY e.created_at, e.seq LIMIT ?", limit)
        return self._events(sql)

    def _events(self, sql: PostgresSql) -> list[tuple[int, UsageEvent]]:
        rows = self._named(*sql.statement())
        changes: dict[UUID, list[dict[str, Any]]] = {}
        if rows:
            for change in self._named(_SELECT_AMENDMENTS, (uuids(row["id"] for row in rows),)):
                changes.setdefault(change["event_id"], []).append(change)
        return [
            (
                row["seq"],
                event_of(
                    row,
                    changes.get(row["id"], []),
                    event_id=row["id"],
                    created_at=row["created_at"].astimezone(UTC),
                    request_id=row["request_id"],
                ),
            )
            for row in rows
        ]

    def known_ids(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids events have."""
        sql = "SELECT id FROM usage_events WHERE id = ANY($1::uuid[])"
        return {row[0] for row in self._rows(sql, (uuids(ids),))}

    def pruned_until(self) -> datetime | None:
        """From when on there are rows, if others were dropped."""
        found = self._rows("SELECT value FROM settings WHERE key = $1", (PRUNED,))
        return datetime.fromisoformat(found[0][0]) if found else None

    def position(self) -> int:
        """Grows with every transaction that wrote anything."""
        ((position,),) = self._rows("SELECT position FROM turn")
        return int(position)
