"""What usage costs: the user's own prices first, then the price list.

A cost is exact, or there is none and a reason: an unknown model is never $0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from costmw.events import CostSource, Price, Usage
from costmw.money import MAX_PICO, exact, to_pico
from costmw.price_list import Listed, PriceList, UnitPrices, counts_of
from costmw.price_overrides import PriceOverride
from costmw.providers.registry import find_provider

logger = logging.getLogger("costmw")


class Pricing:
    """Prices usage; keeps what it looked up."""

    def __init__(self, overrides: Sequence[PriceOverride] = ()) -> None:
        # The latest start first: the newest price that has begun is the one that holds.
        self._overrides = sorted(overrides, key=lambda o: o.start or date.min, reverse=True)
        self._override_prices: dict[int, UnitPrices] = {}
        self._list = PriceList()

    def price(
        self,
        usage: Usage,
        *,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str],
        request_model: str | None = None,
    ) -> Price:
        """Work out what `usage` costs.

        Args:
            usage: what was used.
            provider: who bills, by its OpenTelemetry name.
            model: the model that answered; overrides may also name it as `request_model`
                does, or as the price list does.
            at: when the call started; decides dated and time-of-day prices.
            context: facts from the response that choose a price (`service_tier`).

        Returns:
            The cost with its source, or no cost and the reason; never raises.
        """
        try:
            with exact():
                return self._price(usage, provider, model, at, context, request_model)
        except Exception as error:
            logger.exception("costmw cannot price a call of %s/%s", provider, model)
            return unpriced(f"pricing failed: {type(error).__name__}: {error}")

    def own(self, cost_usd: Decimal) -> Price:
        """The provider's own figure, which wins over any list."""
        if not cost_usd.is_finite() or cost_usd.adjusted() > 12:
            return unpriced("the provider's own cost cannot be what was meant")
        return _stored(to_pico(cost_usd), "provider", None, {}, None)

    def _price(
        self,
        usage: Usage,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str],
        request_model: str | None,
    ) -> Price:
        if usage.input_tokens is None or usage.output_tokens is None:
            return unpriced("usage is not fully known")
        if model is None:
            return unpriced("neither request nor response names a model")
        billed_by = find_provider(provider) if provider else None
        listed: Listed | None = None
        if billed_by is not None:
            for prefix in billed_by.model_prefixes:
                model = model.removeprefix(prefix)
            listed = self._list.find(billed_by.price_id, model, at, context)
        names = (model, request_model, listed.model if listed else None)
        if found := self._override(names, billed_by.name if billed_by else None, at):
            position, override = found
            if position not in self._override_prices:
                self._override_prices[position] = UnitPrices.of(override.prices)
            return _product(self._override_prices[position], usage, "override", override.ref, None)
        if billed_by is None:
            return unpriced("unknown host: pass provider= to instrument()")
        if listed is None:
            return unpriced(
                f"{model} runs on a server of your own: add a price override, 0 if it is free"
                if billed_by.self_hosted
                else f"{billed_by.price_id}/{model} is not in the price list: add a price override"
            )
        return _product(listed.unit_prices, usage, "list", listed.ref, listed.unmatched)

    def _override(
        self, names: Sequence[str | None], provider: str | None, at: datetime
    ) -> tuple[int, PriceOverride] | None:
        for name in names if self._overrides else ():
            for position, override in enumerate(self._overrides):
                if name is not None and override.applies(provider, name, at):
                    return position, override
        return None


def unpriced(reason: str) -> Price:
    """No cost, and why."""
    return Price(cost_pico_usd=None, source="none", reason=reason)


def _product(
    unit_prices: UnitPrices, usage: Usage, source: CostSource, ref: str, reason: str | None
) -> Price:
    """Multiply counts by unit prices."""
    counts = counts_of(usage)
    try:
        rates = unit_prices.rates(counts)
        cost = to_pico(rates.cost_usd(counts))
    except (ValueError, LookupError, TypeError) as error:
        return unpriced(f"{ref} cannot price this usage: {error}")
    if not unit_prices.has_prices:
        return unpriced(f"{ref} has no prices")
    if absent := [name for name in rates.missing if counts[name]]:
        missing = f"no price for {', '.join(absent)}"
        reason = f"{reason}; {missing}" if reason else missing
    return _stored(cost, source, ref, rates.units, reason)


def _stored(
    cost: int, source: CostSource, ref: str | None, units: Mapping[str, str], reason: str | None
) -> Price:
    if not 0 <= cost <= MAX_PICO:
        return unpriced("the cost is beyond what a row can hold")
    return Price(cost, source, ref, units, reason)
