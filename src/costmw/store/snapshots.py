"""Answers from one view of a ledger: the same for every database.

What a database says in its own way is left to the class of its snapshot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.caps.book import Balance, LimitUse
from costmw.caps.rules import Rules
from costmw.events import UsageEvent
from costmw.periods import day_start, day_stop
from costmw.store.balances import read_balances
from costmw.store.base import (
    AppliedAmendment,
    DurationCounts,
    Filter,
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
from costmw.store.event_rows import EVENT_COLUMNS, applied
from costmw.store.event_spans import spans_with_calls
from costmw.store.filters import check_filters, filters_of, needs_tag
from costmw.store.outcome_counts import count_outcomes
from costmw.store.rollup_plan import DAY, Range, finest, plan, plan_durations, ranges_of
from costmw.store.row_durations import add_row_durations
from costmw.store.row_select import check_dimensions
from costmw.store.row_totals import add_new_rows, add_rows
from costmw.store.sql import Sql
from costmw.store.values import values_of_tag

SELECT_EVENTS = f"""
SELECT {EVENT_COLUMNS}
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""  # noqa: S608 - our own names

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9000, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)

_TAG_SETS_AT_MOST = 20_000


@dataclass(frozen=True, slots=True)
class _Extent:
    """The days that a ledger has anything of, and when the last row in them began."""

    start: datetime
    last: datetime
    stop: datetime

    def clipped(self, moment: datetime) -> datetime:
        """Where a span ends that ends then: with the day, which cells tell of, if it has all."""
        return self.stop if moment > self.last else moment


class LedgerSnapshot(ABC):
    """A read transaction, as far as databases are alike; see `Snapshot`."""

    sql: ClassVar[type[Sql]]

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._extent: _Extent | None = None
        self._done: tuple[int, int] | None = None
        self._knows_watermarks = False
        self._widths: dict[str, int] = {}
        self._rules: Rules | None = None

    @abstractmethod
    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement; gives its rows."""

    def _watermarks(self) -> tuple[int, int] | None:
        """The last event and amendment that the rollups have; None when they have all."""
        if not self._knows_watermarks:
            self._done, self._knows_watermarks = self._read_watermarks(), True
        return self._done

    def _read_watermarks(self) -> tuple[int, int] | None:
        """The same, as the database says it."""
        return None

    @abstractmethod
    def _ends_of_rows(self) -> list[datetime]:
        """When the last row began, and the first where the rollups may lack it."""

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        check_filters(query.filters)
        asked = self._asked(query)
        done = self._watermarks()
        planned = plan(query, asked, self._zone, self._width_of)
        groups: dict[Group, Totals] = {}
        from_rows = planned is None or self._moves_groups(query, done)
        if planned is None or from_rows:
            add_rows(self.sql, self._rows, groups, query, asked)
        else:
            groups = rolled_up(self.sql, self._rows, query, planned)
            if done is not None:
                add_new_rows(self.sql, self._rows, groups, query, planned.rolled, done)
            add_rows(self.sql, self._rows, groups, query, planned.rows)
        # What an amendment has moved away leaves an empty cell behind.
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return Found(groups, from_rows=from_rows or (planned is not None and planned.is_of_rows))

    def durations(self, query: Query) -> FoundDurations:
        """How long calls took, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        check_filters(query.filters)
        asked = self._asked(query)
        done = self._watermarks()
        planned = plan_durations(query, asked, self._zone, self._width_of)
        groups: dict[Group, DurationCounts] = {}
        from_rows = planned is None or self._moves_groups(query, done)
        if planned is None or from_rows:
            add_row_durations(self.sql, self._rows, groups, query, asked)
        else:
            groups = rolled_up_durations(self.sql, self._rows, query, planned)
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
        if self._rules is None:
            self._rules = Rules(read_rules(self), self._zone)
        return self._rules

    def limits(self, tags: TagScope, at: datetime) -> Sequence[LimitUse]:
        """The limits that bar a call with these tags."""
        rules = self.rules()
        places = [place for place in rules.places_of(tags, at) if place[0].action == "block"]
        balances = read_balances(self, [key for _, key in places])
        return [
            LimitUse(rule, key, balances.get(key, Balance()), rules.zone) for rule, key in places
        ]

    def stored(self, tags: TagScope) -> TagScope:
        """The same tags."""
        return tags

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = self.sql()
        sql.add(
            "SELECT n.key FROM facet_keys n WHERE n.key LIKE 'tag:%' AND EXISTS "
            "(SELECT 1 FROM facets f JOIN tags e ON e.facet_id = f.id WHERE f.key_id = n.id"
        )
        sql.having_tags(scope)
        sql.add(") ORDER BY 1")
        return [row[0].removeprefix("tag:") for row in self._rows(*sql.statement())]

    def value_count(self, key: str) -> int:
        """How many values a key has had."""
        return self._width_of(key)

    def values(
        self, key: str, *, scope: TagScope, contains: str = "", limit: int = 50
    ) -> Sequence[str]:
        """Values of a dimension or tag, sorted."""
        check_dimensions([key])
        if key.startswith("tag:"):
            return values_of_tag(self.sql, self._rows, key, scope, contains, limit)
        part = Filter(key, "contains", (contains,))
        found = self.totals(Query(_EPOCH, _END, (key,), scope=scope, filters=(part,)))
        return sorted(str(value) for (value,) in found.groups)[:limit]

    def events(
        self,
        *,
        scope: TagScope,
        limit: int,
        before: int | None = None,
        start: datetime | None = None,
        stop: datetime | None = None,
        filters: Sequence[Filter] = (),
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        check_filters(filters)
        found: list[tuple[int, UsageEvent]] = []
        last = None if before is None else self._place_of(before)
        if before is not None and last is None:  # its row was dropped, and all older ones
            return found
        asked = Query(start or _EPOCH, stop or _END, scope=scope, filters=tuple(filters))
        if last is not None:
            asked = replace(asked, stop=min(asked.stop, last[0] + _TICK))
        guide, every = finest(asked, self._width_of)
        # A few hours have few rows; beyond, those of the tag sets are fewer.
        found_by = None if every == "hour" else self._with_fewest_tag_sets(asked)
        if every is None or self._moves_groups(asked, self._watermarks()):
            spans: Iterable[Range] = ranges_of(asked)
        else:
            extent = self._all_of_time()
            first = self.pruned_until() or extent.start
            stop = min(guide.stop, extent.stop)
            guide = replace(guide, start=max(guide.start, first), stop=stop)
            hours = every == "hour"
            spans = spans_with_calls(guide, self._zone, self._with_calls, hours=hours)
        for span in spans:
            within = replace(asked, start=span.start, stop=span.stop)
            found += self._newest(within, last, limit - len(found), found_by)
            if len(found) >= limit:
                break
        return found

    def _with_fewest_tag_sets(self, query: Query) -> Filter | None:
        """The filter to find events by; None where its tag sets are too many to look at each."""
        counts = {
            wanted: self._count_of_tag_sets(wanted)
            for wanted in filters_of(query)
            if needs_tag(wanted)
        }
        best = min(counts, key=counts.__getitem__, default=None)
        return best if best is not None and counts[best] <= _TAG_SETS_AT_MOST else None

    def _count_of_tag_sets(self, wanted: Filter) -> int:
        sql = self.sql()
        sql.add("SELECT count(*) FROM (")
        sql.tag_sets(wanted)
        sql.add("LIMIT ?) s", _TAG_SETS_AT_MOST + 1)
        return int(self._rows(*sql.statement())[0][0])

    def _with_calls(self, query: Query) -> list[int]:
        return sorted({int(group[0] or 0) for group in self.totals(query).groups})

    @abstractmethod
    def _place_of(self, position: int) -> tuple[datetime, int] | None:
        """When the event at a position began, and the position; None when there is none."""

    @abstractmethod
    def _newest(
        self,
        query: Query,
        before: tuple[datetime, int] | None,
        limit: int,
        found_by: Filter | None,
    ) -> list[tuple[int, UsageEvent]]:
        """The newest events of a question's span, found by its time or by a filter's tag sets.

        Only those that stand behind `before`, which is when an event began and its position.
        """

    @abstractmethod
    def pruned_until(self) -> datetime | None:
        """From when on there are rows, if others were dropped."""

    def amendments(self, event_id: UUID, *, scope: TagScope) -> Sequence[AppliedAmendment]:
        """What amended an event, oldest first."""
        sql = self.sql()
        sql.add(
            "SELECT a.amended_at, a.reason, a.status, a.unpriced, "
            "a.cost_pico_usd + a.estimated_cost_pico_usd, e.cost_pico_usd "
            "FROM amendments a JOIN usage_events e ON e.id = a.event_id WHERE a.event_id = ?",
            self.sql.id_of(event_id),
        )
        sql.having_tags(scope)
        sql.add("ORDER BY a.seq")
        return list(applied(self._rows(*sql.statement()), self.sql.from_moment))

    def outcomes(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        buckets: Sequence[datetime] = (),
        filters: Sequence[Filter] = (),
    ) -> Sequence[OutcomeCount]:
        """Counters summed over the hours of each bucket, most frequent first."""
        check_filters(filters)
        starts = buckets or (start,)
        return count_outcomes(self.sql, self._rows, starts, stop, scope, filters)

    def _moves_groups(self, query: Query, done: tuple[int, int] | None) -> bool:
        """Whether an amendment that is not rolled up may move an event to another group."""
        if done is None or not {"status", "cost_source"} & {
            *query.group_by,
            *(wanted.key for wanted in query.filters),
        }:
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
        extent = self._all_of_time()
        clipped = (
            Range(span.position, max(span.start, extent.start), extent.clipped(span.stop))
            for span in ranges_of(query)
        )
        return [span for span in clipped if span.start < span.stop]

    def _all_of_time(self) -> _Extent:
        self._extent = self._extent or self._find_extent()
        return self._extent

    def _find_extent(self) -> _Extent:
        sql = self.sql()
        sql.add("SELECT (SELECT min(bucket) FROM rollups WHERE every = ?),", DAY)
        sql.add("(SELECT max(bucket) FROM rollups WHERE every = ?)", DAY)
        (days,) = self._rows(*sql.statement())
        moments = [_EPOCH + timedelta(minutes=day) for day in days if day is not None]
        rows = self._ends_of_rows()
        moments += rows
        if not moments:
            return _Extent(_EPOCH, _EPOCH, _EPOCH)
        start, stop = day_start(min(moments), self._zone), day_stop(max(moments), self._zone)
        last = max(rows, default=stop)
        # Rows that are dropped may have been the newest.
        return _Extent(start, last if day_stop(last, self._zone) == stop else stop, stop)
