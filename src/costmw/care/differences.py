"""What rollups say beside what rows say, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from costmw.money import format_usd
from costmw.store.base import Difference
from costmw.store.rollup_plan import HOUR
from costmw.store.rollups import BINS
from costmw.store.sql import MILLION

SHOWN_AT_MOST = 100
"""Lines of a table; `--json` has them all."""

_HEAD = ("when", "what", "column", "rollups say", "rows say")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Cell = tuple[int, int, tuple[str, ...]]
_Side = dict[_Cell, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Line:
    """One sum on which rollups and rows differ; each in its own unit."""

    every_minutes: int
    bucket_minutes: int
    facets: tuple[str, ...]
    column: str
    rollups: int
    rows: int


def lines_of(differences: Iterable[Difference]) -> list[Line]:
    """Line up both sides, by time and facets; one that is not there says 0."""
    told: _Side = {}
    found: _Side = {}
    for one in differences:
        cell = (one.every_minutes, one.bucket_minutes, one.facets)
        sums = (told if one.in_rollups else found).setdefault(cell, {})
        sums.update(_whole(one.sums))
    return [
        Line(*cell, column, mine, theirs)
        for cell in sorted(told.keys() | found.keys(), key=lambda c: (c[1], c[0], c[2]))
        for column in told.get(cell, {}) | found.get(cell, {})
        if (mine := told.get(cell, {}).get(column, 0))
        != (theirs := found.get(cell, {}).get(column, 0))
    ]


def _whole(sums: Mapping[str, int]) -> dict[str, int]:
    """Sums with their millions, which have a column of their own."""
    return {
        name: value + sums.get(f"{name}_m", 0) * MILLION
        for name, value in sums.items()
        if not name.endswith("_m")
    }


def as_table(lines: Sequence[Line], zone: ZoneInfo) -> str:
    """A table to read; money in USD, times in the store's zone."""
    return table_of(_HEAD, [_row(line, zone) for line in lines[:SHOWN_AT_MOST]], len(lines))


def table_of(head: tuple[str, ...], shown: Sequence[tuple[str, ...]], count: int) -> str:
    """Rows under their headings, and how many more there are of `count`."""
    rows = [head, *shown]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    more = count - len(shown)
    return f"{text}\n... and {more} more: --json has them all" if more > 0 else text


def _row(line: Line, zone: ZoneInfo) -> tuple[str, ...]:
    start = _moment(line.bucket_minutes).astimezone(zone)
    when = f"{start:%Y-%m-%d %H:%M %Z}" if line.every_minutes == HOUR else f"{start:%Y-%m-%d} (day)"
    is_money = line.column.endswith("_pico_usd")
    values = [format_usd(v) if is_money else str(v) for v in (line.rollups, line.rows)]
    return when, _facets(line.facets), _column(line.column), *values


def _facets(facets: Sequence[str]) -> str:
    return " and ".join(map(_facet, facets)) or "everything"


def _facet(facet: str) -> str:
    key, _, value = facet.partition("=")
    if key != "kind":
        return facet.removeprefix("tag:")
    return " ".join(part or "-" for part in json.loads(value))


def _column(name: str) -> str:
    if name.endswith("_pico_usd"):
        return f"{name.removesuffix('_pico_usd')}_usd"
    if name.startswith("bin_"):
        position = int(name.removeprefix("bin_"))
        what = "latency" if position < BINS else "first chunk"
        return f"calls in bin {position % BINS} of {what}"
    return name


def objects_of(lines: Iterable[Line]) -> Iterator[dict[str, object]]:
    """Objects for JSON; money in pico-USD, times in UTC."""
    for line in lines:
        yield {
            "every": "hour" if line.every_minutes == HOUR else "day",
            "start": _moment(line.bucket_minutes).isoformat().replace("+00:00", "Z"),
            "facets": list(line.facets),
            "column": line.column,
            "rollups": line.rollups,
            "rows": line.rows,
        }


def _moment(minutes: int) -> datetime:
    return _EPOCH + timedelta(minutes=minutes)
