"""Cost by the hour in the columns of FOCUS (https://focus.finops.org), for FinOps tools.

What is worked out from a public list is `ListCost`, from the user's own prices
`ContractedCost`. A provider's own figure of a call is neither, nor is one that was imported,
and what an invoice says is not known here: there is no `BilledCost`. `x_CostUsd` has
whatever is known of the cost.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import IO

from costmw.events import UsageEvent
from costmw.money import format_usd
from costmw.transfer.cells import text_cell
from costmw.transfer.columns import IMPORTED, json_text
from costmw.transfer.formats import write_lines

COLUMNS = (
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuPriceId",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ListCost",
    "ContractedCost",
    "BillingCurrency",
    "Tags",
    "x_CostUsd",
    "x_CostSource",
    "x_Status",
    "x_Operation",
    "x_ApiKeyId",
    "x_Calls",
    "x_InputTokens",
    "x_OutputTokens",
    "x_CacheReadInputTokens",
    "x_CacheWriteInputTokens",
    "x_ReasoningOutputTokens",
)

_HOUR = timedelta(hours=1)


@dataclass(slots=True)
class _Charge:
    """Sums of the calls of one hour that are alike."""

    calls: int = 0
    cost_pico_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0

    def add(self, event: UsageEvent) -> None:
        self.calls += 1
        self.cost_pico_usd += event.price.cost_pico_usd or 0
        for name in _TOKENS:
            setattr(self, name, getattr(self, name) + (getattr(event.usage, name) or 0))


_TOKENS = tuple(field.name for field in fields(_Charge) if field.name.endswith("_tokens"))


class FocusSink:
    """Sums up calls that are alike, hour by hour; takes them oldest first."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hour: datetime | None = None
        self._charges: dict[Hashable, tuple[UsageEvent, _Charge]] = {}
        write_lines(file, [COLUMNS])

    def write(self, events: Sequence[UsageEvent]) -> None:
        """Add some events; the hours before the last one's are written."""
        for event in events:
            hour = event.created_at.replace(minute=0, second=0, microsecond=0)
            if hour != self._hour:
                self.finish()
                self._hour = hour
            _, charge = self._charges.setdefault(_alike(event), (event, _Charge()))
            charge.add(event)

    def finish(self) -> None:
        """Write the charges of the last hour."""
        if self._hour is not None:
            write_lines(
                self._file,
                [_line(self._hour, event, charge) for event, charge in self._charges.values()],
            )
        self._charges = {}


def _alike(event: UsageEvent) -> Hashable:
    """What calls that are summed up have in common; known and unknown are kept apart."""
    return (
        event.provider,
        event.model,
        event.operation,
        event.api_key_id,
        event.status,
        event.price.source,
        event.price.ref,
        event.price.cost_pico_usd is None,
        event.usage.input_tokens is None,
        event.usage.output_tokens is None,
        tuple(sorted(event.tags.items())),
    )


def _line(hour: datetime, event: UsageEvent, charge: _Charge) -> list[object]:
    price, usage = event.price, event.usage
    cost = None if price.cost_pico_usd is None else format_usd(charge.cost_pico_usd)
    known = usage.input_tokens is not None and usage.output_tokens is not None
    return [
        f"{hour:%Y-%m-%dT%H:%M:%SZ}",
        f"{hour + _HOUR:%Y-%m-%dT%H:%M:%SZ}",
        "Usage",
        "AI and Machine Learning",
        text_cell(event.provider),
        text_cell(event.model),
        text_cell(price.ref),
        charge.input_tokens + charge.output_tokens if known else None,
        "Tokens" if known else None,
        cost if price.source == "list" else None,
        cost if price.source == "override" and price.ref != IMPORTED else None,
        "USD",
        json_text(event.tags),
        cost,
        price.source,
        event.status,
        text_cell(event.operation),
        text_cell(event.api_key_id),
        charge.calls,
        None if usage.input_tokens is None else charge.input_tokens,
        None if usage.output_tokens is None else charge.output_tokens,
        charge.cache_read_input_tokens,
        charge.cache_write_input_tokens,
        charge.reasoning_output_tokens,
    ]
