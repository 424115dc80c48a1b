"""Histograms from the rollups; the text is the same for every database."""

from __future__ import annotations

from collections.abc import Sequence

from costmw.store.base import DurationCounts, Group, Query
from costmw.store.cell_select import Joined, pair_of, select_cells, with_missing
from costmw.store.rollup_plan import Plan
from costmw.store.rollups import BINS
from costmw.store.row_select import Ask
from costmw.store.sql import Sql


def rolled_up_durations(
    sql: type[Sql], ask: Ask, query: Query, plan: Plan
) -> dict[Group, DurationCounts]:
    """Histograms by group, of the days that the rollups have."""
    if not plan.buckets:
        return {}
    return with_missing(
        query, plan, DurationCounts, lambda *asked: _histograms(sql(), ask, query, plan, *asked)
    )


def _histograms(
    sql: Sql, ask: Ask, query: Query, plan: Plan, names: Sequence[str], joined: Joined
) -> dict[Group, DurationCounts]:
    def of(facets: Sequence[str]) -> str:
        _, facet = pair_of(sql, facets)
        return f"r.bucket = b.bucket AND r.facet_id = {facet}"

    keys = select_cells(
        sql, query, plan, names, joined, "sum(r.count)", "rollup_histograms", of, by=("r.bin",)
    )
    groups: dict[Group, DurationCounts] = {}
    for row in ask(*sql.statement()):
        position, count = int(row[keys]), int(row[keys + 1])
        if count:
            found = groups.setdefault(tuple(row)[:keys], DurationCounts())
            if position < BINS:
                found.latency[position] = count
            else:
                found.first_chunk[position - BINS] = count
    return groups
