"""The columns of exported rows: first those that how-to articles name, then our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from costmw.events import UsageEvent

Kind = Literal["text", "integer", "usd", "moment", "json", "flag"]
"""How a column is written. `usd` is an integer of pico-USD here, `json` a mapping."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, what kind of values it has, and where an event has them."""

    name: str
    kind: Kind
    of: Callable[[UsageEvent], Any]


COLUMNS = (
    Column("id", "text", lambda event: str(event.id)),
    Column("model", "text", lambda event: event.model),
    Column("provider", "text", lambda event: event.provider),
    Column("input_tokens", "integer", lambda event: event.usage.input_tokens),
    Column("output_tokens", "integer", lambda event: event.usage.output_tokens),
    Column("cost_usd", "usd", lambda event: event.price.cost_pico_usd),
    Column("latency_ms", "integer", lambda event: event.latency_ms),
    Column("tags", "json", lambda event: event.tags),
    Column("api_key_id", "text", lambda event: event.api_key_id),
    Column("created_at", "moment", lambda event: event.created_at),
    Column("status", "text", lambda event: event.status),
    Column("reason", "text", lambda event: event.reason),
    Column("cost_source", "text", lambda event: event.price.source),
    Column("operation", "text", lambda event: event.operation),
    Column("cache_read_input_tokens", "integer", lambda e: e.usage.cache_read_input_tokens),
    Column("cache_write_input_tokens", "integer", lambda e: e.usage.cache_write_input_tokens),
    Column("reasoning_output_tokens", "integer", lambda e: e.usage.reasoning_output_tokens),
    Column("usage_detail", "json", lambda event: event.usage.detail),
    Column("request_id", "text", lambda event: str(event.request_id) if event.request_id else None),
    Column("first_in_request", "flag", lambda event: event.first_in_request),
    Column("request_model", "text", lambda event: event.request_model),
    Column("response_model", "text", lambda event: event.response_model),
    Column("api", "text", lambda event: event.api),
    Column("price_ref", "text", lambda event: event.price.ref),
    Column("unit_prices_usd", "json", lambda event: event.price.units),
    Column("price_context", "json", lambda event: event.price_context),
    Column("time_to_first_chunk_ms", "integer", lambda event: event.time_to_first_chunk_ms),
    Column("response_id", "text", lambda event: event.response_id),
    Column("trace_id", "text", lambda event: event.trace_id),
    Column("amendments", "integer", lambda event: event.amendments),
)

IMPORTED = "import"
"""The `price_ref` of a cost that a table of somebody else's gave."""

NAMES = tuple(column.name for column in COLUMNS)


def json_text(value: Mapping[str, Any]) -> str:
    """A mapping as compact JSON, the same text for the same mapping."""
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def moment_text(moment: datetime) -> str:
    """A moment as ISO 8601 in UTC, to the microsecond: `2026-11-01T00:00:00.000000Z`."""
    text = moment.astimezone(UTC).isoformat(timespec="microseconds")
    return text.removesuffix("+00:00") + "Z"
