"""Whether this hour costs far more than the same hour of the days before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from costmw.answering import cost_of
from costmw.periods import hour_start, midnight, spans
from costmw.store.base import Query, Snapshot, Totals
from costmw.usual import HOURS_BACK, first_spend, usual_hour


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
    first = midnight(today - timedelta(days=HOURS_BACK), zone)
    stop = hour_start(hour + timedelta(hours=1), zone)
    hours = spans(first, stop, "hour", zone)
    found = view.totals(Query(first, stop, buckets=tuple(hours))).groups
    spending = [cost_of(found.get((n,), Totals())) for n in range(len(hours))]
    usual = usual_hour(
        spending,
        [moment.astimezone(zone) for moment in hours],
        hours.index(hour),
        began=first_spend(spending),
        floor=floor_pico_usd,
    )
    if usual is None or spending[hours.index(hour)] <= usual.limit:
        return None
    return UnusualHour(
        hour, spending[hours.index(hour)], round(usual.level), usual.most, usual.days
    )
