"""How spend goes on: the arithmetic, its band on made-up series, and asked of a ledger."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from costmw import Budget
from costmw.answers import BudgetForecast
from costmw.forecast import DayAhead, Foreseen, days_until, foresee
from costmw.money import PICO
from costmw.reports import Reports
from postgres_server import postgres
from rows import an_event
from stores import place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

MONDAY, SATURDAY = 0, 5
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""A Tuesday; half of the day, and six days of the month after it, are to come."""


def week(first: int, count: int) -> list[DayAhead]:
    return [DayAhead((first + n) % 7) for n in range(count)]


class TestForesee:
    @pytest.mark.parametrize("spent", [0, 1, 4])
    def test_nothing_is_foreseen_from_few_days(self, spent: int) -> None:
        """Days without spend do not count."""
        history = [1.0, 0.0] * spent + [0.0] * (20 - 2 * spent)

        assert foresee(history, MONDAY, week(MONDAY, 7)) is None
        assert foresee([1.0, 0.0] * 5, MONDAY, week(MONDAY, 7)) is not None

    def test_what_never_changes_goes_on(self) -> None:
        found = foresee([2.0] * 30, MONDAY, week(2, 10))

        assert found is not None
        assert (20.0, 20.0, 20.0) == pytest.approx((found.total, found.low, found.high))

    def test_days_before_the_first_spend_are_no_days_without_spend(self) -> None:
        found = foresee([0.0] * 20 + [2.0] * 6, MONDAY, week(5, 10))

        assert found is not None
        assert 20.0 == pytest.approx(found.total)

    def test_weekdays_are_told_apart_from_two_weeks_on(self) -> None:
        history = [5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0]

        found = foresee(history * 4, MONDAY, week(SATURDAY, 3))
        assert found is not None
        assert [0.0, 0.0, 5.0] == pytest.approx(list(found.days))
        one_week = foresee([*history, 5.0], MONDAY, week(SATURDAY, 3))
        assert one_week is not None
        assert one_week.days[0] > 1.0

    def test_the_first_weekday_moves_with_days_that_are_left_out(self) -> None:
        history = [5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0] * 20

        for left_out in range(7):
            found = foresee([0.0] * 3 + history[left_out:], left_out - 3, week(MONDAY, 7))
            assert found is not None
            assert history[:7] == pytest.approx(list(found.days), abs=1e-9)

    def test_today_counts_with_what_is_left_of_it(self) -> None:
        found = foresee([4.0] * 10, MONDAY, [DayAhead(3, 0.25), DayAhead(4)])

        assert found is not None
        assert [1.0, 4.0] == pytest.approx(list(found.days))

    def test_each_day_has_a_band_of_its_own_and_all_together_a_narrower_one(self) -> None:
        rng = random.Random(5)
        found = foresee([10 + rng.gauss(0, 2) for _ in range(30)], MONDAY, week(2, 10))

        assert found is not None
        assert 10 == len(found.days) == len(found.bands)
        for day, (low, high) in zip(found.days, found.bands, strict=True):
            assert 0 <= low < day < high
            assert pytest.approx(day - low) == high - day
        summed = sum(high - low for low, high in found.bands)
        assert found.high - found.low < summed

    def test_growth_goes_on(self) -> None:
        found = foresee([10.0 + n for n in range(40)], MONDAY, week(5, 10))

        assert found is not None
        assert found.low <= sum(50.0 + n for n in range(10)) <= found.high
        assert found.total > 10 * 49.0

    def test_few_days_speak_for_little_growth(self) -> None:
        """A line through these eight days would end at 20 a day."""
        found = foresee([1, 3, 2, 4, 3, 5, 4, 6], MONDAY, week(1, 30))

        assert found is not None
        assert 5.0 < found.days[-1] < 15.0

    def test_what_is_long_ago_does_not_count(self) -> None:
        recent = foresee([2.0, 3.0] * 28, 2, week(2, 10))

        assert recent == foresee([100.0] * 14 + [2.0, 3.0] * 28, 2, week(2, 10))

    def test_nothing_is_ever_foreseen_below_nothing(self) -> None:
        found = foresee([max(40.0 - 2 * n, 0.1) for n in range(21)], MONDAY, week(0, 60))

        assert found is not None
        assert 0.0 == min(found.days)
        assert found.low >= 0.0

    def test_the_same_days_give_the_same_answer(self) -> None:
        rng = random.Random(7)
        history = [rng.lognormvariate(0, 1) for _ in range(50)]

        assert foresee(history, 3, week(4, 9)) == foresee(history, 3, week(4, 9))

    def test_a_steadier_past_has_a_narrower_band(self) -> None:
        def width(scatter: float) -> float:
            rng = random.Random(3)
            found = foresee([10 + rng.gauss(0, scatter) for _ in range(30)], 0, week(2, 10))
            assert found is not None
            return found.high - found.low

        assert width(0.1) < width(1.0) < width(3.0)


class TestDaysUntil:
    SEEN = Foreseen(
        days=(1.0, 0.0, 4.0),
        bands=((1.0, 1.0), (0.0, 0.0), (4.0, 4.0)),
        total=5.0,
        low=5.0,
        high=5.0,
    )

    @pytest.mark.parametrize(
        ("limit", "days"),
        [(-1.0, 0.0), (0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 2.25), (5.0, 3.0), (5.1, None)],
    )
    def test_a_limit_is_reached_within_a_day(self, limit: float, days: float | None) -> None:
        assert days == days_until(limit, self.SEEN)


def weekly(rng: random.Random, day: int) -> float:
    return (10 if day % 7 < 5 else 3) * rng.lognormvariate(0, 0.25)


def steady(rng: random.Random, _: int) -> float:
    return 10 * rng.lognormvariate(0, 0.25)


def growing(rng: random.Random, day: int) -> float:
    return (5 + 0.12 * day) * (1 if day % 7 < 5 else 0.5) * rng.lognormvariate(0, 0.25)


def spiky(rng: random.Random, day: int) -> float:
    spike = rng.uniform(20, 80) if rng.random() < 0.05 else 0.0
    return (10 if day % 7 < 5 else 4) * rng.lognormvariate(0, 0.25) + spike


def sparse(rng: random.Random, _: int) -> float:
    return rng.lognormvariate(1, 0.8) if rng.random() < 0.3 else 0.0


def stepping(rng: random.Random, day: int) -> float:
    return (5 if day < 70 else 9) * rng.lognormvariate(0, 0.25)


SERIES: dict[str, tuple[Callable[[random.Random, int], float], float, float]] = {
    # between which shares of the outcomes the band of 80% holds
    "steady": (steady, 0.78, 0.92),
    "weekly": (weekly, 0.78, 0.92),
    "growing 1% a day": (growing, 0.70, 0.90),
    "spikes": (spiky, 0.75, 0.90),
    "sparse": (sparse, 0.78, 0.93),
    "a step of +80%": (stepping, 0.70, 0.90),
}


@pytest.fixture(scope="module")
def covered() -> dict[str, list[bool]]:
    """Whether the band held what came, foreseen on many days of many series."""
    return {name: list(_covered(name)) for name in SERIES}


def _covered(name: str) -> Iterator[bool]:
    make = SERIES[name][0]
    for seed in range(20):
        rng = random.Random(f"{name} {seed}")
        costs = [make(rng, day) for day in range(130)]
        for today in (8, 12, 16, 20, 30, 45, 60, 80, 95):
            for days in (1, 5, 10, 20, 30):
                found = foresee(costs[:today], MONDAY, week(today, days))
                if found is not None:
                    yield found.low <= sum(costs[today : today + days]) <= found.high


class TestBand:
    @pytest.mark.parametrize("name", SERIES)
    def test_it_holds_what_comes_eight_times_in_ten(
        self, name: str, covered: dict[str, list[bool]], table: list[str]
    ) -> None:
        _, least, most = SERIES[name]
        share = sum(covered[name]) / len(covered[name])
        table.append(f"forecast band of 80%: {name:18} {share:6.1%} of {len(covered[name])}")

        assert len(covered[name]) > 500
        assert least <= share <= most

    def test_over_all_series(self, covered: dict[str, list[bool]], table: list[str]) -> None:
        shares = [sum(outcomes) / len(outcomes) for outcomes in covered.values()]
        share = math.fsum(shares) / len(shares)
        table.append(f"forecast band of 80%: {'all':18} {share:6.1%}")

        assert 0.77 <= share <= 0.87


def spend(store: Any, daily: Callable[[int], int], days: int = 40, **tags: str) -> None:
    """So many USD on each day before today, at noon, and half of that today."""
    store.write(
        [
            an_event(daily(n) * PICO, created_at=NOW - timedelta(days=n, hours=1), tags=tags)
            for n in range(1, days + 1)
        ]
        + [an_event(daily(0) * PICO // 2, created_at=NOW - timedelta(hours=1), tags=tags)]
    )


def forecasts(store: Any, *budgets: Budget, now: datetime = NOW) -> list[BudgetForecast]:
    return Reports(store, budgets, now=lambda: now).forecast().budgets


class TestForecastOfALedger:
    def test_the_month(self, store: Any) -> None:
        """23 days of 2 USD, 1 so far today, 1 expected, and six days of 2."""
        spend(store, lambda _: 2)

        found = Reports(store, now=lambda: NOW).forecast()
        assert (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)) == (
            found.start,
            found.stop,
        )
        assert found.month is not None
        assert Decimal(47) == found.month.spent_usd
        assert (Decimal(60),) * 3 == (
            found.month.expected_usd,
            found.month.low_usd,
            found.month.high_usd,
        )

    def test_little_is_not_foreseen(self, store: Any) -> None:
        spend(store, lambda _: 2, days=4)

        found = Reports(store, (Budget("all", "10"),), now=lambda: NOW).forecast()
        assert found.month is None
        (budget,) = found.budgets
        assert (None, None, Decimal(9)) == (budget.forecast, budget.runs_out_at, budget.spent_usd)

    def test_when_a_budget_runs_out(self, store: Any) -> None:
        """47 are spent: half a day for one more, then a day for two."""
        spend(store, lambda _: 2)

        (budget,) = forecasts(store, Budget("all", "51"))
        assert budget.forecast is not None
        assert Decimal(60) == budget.forecast.expected_usd
        assert budget.runs_out_at is not None
        expected = datetime(2026, 11, 26, 12, tzinfo=UTC)
        assert abs(budget.runs_out_at - expected) < timedelta(minutes=1)

    def test_it_runs_out_later_today(self, store: Any) -> None:
        spend(store, lambda _: 2)

        (budget,) = forecasts(store, Budget("all", "47.5"))
        assert budget.runs_out_at is not None
        assert abs(budget.runs_out_at - (NOW + timedelta(hours=6))) < timedelta(minutes=1)

    def test_a_budget_that_lasts(self, store: Any) -> None:
        spend(store, lambda _: 2)

        (budget,) = forecasts(store, Budget("all", "61"))
        assert budget.runs_out_at is None
        assert datetime(2026, 12, 1, tzinfo=UTC) == budget.stop

    def test_a_budget_without_periods_is_foreseen_for_a_month(self, store: Any) -> None:
        """81 so far; in 30 days, today's half among them, 59 more."""
        spend(store, lambda _: 2)

        (budget,) = forecasts(store, Budget("all", "139", period="total"))
        assert budget.forecast is not None
        assert Decimal(140) == budget.forecast.expected_usd
        assert datetime(2026, 12, 24, tzinfo=UTC) == budget.stop
        assert budget.runs_out_at is not None
        assert NOW + timedelta(days=28) < budget.runs_out_at < NOW + timedelta(days=30)

    def test_the_rest_of_a_day(self, store: Any) -> None:
        spend(store, lambda _: 2)

        (budget,) = forecasts(store, Budget("all", "3", period="day"))
        assert budget.forecast is not None
        assert Decimal(2) == budget.forecast.expected_usd

    def test_each_value_of_a_split_by_itself(self, store: Any) -> None:
        spend(store, lambda _: 2, tenant="acme")
        spend(store, lambda n: 1 if n % 2 else 0, tenant="umbrella")
        spend(store, lambda _: 9)

        found = forecasts(store, Budget("each", "55", per="tenant"))
        assert [{"tenant": "acme"}, {"tenant": "umbrella"}] == [one.tags for one in found]
        assert found[0].runs_out_at is not None
        assert found[1].runs_out_at is None

    def test_a_limit_of_its_own(self, store: Any) -> None:
        spend(store, lambda _: 2, tenant="acme")

        (budget,) = forecasts(store, Budget("each", "1", per="tenant", limits={"acme": "70"}))
        assert (Decimal(70), None) == (budget.limit_usd, budget.runs_out_at)

    def test_only_the_fullest_limits(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("costmw.outlook.LIMITS_AT_MOST", 2)
        for tenant, usd in (("a", 1), ("b", 3), ("c", 2)):
            spend(store, lambda _, usd=usd: usd, days=6, tenant=tenant)

        found = forecasts(store, Budget("each", "1000", per="tenant"))
        assert [{"tenant": "b"}, {"tenant": "c"}] == [one.tags for one in found]

    def test_a_reader_sees_only_their_own(self, store: Any) -> None:
        spend(store, lambda _: 2, tenant="acme")
        spend(store, lambda _: 1, tenant="umbrella")
        budgets = (Budget("all", "99"), Budget("each", "99", per="tenant"))

        found = Reports(store, budgets, now=lambda: NOW).forecast(scope={"tenant": "umbrella"})
        assert found.month is not None
        assert Decimal(30) == found.month.expected_usd
        assert [("each", {"tenant": "umbrella"})] == [(one.name, one.tags) for one in found.budgets]
