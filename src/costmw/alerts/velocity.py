"""Whether this hour costs far more than the same hour of the days before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from costmw.answering import cost_of
from costmw.periods import hour_start, midnight, spans
from costmw.store.base import Query, Snapshot, Totals

DAYS = 14
"""Days that are looked back at."""

DAYS_AT_LEAST = 5
"""Days, from the first that cost anything on, without which nothing is called unusual."""

SPREADS = 6.0
"""How many usual deviations above the usual hour are too many."""

TIMES = 2.0
"""How many times the usual hour is too much, however little hours deviate."""

A_WEEK_AGO = 1.5
"""How many times the same hour a week ago: what comes every Monday surprises nobody."""

_DEVIATION = 1.4826
"""Makes a median deviation comparable with a standard deviation."""


@dataclass(frozen=True, slots=True)
class UnusualHour:
    """An hour that stands out; amounts in pico-USD.

    `usual` is the median of the same hour of `days` days before, `most` the dearest of them.
    """

    hour: datetime
    spent: int
    usual: int
    most: int
    days: int


def unusual_hour(
    view: Snapshot, now: datetime, zone: ZoneInfo, floor_pico_usd: int
) -> UnusualHour | None:
    """This hour, when it stands out by `floor_pico_usd` at least; None otherwise.

    As far as it has come: an hour that is too dear is noticed before it is over.
    """
    hour = hour_start(now, zone)
    today = now.astimezone(zone).date()
    first = midnight(today - timedelta(days=DAYS), zone)
    stop = hour_start(hour + timedelta(hours=1), zone)
    hours = spans(first, stop, "hour", zone)
    found = view.totals(Query(first, stop, buckets=tuple(hours))).groups
    spending = {moment: cost_of(found.get((n,), Totals())) for n, moment in enumerate(hours)}
    began = next((moment for moment, spent in spending.items() if spent), now)
    local = now.astimezone(zone).hour
    before = {
        moment.astimezone(zone).date(): spent
        for moment, spent in spending.items()
        if began <= moment < hour and moment.astimezone(zone).hour == local
    }
    if len(before) < DAYS_AT_LEAST:
        return None
    usual = round(median(before.values()))
    spread = median(abs(spent - usual) for spent in before.values()) * _DEVIATION
    limit = max(
        usual + SPREADS * spread,
        usual * TIMES,
        usual + floor_pico_usd,
        before.get(today - timedelta(days=7), 0) * A_WEEK_AGO,
    )
    if spending[hour] <= limit:
        return None
    return UnusualHour(hour, spending[hour], usual, max(before.values()), len(before))
