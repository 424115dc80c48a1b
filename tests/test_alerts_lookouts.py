"""What is worth an alert, and in which words; asked of both stores."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from costmw import Budget
from costmw.alerts import Alerts
from costmw.alerts.alert import alert_of
from costmw.alerts.lookouts import Ground, models, on_course, thresholds, velocity
from costmw.caps.rules import Rule
from costmw.money import PICO
from costmw.store.alert_rows import AlertRow
from costmw.store.layers import alerts_of
from postgres_server import postgres
from rows import an_event
from stores import Place, place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
"""A Tuesday."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def ground(store: Any) -> Callable[..., Ground]:
    def make(*budgets: Budget, now: datetime = NOW, **settings: Any) -> Ground:
        rows = alerts_of(store)
        assert rows is not None
        return Ground(store, budgets, Alerts([], **settings), now, rows.known)

    return make


def spend(store: Any, usd: float, at: datetime = NOW, **changes: Any) -> None:
    store.write([an_event(round(usd * PICO), created_at=at, **changes)])


def told(rows: list[AlertRow]) -> list[tuple[str, str, dict[str, str]]]:
    return [(row.budget, row.details["threshold"], dict(row.scope)) for row in rows]


def words(row: AlertRow) -> tuple[str, str]:
    alert = alert_of(row)
    return alert.title, alert.message


class TestThresholds:
    def test_those_that_are_reached_in_ascending_order(self, store: Any, ground: Any) -> None:
        budget = Budget("all", "10", alert_at=(1.0, 0.5, 0.8, 2.0))
        spend(store, 4.999999)
        assert [] == list(thresholds(ground(budget)))

        spend(store, 0.000001)
        assert [("all", "0.5", {})] == told(list(thresholds(ground(budget))))

        spend(store, 6)
        assert [("all", share, {}) for share in ("0.5", "0.8", "1")] == told(
            list(thresholds(ground(budget)))
        )

    def test_what_is_said(self, store: Any, ground: Any) -> None:
        spend(store, 8.256, tags={"tenant": "acme"})
        row = list(thresholds(ground(Budget("cap", "10", per="tenant", action="block"))))[-1]

        assert (
            "80% of budget 'cap' (tenant=acme) is used",
            "8.26 of 10.00 USD (82.56%) is spent in 2026-11.",
        ) == words(row)
        assert {
            "threshold": "0.8",
            "limit_usd": "10.00",
            "spent_usd": "8.256",
            "used": "0.8256",
            "period": "month",
            "period_start": "2026-11-01T00:00:00+00:00",
            "period_stop": "2026-12-01T00:00:00+00:00",
        } == row.details
        assert (datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 3, 1, tzinfo=UTC)) == (
            row.period_start,
            row.forget_at,
        )

    @pytest.mark.parametrize(
        ("period", "words_of_it"),
        [
            ("day", "on 2026-11-24"),
            ("week", "in the week of 2026-11-23"),
            ("month", "in 2026-11"),
            ("total", "in all"),
        ],
    )
    def test_each_period(self, store: Any, ground: Any, period: Any, words_of_it: str) -> None:
        spend(store, 0.0005)
        (row,) = thresholds(ground(Budget("b", "0.001", period=period, alert_at=(0.5,))))

        assert f"0.00050 of 0.0010 USD (50%) is spent {words_of_it}." == words(row)[1]
        assert (period == "total") == (row.forget_at is None)

    def test_the_days_are_those_of_the_store(self, place: Place) -> None:
        """In Berlin the month began at 23:00 UTC of the last day of the one before."""
        store = place.open(time_zone="Europe/Berlin")
        spend(store, 1, datetime(2026, 10, 31, 23, 30, tzinfo=UTC))
        rows = alerts_of(store)
        assert rows is not None
        ground = Ground(store, (Budget("b", "1"),), Alerts([]), NOW, rows.known)

        row = list(thresholds(ground))[-1]
        assert datetime(2026, 10, 31, 23, tzinfo=UTC) == row.period_start
        assert "1.00 of 1.00 USD (100%) is spent in 2026-11." == words(row)[1]
        assert "2026-11-01T00:00:00+01:00" == row.details["period_start"]
        assert ZoneInfo("Europe/Berlin") == store.time_zone

    def test_each_scope_and_limit_by_itself(self, store: Any, ground: Any) -> None:
        for tenant, usd in (("acme", 6), ("big", 6), (None, 6)):
            spend(store, usd, tags={"tenant": tenant} if tenant else {})
        budget = Budget("cap", "10", per="tenant", limits={"big": "100"})

        assert [
            ("cap", "0.5", {"tenant": "(missing)"}),
            ("cap", "0.5", {"tenant": "acme"}),
        ] == sorted(told(list(thresholds(ground(budget)))), key=str)

    def test_a_changed_limit_has_thresholds_of_its_own(self, store: Any, ground: Any) -> None:
        spend(store, 6)
        (before,) = thresholds(ground(Budget("b", "10")))
        (same,) = thresholds(ground(Budget("b", "10.00")))
        (after,) = thresholds(ground(Budget("b", "12")))

        assert before.digest == same.digest
        assert before.digest != after.digest

    def test_the_end_of_a_period_is_looked_at_after_it(self, store: Any, ground: Any) -> None:
        """A call of its last second, which was committed when the next one had begun."""
        month = datetime(2026, 11, 1, tzinfo=UTC)
        spend(store, 6, month - timedelta(seconds=1))
        spend(store, 9, month)
        budget = Budget("b", "10")

        late = list(thresholds(ground(budget, now=month + timedelta(minutes=59))))
        assert [
            (datetime(2026, 10, 1, tzinfo=UTC), "0.5"),
            (month, "0.5"),
            (month, "0.8"),
        ] == [(row.period_start, row.details["threshold"]) for row in late]
        later = list(thresholds(ground(budget, now=month + timedelta(minutes=61))))
        assert late[1:] == [
            AlertRow(**{**fields_of(row), "id": old.id, "raised_at": old.raised_at})
            for row, old in zip(later, late[1:], strict=True)
        ]

    def test_a_period_that_goes_on_is_looked_at_once(self, store: Any, ground: Any) -> None:
        """Soon after midnight, in the middle of a month."""
        spend(store, 6)
        soon = NOW.replace(hour=0, minute=10) + DAY

        assert [("b", "0.5", {})] == told(list(thresholds(ground(Budget("b", "10"), now=soon))))

    def test_budgets_of_the_page_are_told_of_too(self, store: Any, ground: Any) -> None:
        """With others in the code, or none; each once."""
        spend(store, 6)
        store.keep_budget(Rule.of(Budget("page", "10")))

        assert [("page", "0.5", {})] == told(list(thresholds(ground())))
        budgets = (Budget("one", "10"), Budget("two", "10"))
        assert ["one", "page", "two"] == sorted(row.budget for row in thresholds(ground(*budgets)))

    def test_a_budget_without_thresholds_is_silent(self, store: Any, ground: Any) -> None:
        spend(store, 99)
        assert [] == list(thresholds(ground(Budget("b", "10", alert_at=()))))


def fields_of(row: AlertRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in AlertRow.__slots__}


class TestVelocity:
    @staticmethod
    def usual(store: Any, usd: Callable[[int], float] = lambda _: 1.0, days: int = 14) -> None:
        """So much in this hour of each day before, and more in the hour after it."""
        store.write(
            [
                an_event(round(usd(n) * PICO), created_at=NOW - n * DAY + timedelta(minutes=20))
                for n in range(1, days + 1)
            ]
            + [an_event(40 * PICO, created_at=NOW - n * DAY + HOUR) for n in range(1, days + 1)]
        )

    def test_an_hour_that_stands_out(self, store: Any, ground: Any) -> None:
        self.usual(store)
        spend(store, 6)
        assert [] == list(velocity(ground()))

        spend(store, 0.01)
        (row,) = velocity(ground())
        assert (
            "LLM spend is far above what is usual at this hour",
            (
                "6.01 USD since 2026-11-24 12:00; in this hour of the 14 days before it was "
                "1.00 USD, and 1.00 USD at most."
            ),
        ) == words(row)
        assert (datetime(2026, 11, 24, tzinfo=UTC), "") == (row.period_start, row.threshold)

    def test_cents_do_not_alarm(self, store: Any, ground: Any) -> None:
        """A hundred times as much, and below the floor of 5 USD."""
        self.usual(store, lambda _: 0.01)
        spend(store, 1)

        assert [] == list(velocity(ground()))
        assert 1 == len(list(velocity(ground(velocity_floor="0.5"))))

    def test_less_than_twice_as_much_alarms_nobody(self, store: Any, ground: Any) -> None:
        """However even the hours are."""
        self.usual(store, lambda _: 10.0)
        spend(store, 20)
        assert [] == list(velocity(ground()))

        spend(store, 0.01)
        assert 1 == len(list(velocity(ground())))

    def test_one_outlier_before_hides_nothing(self, store: Any, ground: Any) -> None:
        self.usual(store, lambda n: 500.0 if n == 3 else 1.0)
        spend(store, 20)

        (row,) = velocity(ground())
        assert ("1.00", "500.00") == (row.details["usual_usd"], row.details["most_usd"])

    def test_hours_that_vary_may_vary(self, store: Any, ground: Any) -> None:
        """Between 10 and 50: the median is 30, and the usual deviation 10."""
        self.usual(store, lambda n: 10.0 + 10 * (n % 5))
        spend(store, 90)
        assert [] == list(velocity(ground()))

        spend(store, 60)
        assert 1 == len(list(velocity(ground())))

    def test_what_comes_every_week_surprises_nobody(self, store: Any, ground: Any) -> None:
        self.usual(store, lambda n: 50.0 if n % 7 == 0 else 1.0)
        spend(store, 60)
        assert [] == list(velocity(ground()))

        spend(store, 20)
        assert 1 == len(list(velocity(ground())))

    @pytest.mark.parametrize(("days", "alerts"), [(4, 0), (5, 1)])
    def test_few_days_say_nothing(self, store: Any, ground: Any, days: int, alerts: int) -> None:
        self.usual(store, days=days)
        spend(store, 100)

        assert alerts == len(list(velocity(ground())))

    def test_hours_without_calls_count_as_nothing(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 6 * DAY + HOUR)
        spend(store, 6)
        assert 1 == len(list(velocity(ground())))  # five days of 0

        assert [] == list(velocity(ground(now=NOW + HOUR)))

    def test_the_hour_on_the_wall_is_compared(self, place: Place) -> None:
        """The clocks went back in Berlin on October 25: it is 9:30 UTC, and was 8:30."""
        store = place.open(time_zone="Europe/Berlin")
        now = datetime(2026, 10, 26, 9, 30, tzinfo=UTC)
        for n in range(1, 11):
            hour = 8 if n > 1 else 9
            spend(store, 30, datetime(2026, 10, 26 - n, hour, 30, tzinfo=UTC))
        spend(store, 31, now)
        rows = alerts_of(store)
        assert rows is not None

        assert [] == list(velocity(Ground(store, (), Alerts([]), now, rows.known)))

    def test_it_can_be_switched_off(self, store: Any, ground: Any) -> None:
        self.usual(store)
        spend(store, 100)
        assert [] == list(velocity(ground(velocity=False)))


class TestModels:
    @staticmethod
    def keep(store: Any, rows: list[AlertRow]) -> list[str]:
        """Keep them as the watch does; gives the models that are told of."""
        alerts = alerts_of(store)
        assert alerts is not None
        return [row.scope["model"] for row in alerts.add(rows) if not row.quiet]

    def test_a_model_that_was_never_used(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 30 * DAY, response_model="old")
        spend(store, 1, response_model="old")
        spend(store, 0.25, response_model="new")
        rows = list(models(ground()))

        assert ["new"] == self.keep(store, rows)
        assert [] == list(models(ground()))
        row = next(row for row in rows if not row.quiet)
        assert (
            "A new model is in use: new (openai)",
            "1 call(s) so far, for 0.25 USD.",
        ) == words(row)

    def test_the_first_models_of_a_ledger_are_no_news(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - DAY, response_model="first")
        spend(store, 1, response_model="second")

        assert [] == self.keep(store, list(models(ground())))
        spend(store, 1, NOW + 2 * DAY, response_model="third")
        assert ["third"] == self.keep(store, list(models(ground(now=NOW + 2 * DAY))))

    def test_a_model_of_another_provider_is_another(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 30 * DAY)
        spend(store, 1, provider="azure")

        assert [{"provider": "azure", "model": "gpt-5-mini"}] == [
            row.scope for row in models(ground())
        ]

    def test_a_model_that_comes_back_is_known(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 300 * DAY)
        spend(store, 1)

        assert [] == self.keep(store, list(models(ground())))

    def test_calls_without_a_price(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 30 * DAY)
        store.write([an_event(None, created_at=NOW) for _ in range(3)])
        rows = list(models(ground()))

        row = rows[-1]
        assert ("model.unpriced", datetime(2026, 11, 1, tzinfo=UTC)) == (
            row.kind,
            row.period_start,
        )
        title, message = words(row)
        assert "Calls of gpt-5-mini (openai) have no price" == title
        assert "3 call(s) of the last days have no cost" in message
        assert "costmw reprice --since 2026-11-01" in message
        assert [row.scope["model"]] == self.keep(store, rows)
        assert [] == list(models(ground()))

    def test_calls_that_were_cut_off_lack_no_price(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 30 * DAY)
        store.write([an_event(None, created_at=NOW, status="incomplete")])

        assert [] == [row for row in models(ground()) if row.kind == "model.unpriced"]

    def test_they_can_be_switched_off(self, store: Any, ground: Any) -> None:
        spend(store, 1, NOW - 30 * DAY)
        spend(store, 1, response_model="new")
        assert [] == list(models(ground(models=False)))


class TestOnCourse:
    @staticmethod
    def steadily(store: Any, usd: int = 2) -> None:
        """23 days of 2 USD this month and half of today's: 47 so far, 60 in the end."""
        store.write(
            [an_event(usd * PICO, created_at=NOW - n * DAY) for n in range(1, 24)]
            + [an_event(usd * PICO // 2, created_at=NOW)]
        )

    def test_a_budget_that_will_be_exceeded(self, store: Any, ground: Any) -> None:
        self.steadily(store)
        (row,) = on_course(ground(Budget("all", "51")))

        title, message = words(row)
        assert "Budget 'all' is on course to be exceeded" == title
        assert message.startswith(
            "47.00 of 51.00 USD is spent in 2026-11, 59.96 USD are expected by 2026-12-01 (59.96 "
            "to 59.96), and the limit is reached about 2026-11-26 12:"
        )
        assert datetime(2026, 11, 1, tzinfo=UTC) == row.period_start

    @pytest.mark.parametrize("limit", ["60.1", "47", "40"])
    def test_one_that_lasts_or_is_used_up(self, store: Any, ground: Any, limit: str) -> None:
        self.steadily(store)
        assert [] == list(on_course(ground(Budget("all", limit))))

    def test_it_can_be_switched_off(self, store: Any, ground: Any) -> None:
        self.steadily(store)
        assert [] == list(on_course(ground(Budget("all", "51"), on_course=False)))
