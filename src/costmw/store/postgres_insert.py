"""Statements that store a batch in Postgres; each takes its rows as one array a column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from psycopg import Connection

from costmw.events import Submission
from costmw.store.base import Totals
from costmw.store.interned import json_text
from costmw.store.postgres_batch import Batch, Placed
from costmw.store.postgres_intern import Interner
from costmw.store.postgres_sql import integers, moments, storable, texts, uuids
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import Cell, Cells

_EVENT = {
    "id": "uuid",
    "created_at": "timestamptz",
    "request_id": "uuid",
    "first_in_request": "smallint",
    "call_kind_id": "bigint",
    "input_tokens": "bigint",
    "output_tokens": "bigint",
    "cache_read_input_tokens": "bigint",
    "cache_write_input_tokens": "bigint",
    "reasoning_output_tokens": "bigint",
    "usage_detail": "text",
    "cost_pico_usd": "bigint",
    "price_id": "bigint",
    "status": "text",
    "reason": "text",
    "latency_ms": "bigint",
    "time_to_first_chunk_ms": "bigint",
    "tag_set_id": "bigint",
    "response_id": "text",
    "trace_id": "text",
}

_AMENDMENT = {
    "id": "uuid",
    "event_id": "uuid",
    "amended_at": "timestamptz",
    "reason": "text",
    "status": "text",
    "price_id": "bigint",
    "cost_pico_usd": "bigint",
    "estimated_cost_pico_usd": "bigint",
    "unpriced": "bigint",
    "input_tokens": "bigint",
    "output_tokens": "bigint",
    "cache_read_input_tokens": "bigint",
    "cache_write_input_tokens": "bigint",
    "reasoning_output_tokens": "bigint",
}

_SUMS = tuple(field.name for field in fields(Totals))

_ARRAYS: dict[str, Any] = {"uuid": uuids, "timestamptz": moments, "text": texts}


def _insert(table: str, columns: dict[str, str]) -> str:
    arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(columns.values(), 1))
    return f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM unnest({arrays})"  # noqa: S608 - our own names


def _arrays(columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> tuple[str, ...]:
    return tuple(
        _ARRAYS.get(kind, integers)(values)
        for kind, values in zip(columns.values(), zip(*rows, strict=True), strict=True)
    )


_INSERT_EVENTS = _insert("usage_events", _EVENT)
_INSERT_AMENDMENTS = _insert("amendments", _AMENDMENT)

_INSERT_SUBMISSION = """
INSERT INTO submissions (
    provider, result_id, created_at, tag_set_id, request_id, first_in_request, api_key_id
)
SELECT $1::text, $2::text, $3::timestamptz, t.id, $5::uuid, $6::smallint, $7::text
FROM tag_sets t WHERE t.id = $4  -- one that is gone is looked up again
ON CONFLICT (provider, result_id) DO NOTHING
"""

_INSERT_ALIAS = """
INSERT INTO submissions (
    provider, result_id, created_at, tag_set_id, request_id, first_in_request, api_key_id
)
SELECT provider, $1, created_at, tag_set_id, request_id, first_in_request, api_key_id
FROM submissions WHERE provider = $2 AND result_id = $3
ON CONFLICT (provider, result_id) DO NOTHING
"""

# A batch has many results, and was asked for in one web request.
_COUNTED_IN_REQUEST = """
UPDATE submissions SET first_in_request = 0 WHERE provider = $1 AND result_id = $2
"""

_INSERT_UNDATED = """
INSERT INTO undated_ids (id, created_at) SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
"""

_COUNT_OUTCOMES = """
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])
ON CONFLICT (hour, kind, provider, model, tag_set_id)
DO UPDATE SET count = call_outcomes.count + excluded.count
"""

_CELL = {
    "every": "int",
    "bucket": "bigint",
    "facet_id": "int",
    "other_facet_id": "int",
} | dict.fromkeys(_SUMS, "numeric")

_UPSERT_CELLS = f"""
{_insert("rollups", _CELL)}
ON CONFLICT (every, bucket, facet_id, other_facet_id)
DO UPDATE SET {", ".join(f"{name} = rollups.{name} + excluded.{name}" for name in _SUMS)}
"""

_UPSERT_BINS = """
INSERT INTO rollup_histograms (bucket, facet_id, bin, count)
SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[], $4::bigint[])
ON CONFLICT (bucket, facet_id, bin)
DO UPDATE SET count = rollup_histograms.count + excluded.count
"""


def insert_submissions(
    connection: Connection, interner: Interner, records: Sequence[Submission]
) -> None:
    """Say who asked for results that come later; the first to say so is believed."""
    for record in records:
        provider, result_id = storable(record.provider or ""), storable(record.result_id)
        if record.alias_of is not None:
            known = storable(record.alias_of)
            connection.execute(_INSERT_ALIAS, (result_id, provider, known))
            continue
        connection.execute(
            _INSERT_SUBMISSION,
            (
                provider,
                result_id,
                record.created_at,
                interner.tag_set(record.tags),
                record.request_id,
                int(record.first_in_request),
                record.api_key_id,
            ),
        )


def insert(connection: Connection, interner: Interner, batch: Batch) -> None:
    """Store what is new of a batch, all but its rollups."""
    if batch.placed:
        rows = [_event_row(interner, placed) for placed in batch.placed]
        connection.execute(_INSERT_EVENTS, _arrays(_EVENT, rows))
    if undated := [(p.event.id, p.asked.created_at) for p in batch.placed if p.is_undated()]:
        ids, created = zip(*undated, strict=True)
        connection.execute(_INSERT_UNDATED, (uuids(ids), moments(created)))
    for key in batch.counted_in_request:
        connection.execute(_COUNTED_IN_REQUEST, tuple(map(storable, key)))
    if batch.amendments:
        amendments = [
            (
                a.id,
                a.event_id,
                a.at,
                a.reason,
                a.status,
                interner.price(a.price) if a.price else None,
                a.cost_pico_usd,
                a.estimated_cost_pico_usd,
                a.unpriced,
                a.input_tokens,
                a.output_tokens,
                a.cache_read_input_tokens,
                a.cache_write_input_tokens,
                a.reasoning_output_tokens,
            )
            for a in batch.amendments
        ]
        connection.execute(_INSERT_AMENDMENTS, _arrays(_AMENDMENT, amendments))
    if batch.outcomes:
        counts = Counter(
            (
                int(outcome.at.timestamp()) // 3600,
                outcome.kind,
                storable(outcome.provider or ""),
                storable(outcome.model or ""),
                interner.tag_set(outcome.tags),
            )
            for outcome in batch.outcomes
        )
        hours, kinds, providers, models, tags = zip(*counts, strict=True)
        connection.execute(
            _COUNT_OUTCOMES,
            (
                integers(hours),
                texts(kinds),
                texts(providers),
                texts(models),
                integers(tags),
                integers(counts.values()),
            ),
        )


def _event_row(interner: Interner, placed: Placed) -> Sequence[Any]:
    event, asked, usage = placed.event, placed.asked, placed.event.usage
    return (
        event.id,
        asked.created_at,
        asked.request_id,
        asked.first_in_request,
        interner.call_kind(placed.row),
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_write_input_tokens,
        usage.reasoning_output_tokens,
        json_text(usage.detail) if usage.detail else None,
        event.price.cost_pico_usd,
        interner.price(event.price),
        event.status,
        event.reason,
        event.latency_ms,
        event.time_to_first_chunk_ms,
        asked.tag_set_id,
        event.response_id,
        event.trace_id,
    )


def add_cells(connection: Connection, cells: Cells) -> None:
    """Add to the rollups."""
    add_sums(connection, [*_cell_rows(HOUR, cells.by_hour()), *_cell_rows(DAY, cells.by_day())])
    add_bins(connection, list(cells.histograms()))


def add_sums(connection: Connection, rows: Sequence[Sequence[int]]) -> None:
    """Add to cells: minutes that they span, when they begin, two facets, and sums."""
    if rows:
        connection.execute(_UPSERT_CELLS, tuple(map(integers, zip(*rows, strict=True))))


def add_bins(connection: Connection, rows: Sequence[Sequence[int]]) -> None:
    """Add to bins of histograms: day, facet, bin and count."""
    if rows:
        connection.execute(_UPSERT_BINS, tuple(map(integers, zip(*rows, strict=True))))


def _cell_rows(every: int, cells: Iterable[Cell]) -> list[tuple[int, ...]]:
    return [(every, bucket, first, second, *sums) for bucket, first, second, sums in cells]
