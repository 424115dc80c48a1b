"""Rows of the ledger back into events, amendments applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from costmw.events import Price, Usage, UsageEvent
from costmw.store.base import AppliedAmendment

EVENT_COLUMNS = """
    e.seq, e.id, e.created_at, e.request_id, e.first_in_request, k.operation, k.api, k.provider,
    k.request_model, k.response_model, e.input_tokens, e.output_tokens,
    e.cache_read_input_tokens, e.cache_write_input_tokens, e.reasoning_output_tokens,
    e.usage_detail, e.cost_pico_usd, k.price_context,
    e.status, e.reason, e.latency_ms, e.time_to_first_chunk_ms,
    k.api_key_id, e.response_id, e.trace_id, s.tags, p.source, p.ref, p.units
"""
"""Of `usage_events e`, `call_kinds k`, `tag_sets s` and `prices p`."""

AMENDMENT_COLUMNS = """
    a.event_id, a.reason, a.status, a.price_id, a.cost_pico_usd, a.estimated_cost_pico_usd,
    a.unpriced, a.input_tokens, a.output_tokens, a.cache_read_input_tokens,
    a.cache_write_input_tokens, a.reasoning_output_tokens, p.source, p.ref, p.units
"""
"""Of `amendments a` and `prices p`, which may be missing."""


class Row(Protocol):
    """A row whose values have names."""

    def __getitem__(self, name: str, /) -> Any: ...


def event_of(
    row: Row,
    changes: Sequence[Row],
    *,
    event_id: UUID,
    created_at: datetime,
    request_id: UUID | None,
) -> UsageEvent:
    """One event, with its amendments, oldest first, applied.

    Ids and moments are given apart: each database keeps them its own way.
    """

    def amended(name: str) -> int | None:
        delta = sum(change[name] for change in changes)
        value: int | None = row[name]
        return value if not delta else (value or 0) + delta

    cost = row["cost_pico_usd"]
    if (cost is None) + sum(change["unpriced"] for change in changes) > 0:
        cost = None
    else:
        cost = (cost or 0) + sum(
            change["cost_pico_usd"] + change["estimated_cost_pico_usd"] for change in changes
        )
    priced = next((c for c in reversed(changes) if c["price_id"] is not None), row)
    status = next((c["status"] for c in reversed(changes) if c["status"]), row["status"])
    return UsageEvent(
        id=event_id,
        created_at=created_at,
        request_id=request_id,
        first_in_request=bool(row["first_in_request"]),
        operation=row["operation"],
        api=row["api"],
        provider=row["provider"],
        request_model=row["request_model"],
        response_model=row["response_model"],
        usage=Usage(
            input_tokens=amended("input_tokens"),
            output_tokens=amended("output_tokens"),
            cache_read_input_tokens=amended("cache_read_input_tokens") or 0,
            cache_write_input_tokens=amended("cache_write_input_tokens") or 0,
            reasoning_output_tokens=amended("reasoning_output_tokens") or 0,
            detail=json.loads(row["usage_detail"] or "{}"),
        ),
        price=Price(
            cost_pico_usd=cost,
            source=priced["source"],
            ref=priced["ref"],
            units=json.loads(priced["units"]),
        ),
        status=status,
        reason=changes[-1]["reason"] if changes else row["reason"],
        tags=json.loads(row["tags"]),
        latency_ms=row["latency_ms"],
        time_to_first_chunk_ms=row["time_to_first_chunk_ms"],
        api_key_id=row["api_key_id"],
        response_id=row["response_id"],
        trace_id=row["trace_id"],
        price_context=json.loads(row["price_context"] or "{}"),
        amendments=len(changes),
    )


def applied(
    rows: Iterable[Sequence[Any]], moment_of: Callable[[Any], datetime]
) -> Iterator[AppliedAmendment]:
    """What each amendment of one event made of its cost; oldest first.

    A row has when, reason, status, change of whether there is no cost, change of the cost,
    and the event's own cost.
    """
    cost, unpriced = 0, 0
    before: int | None = None
    for n, (at, reason, status, more_unpriced, more, own) in enumerate(rows):
        if n == 0:
            cost, unpriced, before = own or 0, int(own is None), own
        cost, unpriced = cost + more, unpriced + more_unpriced
        after = None if unpriced > 0 else cost
        yield AppliedAmendment(moment_of(at), reason, status, before, after)
        before = after
