"""What the ledger says, in the shape of answers: pico-USD into USD, bins into quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from costmw.answers import Call, DurationRow, Quantiles, Sums
from costmw.events import UsageEvent
from costmw.money import format_usd
from costmw.store.base import DurationCounts, Totals
from costmw.store.rollups import quantile


def cost_of(totals: Totals) -> int:
    """All money of a group, exact and estimated, in pico-USD."""
    return totals.cost_pico_usd + totals.estimated_cost_pico_usd


def share_of(part: Totals, whole: Totals) -> float:
    """The part that a group's cost is of another's; 0 where nothing was spent."""
    return cost_of(part) / cost_of(whole) if cost_of(whole) else 0.0


def usd(pico: int) -> Decimal:
    """USD of an amount in pico-USD, exactly."""
    return Decimal(format_usd(pico))


def average_usd(pico: int, count: int) -> Decimal | None:
    """An average, rounded to the nearest pico-USD."""
    return usd((2 * pico + count) // (2 * count)) if count else None


def sums_of(totals: Totals) -> Sums:
    """The sums of a group."""
    return Sums(
        total_usd=usd(cost_of(totals)),
        cost_usd=usd(totals.cost_pico_usd),
        estimated_cost_usd=usd(totals.estimated_cost_pico_usd),
        cost_per_call_usd=average_usd(cost_of(totals), totals.calls - totals.unpriced),
        cost_per_request_usd=average_usd(totals.cost_in_requests_pico_usd, totals.requests),
        calls=totals.calls,
        requests=totals.requests,
        unpriced_calls=totals.unpriced,
        flagged_calls=totals.flagged,
        incomplete_calls=totals.incomplete,
        input_tokens=totals.input_tokens,
        output_tokens=totals.output_tokens,
        cache_read_input_tokens=totals.cache_read_input_tokens,
        cache_write_input_tokens=totals.cache_write_input_tokens,
        reasoning_output_tokens=totals.reasoning_output_tokens,
        average_latency_ms=totals.latency_ms // totals.timed if totals.timed else None,
    )


def duration_row_of(value: str | int | None, durations: DurationCounts) -> DurationRow:
    """How long the calls of a group took."""
    return DurationRow(
        value=None if value is None else str(value),
        latency=quantiles_of(durations.latency),
        time_to_first_chunk=quantiles_of(durations.first_chunk),
    )


def quantiles_of(bins: Mapping[int, int]) -> Quantiles:
    """Quantiles of a histogram."""
    return Quantiles(
        calls=sum(bins.values()),
        p50_ms=quantile(bins.items(), 0.5),
        p90_ms=quantile(bins.items(), 0.9),
        p95_ms=quantile(bins.items(), 0.95),
        p99_ms=quantile(bins.items(), 0.99),
    )


def call_of(event: UsageEvent) -> Call:
    """One call, with the arithmetic of its cost."""
    usage, price = event.usage, event.price
    return Call(
        id=event.id,
        created_at=event.created_at,
        operation=event.operation,
        provider=event.provider,
        model=event.model,
        status=event.status,
        cost_usd=None if price.cost_pico_usd is None else usd(price.cost_pico_usd),
        cost_source=price.source,
        price_ref=price.ref,
        unit_prices_usd={unit: format(Decimal(usd), "f") for unit, usd in price.units.items()},
        reason=event.reason,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_write_input_tokens=usage.cache_write_input_tokens,
        reasoning_output_tokens=usage.reasoning_output_tokens,
        detail=dict(usage.detail),
        latency_ms=event.latency_ms,
        time_to_first_chunk_ms=event.time_to_first_chunk_ms,
        tags=dict(event.tags),
        api_key_id=event.api_key_id,
        response_id=event.response_id,
    )
