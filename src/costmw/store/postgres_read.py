"""Questions to the Postgres store: sums by group, newest events, counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import Connection, RawServerCursor
from psycopg.rows import dict_row, tuple_row

from costmw.events import UsageEvent
from costmw.periods import day_start, day_stop
from costmw.store.base import (
    DurationCounts,
    Found,
    FoundDurations,
    Group,
    OutcomeCount,
    Query,
    TagScope,
    Totals,
)
from costmw.store.cell_durations import rolled_up_durations
from costmw.store.cell_totals import rolled_up
from costmw.store.event_rows import AMENDMENT_COLUMNS, EVENT_COLUMNS, event_of
from costmw.store.fork_gate import ForkGate
from costmw.store.postgres_errors import translated
from costmw.store.postgres_replay import Replay
from costmw.store.postgres_sql import PostgresSql, uuids
from costmw.store.rollup_plan import DAY, Range, plan, plan_durations, ranges_of
from costmw.store.row_durations import add_row_durations
from costmw.store.row_select import check_dimensions
from costmw.store.row_totals import add_rows

PRUNED = "pruned_until"
"""The setting that says from when on there are rows."""

SLICE = 5_000
"""Rows that are fetched at once where there may be many."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_SELECT_EVENTS = f"""
SELECT {EVENT_COLUMNS}
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""  # noqa: S608 - our own names

_SELECT_AMENDMENTS = f"""
SELECT {AMENDMENT_COLUMNS}
FROM amendments a LEFT JOIN prices p ON p.id = a.price_id
WHERE a.event_id = ANY($1::uuid[]) ORDER BY a.seq
"""  # noqa: S608 - our own names

_AS_WRITTEN = (
    "SELECT set_config('join_collapse_limit', '1', true), "
    "set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
)
_AS_PLANNED = (
    "SELECT set_config('join_collapse_limit', '8', true), "
    "set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true)"
)


class PostgresSnapshot:
    """A read transaction; see `Snapshot`."""

    def __init__(self, connection: Connection, gate: ForkGate, zone: ZoneInfo, shown: str) -> None:
        self._connection = connection
        self._gate = gate
        self._zone = zone
        self._shown = shown
        self._extent: tuple[datetime, datetime] | None = None
        self._widths: dict[str, int] = {}

    def begin(self) -> None:
        """See the ledger as it is now from here on."""
        with translated(self._shown), self._gate.inside(), self._connection.pipeline():
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._connection.execute("SELECT position FROM turn")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with translated(self._shown), self._gate.inside():
            cursor = self._connection.cursor(row_factory=tuple_row)
            return cursor.execute(sql, values).fetchall()

    def _cells(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows of the rollups, each looked up by its key in the order that is written.

        The planner takes few cells for many, and reads all of a day instead.
        """
        with translated(self._shown), self._gate.inside(), self._connection.pipeline():
            self._connection.execute(_AS_WRITTEN)
            cursor = self._connection.cursor(row_factory=tuple_row).execute(sql, values)
            self._connection.execute(_AS_PLANNED)
        return cursor.fetchall()

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

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = [span for span in map(self._clipped, ranges_of(query)) if span]
        planned = plan(query, asked, self._zone, self._width_of)
        groups: dict[Group, Totals] = {}
        if planned is None:
            add_rows(PostgresSql, self._rows, groups, query, asked)
        else:
            groups = rolled_up(PostgresSql, self._cells, query, planned)
            add_rows(PostgresSql, self._rows, groups, query, planned.rows)
        # What an amendment has moved away leaves an empty cell behind.
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return Found(groups, from_rows=planned is None)

    def durations(self, query: Query) -> FoundDurations:
        """How long calls took, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = [span for span in map(self._clipped, ranges_of(query)) if span]
        planned = plan_durations(query, asked, self._zone, self._width_of)
        groups: dict[Group, DurationCounts] = {}
        if planned is None:
            add_row_durations(PostgresSql, self._rows, groups, query, asked)
        else:
            groups = rolled_up_durations(PostgresSql, self._cells, query, planned)
            add_row_durations(PostgresSql, self._rows, groups, query, planned.rows)
        return FoundDurations(
            {k: v for k, v in groups.items() if v != DurationCounts()}, from_rows=planned is None
        )

    def _width_of(self, key: str) -> int:
        if key not in self._widths:
            sql = PostgresSql()
            sql.add("SELECT value_count FROM facet_keys WHERE key = ?", key)
            found = self._rows(*sql.statement())
            self._widths[key] = found[0][0] if found else 0
        return self._widths[key]

    def _clipped(self, asked: Range) -> Range | None:
        """The part of a span that the ledger has anything of."""
        if self._extent is None:
            self._extent = self._find_extent()
        start, stop = max(asked.start, self._extent[0]), min(asked.stop, self._extent[1])
        return Range(asked.position, start, stop) if start < stop else None

    def _find_extent(self) -> tuple[datetime, datetime]:
        # The rollups have every event, from its own transaction on.
        ((first, last),) = self._rows(
            "SELECT (SELECT min(bucket) FROM rollups WHERE every = $1), "
            "(SELECT max(bucket) FROM rollups WHERE every = $1)",
            (DAY,),
        )
        if first is None:
            return _EPOCH, _EPOCH
        moments = [_EPOCH + timedelta(minutes=minutes) for minutes in (first, last)]
        return day_start(moments[0], self._zone), day_stop(moments[1], self._zone)

    def events(
        self, *, scope: TagScope, limit: int, before: int | None = None
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        sql = PostgresSql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.seq < ?", 2**62 if before is None else before)
        sql.having_tags(scope)
        sql.add("ORDER BY e.seq DESC LIMIT ?", limit)
        return self._events(sql)

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = PostgresSql()
        sql.add(_SELECT_EVENTS)
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
        sql.add(_SELECT_EVENTS)
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

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = PostgresSql()
        sql.add(
            "SELECT n.key FROM facet_keys n WHERE n.key LIKE 'tag:%' AND EXISTS "
            "(SELECT 1 FROM tags e WHERE e.key_id = n.id"
        )
        sql.having_tags(scope)
        sql.add(") ORDER BY 1")
        return [row[0].removeprefix("tag:") for row in self._rows(*sql.statement())]

    def outcomes(
        self, start: datetime, stop: datetime, *, scope: TagScope
    ) -> Sequence[OutcomeCount]:
        """Counters summed over the hours, most frequent first."""
        hour = timedelta(hours=1)
        sql = PostgresSql()
        sql.add("SELECT e.kind, e.provider, e.model, sum(e.count)::bigint FROM call_outcomes e")
        sql.add("WHERE e.hour >= ?", (start - _EPOCH) // hour)
        sql.add("AND e.hour < ?", -(-(stop - _EPOCH) // hour))
        sql.having_tags(scope)
        sql.add("GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3")
        return [
            OutcomeCount(kind, provider or None, model or None, count)
            for kind, provider, model, count in self._rows(*sql.statement())
        ]

    def position(self) -> int:
        """Grows with every transaction that wrote anything."""
        ((position,),) = self._rows("SELECT position FROM turn")
        return int(position)
