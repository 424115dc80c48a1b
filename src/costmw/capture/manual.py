"""Calls that a developer states by hand, checked before they become rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Required, TypedDict
from uuid import UUID

from costmw.context import Tags
from costmw.errors import ConfigError
from costmw.events import Status, Usage, new_id
from costmw.money import parse_usd
from costmw.providers.base import UnreadableUsage, check, count, storable


class RecordArguments(TypedDict, total=False):
    """What `Meter.record()` takes.

    `provider` is who bills (`"openai"`), `model` the model that answered. Tokens are
    whole numbers, None or left out when unknown: `input_tokens` includes the cached
    ones, `output_tokens` the reasoning ones. `detail` has more counts under the price
    list's unit names. `cost` is the provider's own figure in USD, as a string or
    Decimal; it wins over any list. `operation` is what was done as OpenTelemetry names
    it (`"chat"` when left out). `tags` win over all others. `created_at` is when the
    call started, aware (now). `latency_ms` is in milliseconds. `id` is the row's id:
    recording one id twice makes one row.
    """

    provider: Required[str]
    model: Required[str]
    input_tokens: int | None
    output_tokens: int | None
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    detail: Mapping[str, int]
    cost: Decimal | int | str | None
    operation: str
    tags: Tags
    created_at: datetime
    latency_ms: int | None
    response_id: str | None
    id: UUID


@dataclass(frozen=True, slots=True)
class StatedCall:
    """A call as stated, complete and checked."""

    provider: str
    model: str
    usage: Usage
    cost_usd: Decimal | None
    status: Status
    reason: str | None
    operation: str
    tags: Tags | None
    created_at: datetime
    latency_ms: int | None
    response_id: str | None
    id: UUID


_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
)

# The same totals under the price list's names.
_TOTALS = ("cache_read_tokens", "cache_write_tokens", "output_reasoning_tokens")


def checked(**call: Any) -> StatedCall:
    """Check the arguments of `Meter.record()`.

    Raises:
        ConfigError: naming the argument and what is wrong with it.
    """
    for unknown in call.keys() - RecordArguments.__annotations__.keys():
        raise ConfigError(f"record() has no argument {unknown!r}")
    for name in ("provider", "model"):
        if not isinstance(call.get(name), str) or not call[name]:
            raise ConfigError(f"record() needs {name}= as text")
    for name in ("operation", "response_id"):
        if not isinstance(call.get(name), str | None):
            raise ConfigError(f"record() takes {name}= as text")
    for name in ("tags", "detail"):
        if not isinstance(call.get(name), Mapping | None):
            raise ConfigError(f"record() takes {name}= as a mapping")
    created_at = call.get("created_at") or datetime.now(UTC)
    if not isinstance(created_at, datetime) or created_at.tzinfo is None:
        raise ConfigError("created_at needs a time zone: use datetime.now(timezone.utc)")
    try:
        created_at = created_at.astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"created_at is {created_at}, which is no time in UTC") from None
    detail = call.get("detail") or {}
    try:
        counts = {name: count(call, name) for name in _COUNTS}
        usage = check(
            Usage(
                input_tokens=counts["input_tokens"],
                output_tokens=counts["output_tokens"],
                cache_read_input_tokens=counts["cache_read_input_tokens"] or 0,
                cache_write_input_tokens=counts["cache_write_input_tokens"] or 0,
                reasoning_output_tokens=counts["reasoning_output_tokens"] or 0,
                detail={storable(str(name)): count(detail, name) or 0 for name in detail},
            )
        )
        latency_ms = count(call, "latency_ms")
    except UnreadableUsage as error:
        raise ConfigError(f"cannot record this call: {error}") from None
    for name in detail:
        if name in _COUNTS or name in _TOTALS:
            raise ConfigError(f"detail has {name!r}, which is an argument of record() itself")
    if not isinstance(call.get("id"), UUID | None):
        raise ConfigError("record() takes id= as a UUID")
    cost = None if call.get("cost") is None else parse_usd(call["cost"], "cost")
    if cost is not None and cost < 0:
        raise ConfigError(f"cost is negative: {cost}")
    known = cost is not None or None not in (usage.input_tokens, usage.output_tokens)
    return StatedCall(
        provider=storable(call["provider"]),
        model=storable(call["model"]),
        usage=usage,
        cost_usd=cost,
        status="ok" if known else "unmetered",
        reason=None if known else "recorded without usage",
        operation=storable(call.get("operation") or "chat"),
        tags=call.get("tags"),
        created_at=created_at,
        latency_ms=latency_ms,
        response_id=storable(response_id) if (response_id := call.get("response_id")) else None,
        id=call.get("id") or new_id(),
    )
