"""Which cells of the rollups answer a question, and what is left to ask of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.periods import day_start, hour_start, spans
from costmw.store.base import Filter, Query
from costmw.store.filters import filters_of, needs_value
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
class Key:
    """One key of facets that a question names, and what calls must have of it.

    `name` is `tag:<key>`, `api_key_id`, or `KIND`, whose filters are of names in `OF_KIND`.
    """

    name: str
    filters: tuple[Filter, ...]

    @property
    def is_required(self) -> bool:
        """Whether only calls count that have a value. Every call has a kind."""
        return self.name == KIND or any(map(needs_value, self.filters))

    @property
    def is_forbidden(self) -> bool:
        """Whether only calls count that have no value."""
        return self.name != KIND and any(wanted.op == "unset" for wanted in self.filters)

    @property
    def left_out(self) -> tuple[Filter, ...]:
        """What calls with a value do not count; of a key that is not required."""
        if self.is_forbidden:
            return ()
        return (Filter(self.name, "is", tuple(v for f in self.filters for v in f.values)),)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a question is answered.

    `keys` are those that calls are grouped or filtered by. `buckets` are (position,
    minutes an hour or day has, when it begins). `rolled` are the spans that they cover, and
    `rows` those that only rows can tell of.
    """

    keys: tuple[Key, ...]
    buckets: tuple[tuple[int, int, int], ...]
    rolled: tuple[Range, ...]
    rows: tuple[Range, ...]

    @property
    def is_of_rows(self) -> bool:
        """Whether rows tell of days, and of more of them than cells do."""
        of_rows = _length(self.rows)
        return of_rows > _FEW_DAYS and of_rows > _length(self.rolled)


_FEW_DAYS = timedelta(days=2)
"""What rows may tell of beside any cells: the first day of a span and the last one."""


def _length(ranges: Sequence[Range]) -> timedelta:
    return sum((span.stop - span.start for span in ranges), timedelta())


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
        _is_kept,
        hours=lambda widths: _fits(widths, 1, PAIRED_VALUES),
        width_of=width_of,
    )


def finest(
    query: Query, width_of: Callable[[str], int]
) -> tuple[Query, Literal["hour", "day"] | None]:
    """How finely the rollups say when there are calls, for a question of filters alone.

    Where they do not for all filters together the question comes back with fewer, which more
    calls pass, and for days alone; None when they say it for none.
    """
    wanted = filters_of(query)
    for count in range(len(wanted), 0, -1):
        less = replace(query, scope={}, where={}, filters=tuple(wanted[:count]))
        widths = [width_of(key.name) for key in _keys_of(less)]
        if count == len(wanted) and _fits(widths, 1, PAIRED_VALUES):
            return less, "hour"
        if _is_kept(widths):
            return less, "day"
    return query, None


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


def _is_kept(widths: Sequence[int]) -> bool:
    return _fits(widths, 1, ROLLED_VALUES) or _fits(widths, 2, PAIRED_VALUES)


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
    keys = _keys_of(query)
    if any(key.is_required and key.is_forbidden for key in keys):
        return Plan(keys, (), (), ())
    widths = [width_of(key.name) for key in keys]
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
    return Plan(keys, tuple(buckets), tuple(rolled), tuple(rows))


def _keys_of(query: Query) -> tuple[Key, ...]:
    filters: dict[str, list[Filter]] = {_key_of(name): [] for name in query.group_by}
    for wanted in filters_of(query):
        filters.setdefault(_key_of(wanted.key), []).append(wanted)
    return tuple(Key(name, tuple(wanted)) for name, wanted in filters.items())


def _key_of(name: str) -> str:
    return KIND if name in OF_KIND else name


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
