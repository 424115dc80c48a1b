"""What the calls of a month could have cost less, as far as sums of a ledger can tell.

Each saving says how it was worked out, how sure it is, and what speaks against it. They are
not to be added up: two of them may be about the same calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from costmw.events import Usage
from costmw.money import PICO, from_pico, to_pico
from costmw.pricing import Pricing
from costmw.store.base import Totals

LEAST_PICO_USD = PICO
"""What is less than 1 USD in a month is not worth a line."""

CALLS_AT_LEAST = 100
"""So many calls of a model and feature say whether its cache is used."""

TOKENS_AT_LEAST = 2048
"""Shorter inputs may be too short to be cached; most models ask for 1024 or 2048 tokens."""

NIGHT = range(6)
"""The hours of the day, in the ledger's time zone, in which nobody waits for an answer."""

MOSTLY_AT_NIGHT = 0.8
"""The share of a feature's cost at night from which on it is taken for a job."""

Confidence = Literal["high", "medium", "low"]
Model = tuple[str | None, str | None]
"""Provider and model."""


@dataclass(frozen=True, slots=True)
class Saving:
    """Something that could cost less, by `most_pico_usd` at most.

    `title` names it, `how` says how the amount was worked out, `todo` what to do, `caveat`
    what may stand against it. `confidence` is how sure it is that this much can be saved.
    """

    title: str
    most_pico_usd: int
    how: str
    todo: str
    caveat: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class MonthOfUse:
    """The sums that savings are looked for in.

    `by_kind` is by provider, model and status; `by_feature` by provider, model and feature.
    `by_hour` holds what each feature cost in each hour of the day, in pico-USD.
    """

    at: datetime
    by_kind: Mapping[tuple[str | None, str | None, str | None], Totals]
    by_feature: Mapping[tuple[str | None, str | None, str | None], Totals]
    by_hour: Mapping[str | None, Sequence[int]]


def savings(month: MonthOfUse, pricing: Pricing) -> list[Saving]:
    """All that is found, the largest first, by today's prices."""
    found = [
        *_cut_off(month),
        *_caches_that_cost_more(month, pricing),
        *_unused_caches(month, pricing),
        *_jobs_at_night(month, pricing),
    ]
    worth = [one for one in found if one.most_pico_usd >= LEAST_PICO_USD]
    return sorted(worth, key=lambda one: -one.most_pico_usd)


def _cut_off(month: MonthOfUse) -> Iterator[Saving]:
    """Answers that were paid for and not read to their end."""
    whole, parts = Totals(), []
    for (provider, model, status), totals in month.by_kind.items():
        if status == "incomplete" and _cost(totals):
            whole.add(totals)
            parts.append((_cost(totals), _name(provider, model)))
    if parts:
        yield Saving(
            title="Answers that nobody read to the end",
            most_pico_usd=_cost(whole),
            how=f"{whole.calls:,} calls did not reach their end and cost {_usd(_cost(whole))} USD, "
            f"{_usd(whole.estimated_cost_pico_usd)} USD of it estimated: {_listed(parts)}.",
            todo="Cancel the call at the provider when its reader leaves; shorten what is asked "
            "for, or raise the client's timeout, where calls run into it.",
            caveat="What came before the end may have been of use.",
            confidence="medium",
        )


def _caches_that_cost_more(month: MonthOfUse, pricing: Pricing) -> Iterator[Saving]:
    """Prompt caches that are written more than they are read."""
    for (provider, model), totals in _by_model(month).items():
        prices = cache_prices(pricing, (provider, model), totals, month.at)
        if prices is None or not totals.cache_write_input_tokens or prices.write is None:
            continue
        extra = totals.cache_write_input_tokens * (prices.write - prices.plain)
        saved = totals.cache_read_input_tokens * (prices.plain - prices.read)
        # One that pays is a saving below nothing, and is left out.
        yield Saving(
            title=f"A prompt cache of {_name(provider, model)} that costs more than it saves",
            most_pico_usd=to_pico((extra - saved) / 10**6),
            how=f"{totals.cache_write_input_tokens:,} tokens were written to it, for "
            f"{_usd_of(extra)} USD more than plain input; {totals.cache_read_input_tokens:,} "
            f"were read from it, for {_usd_of(saved)} USD less.",
            todo="Cache only what is asked for again within its lifetime; put what changes "
            "behind what repeats.",
            caveat="Writes are counted at the price of the shortest lifetime.",
            confidence="high",
        )


def _unused_caches(month: MonthOfUse, pricing: Pricing) -> Iterator[Saving]:
    """Long inputs of models that could read from a cache, and never do."""
    parts = []
    for (provider, model, feature), totals in month.by_feature.items():
        if totals.cache_read_input_tokens or totals.cache_write_input_tokens:
            continue
        if totals.calls < CALLS_AT_LEAST or totals.input_tokens < TOKENS_AT_LEAST * totals.calls:
            continue
        prices = cache_prices(pricing, (provider, model), totals, month.at)
        if prices is None or prices.read >= prices.plain:
            continue
        saved = to_pico(totals.input_tokens * (prices.plain - prices.read) / 10**6)
        what = (
            f"{_of(feature)} with {_name(provider, model)}, {totals.calls:,} calls of "
            f"{totals.input_tokens // totals.calls:,} tokens, at {prices.read} instead of "
            f"{prices.plain} USD for a million"
        )
        parts.append((saved, what))
    if parts:
        yield Saving(
            title="Prompt caches that are not used",
            most_pico_usd=sum(saved for saved, _ in parts),
            how=f"If all of the input were read from a cache, and none of it is: {_listed(parts)}.",
            todo="Put instructions, tools and examples, which repeat, before what changes; mark "
            "them for the cache where the provider asks for that.",
            caveat="An upper bound, mostly far above what can be had: the ledger keeps no "
            "prompts, and cannot tell how much of them repeats.",
            confidence="low",
        )


def _jobs_at_night(month: MonthOfUse, pricing: Pricing) -> Iterator[Saving]:
    """Features that run when nobody waits, at models that have a lower price for batches."""
    for feature, hours in month.by_hour.items():
        whole = sum(hours)
        if not whole or sum(hours[hour] for hour in NIGHT) < MOSTLY_AT_NIGHT * whole:
            continue
        saved, names = 0, []
        for (provider, model, own), totals in month.by_feature.items():
            if own == feature and (
                share := _batch_saves(pricing, (provider, model), totals, month)
            ):
                saved += round(_cost(totals) * share)
                names.append(_name(provider, model))
        if names:
            yield Saving(
                title=f"Batch prices for {_of(feature)}",
                most_pico_usd=saved,
                how=f"{sum(hours[hour] for hour in NIGHT) / whole:.0%} of its cost falls between "
                f"{NIGHT.start}:00 and {NIGHT.stop}:00, as that of a job does; {', '.join(names)} "
                "cost less in a batch.",
                todo="Send these calls as a batch, or at the provider's flexible tier.",
                caveat="Results of a batch may take a day. Night is that of the ledger's time "
                "zone.",
                confidence="medium",
            )


@dataclass(frozen=True, slots=True)
class CachePrices:
    """USD for a million input tokens: plain, read from a cache, written to one."""

    plain: Decimal
    read: Decimal
    write: Decimal | None


def cache_prices(
    pricing: Pricing, model: Model, totals: Totals, at: datetime
) -> CachePrices | None:
    """What input of a model costs on average, plain and by way of a cache; None without one."""
    # Prices that do not bear on a call are not told of: this one reads and writes a token.
    probe = Usage(totals.input_tokens // max(totals.calls, 1) + 2, 1, 1, 1)
    units = pricing.price(probe, provider=model[0], model=model[1], at=at, context={}).units
    if "input_mtok" not in units or "cache_read_mtok" not in units:
        return None
    write = units.get("cache_write_mtok")
    return CachePrices(
        Decimal(units["input_mtok"]),
        Decimal(units["cache_read_mtok"]),
        None if write is None else Decimal(write),
    )


def _batch_saves(pricing: Pricing, model: Model, totals: Totals, month: MonthOfUse) -> float:
    """The part of the average call's cost that a batch would not have charged."""
    as_one, in_batch = (
        pricing.price(
            _average(totals), provider=model[0], model=model[1], at=month.at, context=context
        ).cost_pico_usd
        for context in ({}, {"processing": "batch"})
    )
    return 1 - in_batch / as_one if as_one and in_batch and in_batch < as_one else 0.0


def _average(totals: Totals) -> Usage:
    """What one call used on average: tiers of a price are chosen by the single call."""
    calls = max(totals.calls, 1)
    return Usage(
        totals.input_tokens // calls,
        totals.output_tokens // calls,
        totals.cache_read_input_tokens // calls,
        totals.cache_write_input_tokens // calls,
        totals.reasoning_output_tokens // calls,
    )


def _by_model(month: MonthOfUse) -> dict[Model, Totals]:
    found: dict[Model, Totals] = {}
    for (provider, model, _), totals in month.by_kind.items():
        found.setdefault((provider, model), Totals()).add(totals)
    return found


def _cost(totals: Totals) -> int:
    return totals.cost_pico_usd + totals.estimated_cost_pico_usd


def _name(provider: str | None, model: str | None) -> str:
    return "/".join(name or "(unknown)" for name in (provider, model))


def _of(feature: str | None) -> str:
    return "calls without a feature" if feature is None else f"feature {feature}"


def _listed(parts: Sequence[tuple[int, str]]) -> str:
    """The largest first, each with its amount."""
    ranked = sorted(parts, key=lambda one: (-one[0], one[1]))
    return "; ".join(f"{what} ({_usd(pico)} USD)" for pico, what in ranked)


def _usd(pico: int) -> str:
    return f"{from_pico(pico):,.2f}"


def _usd_of(millionths: Decimal) -> str:
    return f"{millionths / 10**6:,.2f}"
