"""Asking the rollups: cells of the facets that a question names, in its groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, Self, TypeVar

from costmw.store.base import Filter, Group, Query
from costmw.store.rollup_plan import KIND, OF_KIND, Key, Plan
from costmw.store.rollups import EVERYTHING
from costmw.store.sql import Sql


class Summed(Protocol):
    """What is kept of the calls of a group, and can be added to what is kept of others."""

    def add(self, other: Self, *, sign: Literal[1, -1] = 1) -> None:
        """Add another group's, or take it away."""


S = TypeVar("S", bound=Summed)

Joined = Mapping[str, Sequence[Filter]]
"""Keys that cells have a facet of, and what its value must be."""

Ask = Callable[[Sequence[str], Joined], dict[Group, S]]
"""Gives what is kept of the calls that have all of some keys, grouped by some names."""


def with_missing(query: Query, plan: Plan, nothing: Callable[[], S], ask: Ask[S]) -> dict[Group, S]:
    """Groups of all calls, those included that have no value of what they are grouped by.

    No cell holds what is missing: it is the sum without the key, less all of its values.
    Likewise for a key that must not have some values: the sum without it, less those.
    """

    def groups_of(names: Sequence[str], joined: Joined, keys: Sequence[Key]) -> dict[Group, S]:
        if not keys:
            return ask(names, joined)
        key, rest = keys[0], keys[1:]

        def having(filters: Sequence[Filter], names: Sequence[str]) -> dict[Group, S]:
            return groups_of(names, {**joined, key.name: filters}, rest)

        if key.is_required:
            return having(key.filters, names)
        if key.name not in names:
            return _less(groups_of(names, joined, rest), having(key.left_out, names), nothing)
        position = names.index(key.name)
        others = [name for name in names if name != key.name]
        without = groups_of(others, joined, rest)
        groups = {} if key.is_forbidden else having(key.filters, names)
        place = position + bool(query.buckets)
        if key.filters:
            missing = _less(without, having((), others), nothing)
        else:
            missing = without
            for group, found in groups.items():
                _less(missing, {(*group[:place], *group[place + 1 :]): found}, nothing)
        for group, found in missing.items():
            if found != nothing():
                groups[(*group[:place], None, *group[place:])] = found
        return groups

    return groups_of(query.group_by, {}, plan.keys)


def _less(
    groups: dict[Group, S], others: Mapping[Group, S], nothing: Callable[[], S]
) -> dict[Group, S]:
    for group, found in others.items():
        groups.setdefault(group, nothing()).add(found, sign=-1)
    return groups


def select_cells(
    sql: Sql,
    query: Query,
    plan: Plan,
    names: Sequence[str],
    joined: Joined,
    values: str,
    table: str,
    where: Callable[[Sequence[str]], str],
    by: Sequence[str] = (),
) -> int:
    """Select `values` of the cells `r` of a question's groups, and of what else they are `by`.

    `where` says which of a `table` are of a bucket `b` and the facets that it is given.

    Returns:
        How many columns the group has; `by` and the values come after them.
    """
    sql.with_values("buckets", "n, every, bucket", plan.buckets)
    keys = list(joined)
    columns = ["b.n"] if query.buckets else []
    columns += [
        f"f{keys.index(KIND)}.{name}" if name in OF_KIND else f"f{keys.index(name)}.value"
        for name in names
    ]
    for n, (key, filters) in enumerate(joined.items()):
        sql.add(f", f{n} AS MATERIALIZED (")
        _select_facets(sql, key, filters)
        sql.add(")")
    sql.add(f"SELECT {''.join(f'{name}, ' for name in (*columns, *by))}{values} FROM buckets b")  # noqa: S608 - our own names
    for n in range(len(keys)):
        sql.add(f"CROSS JOIN f{n}")
    sql.add(sql.LOOK_UP.format(table, where([f"f{n}.id" for n in range(len(keys))])))
    if columns or by:
        sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(columns) + len(by)))}")
    return len(columns)


def _select_facets(sql: Sql, key: str, filters: Sequence[Filter]) -> None:
    if key == KIND:
        sql.add(f"SELECT k.facet_id AS id, {', '.join(OF_KIND)} FROM rollup_kinds k WHERE true")  # noqa: S608 - our own names
    else:
        sql.add("SELECT f.id, f.value FROM facet_keys n JOIN facets f ON f.key_id = n.id")
        sql.add("WHERE n.key = ?", key)
    for wanted in filters:
        sql.having(f"k.{wanted.key}" if key == KIND else "f.value", wanted)


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
