"""What a period has cost so far."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.answering import sums_of
from costmw.answers import Spend
from costmw.periods import hour_start, period_span
from costmw.reports.once import Once
from costmw.store.base import Filter, Query, TagScope, Totals

_HALF_AN_HOUR = timedelta(minutes=30)


def spend_of(
    once: Once,
    period: Literal["day", "week", "month"],
    now: datetime,
    zone: ZoneInfo,
    scope: TagScope,
    filters: tuple[Filter, ...] = (),
) -> Spend:
    """What the current period has cost so far, beside the same time of the one before."""
    start, stop = period_span(period, now, zone)
    before, _ = period_span(period, start - timedelta(seconds=1), zone)
    # In whole hours, which the rollups have.
    until = min(hour_start(before + (now - start) + _HALF_AN_HOUR, zone), start)

    def total(first: datetime, last: datetime) -> Totals:
        found = once.totals(Query(first, last, scope=scope, filters=filters))
        return found.groups.get((), Totals())

    return Spend(
        period=period,
        start=start,
        stop=stop,
        time_zone=zone.key,
        sums=sums_of(total(start, stop)),
        previous=sums_of(total(before, until)),
        previous_start=before,
        previous_stop=until,
    )
