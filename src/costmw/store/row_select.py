"""Asking the rows: events of some spans of time, in the groups of a question.

Asked where no rollup has the answer, and for what is too new to be rolled up. The text is
the same for every database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from costmw.errors import ConfigError
from costmw.store.base import DIMENSIONS, Filter, Query
from costmw.store.filters import NAMES, filters_of, needs_tag
from costmw.store.rollup_plan import Range
from costmw.store.sql import Sql

Ask = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
"""Runs a statement and gives its rows."""

_SHORT = timedelta(hours=1)  # what is left of cells by the hour: few rows

# What the last amendment that says anything of it makes of a column.
_LAST = (
    "(SELECT l.{0} FROM amendments l WHERE l.event_id = e.id AND l.{0} IS NOT NULL "
    "ORDER BY l.seq DESC LIMIT 1)"
)

_COLUMNS = {
    "model": "coalesce(k.response_model, k.request_model)",
    "provider": "k.provider",
    "operation": "k.operation",
    "status": f"coalesce({_LAST.format('status')}, e.status)",
    "cost_source": (
        "(SELECT p.source FROM prices p "  # noqa: S608 - our own names
        f"WHERE p.id = coalesce({_LAST.format('price_id')}, e.price_id))"
    ),
    "api_key_id": "k.api_key_id",
}
assert set(_COLUMNS) == set(DIMENSIONS)

_KIND = "JOIN call_kinds k ON k.id = e.call_kind_id"

EVENTS = f"spans b CROSS JOIN usage_events e {_KIND}"
"""Events `e`, each with its kind `k` and the span `b` that it began in."""

AMENDED = f"{EVENTS} JOIN amendments a ON a.event_id = e.id"
"""The same for each of their amendments `a`."""

# Not by the index of a tag that is asked for, which has all rows of that tag.
_NEW = "usage_events e NOT INDEXED"

NEW_EVENTS = f"{_NEW} {_KIND} CROSS JOIN spans b"
"""The same in SQLite, where few events at the end of the table are looked at, and first."""

NEW_EVENTS_AMENDED = (
    f"{_NEW} CROSS JOIN amendments a ON a.event_id = e.id {_KIND} CROSS JOIN spans b"
)
NEW_AMENDMENTS = (
    f"amendments a CROSS JOIN usage_events e ON e.id = a.event_id {_KIND} CROSS JOIN spans b"
)


def select_rows(
    sql: Sql,
    query: Query,
    ranges: Sequence[Range],
    values: str,
    source: str,
    condition: str = "1 = 1",
    by: Sequence[str] = (),
) -> int:
    """Select `values` over the rows of a question's groups, and of what else they are `by`.

    Returns:
        How many columns the group has; `by` and the values come after them.
    """
    sql.with_spans("spans", "n, start, stop", ranges)
    tags = [name.removeprefix("tag:") for name in query.group_by if name.startswith("tag:")]
    keys = ["b.n"] if query.buckets else []
    keys += [
        f"g{tags.index(name[4:])}.value" if name.startswith("tag:") else _COLUMNS[name]
        for name in query.group_by
    ]
    sql.add(f"SELECT {''.join(f'{key}, ' for key in (*keys, *by))}{values} FROM {source}")  # noqa: S608 - our own names
    for n, key in enumerate(tags):
        sql.add(
            f"LEFT JOIN tags t{n} ON t{n}.tag_set_id = e.tag_set_id AND t{n}.key_id = "  # noqa: S608 - our own names
            f"(SELECT id FROM facet_keys WHERE key = ?) "
            f"LEFT JOIN facets g{n} ON g{n}.id = t{n}.facet_id",
            f"tag:{key}",
        )
    sql.add(f"WHERE e.created_at >= b.start AND e.created_at < b.stop AND {condition}")
    sql.within(ranges)
    few = all(span.stop - span.start <= _SHORT for span in ranges)
    for wanted in filters_of(query):
        having(sql, wanted, by_tag_sets=not few)
    if keys or by:
        sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(keys) + len(by)))}")
    return len(keys)


def having(sql: Sql, wanted: Filter, *, by_tag_sets: bool) -> None:
    """Keep rows of `e`, whose kind is `k`, that pass a filter.

    `by_tag_sets` finds rows by a list of all tag sets that do, where it can be; otherwise
    each row is asked.
    """
    if by_tag_sets and needs_tag(wanted):
        sql.by_tag_sets(wanted)
    elif wanted.key.startswith("tag:"):
        sql.having_tag(wanted)
    else:
        sql.having(_COLUMNS[wanted.key], wanted)


def check_dimensions(group_by: Sequence[str]) -> None:
    """Raise a `ConfigError` when there is no such dimension."""
    for name in group_by:
        if not name.startswith("tag:") and name not in DIMENSIONS:
            raise ConfigError(f"cannot group by {name!r}; use one of {NAMES}")
