"""What usage costs: the user's own prices first, then the price list.

A cost is exact, or there is none and a reason: an unknown model is never $0.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal

from costmw.chargeable import Asked, Chargeable, dearest_of, prices_of
from costmw.events import CostSource, Price, Usage, UsageEvent
from costmw.money import MAX_PICO, exact, to_pico
from costmw.price_list import KEPT_AT_MOST, STANDARD, Listed, PriceList, UnitPrices, counts_of
from costmw.price_overrides import PriceOverride
from costmw.providers.known import Provider, find_provider
from costmw.worst_prices import WorstPrices

logger = logging.getLogger("costmw")


class Pricing:
    """Prices usage; keeps what it looked up."""

    def __init__(self, overrides: Sequence[PriceOverride] = ()) -> None:
        # The latest start first: the newest price that has begun is the one that holds.
        self._overrides = sorted(overrides, key=lambda o: o.start or date.min, reverse=True)
        self._override_prices: dict[int, UnitPrices] = {}
        self._list = PriceList()
        self._dearest: dict[tuple[str, date], Chargeable] = {}
        self._answered_by: dict[tuple[str, str], str] = {}
        self._tiers: dict[str, frozenset[str]] = {}
        self._chargeable: dict[tuple[str | None, str | None, Asked, int], Chargeable] = {}

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

    def chargeable(
        self, *, provider: str | None, model: str | None, at: datetime, asked: Asked
    ) -> Chargeable:
        """The highest prices that a call may be charged which asks `provider` for `model`.

        A tier that a provider has charged before counts for requests that name none: it may
        be what the account is set to. A name that the list does not have stands for the
        model that has answered to it.
        """
        # Some prices change with the time of day.
        key = (provider, model, asked, int(at.timestamp()) // 60)
        found = self._chargeable.get(key)
        if found is None:
            if len(self._chargeable) >= KEPT_AT_MOST:
                self._chargeable.clear()
            with exact():
                found = self._find_chargeable(provider, model, at, asked)
            self._chargeable[key] = found
        return found

    def _find_chargeable(
        self, provider: str | None, model: str | None, at: datetime, asked: Asked
    ) -> Chargeable:
        billed_by = find_provider(provider) if provider else None
        name = billed_by.name if billed_by else None
        if model is None:
            return self._dearest_of(billed_by, at, "the request names no model")
        listed = model = _own_name(billed_by, model)
        info = self._list.model(billed_by.price_id, model) if billed_by else None
        if billed_by and (known := self._answered_by.get((name or "", model))):
            listed, info = known, self._list.model(billed_by.price_id, known)
        window = info[1].context_window if info else None
        names = (listed, model, info[1].id if info else None)
        if found := self._override(names, name, at):
            return Chargeable(WorstPrices([found[1].prices]), window)
        if info is None:
            return self._dearest_of(billed_by, at, _not_listed(billed_by, model))
        seen = self._tiers.get(name or "", frozenset())
        if seen and not asked.tiers:
            asked = Asked(seen, asked.speed, asked.batch)
        if not (worst := WorstPrices(prices_of(info[1], at, asked))):
            return self._dearest_of(billed_by, at, f"{model} is listed without prices")
        return Chargeable(worst, window)

    def _dearest_of(self, billed_by: Provider | None, at: datetime, reason: str) -> Chargeable:
        if billed_by is None:
            return Chargeable(None, None, reason)
        key = (billed_by.price_id, at.date())
        found = self._dearest.get(key)
        if found is None:
            self._dearest.clear()
            found = dearest_of(self._list.models(billed_by.price_id), at)
            self._dearest[key] = found
        return Chargeable(found.prices, found.context_window, reason)

    def is_at_hand(self) -> bool:
        """Whether the price list is loaded, which takes half a second; where not, it soon is."""
        return self._list.is_at_hand()

    def since(self, event: UsageEvent) -> date | None:
        """From when on the price of a call holds; None where that is not known any more."""
        price = event.price
        if price.source == "override":
            return next((one.start for one in self._overrides if one.ref == price.ref), None)
        billed_by = find_provider(event.provider) if event.provider else None
        if billed_by is None or event.model is None or price.ref is None:
            return None
        model = _own_name(billed_by, event.model)
        return self._list.since(price.ref, billed_by.price_id, model, event.created_at)

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
            model = _own_name(billed_by, model)
            listed = self._list.find(billed_by.price_id, model, at, context)
            self._learn(billed_by, request_model, model, context)
        names = (model, request_model, listed.model if listed else None)
        if found := self._override(names, billed_by.name if billed_by else None, at):
            position, override = found
            if position not in self._override_prices:
                self._override_prices[position] = UnitPrices.of(override.prices)
            return _product(self._override_prices[position], usage, "override", override.ref, None)
        if listed is None:
            return unpriced(_not_listed(billed_by, model))
        return _product(listed.unit_prices, usage, "list", listed.ref, listed.unmatched)

    def _learn(
        self, billed_by: Provider, asked_for: str | None, model: str, context: Mapping[str, str]
    ) -> None:
        """Remember which model answers to a name of one's own, and the tiers that are charged."""
        provider = billed_by.name
        asked_for = _own_name(billed_by, asked_for or model)
        is_own = asked_for != model and self._list.model(billed_by.price_id, asked_for) is None
        if is_own and self._answered_by.get((provider, asked_for)) != model:
            if len(self._answered_by) >= KEPT_AT_MOST:
                self._answered_by.clear()
            self._answered_by[provider, asked_for] = model
            self._chargeable.clear()
        tier, seen = context.get("service_tier"), self._tiers.get(provider, frozenset())
        if tier is not None and tier not in STANDARD and tier not in seen:
            self._tiers[provider] = seen | {tier}
            self._chargeable.clear()

    def _override(
        self, names: Sequence[str | None], provider: str | None, at: datetime
    ) -> tuple[int, PriceOverride] | None:
        for name in names if self._overrides else ():
            for position, override in enumerate(self._overrides):
                if name is not None and override.applies(provider, name, at):
                    return position, override
        return None


def _own_name(provider: Provider | None, model: str) -> str:
    """The name that a provider's model has in the price list."""
    for prefix in provider.model_prefixes if provider else ():
        model = model.removeprefix(prefix)
    return model


def _not_listed(provider: Provider | None, model: str) -> str:
    if provider is None:
        return "unknown host: pass provider= to instrument()"
    if provider.self_hosted:
        return f"{model} runs on a server of your own: add a price override, 0 if it is free"
    return f"{provider.price_id}/{model} is not in the price list: add a price override"


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
