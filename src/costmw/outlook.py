"""How spend goes on, asked of the ledger: days of the rollups into forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Protocol
from zoneinfo import ZoneInfo

from costmw.answering import cost_of, usd
from costmw.answers import BudgetForecast, BudgetUse, DayAhead, SpendForecast
from costmw.budgets import MISSING, Budget
from costmw.forecast import DAYS_AT_MOST, Foreseen, days_until, foresee
from costmw.forecast import DayAhead as AheadOf
from costmw.money import PICO
from costmw.periods import day_start, day_stop, midnight, spans
from costmw.store.base import Filter, Found, Query, TagScope, Totals

LIMITS_AT_MOST = 50
"""Limits that are foreseen, the fullest; each is a question of its own."""

AHEAD_WITHOUT_PERIOD = 30
"""Days for which a budget without periods is foreseen."""

_MICRO_USD = Decimal("0.000001")

Tags = tuple[str, ...]
"""The values of the tags that a budget is split by."""


class Sums(Protocol):
    """Whatever sums calls: a snapshot, or what remembers its answers."""

    def totals(self, query: Query) -> Found:
        """See `Snapshot.totals`."""


class Outlook:
    """Forecasts from one view of a ledger, as of `now`, for the calls of a scope."""

    def __init__(
        self,
        sums: Sums,
        now: datetime,
        zone: ZoneInfo,
        scope: TagScope,
        filters: tuple[Filter, ...] = (),
    ) -> None:
        # What is foreseen is another only when a minute has passed, not with every look.
        self.now = now.replace(second=0, microsecond=0)
        self.zone = zone
        self.scope = scope
        self._sums = sums
        self._filters = filters

    def of_span(self, start: datetime, stop: datetime) -> SpendForecast | None:
        """What is spent from `start` to `stop`, which lies ahead; None when little is known."""
        foreseen = self._foreseen(self._history(), stop)
        if foreseen is None:
            return None
        found = self._sums.totals(Query(start, stop, scope=self.scope, filters=self._filters))
        return _forecast_of(usd(cost_of(found.groups.get((), Totals()))), foreseen)

    def of_days(self, stop: datetime) -> list[DayAhead]:
        """The rest of today and each day to `stop`; none when little is known."""
        foreseen = self._foreseen(self._history(), stop)
        if foreseen is None:
            return []
        starts = spans(day_start(self.now, self.zone), stop, "day", self.zone)
        return [
            DayAhead(
                start=start,
                expected_usd=_micro(expected),
                low_usd=_micro(low),
                high_usd=_micro(high),
            )
            for start, expected, (low, high) in zip(
                starts, foreseen.days, foreseen.bands, strict=True
            )
        ]

    def of_budgets(
        self, budgets: Sequence[Budget], uses: Sequence[BudgetUse]
    ) -> list[BudgetForecast]:
        """How the fullest limits will be used; those of calls that lack a tag are left out."""
        by_name = {budget.name: budget for budget in budgets}
        known = [use for use in uses if MISSING not in use.tags.values()][:LIMITS_AT_MOST]
        histories: dict[str, Mapping[Tags, list[float]]] = {}
        for name in dict.fromkeys(use.name for use in known):
            named = [tuple(use.tags.values()) for use in known if use.name == name]
            histories[name] = self._histories(by_name[name], named)
        return [self._of_budget(use, histories[use.name]) for use in known]

    def _of_budget(self, use: BudgetUse, histories: Mapping[Tags, list[float]]) -> BudgetForecast:
        stop = use.stop
        if use.period == "total":
            today = self.now.astimezone(self.zone).date()
            stop = midnight(today + timedelta(days=AHEAD_WITHOUT_PERIOD), self.zone)
        foreseen = self._foreseen(histories.get(tuple(use.tags.values()), []), stop)
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

    def _history(self) -> list[float]:
        """What the whole days before today have cost, in USD."""
        query = self._days_before()
        found = self._sums.totals(replace(query, filters=self._filters)).groups
        return [cost_of(found.get((n,), Totals())) / PICO for n in range(len(query.buckets))]

    def _histories(self, budget: Budget, named: Sequence[Tags]) -> Mapping[Tags, list[float]]:
        """The same for single limits of a budget, by the values of its tags."""
        keys = tuple(f"tag:{key}" for key in budget.tag_keys)
        values = (tuple(dict.fromkeys(tags[n] for tags in named)) for n in range(len(keys)))
        filters = tuple(Filter(key, "is", some) for key, some in zip(keys, values, strict=True))
        query = replace(self._days_before(), where=budget.where, group_by=keys, filters=filters)
        histories: dict[Tags, list[float]] = {}
        for (day, *tags), sums in self._sums.totals(query).groups.items():
            history = histories.setdefault(tuple(map(str, tags)), [0.0] * len(query.buckets))
            history[int(day or 0)] = cost_of(sums) / PICO
        return histories

    def _days_before(self) -> Query:
        today = self.now.astimezone(self.zone).date()
        start = midnight(today - timedelta(days=DAYS_AT_MOST), self.zone)
        stop = midnight(today, self.zone)
        days = spans(start, stop, "day", self.zone)
        return Query(start, stop, buckets=tuple(days), scope=self.scope)

    def _foreseen(self, history: Sequence[float], stop: datetime) -> Foreseen | None:
        """The rest of today and the days to `stop`, by the whole days before."""
        first = self.now.astimezone(self.zone).date() - timedelta(days=DAYS_AT_MOST)
        return foresee(history, first.weekday(), self._days_ahead(stop))

    def _days_ahead(self, stop: datetime) -> list[AheadOf]:
        ahead, moment = [], self.now
        while moment < stop:
            begins, ends = day_start(moment, self.zone), day_stop(moment, self.zone)
            weekday = moment.astimezone(self.zone).weekday()
            ahead.append(AheadOf(weekday, (ends - moment) / (ends - begins)))
            moment = ends
        return ahead

    def _runs_out_at(self, use: BudgetUse, foreseen: Foreseen) -> datetime | None:
        days = days_until(float(use.limit_usd - use.spent_usd), foreseen)
        if days is None:
            return None
        whole, part = divmod(days, 1)
        begins = day_start(self.now, self.zone)
        for _ in range(int(whole)):
            begins = day_stop(begins, self.zone)
        begins = max(begins, self.now)
        return begins + part * (day_stop(begins, self.zone) - begins)


def _forecast_of(spent: Decimal, foreseen: Foreseen) -> SpendForecast:
    return SpendForecast(
        spent_usd=spent,
        expected_usd=spent + _micro(foreseen.total),
        low_usd=spent + _micro(foreseen.low),
        high_usd=spent + _micro(foreseen.high),
    )


def _micro(amount: float) -> Decimal:
    return Decimal(amount).quantize(_MICRO_USD, ROUND_HALF_EVEN)
