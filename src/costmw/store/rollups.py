"""Rollups: what events add up to, by hour and day, so that no question scans them all.

A *facet* is one value that calls are grouped by: a tag such as `tenant=acme`, or a *kind*
(provider, model, operation, status and cost source together), or everything. A *cell* is
the sums of one facet, or of a pair of facets, in one hour or day. Pairs answer what is
asked about one value (`tenant=acme` by model), and are kept for keys of few values only.

Cells follow the events: they are derived from them, a slice at a time, and whoever
reads adds the events that no slice has reached yet.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.periods import day_start, hour_start
from costmw.store.base import Totals

EVERYTHING = 0
"""The facet that every call has."""

PAIRED_VALUES = 200
"""Values that a key may have and still be kept by the hour, and in pairs."""

ROLLED_VALUES = 10_000
"""Values that a key may have and still be kept by the day; more are asked of the rows."""

BINS = 128
"""Bins of a histogram at most; those of the time to the first chunk come after latency's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER = timedelta(minutes=15)
_QUARTER_US = 15 * 60 * 1_000_000

# Sums of one cell, as one integer of lanes: adding two cells is adding two integers.
_FIELDS = tuple(field.name for field in fields(Totals))
_LANE_BITS = 96
_LANES = struct.Struct("<" + "Q4x" * len(_FIELDS))
_SIGNED_LANES = struct.Struct("<" + "q4x" * len(_FIELDS))


def _in_every_lane(value: int) -> int:
    return sum(value << position * _LANE_BITS for position in range(len(_FIELDS)))


_LIFT = _in_every_lane(1 << 63)
_BEYOND_64_BITS = _in_every_lane((1 << 32) - 1 << 64)
_HALF_LANE = 1 << (_LANE_BITS - 1)
_HALF_LANES = _in_every_lane(_HALF_LANE)


class FacetCells:
    """The cells that calls with the same facets count in, all of keys of few values.

    A cell is known by two facets in one integer, the lower one first; a facet alone is
    paired with `EVERYTHING`.
    """

    __slots__ = ("by_day", "by_hour")

    def __init__(self, facets: Iterable[int]) -> None:
        ordered = sorted(facets)
        self.by_hour = (EVERYTHING, *ordered)
        pairs = [first << 32 | second for first, second in combinations(ordered, 2)]
        self.by_day = (*self.by_hour, *pairs)


Profile = tuple[FacetCells, Sequence[int]]
"""The cells of a call, and its facets of keys of many values: kept by the day, not in pairs."""


class Buckets:
    """Which hour and day of the accounting time zone a moment is in.

    A bucket is known by when it begins: minutes since 1970, UTC.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, created_at_us: int) -> tuple[int, int]:
        """The hour and the day of a moment, in microseconds since 1970."""
        # Time zones change at quarters of an hour, at the finest.
        quarter = created_at_us // _QUARTER_US
        if (known := self._known.get(quarter)) is None:
            moment = _EPOCH + quarter * _QUARTER
            known = (
                minutes(hour_start(moment, self._zone)),
                minutes(day_start(moment, self._zone)),
            )
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[quarter] = known
        return known


def minutes(moment: datetime) -> int:
    """Minutes since 1970, UTC."""
    return int((moment - _EPOCH).total_seconds()) // 60


class Cells:
    """Adds up what a slice of events changes."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self._sums: dict[tuple[int, int], dict[FacetCells, int]] = {}
        self._wide: dict[int, dict[int, int]] = {}
        self._bins: dict[int, dict[FacetCells, list[int]]] = {}

    def add(
        self,
        created_at_us: int,
        profile: Profile,
        totals: Sequence[int],
        latency_ms: int | None,
        time_to_first_chunk_ms: int | None,
        *,
        sign: Literal[1, -1] = 1,
    ) -> None:
        """Add one event, or take it away again; `totals` are in the order of `Totals`."""
        buckets = self._buckets.of(created_at_us)
        facets, wide = profile
        packed = sign * _packed(totals)
        sums = self._sums.setdefault(buckets, {})
        sums[facets] = sums.get(facets, 0) + packed
        if wide:
            sums_of_wide = self._wide.setdefault(buckets[1], {})
            for facet in wide:
                sums_of_wide[facet] = sums_of_wide.get(facet, 0) + packed
        if latency_ms is not None or time_to_first_chunk_ms is not None:
            bins = self._bins.setdefault(buckets[1], {}).setdefault(facets, [])
            # A bin that a call is taken from again is told by its complement.
            if latency_ms is not None:
                position = bin_of(latency_ms)
                bins.append(position if sign > 0 else ~position)
            if time_to_first_chunk_ms is not None:
                position = BINS + bin_of(time_to_first_chunk_ms)
                bins.append(position if sign > 0 else ~position)

    def by_hour(self) -> Iterator[Cell]:
        """Cells of facets, by hour."""
        found: dict[int, dict[int, int]] = {}
        for (hour, _), sums in self._sums.items():
            cells = found.setdefault(hour, defaultdict(int))
            for facets, packed in sums.items():
                for key in facets.by_hour:
                    cells[key] += packed
        return _cells(found)

    def by_day(self) -> Iterator[Cell]:
        """Cells of facets and of pairs of them, by day."""
        days: dict[int, dict[FacetCells, int]] = {}
        for (_, day), sums in self._sums.items():
            of_day = days.setdefault(day, defaultdict(int))
            for facets, packed in sums.items():
                of_day[facets] += packed
        found: dict[int, dict[int, int]] = {}
        for day, of_day in days.items():
            cells = found.setdefault(day, defaultdict(int))
            for facets, packed in of_day.items():
                for key in facets.by_day:
                    cells[key] += packed
        for day, sums_of_wide in self._wide.items():
            for key, packed in sums_of_wide.items():
                found[day][key] += packed
        return _cells(found)

    def histograms(self) -> Iterator[tuple[int, int, int, int]]:
        """Day, facet, bin and how many calls more fell in it."""
        for day, bins_of in sorted(self._bins.items()):
            found: dict[int, list[int]] = defaultdict(list)
            for facets, bins in bins_of.items():
                for facet in facets.by_hour:
                    found[facet] += bins
            for facet, bins in sorted(found.items()):
                counts = Counter(bins)
                for position in sorted(p for p in counts if p >= 0):
                    counts[position] -= counts.pop(~position, 0)
                for position, count in counts.items():
                    if position < 0:
                        yield day, facet, ~position, -count
                    elif count:
                        yield day, facet, position, count


Cell = tuple[int, int, int, Sequence[int]]
"""Bucket, the two facets (the lower first), and sums in the order of `Totals`."""


def _cells(found: dict[int, dict[int, int]]) -> Iterator[Cell]:
    for bucket, cells in sorted(found.items()):
        for key, packed in sorted(cells.items()):
            yield bucket, key >> 32, key & 0xFFFFFFFF, _unpacked(packed)


def _packed(totals: Sequence[int]) -> int:
    try:
        return int.from_bytes(_LANES.pack(*totals), "little")
    except struct.error:  # negative ones, or beyond 64 bits
        return sum(value << position * _LANE_BITS for position, value in enumerate(totals))


def _unpacked(sums: int) -> tuple[int, ...]:
    # Lifted above zero, so that no lane borrows from the next.
    lifted = sums + _LIFT
    if lifted >= 0 and not lifted & _BEYOND_64_BITS:
        return _SIGNED_LANES.unpack((lifted ^ _LIFT).to_bytes(_SIGNED_LANES.size, "little"))
    lifted, lane = sums + _HALF_LANES, (1 << _LANE_BITS) - 1
    return tuple(
        (lifted >> position * _LANE_BITS & lane) - _HALF_LANE for position in range(len(_FIELDS))
    )


# Four bins an octave: a bin's edges are 19% apart, its middle is within 9% of all in it.
_BIN_EDGES = sorted({round(2 ** (step / 4)) for step in range(4 * 25)})


def bin_of(milliseconds: int) -> int:
    """The bin of a logarithmic histogram that a duration falls in."""
    return bisect_right(_BIN_EDGES, milliseconds)


def bin_middle(position: int) -> float:
    """The duration in milliseconds that stands for a bin."""
    if position == 0:
        return 0.0
    low = _BIN_EDGES[position - 1]
    # Whole milliseconds: the edge itself is in the next bin.
    highest = _BIN_EDGES[position] - 1 if position < len(_BIN_EDGES) else low
    return float((low * highest) ** 0.5)


def quantile(bins: Iterable[tuple[int, int]], share: float) -> float | None:
    """The duration in milliseconds that a `share` of all calls does not exceed.

    `bins` are positions and counts; None when they are empty.
    """
    ordered = sorted((position, count) for position, count in bins if count > 0)
    wanted = share * sum(count for _, count in ordered)
    seen = 0
    for position, count in ordered:
        seen += count
        if seen >= wanted:
            return bin_middle(position)
    return None
