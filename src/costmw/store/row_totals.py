"""Sums over rows: events, and what amendments change.

Sums are split at a million, since SQLite's `sum` fails beyond 64 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from costmw.store.base import Group, Query, Totals
from costmw.store.rollup_plan import Range
from costmw.store.row_select import (
    AMENDED,
    EVENTS,
    NEW_AMENDMENTS,
    NEW_EVENTS,
    NEW_EVENTS_AMENDED,
    Ask,
    select_rows,
)
from costmw.store.sql import Sql

_SPLIT = 1_000_000

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


def add_rows(
    sql: type[Sql], ask: Ask, groups: dict[Group, Totals], query: Query, ranges: Sequence[Range]
) -> None:
    """Add up the rows of some spans, events first, then what amendments change."""
    if ranges:
        _sum(sql(), ask, groups, query, ranges, _EVENT_TERMS, EVENTS)
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, AMENDED)


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
        new = f"e.seq > {events:d}"
        _sum(sql(), ask, groups, query, ranges, _EVENT_TERMS, NEW_EVENTS, new)
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, NEW_EVENTS_AMENDED, new)
        new = f"a.seq > {amendments:d} AND e.seq <= {events:d}"
        _sum(sql(), ask, groups, query, ranges, _AMENDMENT_TERMS, NEW_AMENDMENTS, new)


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
    sums = ", ".join(
        f"coalesce(sum(({term}) / {_SPLIT}), 0), coalesce(sum(({term}) % {_SPLIT}), 0)"
        for term in terms.values()
    )
    keys = select_rows(sql, query, ranges, sums, source, condition)
    for row in ask(*sql.statement()):
        found = Totals(
            **{
                name: int(row[keys + 2 * n]) * _SPLIT + int(row[keys + 2 * n + 1])
                for n, name in enumerate(terms)
            }
        )
        groups.setdefault(tuple(row)[:keys], Totals()).add(found)
