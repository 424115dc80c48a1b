"""The questions that a ledger can be asked."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from costmw.answering import duration_row_of, sums_of
from costmw.answers import (
    Breakdown,
    BudgetUse,
    Durations,
    Forecast,
    Point,
    Row,
    Spend,
    Tokens,
    Trend,
    UnitCost,
    UnitCosts,
)
from costmw.outlook import Outlook
from costmw.periods import Granularity, midnight, period_span, spans
from costmw.reports.budgets import all_budgets, uses_of, within
from costmw.reports.ranking import rank, share_of, whole
from costmw.reports.spend import spend_of
from costmw.reports.views import Views
from costmw.store.base import DurationCounts, Query, TagScope, Totals


class Reports(Views):
    """Answers questions; each from one consistent view of the ledger.

    Every question takes a `scope`: the tags that whoever asks is confined to. `pricing` is
    what savings are worked out by.
    """

    def spend(
        self, period: Literal["day", "week", "month"] = "month", *, scope: TagScope | None = None
    ) -> Spend:
        """What the current period has cost so far, beside the same time of the one before."""
        with self._view() as once:
            return spend_of(once, period, self._now(), self._store.time_zone, scope or {})

    def trend(
        self,
        days: int = 30,
        *,
        every: Granularity = "day",
        scope: TagScope | None = None,
        where: TagScope | None = None,
    ) -> Trend:
        """Cost over the last `days` days, today included."""
        with self._view() as once:
            zone = self._store.time_zone
            start, stop = self._last(days)
            buckets = spans(start, stop, every, zone)
            found = once.totals(
                Query(start, stop, buckets=tuple(buckets), scope=scope or {}, where=where or {})
            )
        return Trend(
            start=start,
            stop=stop,
            every=every,
            time_zone=zone.key,
            points=[
                Point(start=moment, sums=sums_of(found.groups.get((n,), Totals())))
                for n, moment in enumerate(buckets)
            ],
            from_rows=found.from_rows,
        )

    def by(
        self,
        dimension: str,
        days: int = 30,
        *,
        most: int = 10,
        scope: TagScope | None = None,
        where: TagScope | None = None,
    ) -> Breakdown:
        """Cost over the last `days` days by `"model"`, `"provider"`, ... or `"tag:<key>"`.

        Gives the `most` dearest values; the rest is summed as `other`.

        Raises:
            ConfigError: when there is no such dimension.
        """
        with self._view() as once:
            start, stop = self._last(days)
            found = once.totals(
                Query(start, stop, (dimension,), scope=scope or {}, where=where or {})
            )
        total = whole(found.groups.values())

        def row(value: str | None, sums: Totals) -> Row:
            return Row(value=value, share=share_of(sums, total, "cost"), sums=sums_of(sums))

        ranked = rank(found.groups, "cost")
        rest = ranked[most:]
        return Breakdown(
            by=dimension,
            start=start,
            stop=stop,
            rows=[row(value, sums) for value, sums in ranked[:most]],
            other=row(None, whole(sums for _, sums in rest)) if rest else None,
            total=row(None, total),
            values=len(ranked),
            from_rows=found.from_rows,
        )

    def durations(
        self,
        dimension: str | None = None,
        days: int = 30,
        *,
        most: int = 10,
        scope: TagScope | None = None,
        where: TagScope | None = None,
    ) -> Durations:
        """How long calls of the last `days` days took, by a dimension or tag, or all together.

        Gives the `most` frequent values, the slowest of them first.

        Raises:
            ConfigError: when there is no such dimension.
        """
        with self._view() as once:
            start, stop = self._last(days)
            by = (dimension,) if dimension else ()
            found = once.durations(Query(start, stop, by, scope=scope or {}, where=where or {}))
        total = DurationCounts()
        for durations in found.groups.values():
            total.add(durations)
        frequent = sorted(
            found.groups.items(), key=lambda item: (-sum(item[1].latency.values()), str(item[0]))
        )
        rows = [
            duration_row_of(group[0], durations) for group, durations in frequent[:most] if group
        ]
        return Durations(
            by=dimension,
            start=start,
            stop=stop,
            rows=sorted(rows, key=lambda row: -(row.latency.p95_ms or 0)),
            total=duration_row_of(None, total),
            from_rows=found.from_rows,
        )

    def unit_costs(
        self, days: int = 30, *, every: Granularity = "day", scope: TagScope | None = None
    ) -> UnitCosts:
        """Cost per call and per web request over the last `days` days."""
        trend = self.trend(days, every=every, scope=scope)
        return UnitCosts(
            every=every,
            time_zone=trend.time_zone,
            points=[
                UnitCost(
                    start=point.start,
                    cost_per_call_usd=point.sums.cost_per_call_usd,
                    cost_per_request_usd=point.sums.cost_per_request_usd,
                    calls=point.sums.calls,
                    requests=point.sums.requests,
                )
                for point in trend.points
            ],
        )

    def tokens(self, days: int = 30, *, scope: TagScope | None = None) -> Tokens:
        """Input, cached, output and reasoning tokens of the last `days` days."""
        with self._view() as once:
            start, stop = self._last(days)
            found = once.totals(Query(start, stop, scope=scope or {})).groups
        sums = found.get((), Totals())
        return Tokens(
            start=start,
            stop=stop,
            input_tokens=sums.input_tokens,
            uncached_input_tokens=sums.input_tokens
            - sums.cache_read_input_tokens
            - sums.cache_write_input_tokens,
            cache_read_input_tokens=sums.cache_read_input_tokens,
            cache_write_input_tokens=sums.cache_write_input_tokens,
            output_tokens=sums.output_tokens,
            reasoning_output_tokens=sums.reasoning_output_tokens,
        )

    def budgets(self, *, scope: TagScope | None = None) -> list[BudgetUse]:
        """How much of every budget is used, the fullest first.

        Under a scope only budgets that lie wholly inside of it are given: a tenant sees
        its own, not one that it shares with others.
        """
        with self._view() as once:
            budgets = within(scope or {}, all_budgets(self._budgets, once.view), once.view)
            return uses_of(budgets, once, self._now(), self._store.time_zone, scope or {})

    def forecast(self, *, scope: TagScope | None = None) -> Forecast:
        """What the month will cost, and when budgets run out: of the fullest 50 limits."""
        with self.at_one_moment() as now, now._view() as once:
            zone = self._store.time_zone
            seer = Outlook(once, now._now(), zone, scope or {})
            start, stop = period_span("month", now._now(), zone)
            budgets = all_budgets(self._budgets, once.view)
            return Forecast(
                start=start,
                stop=stop,
                time_zone=zone.key,
                month=seer.of_span(start, stop),
                budgets=seer.of_budgets(budgets, now.budgets(scope=scope)),
            )

    def position(self) -> int:
        """A number that grows with every recorded call; the same means nothing is new."""
        with self._view() as once:
            return once.view.position()

    def _last(self, days: int) -> tuple[datetime, datetime]:
        zone = self._store.time_zone
        _, stop = period_span("day", self._now(), zone)
        tomorrow = stop.astimezone(zone).date()
        return midnight(tomorrow - timedelta(days=days), zone), stop
