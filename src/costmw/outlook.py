"""How spend goes on, asked of the ledger: days of the rollups into forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from zoneinfo import ZoneInfo

from costmw.answering import cost_of, usd
from costmw.answers import BudgetForecast, BudgetUse, SpendForecast
from costmw.budgets import MISSING, Budget
from costmw.forecast import DAYS_AT_MOST, DayAhead, Foreseen, days_until, foresee
from costmw.money import PICO
from costmw.periods import day_start, day_stop, midnight, spans
from costmw.store.base import Query, Snapshot, TagScope, Totals

LIMITS_AT_MOST = 50
"""Limits that are foreseen, the fullest; each is a question of its own."""

AHEAD_WITHOUT_PERIOD = 30
"""Days for which a budget without periods is foreseen."""

_MICRO_USD = Decimal("0.000001")


class Outlook:
    """Forecasts from one view of a ledger, as of `now`, for the calls of a scope."""

    def __init__(self, view: Snapshot, now: datetime, zone: ZoneInfo, scope: TagScope) -> None:
        self._view = view
        self._now = now
        self._zone = zone
        self._scope = scope

    def of_span(
        self, start: datetime, stop: datetime, *, where: TagScope | None = None
    ) -> SpendForecast | None:
        """What is spent from `start` to `stop`, which lies ahead; None when little is known."""
        foreseen = self._foreseen(stop, where or {})
        if foreseen is None:
            return None
        found = self._view.totals(Query(start, stop, scope=self._scope, where=where or {}))
        return _forecast_of(usd(cost_of(found.groups.get((), Totals()))), foreseen)

    def of_budgets(
        self, budgets: Sequence[Budget], uses: Sequence[BudgetUse]
    ) -> list[BudgetForecast]:
        """How the fullest limits will be used; those of calls that lack a tag are left out."""
        by_name = {budget.name: budget for budget in budgets}
        known = [use for use in uses if MISSING not in use.tags.values()]
        return [self._of_budget(by_name[use.name], use) for use in known[:LIMITS_AT_MOST]]

    def _of_budget(self, budget: Budget, use: BudgetUse) -> BudgetForecast:
        stop = use.stop
        if budget.period == "total":
            today = self._now.astimezone(self._zone).date()
            stop = midnight(today + timedelta(days=AHEAD_WITHOUT_PERIOD), self._zone)
        foreseen = self._foreseen(stop, {**budget.where, **use.tags})
        return BudgetForecast(
            name=use.name,
            period=use.period,
            tags=use.tags,
            start=use.start,
            stop=stop,
            limit_usd=use.limit_usd,
            spent_usd=use.spent_usd,
            forecast=None if foreseen is None else _forecast_of(use.spent_usd, foreseen),
            runs_out_at=None if foreseen is None else self._runs_out_at(use, foreseen),
        )

    def _foreseen(self, stop: datetime, where: TagScope) -> Foreseen | None:
        """The rest of today and the days to `stop`, by the whole days before."""
        today = self._now.astimezone(self._zone).date()
        first = today - timedelta(days=DAYS_AT_MOST)
        start, end = midnight(first, self._zone), midnight(today, self._zone)
        days = spans(start, end, "day", self._zone)
        found = self._view.totals(
            Query(start, end, buckets=tuple(days), scope=self._scope, where=where)
        ).groups
        history = [cost_of(found.get((n,), Totals())) / PICO for n in range(len(days))]
        return foresee(history, first.weekday(), self._days_ahead(stop))

    def _days_ahead(self, stop: datetime) -> list[DayAhead]:
        ahead, moment = [], self._now
        while moment < stop:
            begins, ends = day_start(moment, self._zone), day_stop(moment, self._zone)
            weekday = moment.astimezone(self._zone).weekday()
            ahead.append(DayAhead(weekday, (ends - moment) / (ends - begins)))
            moment = ends
        return ahead

    def _runs_out_at(self, use: BudgetUse, foreseen: Foreseen) -> datetime | None:
        days = days_until(float(use.limit_usd - use.spent_usd), foreseen)
        if days is None:
            return None
        whole, part = divmod(days, 1)
        begins = day_start(self._now, self._zone)
        for _ in range(int(whole)):
            begins = day_stop(begins, self._zone)
        begins = max(begins, self._now)
        return begins + part * (day_stop(begins, self._zone) - begins)


def _forecast_of(spent: Decimal, foreseen: Foreseen) -> SpendForecast:
    expected, low, high = (
        spent + Decimal(amount).quantize(_MICRO_USD, ROUND_HALF_EVEN)
        for amount in (foreseen.total, foreseen.low, foreseen.high)
    )
    return SpendForecast(spent_usd=spent, expected_usd=expected, low_usd=low, high_usd=high)
