"""The arithmetic of one call: what was counted, at which prices, adds up to its cost."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from costmw.answers import CallLine
from costmw.events import UsageEvent
from costmw.money import exact, to_pico
from costmw.price_list import UnitPrices, counts_of

_NUMBERS = {10**9: "1B", 10**6: "1M", 10**3: "1K"}


def lines_of(event: UsageEvent) -> tuple[list[CallLine] | None, str | None]:
    """The lines that add up to the cost of a call, or None and why there are none."""
    if event.price.cost_pico_usd is None:
        return None, event.reason or "the cost is not known"
    if event.price.source == "provider":
        return None, "the cost is the provider's own figure"
    if not event.price.units:
        return None, "the prices that were applied are not kept"
    try:
        with exact():
            lines = _lines(event)
            told = sum((line.cost_usd for line in lines), Decimal(0))
    except (ValueError, LookupError, TypeError) as error:
        return None, f"the prices that were applied do not fit what was counted: {error}"
    if to_pico(told) != event.price.cost_pico_usd:
        return None, "the cost was corrected, or rounded up, beyond the product"
    return lines, None


def _lines(event: UsageEvent) -> list[CallLine]:
    from genai_prices.data_units import unit_data

    counts = counts_of(event.usage)
    prices = {key: Decimal(price) for key, price in event.price.units.items()}
    cost = _cost(prices, counts)
    kinds = {unit["price_key"]: (name, unit["per"]) for name, unit in unit_data.items()}
    lines = []
    for key, price in prices.items():
        name, per = kinds[key]
        # What costs one dollar more when the price does: so a list's rules about what is part
        # of what, and billed where, are not repeated here.
        quantity = (_cost({**prices, key: price + 1}, counts) - cost) * per
        if quantity:
            lines.append(
                CallLine(
                    unit=key,
                    label=name.replace("_", " "),
                    quantity=format(quantity.normalize(), "f"),
                    per=_per(name, per),
                    unit_price_usd=price,
                    cost_usd=(quantity * price / per).normalize() + Decimal("0.00"),
                )
            )
    return lines


def _per(name: str, per: int) -> str:
    """What a price is for: `"1M tokens"`, `"1K searches"`, `"1 hour"`."""
    if per == 3600:
        return "1 hour"
    return f"{_NUMBERS.get(per, f'{per:,}')} {name.rpartition('_')[2]}"


def _cost(prices: Mapping[str, Decimal], counts: Mapping[str, int]) -> Decimal:
    return UnitPrices.of(prices).rates(counts).cost_usd(counts)
