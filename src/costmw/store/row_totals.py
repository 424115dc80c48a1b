"""Sums over rows: events, and what amendments change.

Asked where no rollup has the answer, and for what is too new to be rolled up. The text is
the same for every database. Sums are split at a million, since SQLite's `sum` fails beyond
64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from costmw.errors import ConfigError
from costmw.store.base import DIMENSIONS, Group, Query, Totals
from costmw.store.rollup_plan import Range
from costmw.store.sql import Sql

Ask = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
"""Runs a statement and gives its rows."""

_SPLIT = 1_000_000

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

_EXACT = "e.status = 'ok'"

# What one event adds to each field of Totals.
_EVENT_TERMS = {
    "calls": "1",
    "requests": "e.first_in_request",
    "cost_pico_usd": f"CASE WHEN {_EXACT} THEN e.cost_pico_usd ELSE 0 END",
    "estimated_cost_pico_usd": f"CASE WHEN {_EXACT} THEN 0 ELSE e.cost_pico_usd END",
    "cost_in_requests_pico_usd": ("CASE WHEN e.request_id IS NULL THEN 0 ELSE e.cost_pico_usd END"),
    "unpriced": "CASE WHEN e.cost_pico_usd IS NULL THEN 1 ELSE 0 END",
    "flagged": "CASE WHEN e.cost_pico_usd IS NULL OR e.reason IS NULL THEN 0 ELSE 1 END",
    "incomplete": f"CASE WHEN {_EXACT} THEN 0 ELSE 1 END",
    "input_tokens": "e.input_tokens",
    "output_tokens": "e.output_tokens",
    "cache_read_input_tokens": "e.cache_read_input_tokens",
    "cache_write_input_tokens": "e.cache_write_input_tokens",
    "reasoning_output_tokens": "e.reasoning_output_tokens",
    "latency_ms": "e.latency_ms",
    "timed": "CASE WHEN e.latency_ms IS NULL THEN 0 ELSE 1 END",
}
assert list(_EVENT_TERMS) == [f.name for f in fields(Totals)]

# What one amendment adds; what is not here it leaves alone.
_AMENDMENT_TERMS = {
    "cost_pico_usd": "a.cost_pico_usd",
    "estimated_cost_pico_usd": "a.estimated_cost_pico_usd",
    "cost_in_requests_pico_usd": (
        "CASE WHEN e.request_id IS NULL THEN 0 ELSE a.cost_pico_usd + a.estimated_cost_pico_usd END"
    ),
    "unpriced": "a.unpriced",
    "incomplete": (
        "CASE WHEN a.status IS NULL THEN 0 ELSE CASE WHEN a.status = 'ok' THEN 0 ELSE 1 END "
        "- CASE WHEN coalesce((SELECT l.status FROM amendments l WHERE l.event_id = e.id "
        "AND l.seq < a.seq AND l.status IS NOT NULL ORDER BY l.seq DESC LIMIT 1), e.status) "
        "= 'ok' THEN 0 ELSE 1 END END"
    ),
    "input_tokens": "a.input_tokens",
    "output_tokens": "a.output_tokens",
    "cache_read_input_tokens": "a.cache_read_input_tokens",
    "cache_write_input_tokens": "a.cache_write_input_tokens",
    "reasoning_output_tokens": "a.reasoning_output_tokens",
}

_SPANS = "spans b CROSS JOIN usage_events e JOIN call_kinds k ON k.id = e.call_kind_id"
_WITHIN = "e.created_at >= b.start AND e.created_at < b.stop"


def add_rows(
    sql: type[Sql], ask: Ask, groups: dict[Group, Totals], query: Query, ranges: Sequence[Range]
) -> None:
    """Add up the rows of some spans, events first, then what amendments change."""
    if ranges:
        _sum(sql(), ask, groups, query, ranges, _EVENT_TERMS, _SPANS)
        amended = f"{_SPANS} JOIN amendments a ON a.event_id = e.id"
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, amended)


def add_new_rows(
    sql: type[Sql],
    ask: Ask,
    groups: dict[Group, Totals],
    query: Query,
    ranges: Sequence[Range],
    watermarks: tuple[int, int],
) -> None:
    """Add up the rows that the rollups do not have yet: few, so they are looked at first."""
    if ranges:
        events, amendments = watermarks
        kinds = "JOIN call_kinds k ON k.id = e.call_kind_id CROSS JOIN spans b"
        new = f"e.seq > {events:d}"
        _sum(sql(), ask, groups, query, ranges, _EVENT_TERMS, f"usage_events e {kinds}", new)
        amended = f"usage_events e CROSS JOIN amendments a ON a.event_id = e.id {kinds}"
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, amended, new)
        amended = f"amendments a CROSS JOIN usage_events e ON e.id = a.event_id {kinds}"
        new = f"a.seq > {amendments:d} AND e.seq <= {events:d}"
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, amended, new)


def _sum(
    sql: Sql,
    ask: Ask,
    groups: dict[Group, Totals],
    query: Query,
    ranges: Sequence[Range],
    terms: Mapping[str, str],
    source: str,
    condition: str = "1 = 1",
) -> None:
    sql.with_spans("spans", "n, start, stop", ranges)
    tags = [name.removeprefix("tag:") for name in query.group_by if name.startswith("tag:")]
    keys = ["b.n"] if query.buckets else []
    keys += [
        f"g{tags.index(name[4:])}.value" if name.startswith("tag:") else _COLUMNS[name]
        for name in query.group_by
    ]
    sums = ", ".join(
        f"coalesce(sum(({term}) / {_SPLIT}), 0), coalesce(sum(({term}) % {_SPLIT}), 0)"
        for term in terms.values()
    )
    sql.add(f"SELECT {''.join(f'{key}, ' for key in keys)}{sums} FROM {source}")  # noqa: S608 - our own names
    for n, key in enumerate(tags):
        sql.add(
            f"LEFT JOIN tags t{n} ON t{n}.tag_set_id = e.tag_set_id AND t{n}.key_id = "  # noqa: S608 - our own names
            f"(SELECT id FROM facet_keys WHERE key = ?) "
            f"LEFT JOIN facets g{n} ON g{n}.id = t{n}.facet_id",
            f"tag:{key}",
        )
    sql.add(f"WHERE {_WITHIN} AND {condition}")
    sql.within(ranges)
    sql.having_tags(query.scope)
    sql.having_tags(query.where)
    if keys:
        sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(keys)))}")
    for row in ask(*sql.statement()):
        found = Totals(
            **{
                name: int(row[len(keys) + 2 * n]) * _SPLIT + int(row[len(keys) + 2 * n + 1])
                for n, name in enumerate(terms)
            }
        )
        groups.setdefault(tuple(row)[: len(keys)], Totals()).add(found)


def check_dimensions(group_by: Sequence[str]) -> None:
    """Raise a `ConfigError` when there is no such dimension."""
    for name in group_by:
        if not name.startswith("tag:") and name not in DIMENSIONS:
            raise ConfigError(
                f"cannot group by {name!r}; use one of {', '.join(DIMENSIONS)} or 'tag:<key>'"
            )
