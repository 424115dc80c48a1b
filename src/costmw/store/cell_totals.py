"""Answers from the rollups; the text is the same for every database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from costmw.store.base import Group, Query, Totals
from costmw.store.rollup_plan import KIND, OF_KIND, Plan
from costmw.store.rollups import EVERYTHING
from costmw.store.row_totals import Ask
from costmw.store.sql import MILLION, Sql

_FIELDS = tuple(field.name for field in fields(Totals))


def rolled_up(sql: type[Sql], ask: Ask, query: Query, plan: Plan) -> dict[Group, Totals]:
    """Sums by group, of the hours and days that the rollups have."""
    if not plan.buckets:
        return {}
    optional = [key for key in plan.keys if key != KIND]
    return _with_missing(sql, ask, query, plan, list(query.group_by), optional)


def _with_missing(
    sql: type[Sql], ask: Ask, query: Query, plan: Plan, names: list[str], optional: Sequence[str]
) -> dict[Group, Totals]:
    """Groups of all calls, those included that have no value of an `optional` key.

    No cell holds what is missing: it is the sum without the key, less all of its values.
    """
    if not optional:
        return _sums(sql(), ask, query, plan, names)
    key, rest = optional[0], optional[1:]
    groups = _with_missing(sql, ask, query, plan, names, rest)
    if key not in names:
        return groups
    without = [name for name in names if name != key]
    missing = _with_missing(sql, ask, query, plan, without, rest)
    position = names.index(key) + bool(query.buckets)
    for group, totals in groups.items():
        rest_of_group = group[:position] + group[position + 1 :]
        missing.setdefault(rest_of_group, Totals()).add(totals, sign=-1)
    for group, totals in missing.items():
        if totals != Totals():
            groups[(*group[:position], None, *group[position:])] = totals
    return groups


def _sums(
    sql: Sql, ask: Ask, query: Query, plan: Plan, names: Sequence[str]
) -> dict[Group, Totals]:
    sql.with_values("buckets", "n, every, bucket", plan.buckets)
    grouped = {KIND if name in OF_KIND else name for name in names} - set(plan.filters)
    keys = [*plan.filters, *(key for key in plan.keys if key in grouped)]
    facets = [f"f{n}.id" for n in range(len(keys))]
    columns = ["b.n"] if query.buckets else []
    columns += [f"k.{name}" if name in OF_KIND else f"f{keys.index(name)}.value" for name in names]
    sql.add(f"SELECT {''.join(f'{name}, ' for name in columns)}{_sums_of(sql)} FROM buckets b")  # noqa: S608 - our own names
    for n, key in enumerate(keys):
        sql.add(f"{sql.JOIN} facet_keys n{n} ON n{n}.key = ? {sql.JOIN} facets f{n}", key)
        sql.add(f"ON f{n}.key_id = n{n}.id")
        if key in plan.filters:
            sql.add(f"AND f{n}.value = ?", plan.filters[key])
    low, high = _cell_of(sql, facets)
    sql.add(
        f"{sql.JOIN} rollups r ON r.every = b.every AND r.bucket = b.bucket "
        f"AND r.facet_id = {low} AND r.other_facet_id = {high}"
    )
    if KIND in grouped:
        sql.add(f"{sql.JOIN} rollup_kinds k ON k.facet_id = f{keys.index(KIND)}.id")
    if columns:
        sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(columns)))}")
    groups: dict[Group, Totals] = {}
    for row in ask(*sql.statement()):
        if row[len(columns)] is not None:  # a sum over nothing
            groups[tuple(row)[: len(columns)]] = _totals(tuple(row)[len(columns) :])
    return groups


def _cell_of(sql: Sql, facets: Sequence[str]) -> tuple[str, str]:
    match facets:
        case []:
            return str(EVERYTHING), str(EVERYTHING)
        case [facet]:
            return str(EVERYTHING), facet
        case _:
            first, second = facets
            return f"{sql.LEAST}({first}, {second})", f"{sql.GREATEST}({first}, {second})"


def _sums_of(sql: Sql) -> str:
    return ", ".join(
        f"sum(r.{name}), {f'sum(r.{name}_m)' if sql.has_millions(name) else '0'}"
        for name in _FIELDS
    )


def _totals(values: Iterable[int]) -> Totals:
    parts = iter(values)
    return Totals(**{name: int(next(parts)) + int(next(parts)) * MILLION for name in _FIELDS})
