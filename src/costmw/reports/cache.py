"""What cached input has saved, by today's prices."""

from __future__ import annotations

from decimal import Decimal

from costmw.answering import usd
from costmw.answers import CacheSavings
from costmw.money import exact, to_pico
from costmw.pricing import Pricing
from costmw.reports.asked import Asked
from costmw.savings import cache_prices
from costmw.store.base import Totals

_MILLION = 10**6


def cache_savings_of(asked: Asked, every: Totals, pricing: Pricing) -> CacheSavings | None:
    """What was read from caches at the price of plain input, less what it cost.

    What writing to them cost on top is taken away: a cache that is hardly read loses money.
    None where no cache was used, or no model that used one has a price, and for a second in a
    process that has not loaded the price list: nobody waits for an estimate.
    """
    if not (every.cache_read_input_tokens or every.cache_write_input_tokens):
        return None
    if not pricing.is_at_hand():
        return None
    saved, is_known = Decimal(0), False
    with exact():
        for (provider, model), sums in asked.totals(group_by=("provider", "model")).groups.items():
            if not (sums.cache_read_input_tokens or sums.cache_write_input_tokens):
                continue
            named = tuple(None if name is None else str(name) for name in (provider, model))
            prices = cache_prices(pricing, (named[0], named[1]), sums, asked.now)
            if prices is None:
                continue
            is_known = True
            saved += sums.cache_read_input_tokens * (prices.plain - prices.read)
            if prices.write is not None:
                saved -= sums.cache_write_input_tokens * (prices.write - prices.plain)
        pico = to_pico(saved / _MILLION)
    if not is_known:
        return None
    share = every.cache_read_input_tokens / every.input_tokens if every.input_tokens else 0.0
    return CacheSavings(saved_usd=usd(pico), read_share=share)
