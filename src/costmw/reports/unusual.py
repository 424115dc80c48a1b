"""Days and hours that cost far more than is usual, among those asked about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from costmw.anomalies import Anomaly, Every, Spending, Timeline, explained, in_words, peaks
from costmw.answering import cost_of, usd
from costmw.answers import Anomaly as Told
from costmw.answers import AnomalyCause
from costmw.periods import day_start, day_stop, hour_start, midnight, spans
from costmw.reports.asked import COMMON_TAGS, Asked
from costmw.usual import DAYS_BACK, HOURS_BACK

DAYS_LOOKED_AT = 100
"""Days that are judged at most, the last ones of what was asked about."""

_HOUR = timedelta(hours=1)


def anomalies_of(asked: Asked) -> list[Told]:
    """What stands out, oldest first: whole days; hours of today where hours are asked about.

    None where the rollups cannot tell: weeks before would have to be read row by row.
    """
    if not asked.is_rolled_up:
        return []
    found = [*_in(asked, "day", *_days(asked))]
    return [*found, *_in(asked, "hour", *_hours(asked))] if asked.frame.every == "hour" else found


def _days(asked: Asked) -> tuple[datetime, datetime, datetime]:
    """Since when to look back, from when to judge, and until when: days that are over."""
    zone = asked.frame.zone
    stop = min(asked.frame.stop, day_start(asked.now, zone))
    earliest = stop.astimezone(zone).date() - timedelta(days=DAYS_LOOKED_AT)
    since = max(asked.frame.start, midnight(earliest, zone))
    first = since.astimezone(zone).date() - timedelta(days=DAYS_BACK)
    return midnight(first, zone), since, stop


def _hours(asked: Asked) -> tuple[datetime, datetime, datetime]:
    """The same for the hours of today, up to the one that goes on."""
    zone = asked.frame.zone
    today = day_start(asked.now, zone)
    first = today.astimezone(zone).date() - timedelta(days=HOURS_BACK)
    stop = min(asked.frame.stop, hour_start(asked.now, zone) + _HOUR)
    return midnight(first, zone), max(asked.frame.start, today), stop


def _in(
    asked: Asked, every: Every, first: datetime, since: datetime, stop: datetime
) -> Iterator[Told]:
    if since >= stop:
        return
    zone = asked.frame.zone
    starts = spans(first, stop, every, zone)
    timeline = Timeline(starts, every, zone)
    total = _spending(asked, starts, stop)[None]
    found = peaks(timeline, total, since=starts.index(since))
    by = {name: _spending(asked, starts, stop, name) for name in _narrow(asked)} if found else {}
    for peak in found:
        start = starts[peak.position]
        end = day_stop(start, zone) if every == "day" else start + _HOUR
        yield _told(explained(peak, timeline, total, by), start, end)


def _narrow(asked: Asked) -> list[str]:
    """What causes are looked for among: keys with values few enough to be told over time."""
    keys = ("model", *(f"tag:{key}" for key in COMMON_TAGS if key in asked.tag_keys))
    return [key for key in keys if asked.is_narrow(key)]


def _spending(
    asked: Asked, starts: Sequence[datetime], stop: datetime, *by: str
) -> dict[str | None, Spending]:
    """What each value cost, and how often it was called, in each span."""
    lines: dict[str | None, tuple[list[int], list[int]]] = {}
    if not by:
        lines[None] = [0] * len(starts), [0] * len(starts)
    found = asked.totals((starts[0], stop), by, buckets=starts).groups
    for (position, *values), sums in found.items():
        value = str(values[0]) if values and values[0] is not None else None
        costs, calls = lines.setdefault(value, ([0] * len(starts), [0] * len(starts)))
        # Corrections may take away more than a day has cost.
        costs[int(position or 0)] = max(cost_of(sums), 0)
        calls[int(position or 0)] = sums.calls
    return {value: Spending(*line) for value, line in lines.items()}


def _told(anomaly: Anomaly, start: datetime, stop: datetime) -> Told:
    peak, cause = anomaly.peak, anomaly.cause
    return Told(
        start=start,
        stop=stop,
        every=peak.every,
        expected_usd=usd(peak.usual),
        cost_usd=usd(peak.spent),
        excess_usd=usd(peak.excess),
        score=round(peak.score, 2),
        cause=None
        if cause is None
        else AnomalyCause(by=cause.by, value=cause.value, excess_usd=usd(cause.excess)),
        kind=anomaly.kind,
        text=in_words(anomaly),
    )
