"""Questions to the ledger and their answers.

Every question takes a `scope`: the tags that whoever asks is confined to. The answers
are in `costmw.answers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from costmw.answering import call_of, cost_of, duration_row_of, share_of, sums_of, usd
from costmw.answers import (
    Breakdown,
    BudgetUse,
    Call,
    Durations,
    Forecast,
    OutcomeRow,
    Overview,
    Point,
    Row,
    Spend,
    Sums,
    Tokens,
    Trend,
    UnitCost,
    UnitCosts,
)
from costmw.budgets import Budget
from costmw.outlook import Outlook
from costmw.periods import Granularity, hour_start, midnight, period_span, spans
from costmw.store.base import DurationCounts, Query, Snapshot, Store, TagScope, Totals

MISSING = "(missing)"
"""The scope of calls that lack a tag which a budget is split by."""


class Reports:
    """Answers questions; each from one consistent view of the ledger."""

    def __init__(
        self,
        store: Store,
        budgets: Sequence[Budget] = (),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._now = now
        self._pinned: Snapshot | None = None

    @contextmanager
    def at_one_moment(self) -> Iterator[Reports]:
        """Reports that all see the ledger as it is now: `with reports.at_one_moment() as r:`."""
        with self._store.snapshot() as snapshot:
            moment = self._now()
            pinned = Reports(self._store, self._budgets, now=lambda: moment)
            pinned._pinned = snapshot
            yield pinned

    @contextmanager
    def _view(self) -> Iterator[Snapshot]:
        if self._pinned is not None:
            yield self._pinned
        else:
            with self._store.snapshot() as snapshot:
                yield snapshot

    def spend(
        self, period: Literal["day", "week", "month"] = "month", *, scope: TagScope | None = None
    ) -> Spend:
        """What the current period has cost so far, beside the same time of the one before."""
        now = self._now()
        with self._view() as view:
            zone = self._store.time_zone
            start, stop = period_span(period, now, zone)
            before, _ = period_span(period, start - timedelta(seconds=1), zone)
            # In whole hours, which the rollups have.
            until = hour_start(before + (now - start) + timedelta(minutes=30), zone)
            until = min(until, start)
            return Spend(
                period=period,
                start=start,
                stop=stop,
                time_zone=zone.key,
                sums=_total(view, start, stop, scope),
                previous=_total(view, before, until, scope),
                previous_start=before,
                previous_stop=until,
            )

    def trend(
        self,
        days: int = 30,
        *,
        every: Granularity = "day",
        scope: TagScope | None = None,
        where: TagScope | None = None,
    ) -> Trend:
        """Cost over the last `days` days, today included."""
        with self._view() as view:
            zone = self._store.time_zone
            start, stop = self._last(days)
            buckets = spans(start, stop, every, zone)
            found = view.totals(
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
        with self._view() as view:
            start, stop = self._last(days)
            found = view.totals(
                Query(start, stop, (dimension,), scope=scope or {}, where=where or {})
            )
        total = Totals()
        for totals in found.groups.values():
            total.add(totals)
        ranked = sorted(
            found.groups.items(), key=lambda item: (-cost_of(item[1]), -item[1].calls, str(item[0]))
        )
        other = Totals()
        for _, totals in ranked[most:]:
            other.add(totals)
        return Breakdown(
            by=dimension,
            start=start,
            stop=stop,
            rows=[
                Row(
                    value=None if group[0] is None else str(group[0]),
                    share=share_of(totals, total),
                    sums=sums_of(totals),
                )
                for group, totals in ranked[:most]
            ],
            other=Row(value=None, share=share_of(other, total), sums=sums_of(other))
            if ranked[most:]
            else None,
            total=sums_of(total),
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
        with self._view() as view:
            start, stop = self._last(days)
            by = (dimension,) if dimension else ()
            found = view.durations(Query(start, stop, by, scope=scope or {}, where=where or {}))
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
        with self._view() as view:
            start, stop = self._last(days)
            sums = _total(view, start, stop, scope)
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
        uses: list[BudgetUse] = []
        with self._view() as view:
            for budget in self._all_budgets(view):
                if all(
                    key in budget.tag_keys or budget.where.get(key) == value
                    for key, value in (scope or {}).items()
                ):
                    uses += self._use_of(budget, view, scope or {})
        return sorted(uses, key=lambda use: -use.used)

    def forecast(self, *, scope: TagScope | None = None) -> Forecast:
        """What the month will cost, and when budgets run out: of the fullest 50 limits."""
        with self.at_one_moment() as now, now._view() as view:
            seer = Outlook(view, now._now(), self._store.time_zone, scope or {})
            start, stop = period_span("month", now._now(), self._store.time_zone)
            return Forecast(
                start=start,
                stop=stop,
                time_zone=self._store.time_zone.key,
                month=seer.of_span(start, stop),
                budgets=seer.of_budgets(now._all_budgets(view), now.budgets(scope=scope)),
            )

    def calls(
        self, limit: int = 50, *, before: int | None = None, scope: TagScope | None = None
    ) -> list[tuple[int, Call]]:
        """The newest calls, each with the position to go on from (`before`)."""
        with self._view() as view:
            found = view.events(scope=scope or {}, limit=limit, before=before)
        return [(position, call_of(event)) for position, event in found]

    def call(self, call_id: UUID, *, scope: TagScope | None = None) -> Call | None:
        """One call; None when there is none of that id in the scope."""
        with self._view() as view:
            event = view.event(call_id, scope=scope or {})
        return None if event is None else call_of(event)

    def overview(self, *, tag: str = "feature", scope: TagScope | None = None) -> Overview:
        """All views of the page at one moment; `tag` is what the tag view is grouped by."""
        with self.at_one_moment() as now, now._view() as view:
            start, stop = now._last(30)
            return Overview(
                generated_at=now._now(),
                time_zone=self._store.time_zone.key,
                position=view.position(),
                month=now.spend(scope=scope),
                trend=now.trend(scope=scope),
                by_model=now.by("model", scope=scope),
                by_tag=now.by(f"tag:{tag}", scope=scope),
                tag_keys=list(view.tag_keys(scope=scope or {})),
                unit_costs=now.unit_costs(scope=scope),
                tokens=now.tokens(scope=scope),
                budgets=now.budgets(scope=scope),
                outcomes=[
                    OutcomeRow(
                        kind=row.kind, provider=row.provider, model=row.model, count=row.count
                    )
                    for row in view.outcomes(start, stop, scope=scope or {})
                ],
                calls=[call for _, call in now.calls(20, scope=scope)],
            )

    def position(self) -> int:
        """A number that grows with every recorded call; the same means nothing is new."""
        with self._view() as view:
            return view.position()

    def _last(self, days: int) -> tuple[datetime, datetime]:
        zone = self._store.time_zone
        _, stop = period_span("day", self._now(), zone)
        tomorrow = stop.astimezone(zone).date()
        return midnight(tomorrow - timedelta(days=days), zone), stop

    def _all_budgets(self, view: Snapshot) -> list[Budget]:
        """The app's own, and those of the page."""
        own = {budget.name for budget in self._budgets}
        page = [kept.rule for kept in view.rules().kept.values() if kept.source == "page"]
        return [*self._budgets, *(rule.budget() for rule in page if rule.name not in own)]

    def _use_of(self, budget: Budget, view: Snapshot, scope: TagScope) -> list[BudgetUse]:
        start, stop = period_span(budget.period, self._now(), self._store.time_zone)
        found = view.totals(
            Query(
                start,
                stop,
                group_by=tuple(f"tag:{key}" for key in budget.tag_keys),
                scope=scope,
                where=budget.where,
            )
        ).groups
        spending: dict[tuple[str, ...], int] = {} if budget.tag_keys else {(): 0}
        for group, totals in found.items():
            tags = tuple(MISSING if value is None else str(value) for value in group)
            spending[tags] = spending.get(tags, 0) + cost_of(totals)
        limits = budget.limits_pico_usd
        uses = []
        for tags, spent in spending.items():
            limit = limits.get(tags, budget.limit_pico_usd)
            used = spent / limit if limit else float(spent > 0)
            uses.append(
                BudgetUse(
                    name=budget.name,
                    period=budget.period,
                    action=budget.action,
                    tags=dict(zip(budget.tag_keys, tags, strict=True)),
                    start=start,
                    stop=stop,
                    limit_usd=usd(limit),
                    spent_usd=usd(spent),
                    used=used,
                    reached=[share for share in budget.alert_at if used >= share],
                )
            )
        return uses


def _total(view: Snapshot, start: datetime, stop: datetime, scope: TagScope | None) -> Sums:
    found = view.totals(Query(start, stop, scope=scope or {})).groups
    return sums_of(found.get((), Totals()))
