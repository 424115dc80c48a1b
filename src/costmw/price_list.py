"""The price list of genai-prices, looked up once and multiplied out fast.

For one model, one set of counts and one tier, a cost is a sum of counts times rates.
The rates are found by asking genai-prices itself, so that its rules (cached tokens are
part of the input, a long context re-prices the whole request) are applied and not
repeated here; they are then kept.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from costmw.events import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

KEPT_AT_MOST = 10_000
"""Models, and contexts of models, that are remembered: their names come from outside."""

LOADED_AFTER = 1.0
"""Seconds after which the list is loaded for those who can do without: others work meanwhile."""

# Values of these facts that are billed at the standard price.
STANDARD = frozenset({"default", "standard", "auto", "scale", "on_demand"})


@dataclass(frozen=True, slots=True)
class Rates:
    """USD for one of each count, and for the request as such.

    `units` are the unit prices behind them, by the list's name of the unit, as decimal
    strings in USD. `missing` are the counts that no unit price covers. `parts` are
    counts that are part of another one.
    """

    usd: tuple[tuple[str, Decimal], ...]
    request_usd: Decimal
    units: Mapping[str, str]
    missing: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]

    def cost_usd(self, counts: Mapping[str, int]) -> Decimal:
        """Multiply out.

        Raises:
            ValueError: when a part is larger than the whole.
        """
        for part, whole in self.parts:
            if counts[part] > counts[whole]:
                raise ValueError(f"{part} {counts[part]} exceed {whole} {counts[whole]}")
        cost = self.request_usd
        for name, usd in self.usd:
            cost += usd * counts[name]
        return cost


class UnitPrices:
    """The prices of one model, as they hold for one kind of call."""

    def __init__(self, prices: ModelPrice) -> None:
        from genai_prices.types import TieredPrices

        self._prices = prices
        self._rates: dict[tuple[frozenset[str], int], Rates] = {}
        tiered = [p for p in vars(prices).values() if isinstance(p, TieredPrices)]
        self._starts = tuple(sorted({tier.start for price in tiered for tier in price.tiers}))

    @classmethod
    def of(cls, prices: Mapping[str, Decimal]) -> UnitPrices:
        """Prices by the list's names of the units, in USD."""
        from genai_prices.types import ModelPrice

        return cls(ModelPrice(**prices))

    @property
    def has_prices(self) -> bool:
        """Whether there is any price at all; the list has models without."""
        return any(price is not None for price in vars(self._prices).values())

    def rates(self, counts: Mapping[str, int]) -> Rates:
        """The rates for these counts.

        Raises:
            ValueError: when the list cannot price such counts.
        """
        # A tier begins beyond its start, and holds for the whole request.
        tier = sum(counts.get("input_tokens", 0) > start for start in self._starts)
        key = (frozenset(counts), tier)
        if key not in self._rates:
            self._rates[key] = self._find_rates(sorted(counts), tier)
        return self._rates[key]

    def _find_rates(self, names: list[str], tier: int) -> Rates:
        base = _nested_counts(names)
        if tier and "input_tokens" in base:
            base["input_tokens"] += self._starts[tier - 1]
        at_base = self._ask(base)
        rates = {name: self._ask({**base, name: base[name] + 1}) - at_base for name in names}
        request = at_base - sum(rates[name] * base[name] for name in names)
        units = self._units(names, tier)
        return Rates(
            usd=tuple((name, usd) for name, usd in rates.items() if usd),
            request_usd=request,
            units=units,
            missing=tuple(uncovered(names, units)),
            parts=tuple(_parts(names)),
        )

    def _ask(self, counts: Mapping[str, int]) -> Decimal:
        from genai_prices.types import Usage as ListUsage

        return self._prices.calc_price(ListUsage(**counts))["total_price"]

    def _units(self, names: Iterable[str], tier: int) -> dict[str, str]:
        """The unit prices that bear on these counts, those of the tier where there are any."""
        from genai_prices.data_units import unit_data
        from genai_prices.types import TieredPrices

        used = [unit_data[name]["dimensions"].items() for name in names if name in unit_data]
        units: dict[str, str] = {}
        for unit in unit_data.values():
            price = vars(self._prices).get(unit["price_key"])
            wide = unit["dimensions"].items()
            if price is None or not (
                any(wide <= narrow for narrow in used) or unit["price_key"] == "requests_kcount"
            ):
                continue
            if isinstance(price, TieredPrices):
                begun = [t for t in price.tiers if tier and t.start <= self._starts[tier - 1]]
                price = begun[-1].price if begun else price.base
            units[unit["price_key"]] = format(price, "f")
        return units


def _parts(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Which of these counts are part of which other one."""
    from genai_prices.data_units import unit_data

    kinds = {name: unit_data[name]["dimensions"].items() for name in names if name in unit_data}
    for part, narrow in kinds.items():
        for whole, wide in kinds.items():
            if wide < narrow:
                yield part, whole


def _nested_counts(names: Sequence[str]) -> dict[str, int]:
    """Counts that fit into each other, with room for one more of each."""
    parts: dict[str, list[str]] = {}
    for part, whole in _parts(names):
        parts.setdefault(whole, []).append(part)
    counts: dict[str, int] = {}

    def count(name: str) -> int:
        if name not in counts:
            counts[name] = 2 + sum(count(part) for part in parts.get(name, ()))
        return counts[name]

    return {name: count(name) for name in names}


def uncovered(names: Iterable[str], units: Mapping[str, str]) -> Iterable[str]:
    """The counts that no unit price covers, not even one of a wider unit."""
    from genai_prices.data_units import unit_data

    priced = [
        unit["dimensions"].items() for unit in unit_data.values() if unit["price_key"] in units
    ]
    return [
        name
        for name in names
        if name not in unit_data
        or not any(wide <= unit_data[name]["dimensions"].items() for wide in priced)
    ]


def counts_of(usage: Usage) -> dict[str, int]:
    """The counts under the list's names: totals that are not 0, and all of the detail.

    The list asks for some parts even where they are 0.
    """
    totals = {
        "input_tokens": usage.input_tokens or 0,
        "output_tokens": usage.output_tokens or 0,
        "cache_read_tokens": usage.cache_read_input_tokens,
        "cache_write_tokens": usage.cache_write_input_tokens,
        "output_reasoning_tokens": usage.reasoning_output_tokens,
    }
    return {**{name: count for name, count in totals.items() if count}, **usage.detail}


@dataclass(frozen=True, slots=True)
class Listed:
    """What the list has for one kind of call."""

    unit_prices: UnitPrices
    model: str
    ref: str
    unmatched: str | None


class PriceList:
    """Finds models in genai-prices; loads it at the first question (0.5 s, 100 MB)."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], tuple[Provider, ModelInfo] | None] = {}
        self._listed: dict[tuple[str, str, tuple[tuple[str, str], ...], int], Listed] = {}
        self._by_prices: dict[tuple[object, ...], Listed] = {}

    def is_at_hand(self) -> bool:
        """Whether prices can be looked up at once; where not, they can be soon."""
        return bool(self._models) or _is_loaded()

    def find(
        self, price_id: str, model: str, at: datetime, context: Mapping[str, str]
    ) -> Listed | None:
        """The prices of a model for a call at `at` with these facts; None when not listed."""
        found = self.model(price_id, model)
        if found is None:
            return None
        provider, info = found
        # Prices that change with the time are looked up for each minute.
        minute = int(at.timestamp()) // 60 if _depends_on_time(info) else 0
        key = (price_id, model, tuple(sorted(context.items())), minute)
        if key not in self._listed:
            if len(self._listed) >= KEPT_AT_MOST:
                self._listed.clear()
            self._listed[key] = self._find(key, provider, info, at, context)
        return self._listed[key]

    def _find(
        self,
        key: tuple[object, ...],
        provider: Provider,
        info: ModelInfo,
        at: datetime,
        context: Mapping[str, str],
    ) -> Listed:
        """The same object for the same prices: rates are found once, not for each minute."""
        prices = info.get_prices(at, dict(context))
        # Without facts they are the list's own objects, and with them copies.
        same = (*key[:-1], repr(sorted(vars(prices).items())) if context else id(prices))
        if same not in self._by_prices:
            if len(self._by_prices) >= KEPT_AT_MOST:
                self._by_prices.clear()
            self._by_prices[same] = Listed(
                UnitPrices(prices),
                info.id,
                _ref(provider, info),
                _unmatched(info, context),
            )
        return self._by_prices[same]

    def since(self, ref: str, price_id: str, model: str, at: datetime) -> date | None:
        """From when on the price that `ref` names holds, as it held at a moment.

        None where the list does not say, or has changed since.
        """
        found = self.model(price_id, model)
        if found is None or ref != _ref(*found) or not isinstance(found[1].prices, list):
            return None
        starts = (getattr(one.constraint, "start_date", None) for one in found[1].prices)
        return max((day for day in starts if day and day <= at.date()), default=None)

    def models(self, price_id: str) -> list[ModelInfo]:
        """All models that a provider is listed with, those of others that it sells included."""
        from genai_prices.data_snapshot import get_snapshot

        providers = {provider.id: provider for provider in get_snapshot().providers}
        if (own := providers.get(price_id)) is None:
            return []
        sold = (own, *(providers[name] for name in own.fallback_model_providers or ()))
        return [model for provider in sold for model in provider.models]

    def model(self, price_id: str, model: str) -> tuple[Provider, ModelInfo] | None:
        """The listed model of this name, and who lists it; None when it is not listed."""
        key = (price_id, model)
        if key not in self._models:
            from genai_prices.data_snapshot import get_snapshot

            if len(self._models) >= KEPT_AT_MOST:
                self._models.clear()
            try:
                self._models[key] = get_snapshot().find_provider_model(model, None, price_id, None)
            except LookupError:
                self._models[key] = None
        return self._models[key]


_loader: threading.Timer | None = None
_loaded = False


def _is_loaded() -> bool:
    global _loader
    # In a child of a fork no thread of its parent's goes on.
    if not _loaded and (_loader is None or not _loader.is_alive()):
        _loader = threading.Timer(LOADED_AFTER, _load)
        _loader.daemon = True
        _loader.start()
    return _loaded


def _load() -> None:
    global _loaded
    from genai_prices.data_snapshot import get_snapshot

    get_snapshot()
    _loaded = True


def _depends_on_time(info: ModelInfo) -> bool:
    return isinstance(info.prices, list) or any(
        variant.constraint is not None for variant in info.price_variants or ()
    )


def _unmatched(info: ModelInfo, context: Mapping[str, str]) -> str | None:
    """Say which fact of the response chose no price of its own, where it should have."""
    known = {fact for variant in info.price_variants or () for fact in variant.when.items()}
    odd = [
        f"{key}={value}"
        for key, value in context.items()
        if (key, value) not in known and value not in STANDARD
    ]
    return f"no price for {', '.join(odd)}: priced as standard" if odd else None


def _ref(provider: Provider, info: ModelInfo) -> str:
    return f"{_version()} {provider.id}/{info.id}"


def _version() -> str:
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"
