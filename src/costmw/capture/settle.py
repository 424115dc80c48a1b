"""From what was read to the rows that are kept: how far usage is known, and its price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID, uuid5

from costmw.capture.estimate import TokenRatios
from costmw.context import Origin
from costmw.events import Price, Status, Submission, Usage, UsageEvent
from costmw.pricing import Pricing, unpriced
from costmw.providers.base import Match, Reading, add, answer_bytes

End = Literal["end", "closed", "failed", "dropped"]
"""How a body ended: read to its end, closed early, by an exception, by nobody."""

_EARLY = {
    "end": "the response ended early",
    "closed": "the client closed the stream before its end",
    "failed": "the connection failed before the end of the response",
    "dropped": "the stream was dropped before its end",
}

SIDE_MODELS = "side_models"
"""In the price context of a row that holds tokens of other models too: which ones."""

RESULTS = UUID("9d1d3f0a-5a51-5c39-8e0e-3f5c6d6f6d4b")
"""Namespace of the ids of results that can be read more than once (UUIDv5, RFC 9562)."""


@dataclass(frozen=True, slots=True)
class CallStart:
    """What is settled when a call starts and does not change any more.

    `request_bytes` is the length of the body that was sent, `request_usage` what the
    request itself says of its usage, for the few APIs that bill by it.
    """

    id: UUID
    created_at: datetime
    match: Match
    request_model: str | None
    tags: Mapping[str, str]
    origin: Origin
    api_key_id: str | None
    trace_id: str | None
    monotonic_ns: int
    request_bytes: int = 0
    request_usage: Usage | None = None

    @property
    def provider(self) -> str | None:
        """Who bills, where that is known."""
        return self.match.provider.name if self.match.provider else None


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended: the way, and when, in nanoseconds of the monotonic clock."""

    how: End
    monotonic_ns: int
    first_chunk_ns: int | None = None


def judge(reading: Reading, end: End) -> tuple[Status, str | None]:
    """How far the usage of a call is known, and why not further."""
    usage = reading.usage
    known = usage is not None and None not in (usage.input_tokens, usage.output_tokens)
    if reading.unreadable:
        return "unmetered", reading.problem
    if reading.finished:
        return ("ok", None) if known else ("unmetered", reading.problem)
    return "incomplete", _EARLY[end]


class Settler:
    """Makes rows of readings; learns from the exact ones to estimate the others."""

    def __init__(self, pricing: Pricing) -> None:
        self._pricing = pricing
        self._ratios = TokenRatios()

    def rows(
        self, start: CallStart, reading: Reading, end: CallEnd
    ) -> list[UsageEvent | Submission]:
        """The rows of one exchange: none, one, or one for each result of a batch."""
        if reading.not_billed:
            return []
        if reading.pending or (reading.result_id is not None and not reading.finished):
            # The result comes later, or comes again: it makes the row when it is whole.
            return list(_submissions(start, reading))
        if reading.parts:
            return [self._row(start, part, end) for part in reading.parts]
        if start.match.format.method == "GET" and reading.usage is None:
            return []  # asking for a result is no charge of its own
        return [self._row(start, reading, end)]

    def _row(self, start: CallStart, reading: Reading, end: CallEnd) -> UsageEvent:
        if reading.usage is None and start.request_usage is not None:
            reading.usage, reading.problem = start.request_usage, None
        model = reading.response_model or start.request_model
        status, reason = judge(reading, end.how)
        usage = reading.usage or Usage()
        if status == "ok":
            self._ratios.learn(
                start.provider,
                model,
                usage,
                input_bytes=start.request_bytes,
                output_bytes=answer_bytes(reading),
            )
        elif not reading.unreadable and (guess := self._guess(start, model, reading)):
            usage = guess
            status = "estimated" if status == "unmetered" else status
            reason = f"{reason}; tokens estimated from bytes"
        price = self._price(start, reading, usage, model)
        provider = start.match.provider
        return UsageEvent(
            id=_result_row_id(start, reading) or start.id,
            created_at=start.created_at,
            request_id=start.origin.request_id,
            # A result that is read later belongs to the request that asked for it.
            first_in_request=start.match.format.method == "POST" and start.origin.is_first(),
            operation=start.match.format.operation,
            api=start.match.format.api,
            provider=provider.name if provider else None,
            request_model=start.request_model,
            response_model=reading.response_model,
            usage=_with_side_usage(usage, reading),
            price=price,
            status=status,
            reason=reasons(reason, price, reading.notes),
            latency_ms=(end.monotonic_ns - start.monotonic_ns) // 1_000_000,
            time_to_first_chunk_ms=(end.first_chunk_ns - start.monotonic_ns) // 1_000_000
            if end.first_chunk_ns
            else None,
            tags=start.tags,
            api_key_id=start.api_key_id,
            response_id=reading.response_id,
            trace_id=start.trace_id,
            price_context=_price_context(reading),
            submitted_as=start.match.submission or reading.result_id,
        )

    def _guess(self, start: CallStart, model: str | None, reading: Reading) -> Usage | None:
        known = reading.usage
        if known is not None and None not in (known.input_tokens, known.output_tokens):
            return None
        return self._ratios.estimate(
            start.provider,
            model,
            reading.usage,
            input_bytes=start.request_bytes,
            output_bytes=answer_bytes(reading),
        )

    def _price(self, start: CallStart, reading: Reading, usage: Usage, model: str | None) -> Price:
        provider = start.match.provider

        def price(used: Usage, used_model: str | None) -> Price:
            return self._pricing.price(
                used,
                provider=provider.name if provider else None,
                model=used_model,
                request_model=start.request_model if used is usage else None,
                at=start.created_at,
                context=reading.price_context,
            )

        if reading.cost_usd is not None and provider is not None and provider.own_cost:
            return self._pricing.own(reading.cost_usd)
        found = price(usage, model)
        for side_model, side_usage in reading.side_usage:
            found = _together(found, price(side_usage, side_model))
        return found


def _submissions(start: CallStart, reading: Reading) -> Iterator[Submission]:
    if reading.result_id is None:
        return
    first = Submission(
        provider=start.provider,
        result_id=reading.result_id,
        created_at=start.created_at,
        tags=start.tags,
        request_id=start.origin.request_id,
        # Whoever polls has not asked for it.
        first_in_request=start.match.format.method == "POST" and start.origin.is_first(),
        api_key_id=start.api_key_id,
    )
    yield first
    for other in reading.also_known_as:
        yield replace(first, result_id=other, alias_of=first.result_id)


def _result_row_id(start: CallStart, reading: Reading) -> UUID | None:
    """The id of a result's row: the same whoever reads it, and however often."""
    if reading.result_id is None:
        return None
    return hold_of_result(start.provider, reading.result_id)


def hold_of_result(provider: str | None, result_id: str) -> UUID:
    """The id under which a result that comes later is settled."""
    return uuid5(RESULTS, f"{provider}/{result_id}")


def _price_context(reading: Reading) -> Mapping[str, str]:
    if not reading.side_usage:
        return reading.price_context
    models = sorted({model for model, _ in reading.side_usage})
    return {**reading.price_context, SIDE_MODELS: ", ".join(models)}


def _with_side_usage(usage: Usage, reading: Reading) -> Usage:
    for _, side in reading.side_usage:
        usage = add(usage, side)
    return usage


def _together(first: Price, second: Price) -> Price:
    """The price of two parts of one call; unknown when one of them is."""
    for missing in (first, second):
        if missing.cost_pico_usd is None:
            return unpriced(missing.reason or "a part of it has no price")
    assert first.cost_pico_usd is not None
    assert second.cost_pico_usd is not None
    return replace(
        first,
        cost_pico_usd=first.cost_pico_usd + second.cost_pico_usd,
        ref=f"{first.ref} + {second.ref}",
        reason=_join(first.reason, second.reason),
    )


def reasons(reason: str | None, price: Price, notes: list[str] | None = None) -> str | None:
    """Why a row is not exact, or has no cost, or what its cost leaves out."""
    # Usage that is not known leaves the cost unknown: the first says it all.
    if reason is not None and price.cost_pico_usd is None:
        return reason
    return _join(reason, price.reason, *(notes or ()))


def _join(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None
