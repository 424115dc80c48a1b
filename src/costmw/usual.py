"""What a day or an hour usually costs, and what is too much for it.

A day is compared with its weekday, at the level and the growth of the four weeks before; an
hour with the same hour of the days before. What is usual is a median, and how far it varies a
median too, so that one dear day does not hide the next. Only what was before counts, so that
what was found yesterday is found tomorrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

DAYS_BACK = 56
"""Days by which weekdays are told apart."""

LEVEL_DAYS = 28
"""Days that say how much is usual, and how it grows."""

DAYS_AT_LEAST = 8
"""Days, from the first that cost anything on, without which no day is called unusual."""

DAY_SPREADS = 3.5
"""How many usual deviations above the usual day are too many, where many days are known."""

FEW_DAYS = 3.0
"""How much wider days deviate than a few of them show: twice as far for so many days."""

DAY_TIMES = 1.5
"""How many times the usual day is too much, however little days deviate."""

LEAST_SPREAD = 0.1
"""How far days deviate at the least, as a part of the usual one: few days look steadier."""

WEEKENDS_FROM, WEEKDAYS_FROM = 14, 42
"""Days from which on weekends, and then all weekdays, are told apart."""

HOURS_BACK = 14
"""Days that an hour is compared with."""

HOURS_AT_LEAST = 5
"""Days, from the first that cost anything on, without which no hour is called unusual."""

HOUR_SPREADS = 6.0
"""How many usual deviations above the usual hour are too many."""

HOUR_TIMES = 2.0
"""How many times the usual hour is too much, however little hours deviate."""

A_WEEK_AGO = 1.5
"""How many times the same hour a week ago: what comes every Monday surprises nobody."""

_DEVIATION = 1.4826
"""Makes a median deviation comparable with a standard deviation."""

_SATURDAY = 5


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual, by how much it varies, and the most that is no surprise; `days` tell."""

    level: float
    spread: float
    limit: float
    most: int
    days: int


def first_spend(amounts: Sequence[int]) -> int:
    """The position of the first amount that is not 0; how many they are when there is none."""
    return next((n for n, amount in enumerate(amounts) if amount), len(amounts))


def usual_day(
    amounts: Sequence[int], weekdays: Sequence[int], position: int, *, began: int, floor: int
) -> Usual | None:
    """What the day at `position` usually comes to; None with too few days before it.

    Days before `began` do not count. `floor` is by how much the usual must be exceeded.
    """
    first = max(began, position - DAYS_BACK)
    count = position - first
    if count < DAYS_AT_LEAST:
        return None
    past = amounts[first:position]
    *past_kinds, kind = (_kind_of_day(day, count) for day in weekdays[first : position + 1])
    factors = _factors(past, past_kinds)
    # Each day as it were without its weekday. Spend grows by parts of itself: logarithms.
    plain = [
        (n, math.log(amount / factors[kind]))
        for n, (amount, kind) in enumerate(zip(past, past_kinds, strict=True))
        if amount > 0 and factors[kind] > 0 and n >= count - LEVEL_DAYS
    ]
    if len(plain) * 2 < min(count, LEVEL_DAYS) or not factors[kind]:
        return _usual_of_rare_days(past, floor)
    level, spread = _level(plain, count)
    lately = median(amount for _, amount in plain[-3:])
    usual, lasting = (math.exp(log) * factors[kind] for log in (level, lately))
    deviations = math.exp(DAY_SPREADS * spread * (1 + FEW_DAYS / len(plain)))
    return Usual(
        level=usual,
        spread=usual * spread,
        # What has lasted for two days is the level now.
        limit=max(usual * deviations, max(usual, lasting) * DAY_TIMES, usual + floor),
        most=max(past),
        days=count,
    )


def _usual_of_rare_days(past: Sequence[int], floor: int) -> Usual:
    """Where most days cost nothing, only a day beyond all others is a surprise."""
    most = max(past)
    return Usual(0.0, most * LEAST_SPREAD, max(most * DAY_TIMES, floor), most, len(past))


def _kind_of_day(weekday: int, count: int) -> int:
    """Days of one kind are compared; the more days there are, the more kinds."""
    if count >= WEEKDAYS_FROM:
        return weekday
    return int(weekday >= _SATURDAY) if count >= WEEKENDS_FROM else 0


def _factors(past: Sequence[int], kinds: Sequence[int]) -> dict[int, float]:
    """How much of the usual day each kind of day costs."""
    whole = median(past)
    by_kind: dict[int, list[int]] = {}
    for amount, kind in zip(past, kinds, strict=True):
        by_kind.setdefault(kind, []).append(amount)
    return {kind: median(of) / whole if whole else 1.0 for kind, of in by_kind.items()}


def _level(plain: Sequence[tuple[int, float]], position: int) -> tuple[float, float]:
    """The level at `position`, on a line through the medians of both halves; the spread."""
    half = len(plain) // 2
    (at_early, early), (at_late, late) = (
        (median(n for n, _ in part), median(amount for _, amount in part))
        for part in (plain[:half], plain[half:])
    )
    slope = (late - early) / (at_late - at_early)
    level = median(amount for _, amount in plain)
    middle = median(n for n, _ in plain)
    rests = [abs(amount - level - slope * (n - middle)) for n, amount in plain]
    return level + slope * (position - middle), max(median(rests) * _DEVIATION, LEAST_SPREAD)


def usual_hour(
    amounts: Sequence[int], hours: Sequence[datetime], position: int, *, began: int, floor: int
) -> Usual | None:
    """What the hour at `position` usually comes to; None with too few days before it.

    `hours` are when they begin, on the wall. Hours before `began` do not count. `floor` is by
    how much the usual must be exceeded.
    """
    hour = hours[position]
    today = hour.date()
    first = today - timedelta(days=HOURS_BACK)
    before = {
        hours[n].date(): amounts[n]
        for n in range(began, position)
        if hours[n].hour == hour.hour and first <= hours[n].date() < today
    }
    if len(before) < HOURS_AT_LEAST:
        return None
    level = round(median(before.values()))
    spread = median(abs(amount - level) for amount in before.values()) * _DEVIATION
    limit = max(
        level + HOUR_SPREADS * spread,
        level * HOUR_TIMES,
        level + floor,
        before.get(today - timedelta(days=7), 0) * A_WEEK_AGO,
    )
    return Usual(level, spread, limit, max(before.values()), len(before))
