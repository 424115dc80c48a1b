"""Questions to the SQLite store: sums by group, newest events, counters."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

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
from costmw.store.rollup_plan import DAY, Range, plan, plan_durations, ranges_of
from costmw.store.row_durations import add_row_durations
from costmw.store.row_select import check_dimensions
from costmw.store.row_totals import add_new_rows, add_rows
from costmw.store.sqlite_care import pruned_until
from costmw.store.sqlite_rollups import watermarks
from costmw.store.sqlite_sql import EPOCH, MICROSECOND, SqliteSql, from_micros, micros
from costmw.store.sqlite_write import OUTCOMES_COUNTED

_HOUR = 3_600_000_000
_BOUND_AT_ONCE = 500

_SELECT_EVENTS = f"""
SELECT {EVENT_COLUMNS}
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""  # noqa: S608 - our own names


class SqliteSnapshot:
    """A read transaction; see `Snapshot`."""

    def __init__(self, connection: sqlite3.Connection, gate: ForkGate, zone: ZoneInfo) -> None:
        self._connection = connection
        self._gate = gate
        self._zone = zone
        self._extent: tuple[datetime, datetime] | None = None
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

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = [span for span in map(self._clipped, ranges_of(query)) if span]
        done = self._watermarks()
        planned = plan(query, asked, self._zone, self._width_of)
        from_rows = planned is None or self._moves_groups(query, done[1])
        groups: dict[Group, Totals] = {}
        if planned is None or from_rows:
            add_rows(SqliteSql, self._rows, groups, query, asked)
        else:
            groups = rolled_up(SqliteSql, self._rows, query, planned)
            add_new_rows(SqliteSql, self._rows, groups, query, planned.rolled, done)
            add_rows(SqliteSql, self._rows, groups, query, planned.rows)
        # What an amendment has moved away leaves an empty cell behind.
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return Found(groups, from_rows=from_rows)

    def durations(self, query: Query) -> FoundDurations:
        """How long calls took, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = [span for span in map(self._clipped, ranges_of(query)) if span]
        done = self._watermarks()
        planned = plan_durations(query, asked, self._zone, self._width_of)
        from_rows = planned is None or self._moves_groups(query, done[1])
        groups: dict[Group, DurationCounts] = {}
        if planned is None or from_rows:
            add_row_durations(SqliteSql, self._rows, groups, query, asked)
        else:
            groups = rolled_up_durations(SqliteSql, self._rows, query, planned)
            add_row_durations(SqliteSql, self._rows, groups, query, planned.rolled, done[0])
            add_row_durations(SqliteSql, self._rows, groups, query, planned.rows)
        return FoundDurations({k: v for k, v in groups.items() if v != DurationCounts()}, from_rows)

    def _moves_groups(self, query: Query, amendments_done: int) -> bool:
        """Whether an amendment that is not rolled up may move an event to another group."""
        if not {"status", "cost_source"} & set(query.group_by):
            return False
        return bool(
            self._rows("SELECT 1 FROM amendments WHERE seq > ? LIMIT 1", (amendments_done,))
        )

    def _width_of(self, key: str) -> int:
        found = self._rows("SELECT value_count FROM facet_keys WHERE key = ?", (key,))
        return found[0][0] if found else 0

    def _clipped(self, asked: Range) -> Range | None:
        """The part of a span that the ledger has anything of."""
        if self._extent is None:
            self._extent = self._find_extent()
        start, stop = max(asked.start, self._extent[0]), min(asked.stop, self._extent[1])
        return Range(asked.position, start, stop) if start < stop else None

    def _find_extent(self) -> tuple[datetime, datetime]:
        ((first_row, last_row, first_day, last_day),) = self._rows(
            "SELECT (SELECT min(created_at) FROM usage_events), "
            "(SELECT max(created_at) FROM usage_events), "
            "(SELECT min(bucket) FROM rollups WHERE every = ?), "
            "(SELECT max(bucket) FROM rollups WHERE every = ?)",
            (DAY, DAY),
        )
        moments = [EPOCH + micros * MICROSECOND for micros in (first_row, last_row) if micros]
        moments += [EPOCH + timedelta(minutes=m) for m in (first_day, last_day) if m is not None]
        if not moments:
            return EPOCH, EPOCH
        return day_start(min(moments), self._zone), day_stop(max(moments), self._zone)

    def events(
        self, *, scope: TagScope, limit: int, before: int | None = None
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        sql = SqliteSql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.seq < ?", 2**62 if before is None else before)
        sql.having_tags(scope)
        sql.add("ORDER BY e.seq DESC LIMIT ?", limit)
        return [(row["seq"], self._event(row)) for row in self._rows(*sql.statement())]

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = SqliteSql()
        sql.add(_SELECT_EVENTS)
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
        sql.add(_SELECT_EVENTS.replace("_events e", "_events e INDEXED BY usage_events_by_time"))
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

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = SqliteSql()
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
        sql = SqliteSql()
        sql.add("SELECT e.kind, e.provider, e.model, sum(e.count) FROM call_outcomes e")
        sql.add("WHERE e.hour >= ?", micros(start) // _HOUR)
        sql.add("AND e.hour < ?", -(-micros(stop) // _HOUR))
        sql.having_tags(scope)
        sql.add("GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3")
        return [
            OutcomeCount(kind, provider or None, model or None, count)
            for kind, provider, model, count in self._rows(*sql.statement())
        ]

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
