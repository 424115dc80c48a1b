"""Which cells of the rollups answer a question, and what is left to ask of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from costmw.periods import day_start, hour_start, spans
from costmw.store.base import Query
from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES, minutes

HOUR = 60
DAY = 1440

KIND = "kind"
OF_KIND = ("model", "provider", "operation", "status", "cost_source")
"""Dimensions that the kind of a call says."""


@dataclass(frozen=True, slots=True)
class Range:
    """A span of time, and the position of the bucket of the question that it belongs to."""

    position: int
    start: datetime
    stop: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """How a question is answered.

    `filters` are values that calls must have, by key; `keys` those that they are grouped
    by beside. `buckets` are (position, minutes an hour or day has, when it begins).
    `rolled` are the spans that they cover, and `rows` those that only rows can tell of.
    """

    filters: Mapping[str, str]
    keys: tuple[str, ...]
    buckets: tuple[tuple[int, int, int], ...]
    rolled: tuple[Range, ...]
    rows: tuple[Range, ...]


def ranges_of(query: Query) -> tuple[Range, ...]:
    """The spans that a question asks about, one for each of its buckets."""
    starts = query.buckets or (query.start,)
    stops = (*starts[1:], query.stop)
    return tuple(
        Range(position, start, stop)
        for position, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )


def plan(
    query: Query, asked: Sequence[Range], zone: ZoneInfo, width_of: Callable[[str], int]
) -> Plan | None:
    """Plan an answer from the rollups for some spans; None when they have none.

    `width_of` says how many values a key has.
    """
    return _plan(
        query,
        asked,
        zone,
        lambda widths: _fits(widths, 1, ROLLED_VALUES) or _fits(widths, 2, PAIRED_VALUES),
        hours=lambda widths: _fits(widths, 1, PAIRED_VALUES),
        width_of=width_of,
    )


def plan_durations(
    query: Query, asked: Sequence[Range], zone: ZoneInfo, width_of: Callable[[str], int]
) -> Plan | None:
    """The same for how long calls took: histograms are kept by the day, and not in pairs."""
    return _plan(
        query,
        asked,
        zone,
        lambda widths: _fits(widths, 1, PAIRED_VALUES),
        hours=lambda _: False,
        width_of=width_of,
    )


def _fits(widths: Sequence[int], keys: int, values: int) -> bool:
    return len(widths) <= keys and max(widths, default=0) <= values


def _plan(
    query: Query,
    asked: Sequence[Range],
    zone: ZoneInfo,
    is_kept: Callable[[Sequence[int]], bool],
    hours: Callable[[Sequence[int]], bool],
    width_of: Callable[[str], int],
) -> Plan | None:
    filters = {f"tag:{key}": value for key, value in (*query.scope.items(), *query.where.items())}
    if any(query.where.get(key, value) != value for key, value in query.scope.items()):
        return Plan(filters, (), (), (), ())
    keys = _keys_of(query, filters)
    widths = [width_of(key) for key in (*filters, *keys)]
    if not is_kept(widths):
        return None
    buckets: list[tuple[int, int, int]] = []
    rolled: list[Range] = []
    rows: list[Range] = []
    for span in asked:
        for every, part in _parts(span, zone, hours=hours(widths)):
            if every is None:
                rows.append(part)
                continue
            rolled.append(part)
            marks = spans(part.start, part.stop, "hour" if every == HOUR else "day", zone)
            buckets += [(part.position, every, minutes(moment)) for moment in marks]
    return Plan(filters, keys, tuple(buckets), tuple(rolled), tuple(rows))


def _keys_of(query: Query, filters: Mapping[str, str]) -> tuple[str, ...]:
    keys = (KIND if name in OF_KIND else name for name in query.group_by)
    return tuple(dict.fromkeys(key for key in keys if key not in filters))


def _parts(asked: Range, zone: ZoneInfo, *, hours: bool) -> Iterator[tuple[int | None, Range]]:
    """Cut a span into whole days, whole hours where they will do, and what is left."""
    first_day = _up(asked.start, zone, day_start, timedelta(hours=1))
    last_day = day_start(asked.stop, zone)
    if first_day < last_day:
        yield from _edge(Range(asked.position, asked.start, first_day), zone, hours=hours)
        yield DAY, Range(asked.position, first_day, last_day)
        yield from _edge(Range(asked.position, last_day, asked.stop), zone, hours=hours)
    else:
        yield from _edge(asked, zone, hours=hours)


def _edge(asked: Range, zone: ZoneInfo, *, hours: bool) -> Iterator[tuple[int | None, Range]]:
    first, last = asked.stop, asked.stop
    if hours:
        first = _up(asked.start, zone, hour_start, timedelta(minutes=15))
        last = hour_start(asked.stop, zone)
    if first < last:
        pieces = [(None, asked.start, first), (HOUR, first, last), (None, last, asked.stop)]
    else:
        pieces = [(None, asked.start, asked.stop)]
    for every, start, stop in pieces:
        if start < stop:
            yield every, Range(asked.position, start, stop)


def _up(
    moment: datetime,
    zone: ZoneInfo,
    start_of: Callable[[datetime, ZoneInfo], datetime],
    step: timedelta,
) -> datetime:
    """The next beginning of an hour or day, or the moment itself when it is one."""
    start = later = start_of(moment, zone)
    if start == moment:
        return moment
    while (found := start_of(later, zone)) == start:
        later += step
    return found
