"""Days and hours that cost far more than is usual, and what they are likely due to.

First `peaks` finds what stands out in what everything cost; then `explained` looks for the
value of a dimension that a peak is likely due to. So values are asked for where there is a
peak, and not otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.money import PICO, from_pico
from costmw.usual import Usual, first_spend, usual_day, usual_hour

FLOOR_PICO_USD = PICO
"""By how much a day or hour must exceed the usual one: 1 USD."""

LEAST_LIFT = 0.2
"""By how much a value's share of the excess must exceed its usual share to be a cause."""

Every = Literal["day", "hour"]
Kind = Literal["more calls", "dearer calls", "new"]


@dataclass(frozen=True, slots=True)
class Spending:
    """What was spent in each of some days or hours, in pico-USD, and in how many calls."""

    pico_usd: Sequence[int]
    calls: Sequence[int]


@dataclass(frozen=True, slots=True)
class Peak:
    """A day or hour that stands out; amounts in pico-USD.

    `position` is which one it is of those that were asked about. `score` is how many usual
    deviations it lies above `usual`.
    """

    position: int
    every: Every
    usual: int
    spent: int
    score: float

    @property
    def excess(self) -> int:
        """What was spent beyond the usual, in pico-USD."""
        return self.spent - self.usual


@dataclass(frozen=True, slots=True)
class Cause:
    """The value that a peak is likely due to, and its own excess in pico-USD.

    `value` is None for the calls without one.
    """

    by: str
    value: str | None
    excess: int


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A peak, what it is likely due to, and whether calls were more, dearer, or new.

    `cause` is None when everything rose alike.
    """

    peak: Peak
    cause: Cause | None
    kind: Kind


class Timeline:
    """Days or hours that follow each other, in an accounting time zone.

    Days are whole: one that goes on is cheaper than it will be. The last hour may go on,
    since an hour that is too dear is to be noticed before it is over.
    """

    def __init__(self, starts: Sequence[datetime], every: Every, zone: ZoneInfo) -> None:
        self.every: Every = every
        self.starts = [start.astimezone(zone) for start in starts]
        self._weekdays = [start.weekday() for start in self.starts]

    def usual(
        self, amounts: Sequence[int], position: int, *, began: int, floor: int = 0
    ) -> Usual | None:
        """What is usual at `position` for such amounts; None with too little before it."""
        if self.every == "day":
            return usual_day(amounts, self._weekdays, position, began=began, floor=floor)
        return usual_hour(amounts, self.starts, position, began=began, floor=floor)


def peaks(
    timeline: Timeline,
    spending: Spending,
    *,
    since: int = 0,
    floor_pico_usd: int = FLOOR_PICO_USD,
) -> list[Peak]:
    """What stands out from position `since` on, oldest first.

    What was before says what is usual: 56 days before a day, 14 before an hour.
    """
    amounts = spending.pico_usd
    began = first_spend(amounts)
    found = []
    for position in range(since, len(amounts)):
        if amounts[position] <= floor_pico_usd:
            continue
        usual = timeline.usual(amounts, position, began=began, floor=floor_pico_usd)
        if usual is not None and amounts[position] > usual.limit:
            level = round(usual.level)
            spread = max(usual.spread, floor_pico_usd / 10, 1.0)
            score = (amounts[position] - level) / spread
            found.append(Peak(position, timeline.every, level, amounts[position], score))
    return found


def explained(
    peak: Peak,
    timeline: Timeline,
    spending: Spending,
    by: Mapping[str, Mapping[str | None, Spending]],
) -> Anomaly:
    """A peak with its likely cause: the value whose share of the excess rose most.

    `by` holds what each value of some dimensions spent, along the same timeline: `"model"`,
    `"tag:feature"`. A value that always makes up most of the cost explains nothing by making
    up most of a peak.
    """
    began = first_spend(spending.pico_usd)
    best: tuple[float, Cause, Spending] | None = None
    for dimension, values in by.items():
        for value, own in values.items():
            usual = _level(timeline, own.pico_usd, peak.position, began)
            excess = own.pico_usd[peak.position] - usual
            lift = excess / peak.excess - (usual / peak.usual if peak.usual else 0.0)
            if lift >= LEAST_LIFT and (best is None or lift > best[0]):
                best = lift, Cause(dimension, value, round(excess)), own
    whose = spending if best is None else best[2]
    return Anomaly(
        peak, None if best is None else best[1], _kind(timeline, whose, peak.position, began)
    )


def _kind(timeline: Timeline, own: Spending, position: int, began: int) -> Kind:
    """What the excess is more of: calls, or cost of a call."""
    if not any(own.pico_usd[:position]):
        return "new"
    calls = own.calls[position]
    usual = _level(timeline, own.pico_usd, position, began)
    usual_calls = _level(timeline, own.calls, position, began)
    if not usual_calls or not calls:
        return "more calls"
    more, whole = calls / usual_calls, own.pico_usd[position] / usual if usual else math.inf
    # Cost rises by the product of both: whichever rose by the larger factor is told of.
    return "more calls" if more * more >= whole else "dearer calls"


def _level(timeline: Timeline, amounts: Sequence[int], position: int, began: int) -> float:
    found = timeline.usual(amounts, position, began=began)
    return found.level if found else 0.0


def in_words(anomaly: Anomaly) -> str:
    """One sentence of what happened: `"3.2 times the usual: 48.12 USD ..."`."""
    peak, cause = anomaly.peak, anomaly.cause
    times = f"{peak.spent / peak.usual:.1f} times the usual" if peak.usual else "Nothing is usual"
    amounts = f"{_cents(peak.spent)} USD instead of {_cents(peak.usual)} USD"
    if cause is None:
        why = f"everything rose alike, by {anomaly.kind}"
    else:
        name = cause.by.removeprefix("tag:")
        whom = f"calls without {name}" if cause.value is None else f"{name} {cause.value}"
        new = " new:" if anomaly.kind == "new" else ""
        how = "" if anomaly.kind == "new" else f", {anomaly.kind}"
        why = f"mostly{new} {whom} (+{_cents(cause.excess)} USD{how})"
    return f"{times}: {amounts}; {why}."


def _cents(pico: int) -> str:
    return f"{from_pico(pico):.2f}"
