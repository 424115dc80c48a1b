"""Histograms over rows, of how long calls took."""

from __future__ import annotations

from collections.abc import Sequence

from costmw.store.base import DurationCounts, Group, Query
from costmw.store.rollup_plan import Range
from costmw.store.rollups import bin_of
from costmw.store.row_select import EVENTS, NEW_EVENTS, Ask, select_rows
from costmw.store.sql import Sql


def add_row_durations(
    sql: type[Sql],
    ask: Ask,
    groups: dict[Group, DurationCounts],
    query: Query,
    ranges: Sequence[Range],
    after: int | None = None,
) -> None:
    """Add the rows of some spans; with `after` only those that come after this position."""
    if not ranges:
        return
    source = EVENTS if after is None else NEW_EVENTS
    for column in ("latency_ms", "time_to_first_chunk_ms"):
        condition = f"e.{column} IS NOT NULL"
        if after is not None:
            condition += f" AND e.seq > {after:d}"
        asked = sql()
        keys = select_rows(asked, query, ranges, "count(*)", source, condition, by=(f"e.{column}",))
        for row in ask(*asked.statement()):
            found = groups.setdefault(tuple(row)[:keys], DurationCounts())
            bins = found.latency if column == "latency_ms" else found.first_chunk
            position = bin_of(int(row[keys]))
            bins[position] = bins.get(position, 0) + int(row[keys + 1])
