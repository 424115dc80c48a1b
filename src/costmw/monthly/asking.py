"""A monthly report, asked of one view of a ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from costmw.anomalies import Anomaly, Spending, Timeline, explained, peaks
from costmw.answering import cost_of
from costmw.answers import BudgetUse, SpendForecast
from costmw.budgets import Budget
from costmw.monthly.findings import MonthlyReport, Valued
from costmw.monthly.month import Month, month_of
from costmw.outlook import Outlook
from costmw.periods import day_start, midnight, next_month, spans
from costmw.pricing import Pricing
from costmw.reports import Reports
from costmw.savings import MonthOfUse, Saving, savings
from costmw.store.base import Group, Query, Snapshot, Store, TagScope, Totals
from costmw.store.rollups import PAIRED_VALUES
from costmw.usual import DAYS_BACK

TAGS = ("feature", "team", "tenant", "user", "route")
"""The tags that a report has a table of, where they are in use."""

_JUST_BEFORE = timedelta(microseconds=1)
_OF_OUTCOMES = {"route", "tenant"}

Kind = tuple[str | None, str | None, str | None]


def monthly_report(
    store: Store,
    month: str = "",
    *,
    scope: TagScope | None = None,
    budgets: Sequence[Budget] = (),
    pricing: Pricing | None = None,
    zone: ZoneInfo | None = None,
    now: datetime | None = None,
    source: str = "",
) -> MonthlyReport:
    """Everything about a month, given as YYYY-MM: by default the last one that is over.

    `scope` confines it to calls with these tags. Days are those of `zone`, by default the
    ledger's. `pricing` is what savings are worked out by.

    Raises:
        ConfigError: when there is no such month.
        StoreError: when the ledger cannot be read.
    """
    span = month_of(month, now or datetime.now(UTC), zone or store.time_zone)
    scope = scope or {}
    reports = Reports(store, budgets, now=lambda: _moment_of_budgets(span, store.time_zone))
    with store.snapshot() as view:
        asked = _Asked(view, span, scope)
        keys = view.tag_keys(scope=scope)
        tags = [f"tag:{key}" for key in TAGS if key in keys]
        by = {name: asked.valued(name) for name in ("model", "provider", *tags)}
        narrow = [name for name in ("model", *tags) if len(by[name]) <= PAIRED_VALUES]
        return MonthlyReport(
            month=span,
            scope=scope,
            source=source,
            total=asked.whole(span.start, span.stop),
            before=asked.whole(span.previous_start, span.previous_stop),
            forecast=asked.forecast() if span.goes_on else None,
            days=asked.days(span.start, min(span.stop, span.now)),
            days_before=[sums for _, sums in asked.days(span.previous_start, span.start)],
            by=by,
            budgets=_meaningful(reports.budgets(scope=scope), span),
            anomalies=asked.anomalies(narrow),
            kinds=asked.kinds("status"),
            sources=asked.by_source(),
            outcomes=view.outcomes(span.start, span.stop, scope=scope)
            if set(scope) <= _OF_OUTCOMES
            else None,
            savings=asked.savings(pricing or Pricing(), by_feature="tag:feature" in narrow),
        )


def _moment_of_budgets(month: Month, zone: ZoneInfo) -> datetime:
    """When to look at budgets: their month is that of the ledger's `zone`, and of this name."""
    start, stop = midnight(month.first, zone), midnight(next_month(month.first), zone)
    return min(max(month.now, start), stop - _JUST_BEFORE)


def _meaningful(uses: Sequence[BudgetUse], month: Month) -> list[BudgetUse]:
    """Of a month that is over, its own budgets only: its last day tells little."""
    return [use for use in uses if month.goes_on or use.period == "month"]


class _Asked:
    """Questions about one month to one view."""

    def __init__(self, view: Snapshot, month: Month, scope: TagScope) -> None:
        self._view = view
        self._month = month
        self._scope = scope

    def whole(self, start: datetime, stop: datetime) -> Totals:
        return self._groups(start, stop).get((), Totals())

    def forecast(self) -> SpendForecast | None:
        """What the month will have cost in the end."""
        month = self._month
        seer = Outlook(self._view, month.now, month.zone, self._scope)
        return seer.of_span(month.start, month.stop)

    def by_source(self) -> dict[str, Totals]:
        """Sums by where the cost is known from."""
        groups = self._groups(self._month.start, self._month.stop, "cost_source")
        return {str(source): totals for (source,), totals in groups.items()}

    def kinds(self, *third: str) -> dict[Kind, Totals]:
        """Sums by provider, model, and something else; None in its place without any."""
        groups = self._groups(self._month.start, self._month.stop, "provider", "model", *third)
        return {
            (_text(group[0]), _text(group[1]), _text(group[2]) if third else None): totals
            for group, totals in groups.items()
        }

    def days(self, start: datetime, stop: datetime) -> list[tuple[datetime, Totals]]:
        starts = spans(start, stop, "day", self._month.zone)
        groups = self._groups(start, stop, buckets=starts)
        return [(moment, groups.get((n,), Totals())) for n, moment in enumerate(starts)]

    def valued(self, by: str) -> list[Valued]:
        """Values of a dimension beside the time before, the dearest first."""
        names = ("provider", "model") if by == "model" else (by,)
        now = self._groups(self._month.start, self._month.stop, *names)
        before = self._groups(self._month.previous_start, self._month.previous_stop, *names)
        values = [
            Valued(_name(group), now.get(group, Totals()), before.get(group, Totals()))
            for group in {**before, **now}
        ]
        return sorted(
            values, key=lambda one: (-cost_of(one.totals), -one.totals.calls, str(one.name))
        )

    def anomalies(self, dimensions: Sequence[str]) -> list[tuple[datetime, Anomaly]]:
        """Whole days of the month that stand out, with their likely causes."""
        zone = self._month.zone
        begin = midnight(self._month.first - timedelta(days=DAYS_BACK), zone)
        end = min(self._month.stop, day_start(self._month.now, zone))
        if end <= self._month.start:
            return []
        starts = spans(begin, end, "day", zone)
        timeline = Timeline(starts, "day", zone)
        total = self._spending(starts, end)[None]
        found = peaks(timeline, total, since=starts.index(self._month.start))
        by = {name: self._spending(starts, end, name) for name in dimensions} if found else {}
        return [(starts[peak.position], explained(peak, timeline, total, by)) for peak in found]

    def _spending(
        self, starts: Sequence[datetime], stop: datetime, *by: str
    ) -> dict[str | None, Spending]:
        """What each value cost, and how often it was called, in each of some spans."""
        lines: dict[str | None, tuple[list[int], list[int]]] = {}
        if not by:
            lines[None] = [0] * len(starts), [0] * len(starts)
        for (position, *values), totals in self._groups(
            starts[0], stop, *by, buckets=starts
        ).items():
            name = _text(values[0]) if values else None
            amounts, calls = lines.setdefault(name, ([0] * len(starts), [0] * len(starts)))
            amounts[int(str(position))] = cost_of(totals)
            calls[int(str(position))] = totals.calls
        return {name: Spending(*line) for name, line in lines.items()}

    def savings(self, pricing: Pricing, *, by_feature: bool) -> list[Saving]:
        """What could have cost less; of features only where they are few."""
        month = self._month
        by_hour: dict[str | None, list[int]] = {}
        if by_feature:
            stop = min(month.stop, month.now)
            hours = spans(month.start, stop, "hour", month.zone)
            for feature, own in self._spending(hours, stop, "tag:feature").items():
                by_hour[feature] = [0] * 24
                for hour, amount in zip(hours, own.pico_usd, strict=True):
                    by_hour[feature][hour.astimezone(month.zone).hour] += amount
        return savings(
            MonthOfUse(
                at=min(month.now, month.stop - _JUST_BEFORE),
                by_kind=self.kinds("status"),
                by_feature=self.kinds(*(("tag:feature",) if by_feature else ())),
                by_hour=by_hour,
            ),
            pricing,
        )

    def _groups(
        self, start: datetime, stop: datetime, *by: str, buckets: Sequence[datetime] = ()
    ) -> Mapping[Group, Totals]:
        query = Query(start, stop, by, tuple(buckets), scope=self._scope)
        return self._view.totals(query).groups


def _name(group: Group) -> str | None:
    """What a group is called: a model with its provider."""
    names = [_text(name) for name in group]
    return names[0] if len(names) == 1 else "/".join(name or "(unknown)" for name in names)


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
