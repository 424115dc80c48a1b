"""Which month a report is about, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from costmw.errors import ConfigError
from costmw.periods import hour_start, midnight, next_month


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a time zone, as it is at one moment; `stop` is exclusive.

    The time before, from `previous_start` to `previous_stop`, is the whole month before, or
    as much of it as has passed of a month that goes on, in whole hours.
    """

    first: date
    start: datetime
    stop: datetime
    previous_start: datetime
    previous_stop: datetime
    now: datetime
    zone: ZoneInfo

    @property
    def goes_on(self) -> bool:
        """Whether it is not over yet."""
        return self.now < self.stop

    @property
    def name(self) -> str:
        """As in `October 2026`."""
        return f"{self.first:%B %Y}"


def month_of(text: str, now: datetime, zone: ZoneInfo) -> Month:
    """The month that `text` names as YYYY-MM; without any the one before this.

    Raises:
        ConfigError: when there is no such month, or it has not begun.
    """
    this_month = now.astimezone(zone).date().replace(day=1)
    first = _first_day(text) if text else _month_before(this_month)
    if first > this_month:
        raise ConfigError(f"month is {text!r}, which has not begun; give this one or an older one")
    start, stop = midnight(first, zone), midnight(next_month(first), zone)
    before = midnight(_month_before(first), zone)
    passed = min(now - start + timedelta(minutes=30), stop - start)
    until = start if now >= stop else min(hour_start(before + passed, zone), start)
    return Month(first, start, stop, before, until, now.astimezone(UTC), zone)


def _first_day(text: str) -> date:
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        first = date.min
    if not date(1970, 2, 1) <= first <= date(9000, 1, 1):
        raise ConfigError(f"month is {text!r}; use a year and a month, as 2026-10")
    return first


def _month_before(first: date) -> date:
    return (first - timedelta(days=1)).replace(day=1)
