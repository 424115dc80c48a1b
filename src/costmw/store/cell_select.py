"""Asking the rollups: cells of the facets that a question names, in its groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, Self, TypeVar

from costmw.store.base import Group, Query
from costmw.store.rollup_plan import KIND, OF_KIND, Plan
from costmw.store.rollups import EVERYTHING
from costmw.store.sql import Sql


class Summed(Protocol):
    """What is kept of the calls of a group, and can be added to what is kept of others."""

    def add(self, other: Self, *, sign: Literal[1, -1] = 1) -> None:
        """Add another group's, or take it away."""


S = TypeVar("S", bound=Summed)

Ask = Callable[[Sequence[str]], dict[Group, S]]
"""Gives what is kept of the calls that have all of some names, by their values."""


def with_missing(query: Query, plan: Plan, nothing: Callable[[], S], ask: Ask[S]) -> dict[Group, S]:
    """Groups of all calls, those included that have no value of what is grouped by.

    No cell holds what is missing: it is the sum without the key, less all of its values.
    Every kind of call has a value; a tag may be missing.
    """
    optional = [key for key in plan.keys if key != KIND]
    return _with_missing(query, nothing, ask, list(query.group_by), optional)


def _with_missing(
    query: Query,
    nothing: Callable[[], S],
    ask: Ask[S],
    names: list[str],
    optional: Sequence[str],
) -> dict[Group, S]:
    if not optional:
        return ask(names)
    key, rest = optional[0], optional[1:]
    groups = _with_missing(query, nothing, ask, names, rest)
    if key not in names:
        return groups
    without = [name for name in names if name != key]
    missing = _with_missing(query, nothing, ask, without, rest)
    position = names.index(key) + bool(query.buckets)
    for group, found in groups.items():
        missing.setdefault(group[:position] + group[position + 1 :], nothing()).add(found, sign=-1)
    for group, found in missing.items():
        if found != nothing():
            groups[(*group[:position], None, *group[position:])] = found
    return groups


def select_cells(
    sql: Sql,
    query: Query,
    plan: Plan,
    names: Sequence[str],
    values: str,
    cells: Callable[[Sequence[str]], str],
    by: Sequence[str] = (),
) -> int:
    """Select `values` of the cells `r` of a question's groups, and of what else they are `by`.

    `cells` gives the join of `r` with the buckets `b`, for the facets that it is to have.

    Returns:
        How many columns the group has; `by` and the values come after them.
    """
    sql.with_values("buckets", "n, every, bucket", plan.buckets)
    grouped = {KIND if name in OF_KIND else name for name in names} - set(plan.filters)
    keys = [*plan.filters, *(key for key in plan.keys if key in grouped)]
    columns = ["b.n"] if query.buckets else []
    columns += [f"k.{name}" if name in OF_KIND else f"f{keys.index(name)}.value" for name in names]
    sql.add(f"SELECT {''.join(f'{name}, ' for name in (*columns, *by))}{values} FROM buckets b")  # noqa: S608 - our own names
    for n, key in enumerate(keys):
        sql.add(f"{sql.JOIN} facet_keys n{n} ON n{n}.key = ? {sql.JOIN} facets f{n}", key)
        sql.add(f"ON f{n}.key_id = n{n}.id")
        if key in plan.filters:
            sql.add(f"AND f{n}.value = ?", plan.filters[key])
    sql.add(f"{sql.JOIN} {cells([f'f{n}.id' for n in range(len(keys))])}")
    if KIND in grouped:
        sql.add(f"{sql.JOIN} rollup_kinds k ON k.facet_id = f{keys.index(KIND)}.id")
    if columns or by:
        sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(columns) + len(by)))}")
    return len(columns)


def pair_of(sql: Sql, facets: Sequence[str]) -> tuple[str, str]:
    """The two facets that a cell is known by, the lower first."""
    match facets:
        case []:
            return str(EVERYTHING), str(EVERYTHING)
        case [facet]:
            return str(EVERYTHING), facet
        case _:
            first, second = facets
            return f"{sql.LEAST}({first}, {second})", f"{sql.GREATEST}({first}, {second})"
