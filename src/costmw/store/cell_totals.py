"""Sums from the rollups; the text is the same for every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from costmw.store.base import Group, Query, Totals
from costmw.store.cell_select import Joined, pair_of, select_cells, with_missing
from costmw.store.rollup_plan import Plan
from costmw.store.row_select import Ask
from costmw.store.sql import MILLION, Sql

_FIELDS = tuple(field.name for field in fields(Totals))


def rolled_up(sql: type[Sql], ask: Ask, query: Query, plan: Plan) -> dict[Group, Totals]:
    """Sums by group, of the hours and days that the rollups have."""
    if not plan.buckets:
        return {}
    return with_missing(query, plan, Totals, lambda *asked: _sums(sql(), ask, query, plan, *asked))


def _sums(
    sql: Sql, ask: Ask, query: Query, plan: Plan, names: Sequence[str], joined: Joined
) -> dict[Group, Totals]:
    def of(facets: Sequence[str]) -> str:
        low, high = pair_of(sql, facets)
        return (
            "r.every = b.every AND r.bucket = b.bucket "
            f"AND r.facet_id = {low} AND r.other_facet_id = {high}"
        )

    keys = select_cells(sql, query, plan, names, joined, _sums_of(sql), "rollups", of)
    groups: dict[Group, Totals] = {}
    for row in ask(*sql.statement()):
        if row[keys] is not None:  # a sum over nothing
            groups[tuple(row)[:keys]] = _totals(tuple(row)[keys:])
    return groups


def _sums_of(sql: Sql) -> str:
    return ", ".join(
        f"sum(r.{name}), {f'sum(r.{name}_m)' if sql.has_millions(name) else '0'}"
        for name in _FIELDS
    )


def _totals(values: Iterable[int]) -> Totals:
    parts = iter(values)
    return Totals(**{name: int(next(parts)) + int(next(parts)) * MILLION for name in _FIELDS})
