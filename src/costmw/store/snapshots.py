"""Answers from one view of a ledger: the same for every database.

What a database says in its own way is left to the class of its snapshot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from costmw.caps.book import Balance, LimitUse
from costmw.caps.rules import Rules
from costmw.periods import day_start, day_stop
from costmw.store.balances import read_balances
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
from costmw.store.budget_rows import read_rules
from costmw.store.cell_durations import rolled_up_durations
from costmw.store.cell_totals import rolled_up
from costmw.store.event_rows import EVENT_COLUMNS
from costmw.store.rollup_plan import DAY, Range, plan, plan_durations, ranges_of
from costmw.store.row_durations import add_row_durations
from costmw.store.row_select import check_dimensions
from costmw.store.row_totals import add_new_rows, add_rows
from costmw.store.sql import Sql

SELECT_EVENTS = f"""
SELECT {EVENT_COLUMNS}
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""  # noqa: S608 - our own names

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


class LedgerSnapshot(ABC):
    """A read transaction, as far as databases are alike; see `Snapshot`."""

    sql: ClassVar[type[Sql]]

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._extent: tuple[datetime, datetime] | None = None
        self._widths: dict[str, int] = {}

    @abstractmethod
    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement; gives its rows."""

    def _cells(self, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run a statement that looks cells of the rollups up by their keys."""
        return self._rows(sql, values)

    def _watermarks(self) -> tuple[int, int] | None:
        """The last event and amendment that the rollups have; None when they have all."""
        return None

    def _newest_rows(self) -> list[datetime]:
        """When the first and the last row began, where the rollups may lack them."""
        return []

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = self._asked(query)
        done = self._watermarks()
        planned = plan(query, asked, self._zone, self._width_of)
        groups: dict[Group, Totals] = {}
        from_rows = planned is None or self._moves_groups(query, done)
        if planned is None or from_rows:
            add_rows(self.sql, self._rows, groups, query, asked)
        else:
            groups = rolled_up(self.sql, self._cells, query, planned)
            if done is not None:
                add_new_rows(self.sql, self._rows, groups, query, planned.rolled, done)
            add_rows(self.sql, self._rows, groups, query, planned.rows)
        # What an amendment has moved away leaves an empty cell behind.
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return Found(groups, from_rows=from_rows)

    def durations(self, query: Query) -> FoundDurations:
        """How long calls took, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = self._asked(query)
        done = self._watermarks()
        planned = plan_durations(query, asked, self._zone, self._width_of)
        groups: dict[Group, DurationCounts] = {}
        from_rows = planned is None or self._moves_groups(query, done)
        if planned is None or from_rows:
            add_row_durations(self.sql, self._rows, groups, query, asked)
        else:
            groups = rolled_up_durations(self.sql, self._cells, query, planned)
            if done is not None:
                add_row_durations(self.sql, self._rows, groups, query, planned.rolled, done[0])
            add_row_durations(self.sql, self._rows, groups, query, planned.rows)
        return FoundDurations({k: v for k, v in groups.items() if v != DurationCounts()}, from_rows)

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement that both databases understand; `?` is where a value goes."""
        put = self.sql()
        put.add(sql, *values)
        return self._rows(*put.statement())

    def rules(self) -> Rules:
        """The blocking budgets of the ledger."""
        return Rules(read_rules(self), self._zone)

    def limits(self, tags: TagScope, at: datetime) -> Sequence[LimitUse]:
        """The limits that bar a call with these tags."""
        rules = self.rules()
        places = [place for place in rules.places_of(tags, at) if place[0].action == "block"]
        balances = read_balances(self, [key for _, key in places])
        return [
            LimitUse(rule, key, balances.get(key, Balance()), rules.zone) for rule, key in places
        ]

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = self.sql()
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
        sql = self.sql()
        sql.add("SELECT e.kind, e.provider, e.model, sum(e.count) FROM call_outcomes e")
        sql.add("WHERE e.hour >= ?", (start - _EPOCH) // _HOUR)
        sql.add("AND e.hour < ?", -(-(stop - _EPOCH) // _HOUR))
        sql.having_tags(scope)
        sql.add("GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3")
        return [
            OutcomeCount(kind, provider or None, model or None, int(count))
            for kind, provider, model, count in self._rows(*sql.statement())
        ]

    def _moves_groups(self, query: Query, done: tuple[int, int] | None) -> bool:
        """Whether an amendment that is not rolled up may move an event to another group."""
        if done is None or not {"status", "cost_source"} & set(query.group_by):
            return False
        return bool(self._rows("SELECT 1 FROM amendments WHERE seq > ? LIMIT 1", done[1:]))

    def _width_of(self, key: str) -> int:
        if key not in self._widths:
            sql = self.sql()
            sql.add("SELECT value_count FROM facet_keys WHERE key = ?", key)
            found = self._rows(*sql.statement())
            self._widths[key] = found[0][0] if found else 0
        return self._widths[key]

    def _asked(self, query: Query) -> list[Range]:
        """The spans of a question, as far as the ledger has anything of them."""
        first, last = self._extent = self._extent or self._find_extent()
        clipped = (
            Range(span.position, max(span.start, first), min(span.stop, last))
            for span in ranges_of(query)
        )
        return [span for span in clipped if span.start < span.stop]

    def _find_extent(self) -> tuple[datetime, datetime]:
        sql = self.sql()
        sql.add("SELECT (SELECT min(bucket) FROM rollups WHERE every = ?),", DAY)
        sql.add("(SELECT max(bucket) FROM rollups WHERE every = ?)", DAY)
        (days,) = self._rows(*sql.statement())
        moments = [_EPOCH + timedelta(minutes=day) for day in days if day is not None]
        moments += self._newest_rows()
        if not moments:
            return _EPOCH, _EPOCH
        return day_start(min(moments), self._zone), day_stop(max(moments), self._zone)
