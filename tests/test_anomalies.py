"""Days and hours that stand out: what is usual, what it is due to, and how often that is right."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from costmw.anomalies import Anomaly, Peak, Spending, Timeline, explained, in_words, peaks
from costmw.money import PICO

MONDAY = datetime(2026, 8, 31, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
ZONE = ZoneInfo("UTC")


def usd(amounts: Sequence[float], per_call: float = 0.01) -> Spending:
    """So much a day, in calls that cost so much."""
    return Spending(
        [round(amount * PICO) for amount in amounts],
        [round(amount / per_call) for amount in amounts],
    )


def days(count: int) -> Timeline:
    return Timeline([MONDAY + n * DAY for n in range(count)], "day", ZONE)


def found(amounts: Sequence[float], since: int = 0) -> list[int]:
    """The positions of days that stand out."""
    return [peak.position for peak in peaks(days(len(amounts)), usd(amounts), since=since)]


class TestDays:
    def test_a_day_that_stands_out(self) -> None:
        (peak,) = peaks(days(31), usd([20.0] * 30 + [60.0]))

        assert (30, "day", 20 * PICO, 60 * PICO, 40 * PICO) == (
            peak.position,
            peak.every,
            peak.usual,
            peak.spent,
            peak.excess,
        )
        assert 20.0 == pytest.approx(peak.score)

    def test_few_days_say_nothing(self) -> None:
        """Days before the first that cost anything do not count."""
        assert [] == found([0.0] * 20 + [20.0] * 7 + [90.0])
        assert [28] == found([0.0] * 20 + [20.0] * 8 + [90.0])

    def test_cents_do_not_alarm(self) -> None:
        assert [] == found([0.01] * 30 + [0.9])
        assert [30] == found([0.01] * 30 + [1.1])

    def test_a_day_exceeds_the_usual_by_a_dollar_at_least(self) -> None:
        assert [] == found([1.5] * 30 + [2.49])
        assert [30] == found([1.5] * 30 + [2.51])

    def test_less_than_half_as_much_again_alarms_nobody(self) -> None:
        """However even the days are."""
        assert [] == found([20.0] * 30 + [29.9])
        assert [30] == found([20.0] * 30 + [31.0])

    def test_growth_is_no_peak(self) -> None:
        assert [] == found([5 * 1.03**day for day in range(90)])

    def test_a_weekend_is_compared_with_weekends(self) -> None:
        week = [20.0] * 5 + [4.0] * 2

        assert [] == found(week * 8)
        assert [26] == found([*week * 3, *week[:5], 20.0, 4.0])

    def test_what_comes_every_monday_surprises_nobody(self) -> None:
        week = [60.0] + [20.0] * 6

        assert [] == found(week * 10, since=56)
        assert [57] == found([*week * 8, 60.0, 60.0], since=56)

    def test_one_dear_day_hides_not_the_next(self) -> None:
        assert [30, 33] == found([20.0] * 30 + [400.0, 20.0, 20.0, 60.0])

    def test_what_has_lasted_for_two_days_is_the_level(self) -> None:
        assert [30, 31] == found([20.0] * 30 + [60.0] * 20)

    def test_days_are_judged_by_what_was_before(self) -> None:
        rng = random.Random(3)
        amounts = [rng.uniform(10, 40) * (8 if day == 40 else 1) for day in range(60)]

        assert [40] == [n for n in found(amounts) if n <= 45] == found(amounts[:46])

    def test_where_most_days_cost_nothing_only_the_dearest_is_a_surprise(self) -> None:
        """A job that runs now and then."""
        amounts = [0.0] * 40
        amounts[3] = amounts[14] = amounts[31] = 10.0

        assert [] == found([*amounts, 14.0])
        assert [40] == found([*amounts, 16.0])

    def test_weekends_that_cost_nothing_may_cost_something(self) -> None:
        week = [20.0] * 5 + [0.0] * 2

        assert [] == found(week * 8 + [20.0] * 5 + [5.0])
        assert [61] == found(week * 8 + [20.0] * 5 + [60.0])


class TestHours:
    def test_an_hour_is_compared_with_the_same_hour(self) -> None:
        """Nights cost nothing; what is usual at noon is a lot at three."""
        day = [0.0] * 9 + [5.0] * 9 + [0.0] * 6
        amounts = day * 15
        timeline = Timeline([MONDAY + n * HOUR for n in range(len(amounts))], "hour", ZONE)
        assert [] == peaks(timeline, usd(amounts), since=14 * 24)

        amounts[14 * 24 + 3] = 5.0
        (peak,) = peaks(timeline, usd(amounts), since=14 * 24)
        assert (14 * 24 + 3, "hour", 0) == (peak.position, peak.every, peak.usual)

    def test_few_days_say_nothing(self) -> None:
        for before, count in ((4, 0), (5, 1)):
            amounts = [1.0] * 24 * before + [9.0]
            timeline = Timeline([MONDAY + n * HOUR for n in range(len(amounts))], "hour", ZONE)
            assert count == len(peaks(timeline, usd(amounts), since=24 * before))

    def test_what_is_longer_ago_than_two_weeks_does_not_count(self) -> None:
        amounts = [50.0] * 24 * 16 + [1.0] * 24 * 14 + [9.0]
        timeline = Timeline([MONDAY + n * HOUR for n in range(len(amounts))], "hour", ZONE)

        assert [24 * 30] == [peak.position for peak in peaks(timeline, usd(amounts), since=24 * 30)]


def cause_of(by: dict[str, dict[str | None, Spending]]) -> Anomaly:
    """Why the last of 31 days stands out; the values are told of in full."""
    whole = [
        sum(own.pico_usd[day] for own in next(iter(by.values())).values()) for day in range(31)
    ]
    calls = [sum(own.calls[day] for own in next(iter(by.values())).values()) for day in range(31)]
    total = Spending(whole, calls)
    (peak,) = peaks(days(31), total)
    return explained(peak, days(31), total, by)


class TestCauses:
    def test_more_calls(self) -> None:
        found = cause_of(
            {
                "model": {"a": usd([10.0] * 30 + [15.0]), "b": usd([10.0] * 30 + [45.0])},
                "tag:feature": {"chat": usd([18.0] * 31), "sum": usd([2.0] * 30 + [42.0])},
            }
        )

        assert found.cause is not None
        assert ("tag:feature", "sum", 40 * PICO, "more calls") == (
            found.cause.by,
            found.cause.value,
            found.cause.excess,
            found.kind,
        )
        assert (
            "3.0 times the usual: 60.00 USD instead of 20.00 USD; "
            "mostly feature sum (+40.00 USD, more calls)."
        ) == in_words(found)

    def test_dearer_calls(self) -> None:
        dearer = usd([10.0] * 30 + [50.0])
        found = cause_of(
            {
                "tag:user": {
                    None: Spending(dearer.pico_usd, [1000] * 31),
                    "ann": usd([10.0] * 31),
                }
            }
        )

        assert "dearer calls" == found.kind
        assert in_words(found).endswith("mostly calls without user (+40.00 USD, dearer calls).")

    def test_something_new(self) -> None:
        found = cause_of(
            {"model": {"old": usd([20.0] * 31), "new": usd([0.0] * 30 + [40.0])}},
        )

        assert "new" == found.kind
        assert in_words(found).endswith("mostly new: model new (+40.00 USD).")

    def test_everything_alike(self) -> None:
        found = cause_of({"model": {"a": usd([10.0] * 30 + [30.0]), "b": usd([10.0] * 30 + [30])}})

        assert found.cause is None
        assert in_words(found).endswith("; everything rose alike, by more calls.")

    def test_what_all_calls_have_explains_nothing(self) -> None:
        """A tag with one value has all of the excess, as it has all of the cost."""
        found = cause_of(
            {
                "tag:environment": {"production": usd([20.0] * 30 + [60.0])},
                "model": {"a": usd([10.0] * 30 + [50.0]), "b": usd([10.0] * 31)},
            }
        )

        assert found.cause is not None
        assert ("model", "a") == (found.cause.by, found.cause.value)

    def test_nothing_usual(self) -> None:
        anomaly = explained(Peak(9, "day", 0, 2 * PICO, 9.0), days(10), usd([0.0] * 9 + [2.0]), {})

        assert in_words(anomaly).startswith("Nothing is usual: 2.00 USD instead of 0.00 USD;")


Shape = Callable[[int], float]


def weekly(usd: float, growth: float = 1.0, weekend: float = 0.4) -> Shape:
    return lambda day: usd * growth**day * (weekend if day % 7 > 4 else 1.0)


SHAPES: dict[str, Shape] = {
    "even": weekly(50, weekend=1.0),
    "weekly": weekly(50),
    "weekly, growing 1.5% a day": weekly(30, 1.015),
    "growing 4% a day": weekly(5, 1.04, weekend=1.0),
    "weekly, shrinking 1.5% a day": weekly(80, 0.985),
    "little": weekly(8),
}
SEEDS, LENGTH, SPIKES = 12, 70, 3


def tried(noise: float, times: int) -> tuple[float, float, float]:
    """Recall, precision, and false alarms in 100 days, over all shapes of series."""
    rights = finds = quiet = spikes = 0
    for name, shape in SHAPES.items():
        for seed in range(SEEDS):
            rng = random.Random(f"{name} {seed} {noise} {times}")
            amounts = [shape(day) * math.exp(rng.gauss(0, noise)) for day in range(LENGTH)]
            at = set(rng.sample(range(8, LENGTH), SPIKES))
            hits = set(found([a * times if day in at else a for day, a in enumerate(amounts)]))
            rights += len(hits & at)
            finds += len(hits)
            spikes += SPIKES
            quiet += LENGTH - 8 - SPIKES
    return rights / spikes, rights / finds, 100 * (finds - rights) / quiet


@pytest.mark.parametrize(
    ("noise", "recalls", "false_alarms"),
    [
        (0.1, {2: 0.8, 3: 0.95, 5: 0.97}, 0.15),
        (0.2, {2: 0.35, 3: 0.75, 5: 0.93}, 0.5),
        (0.3, {2: 0.15, 3: 0.4, 5: 0.8}, 0.9),
    ],
)
def test_how_often_it_is_right(
    noise: float, recalls: dict[int, float], false_alarms: float, table: list[str]
) -> None:
    """Noise is how far a day is off by chance: one standard deviation."""
    for times, least in recalls.items():
        recall, precision, alarms = tried(noise, times)
        table.append(
            f"anomalies, days off by {noise:.0%}, spikes of {times}x: "
            f"recall {recall:.2f}, precision {precision:.2f}, "
            f"false alarms in 100 days {alarms:.2f}"
        )
        assert least <= recall
        assert alarms <= false_alarms
        assert precision >= (0.6 if times == 2 else 0.8)
