"""What a view of the ledger is asked, and which span of time that is at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.errors import ConfigError
from costmw.periods import Granularity, midnight, next_month
from costmw.store.base import Filter

RangeName = Literal["today", "7d", "30d", "90d", "12m", "month", "last-month", "custom", "all"]
Every = Literal["auto", "hour", "day", "month"]
Compare = Literal["previous", "none"]
Metric = Literal["cost", "calls", "tokens", "cost_per_call", "cost_per_request"]

AUTO = "auto"
"""Groups by the first common tag that is in use, or else by model."""

MOST_POINTS = 800
"""Spans of time in one answer at most."""

TOP = 9
"""Values in one answer unless asked otherwise."""

MOST_VALUES = 50
"""Values in one answer at most; the rest is summed."""

HOURS_UP_TO = 2
"""Days of a range that is told by the hour unless asked otherwise."""

DAYS_UP_TO = 100
"""Days of a range that is told by the day unless asked otherwise."""

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2999, 12, 31)
"""What a range may begin and end with."""

_LAST_DAYS = {"today": 1, "7d": 7, "30d": 30, "90d": 90}
_HALF_AN_HOUR = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the calls in a range of days.

    `first` and `stop` are days of `zone`, `stop` exclusive, for the range "custom" only;
    `zone` is an IANA name, None for the time zone of the ledger. `by` is what values are of: a
    name of `DIMENSIONS`, `tag:<key>`, None for no grouping, or `AUTO`. They are ranked by
    `metric`, and `top` of them are named.
    """

    range: RangeName = "30d"
    first: date | None = None
    stop: date | None = None
    zone: str | None = None
    every: Every = "auto"
    compare: Compare = "previous"
    filters: tuple[Filter, ...] = ()
    by: str | None = AUTO
    metric: Metric = "cost"
    top: int = TOP


@dataclass(frozen=True, slots=True)
class Frame:
    """The span of time of a question, and the one that it is compared with.

    `previous` ends where the span has come to by now, in whole hours, which rollups have.
    """

    start: datetime
    stop: datetime
    every: Granularity
    zone: ZoneInfo
    previous: tuple[datetime, datetime] | None


def frame_of(question: Question, now: datetime, zone: ZoneInfo) -> Frame:
    """The span of time that a question is about, if it is asked `now`.

    `zone` is the ledger's, for questions without one.

    Raises:
        ConfigError: when the range makes no sense, or has too many hours or days in it.
    """
    zone = ZoneInfo(question.zone) if question.zone else zone
    today = now.astimezone(zone).date()
    first, stop, before = _days_of(question, today)
    every = _every_of(question.every, first, stop)
    if question.range != "all":
        _check_points(every, first, stop)
    previous = None
    if question.compare == "previous" and before is not None:
        previous = _previous(before, first, stop, now, zone)
    return Frame(midnight(first, zone), midnight(stop, zone), every, zone, previous)


def _days_of(question: Question, today: date) -> tuple[date, date, date | None]:
    """The first day, the day after the last one, and the first one to compare with."""
    tomorrow, this_month = today + timedelta(days=1), today.replace(day=1)
    match question.range:
        case "12m":
            first = _months_before(this_month, 11)
            return first, tomorrow, _months_before(first, 12)
        case "month":
            return this_month, tomorrow, _months_before(this_month, 1)
        case "last-month":
            first = _months_before(this_month, 1)
            return first, this_month, _months_before(first, 1)
        case "custom":
            return _custom(question)
        case "all":
            return FIRST_DAY, LAST_DAY, None
        case _:
            days = timedelta(days=_LAST_DAYS[question.range])
            return tomorrow - days, tomorrow, tomorrow - 2 * days


def _custom(question: Question) -> tuple[date, date, date | None]:
    first, stop = question.first, question.stop
    if first is None or stop is None:
        raise ConfigError("range=custom needs from and to, as YYYY-MM-DD")
    if not FIRST_DAY <= first < stop <= LAST_DAY:
        raise ConfigError(f"to must be after from, both from {FIRST_DAY} to {LAST_DAY}")
    length = stop - first
    return first, stop, first - length if first - FIRST_DAY >= length else None


def _months_before(first: date, months: int) -> date:
    years, month = divmod(first.year * 12 + first.month - 1 - months, 12)
    return date(years, month + 1, 1)


def _every_of(every: Every, first: date, stop: date) -> Granularity:
    if every != "auto":
        return every
    days = (stop - first).days
    return "hour" if days <= HOURS_UP_TO else "day" if days <= DAYS_UP_TO else "month"


def _check_points(every: Granularity, first: date, stop: date) -> None:
    days = (stop - first).days
    points = {"hour": days * 24, "day": days, "month": days // 31}[every]
    if points > MOST_POINTS:
        raise ConfigError(
            f"every={every} gives {points} points for this range, more than {MOST_POINTS}: "
            "ask for a shorter range, or for day or month"
        )


def _previous(
    before: date, first: date, stop: date, now: datetime, zone: ZoneInfo
) -> tuple[datetime, datetime]:
    start = midnight(first, zone)
    wall = now.astimezone(zone)
    if not first <= wall.date() < stop:
        return midnight(before, zone), start
    that_day = _same_day(before, first, wall.date())
    # By the clock on the wall, to the nearest hour.
    to_the_hour = wall + _HALF_AN_HOUR
    hour = datetime(that_day.year, that_day.month, that_day.day, to_the_hour.hour, tzinfo=zone)
    until = hour + (to_the_hour.date() - wall.date())
    return midnight(before, zone), min(until.astimezone(UTC), start)


def _same_day(before: date, first: date, today: date) -> date:
    """The day that lies in the time before as `today` does in the time from `first` on."""
    if before.day == first.day == 1 and first.year - before.year == 1 and first != today:
        months = (today.year - first.year) * 12 + today.month - first.month
        month = _months_before(before, -months)
        return min(month.replace(day=1) + timedelta(days=today.day - 1), next_month(month))
    return before + (today - first)
