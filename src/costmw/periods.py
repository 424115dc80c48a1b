"""Days, weeks and months in a time zone, as spans of UTC."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Granularity = Literal["hour", "day", "month"]

_HOUR = timedelta(hours=1)
_QUARTER = timedelta(minutes=15)


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """When a day begins in `zone`, as UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def period_span(
    period: Literal["day", "week", "month", "total"], at: datetime, zone: ZoneInfo
) -> tuple[datetime, datetime]:
    """The period that `at` falls in: its start (inclusive) and stop (exclusive), in UTC.

    Weeks begin on Monday. `total` is all of time.
    """
    today = at.astimezone(zone).date()
    match period:
        case "day":
            return midnight(today, zone), midnight(today + timedelta(days=1), zone)
        case "week":
            monday = today - timedelta(days=today.weekday())
            return midnight(monday, zone), midnight(monday + timedelta(days=7), zone)
        case "month":
            first = today.replace(day=1)
            return midnight(first, zone), midnight(next_month(first), zone)
        case "total":
            return datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def next_month(first: date) -> date:
    """The first day of the month after the one that `first` is in."""
    return (first.replace(day=28) + timedelta(days=4)).replace(day=1)


def spans(start: datetime, stop: datetime, every: Granularity, zone: ZoneInfo) -> list[datetime]:
    """The starts of all hours, days or months from `start` to before `stop`, in UTC.

    The first is `start` itself, even inside of a day. A day has 23 or 25 hours where
    the clocks change.
    """
    return [start, *(moment for moment in _marks(start, every, zone, stop) if moment > start)]


def _marks(
    start: datetime, every: Granularity, zone: ZoneInfo, stop: datetime
) -> Iterator[datetime]:
    day = start.astimezone(zone).date()
    if every == "hour":
        moment = hour_start(start, zone)
        while moment < stop:
            yield moment
            moment = hour_start(moment + _HOUR, zone)
        return
    if every == "month":
        day = day.replace(day=1)
    while (moment := midnight(day, zone)) < stop:
        yield moment
        day = next_month(day) if every == "month" else day + timedelta(days=1)


def day_start(moment: datetime, zone: ZoneInfo) -> datetime:
    """When the day in `zone` began, as UTC."""
    return midnight(moment.astimezone(zone).date(), zone)


def day_stop(moment: datetime, zone: ZoneInfo) -> datetime:
    """When the day in `zone` ends, as UTC."""
    return midnight(moment.astimezone(zone).date() + timedelta(days=1), zone)


def hour_start(moment: datetime, zone: ZoneInfo) -> datetime:
    """When the hour on the wall began, or when the clocks were changed in the middle of it.

    Zones may be half an hour off, or change by that.
    """
    wall = moment.astimezone(zone)
    start = moment - timedelta(
        minutes=wall.minute, seconds=wall.second, microseconds=wall.microsecond
    )
    if start.astimezone(zone).utcoffset() == wall.utcoffset():
        return start
    # Clocks change at quarters of an hour, at the finest.
    changed = moment - timedelta(
        minutes=moment.minute % 15, seconds=moment.second, microseconds=moment.microsecond
    )
    while (changed - _QUARTER).astimezone(zone).utcoffset() == wall.utcoffset():
        changed -= _QUARTER
    return changed
