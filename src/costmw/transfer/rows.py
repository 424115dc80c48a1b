"""Rows of a table into events: those of an export as they stand, those of others by sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, get_args
from uuid import UUID

from costmw.capture.settle import reasons
from costmw.context import resolve_tags
from costmw.events import CostSource, Price, Status, Usage, UsageEvent
from costmw.pricing import Pricing
from costmw.providers.base import MAX_COUNT, UnreadableUsage, check, storable
from costmw.providers.known import PROVIDERS, find_provider
from costmw.transfer import values
from costmw.transfer.cells import cell_text
from costmw.transfer.columns import IMPORTED
from costmw.transfer.table import TAG_COLUMNS, Cells, UnreadableRow

NIL = UUID(int=0)
TO_BE_PRICED = Price(None, "none")

# None is longer than four characters.
# None of them has more than four characters.
_NOTHING = frozenset({"", "null", "none", "nan", "nat", "\\n", "<na>"})
_KNOWN_PROVIDERS = frozenset(provider.name for provider in PROVIDERS)
_SECRETS = ("sk-", "gsk_", "xai-", "AIza", "pplx-", "hf_", "AKIA")

_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
)


class RowReader:
    """Makes events of rows; their id, and their price where they have none, come with `completed`.

    `provider` is who billed rows that do not say. `key_id` gives the fingerprint of an API
    key. `pruned_until` is when the store's rows begin.
    """

    def __init__(
        self,
        pricing: Pricing,
        *,
        provider: str | None = None,
        key_id: Callable[[str], str | None] = lambda key: None,
        pruned_until: datetime | None = None,
    ) -> None:
        self._pricing = pricing
        self._provider = provider
        self._key_id = key_id
        self._pruned_until = pruned_until

    def event(self, cells: Cells, *, own: bool) -> UsageEvent:
        """The event that a row says.

        Raises:
            UnreadableRow: naming the column and what is wrong with it.
        """
        event = self._own(cells) if own else self._foreign(cells)
        if self._pruned_until and event.created_at < self._pruned_until:
            raise UnreadableRow(
                f"created_at is before {self._pruned_until:%Y-%m-%d}: rows from before were "
                "pruned from this store, which has their sums, and would count twice"
            )
        return event

    def completed(self, event: UsageEvent, event_id: UUID) -> UsageEvent:
        """The same event with its id, and with a price where its row has none to tell."""
        if event.price is not TO_BE_PRICED:
            return replace(event, id=event_id)
        price = self._pricing.price(
            event.usage,
            provider=event.provider,
            model=event.model,
            at=event.created_at,
            context={},
        )
        return replace(event, id=event_id, price=price, reason=reasons(event.reason, price))

    def _own(self, cells: Cells) -> UsageEvent:
        found = {
            name: text for name, cell in cells.items() if (text := cell_text(cell)) is not None
        }

        def number(name: str) -> int | None:
            return values.integer(found[name], name) if name in found else None

        def mapping(name: str) -> dict[str, Any]:
            return dict(values.json_object(found[name], name)) if name in found else {}

        request_model = found.get("request_model")
        response_model = found.get("response_model")
        if request_model is None and response_model is None:
            response_model = found.get("model")
        cost, amendments = cells.get("cost_usd", ""), number("amendments")
        return UsageEvent(
            id=NIL,
            created_at=_moment(found),
            operation=found.get("operation") or "chat",
            provider=found.get("provider"),
            request_model=request_model,
            response_model=response_model,
            usage=Usage(
                number("input_tokens"),
                number("output_tokens"),
                number("cache_read_input_tokens") or 0,
                number("cache_write_input_tokens") or 0,
                number("reasoning_output_tokens") or 0,
                {
                    unit: values.integer(str(count), "usage_detail")
                    for unit, count in mapping("usage_detail").items()
                },
            ),
            price=Price(
                values.pico_usd(cost, "cost_usd") if cost else None,
                _one_of(CostSource, found, "cost_source"),
                found.get("price_ref"),
                {unit: str(usd) for unit, usd in mapping("unit_prices_usd").items()},
            ),
            status=_one_of(Status, found, "status"),
            reason=found.get("reason"),
            tags=_tags(mapping("tags")),
            api=found.get("api"),
            request_id=_uuid(found, "request_id"),
            first_in_request=found.get("first_in_request", "").lower() in ("1", "true"),
            latency_ms=number("latency_ms"),
            time_to_first_chunk_ms=number("time_to_first_chunk_ms"),
            api_key_id=found.get("api_key_id"),
            response_id=found.get("response_id"),
            trace_id=found.get("trace_id"),
            price_context={k: str(v) for k, v in mapping("price_context").items()},
            amendments=amendments or 0,
        )

    def _foreign(self, cells: Cells) -> UsageEvent:
        found = {}
        for name, cell in cells.items():
            text = (cell_text(cell) or "").strip()
            if len(text) > 4 or text.lower() not in _NOTHING:
                found[name] = text
        if found.get("currency", "USD").upper() != "USD":
            raise UnreadableRow(f"currency is {found['currency']!r}: only USD can be imported")
        if "model" not in found:
            raise UnreadableRow("model is missing")
        usage, model, provider = _usage(found), storable(found["model"]), self._billed_by(found)
        price = TO_BE_PRICED
        if "cost_usd" in found:
            price = Price(values.pico_usd(found["cost_usd"], "cost_usd"), "override", IMPORTED)
        elif provider is None:
            raise UnreadableRow("provider is missing, and so is cost_usd: name it with --provider")
        known = "cost_usd" in found or None not in (usage.input_tokens, usage.output_tokens)
        latency = found.get("latency_ms")
        return UsageEvent(
            id=NIL,
            created_at=_moment(found),
            operation=storable(found.get("operation", "chat")),
            provider=provider,
            request_model=model,
            response_model=model,
            usage=usage,
            price=price,
            status="ok" if known else "unmetered",
            reason=None if known else "imported without usage",
            tags=_tags(
                {tag: found[f"tag:{tag}"] for tag in TAG_COLUMNS if f"tag:{tag}" in found}
                | (dict(values.json_object(found["tags"], "tags")) if "tags" in found else {})
            ),
            latency_ms=values.milliseconds(latency, "latency_ms") if latency else None,
            api_key_id=self._key(found.get("api_key_id")),
            response_id=storable(found["response_id"]) if "response_id" in found else None,
            trace_id=storable(found["trace_id"]) if "trace_id" in found else None,
        )

    def _billed_by(self, found: Cells) -> str | None:
        name = found.get("provider") or self._provider
        if name is None:
            return None
        known = find_provider(name.lower()).name
        return known if known in _KNOWN_PROVIDERS else storable(name)

    def _key(self, api_key_id: str | None) -> str | None:
        if api_key_id is None:
            return None
        is_secret = api_key_id.startswith(_SECRETS)
        return self._key_id(api_key_id) if is_secret else storable(api_key_id)


def _moment(found: Cells) -> datetime:
    if "created_at" not in found:
        raise UnreadableRow("created_at is missing")
    return values.moment(found["created_at"], "created_at")


def _usage(found: Cells) -> Usage:
    counts: list[int | None] = []
    for name in _COUNTS:
        count = values.integer(found[name], name) if name in found else None
        if count is not None and not 0 <= count <= MAX_COUNT:
            raise UnreadableRow(f"{name} is {count}, not a number of tokens")
        counts.append(count)
    try:
        return check(Usage(counts[0], counts[1], counts[2] or 0, counts[3] or 0, counts[4] or 0))
    except UnreadableUsage as error:
        raise UnreadableRow(f"tokens: {error}; input includes cache, output reasoning") from None


def _tags(found: dict[str, Any]) -> dict[str, str]:
    tags, faults = resolve_tags(
        {key: values.as_tag(value) for key, value in found.items()}, None, None, None
    )
    if faults:
        raise UnreadableRow(f"tags: {faults[0]}")
    return tags


def _uuid(found: Cells, name: str) -> UUID | None:
    try:
        return UUID(found[name]) if name in found else None
    except ValueError:
        raise UnreadableRow(f"{name} is {found[name]!r}, not a UUID") from None


def _one_of(literal: Any, found: Cells, name: str) -> Any:
    if found.get(name) not in get_args(literal):
        raise UnreadableRow(
            f"{name} is {found.get(name)!r}, not one of {', '.join(get_args(literal))}"
        )
    return found[name]
