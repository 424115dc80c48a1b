"""Where calls are that pass some filters: spans of time that the rollups have any in.

A page of calls is read from there, newest first; what lies between is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from zoneinfo import ZoneInfo

from costmw.periods import Granularity, day_start, day_stop, spans
from costmw.store.base import Query
from costmw.store.rollup_plan import Range, ranges_of

CallsOf = Callable[[Query], Sequence[int]]
"""The positions of a question's buckets that have any calls, ascending."""

_DAYS_AT_FIRST = 32
_TICK = timedelta(microseconds=1)


def spans_with_calls(
    query: Query, zone: ZoneInfo, calls_of: CallsOf, *, hours: bool
) -> Iterator[Range]:
    """Spans of a question's time from the newest on: days that have calls, or hours of them."""

    def parts(whole: Range, every: Granularity) -> Iterator[Range]:
        starts = tuple(spans(whole.start, whole.stop, every, zone))
        asked = replace(query, start=whole.start, stop=whole.stop, buckets=starts)
        found = ranges_of(asked)
        return (found[position] for position in reversed(calls_of(asked)))

    # Whole days, which the rollups have; fewer first, since a page may be full soon.
    beginning, days = day_start(query.start, zone), _DAYS_AT_FIRST
    stop = day_stop(query.stop - _TICK, zone)
    while beginning < stop:
        start = max(beginning, day_start(stop - timedelta(days=days), zone))
        for day in parts(Range(0, start, stop), "day"):
            for part in parts(day, "hour") if hours else (day,):
                found = Range(0, max(part.start, query.start), min(part.stop, query.stop))
                if found.start < found.stop:
                    yield found
        stop, days = start, days * 4
