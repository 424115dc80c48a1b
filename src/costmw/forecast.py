"""How spend goes on: from the days so far to the days to come, with a band of 80%.

A day is expected to cost what its weekday has cost on average, plus a trend. Both are fitted
by least squares; the trend is held back towards none, the more the fewer days speak for it.
The band is that of a sum of days to come: their own scatter, and what the fit leaves open.
The same days always give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

DAYS_AT_MOST = 56
"""Days that are looked back at."""

DAYS_WITH_SPEND = 5
"""Days that must have cost something, or nothing is foreseen."""

WEEKDAYS_FROM = 14
"""Days from which on weekdays are told apart."""

USUAL_TREND = 0.02
"""How much spend usually grows or shrinks in a day, as a part of it: one standard deviation."""

MOST_INFLATION = 4.0
"""How far the scatter of days that follow each other is trusted to add up."""

Inputs = tuple[tuple[float, ...], ...]
"""What each day is foreseen from."""

_Z80 = 1.2815515655446004
"""A tenth of a normal distribution lies above so many standard deviations."""


@dataclass(frozen=True, slots=True)
class DayAhead:
    """A day to come: its weekday (Monday is 0), and the share of it that is left."""

    weekday: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the days ahead cost: each of them, and all together, within bands of 80%.

    `bands` are those of the single days, from and to.
    """

    days: tuple[float, ...]
    bands: tuple[tuple[float, float], ...]
    total: float
    low: float
    high: float


def foresee(
    history: Sequence[float], first_weekday: int, ahead: Sequence[DayAhead]
) -> Foreseen | None:
    """Foresee the cost of days to come from that of whole days, oldest first.

    `first_weekday` is the one of the first day (Monday is 0). None when too few days have
    cost anything.
    """
    costs = list(history)[-DAYS_AT_MOST:]
    first_weekday += len(history) - len(costs)
    while costs and not costs[0]:
        del costs[0]
        first_weekday += 1
    if sum(1 for cost in costs if cost) < DAYS_WITH_SPEND:
        return None
    count = len(costs)
    by_weekday = count >= WEEKDAYS_FROM
    fit = _fit(
        costs,
        tuple(_inputs(first_weekday + day, by_weekday, day - count) for day in range(count)),
    )
    inputs = [_inputs(day.weekday, by_weekday, number) for number, day in enumerate(ahead)]
    shares = [day.share for day in ahead]
    days = tuple(
        share * max(_product(fit.weights, one), 0.0)
        for share, one in zip(shares, inputs, strict=True)
    )
    summed = [_product(shares, [one[n] for one in inputs]) for n in range(len(fit.weights))]
    deviations = _t80(count - len(fit.weights) + 1)
    bands = tuple(
        _band(day, deviations * fit.deviation([share * x for x in one], share))
        for day, share, one in zip(days, shares, inputs, strict=True)
    )
    total = sum(days)
    low, high = _band(total, deviations * fit.deviation(summed, sum(shares)))
    return Foreseen(days, bands, total, low, high)


def _band(cost: float, reach: float) -> tuple[float, float]:
    return max(cost - reach, 0.0), cost + reach


def days_until(limit: float, foreseen: Foreseen) -> float | None:
    """After how many of the days ahead a limit is reached; None when they stay below it.

    A part of a day counts as that part of its cost.
    """
    left = limit
    for number, cost in enumerate(foreseen.days):
        if cost and cost >= left:
            return number + max(left, 0.0) / cost
        left -= cost
    return None


@dataclass(frozen=True, slots=True)
class _Fit:
    """Weights of the inputs, the variance of a day, and the inverse that errors follow from."""

    weights: list[float]
    variance: float
    inverse: list[list[float]]

    def deviation(self, inputs: Sequence[float], days: float) -> float:
        """The standard deviation of so many days, whose inputs are summed."""
        of_fit = _product([_product(row, inputs) for row in self.inverse], inputs)
        return math.sqrt(self.variance * (days + of_fit))


def _inputs(weekday: int, by_weekday: bool, day: int) -> tuple[float, ...]:
    """What a day is foreseen from: its weekday, and how many days from today it is."""
    level = [float(weekday % 7 == n) for n in range(7)] if by_weekday else [1.0]
    return *level, float(day)


def _fit(costs: Sequence[float], inputs: Inputs) -> _Fit:
    free = _least_squares(costs, inputs, held_back=0.0)
    usual = USUAL_TREND * sum(costs) / len(costs)
    return _least_squares(costs, inputs, held_back=free.variance / usual**2)


def _least_squares(costs: Sequence[float], inputs: Inputs, *, held_back: float) -> _Fit:
    """Fit weights; the last one is drawn towards 0 as if so many squares spoke for that."""
    width = len(inputs[0])
    crossed = [list(row) for row in _crossed(inputs)]
    crossed[-1][-1] += held_back
    inverse = _inverted(crossed)
    projected = [_product([one[n] for one in inputs], costs) for n in range(width)]
    weights = [_product(row, projected) for row in inverse]
    rests = [cost - _product(weights, one) for cost, one in zip(costs, inputs, strict=True)]
    squares = _product(rests, rests)
    variance = squares / max(len(costs) - width, 1)
    if squares:
        # Days that are alike one after the other add up to more than their scatter says.
        alike = _product(rests[1:], rests[:-1]) / squares
        variance *= min(max((1 + alike) / max(1 - alike, 0.1), 1.0), MOST_INFLATION)
    return _Fit(weights, variance, inverse)


@lru_cache(maxsize=64)
def _crossed(inputs: Inputs) -> tuple[tuple[float, ...], ...]:
    """The products of all inputs with each other: the same for all who look back so far."""
    columns = list(zip(*inputs, strict=True))
    return tuple(tuple(_product(row, column) for column in columns) for row in columns)


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _inverted(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse of a small matrix, by elimination; it has one, since all weekdays occur."""
    size = len(matrix)
    rows = [[*row, *(float(n == m) for m in range(size))] for n, row in enumerate(matrix)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda n: abs(rows[n][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = rows[column][column]
        rows[column] = [value / scale for value in rows[column]]
        for n in range(size):
            if n != column and (factor := rows[n][column]):
                rows[n] = [a - factor * b for a, b in zip(rows[n], rows[column], strict=True)]
    return [row[size:] for row in rows]


def _t80(freedom: int) -> float:
    """How far a tenth lies above the mean, when the scatter is estimated from few days."""
    return _Z80 + (_Z80**3 + _Z80) / (4 * max(freedom, 1))
