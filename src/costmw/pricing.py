"""What usage costs: the user's own prices first, then the price list of genai-prices.

A cost is exact, or there is none and a reason: an unknown model is never $0. The
price list is loaded at the first lookup, since it takes half a second and memory.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmw.errors import ConfigError
from costmw.events import CostSource, Price, Usage
from costmw.money import MAX_PICO, parse_usd, to_pico
from costmw.providers.registry import find_provider

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

logger = logging.getLogger("costmw")

STANDARD_TIERS = frozenset({"default", "standard", "auto", "scale"})
"""Service tiers that are billed at the standard price."""

_PRICE_KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_5m": "cache_write_5m_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "reasoning": "output_reasoning_mtok",
    "input_audio": "input_audio_mtok",
    "output_audio": "output_audio_mtok",
    "request": "requests_kcount",
}


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """The user's own price of a model: a negotiated rate, a fine-tune, an own server.

    `usd` maps `input`, `output`, `cache_read`, `cache_write`, `cache_write_5m`,
    `cache_write_1h`, `reasoning`, `input_audio` or `output_audio` to USD per million
    tokens, and `request` to USD per thousand requests. What is left out is billed as
    the wider unit: reasoning as output, cache reads as input. `start` is the first
    UTC day that it holds. `provider` None stands for any.
    """

    model: str
    usd: Mapping[str, Decimal | int | str]
    provider: str | None = None
    start: date | None = None
    prices: Mapping[str, Decimal] = field(init=False)

    def __post_init__(self) -> None:
        name = f"the price of {self.model}"
        if not self.model:
            raise ConfigError("a price override needs a model")
        if not self.usd:
            raise ConfigError(f"{name} has no amounts: give at least input and output, or input=0")
        prices = {}
        for unit, amount in self.usd.items():
            if unit not in _PRICE_KEYS:
                raise ConfigError(f"{name} has {unit!r}; use one of {', '.join(_PRICE_KEYS)}")
            usd = parse_usd(amount, f"{name} for {unit}")
            if usd < 0:
                raise ConfigError(f"{name} for {unit} is negative")
            prices[_PRICE_KEYS[unit]] = usd
        object.__setattr__(self, "prices", prices)

    def applies(self, provider: str | None, model: str, at: datetime) -> bool:
        """Whether this is the price of such a call at the time `at` (UTC)."""
        return (
            model == self.model
            and (self.provider is None or self.provider == provider)
            and (self.start is None or at.astimezone(UTC).date() >= self.start)
        )


def load_overrides(path: Path | str) -> tuple[PriceOverride, ...]:
    """Read `[[price]]` tables from a TOML file.

    Each has `model`, optionally `provider` and `start` (a date), and amounts in USD
    such as `input = 0.25`: they are read as decimals, not as floats.

    Raises:
        ConfigError: when the file or an entry cannot be read.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"cannot read the price file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the price file {path} is not TOML: {error}") from error
    entries = tables.get("price", [])
    if not isinstance(entries, list) or set(tables) - {"price"}:
        raise ConfigError(f"the price file {path} may only have [[price]] tables")
    return tuple(_override(entry, path) for entry in entries)


def _override(entry: Mapping[str, Any], path: Path) -> PriceOverride:
    amounts = dict(entry)
    model, provider = amounts.pop("model", None), amounts.pop("provider", None)
    start = amounts.pop("start", None)
    if not isinstance(model, str) or not isinstance(provider, str | None):
        raise ConfigError(f"{path}: each [[price]] needs model = '...' (and provider as text)")
    if isinstance(start, datetime) or not isinstance(start, date | None):
        raise ConfigError(f"{path}: start of {model} must be a date such as 2026-10-01")
    try:
        return PriceOverride(model=model, provider=provider, start=start, usd=amounts)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class Pricing:
    """Prices usage; keeps what it looked up."""

    def __init__(self, overrides: Sequence[PriceOverride] = ()) -> None:
        # The latest start first: the newest price that has begun is the one that holds.
        self._overrides = sorted(overrides, key=lambda o: o.start or date.min, reverse=True)
        self._models: dict[tuple[str, str], tuple[Provider, ModelInfo] | None] = {}

    def price(
        self,
        usage: Usage,
        *,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str],
    ) -> Price:
        """Work out what `usage` costs.

        Args:
            usage: what was used.
            provider: who bills, by its OpenTelemetry name.
            model: the model that answered.
            at: when the call started; decides dated and time-of-day prices.
            context: facts from the response that choose a price (`service_tier`).

        Returns:
            The cost with its source, or no cost and the reason; never raises.
        """
        try:
            return self._price(usage, provider, model, at, context)
        except Exception as error:
            logger.exception("costmw cannot price a call of %s/%s", provider, model)
            return unpriced(f"pricing failed: {type(error).__name__}: {error}")

    def own(self, cost_usd: Decimal) -> Price:
        """The provider's own figure, which wins over any list."""
        return _stored(to_pico(cost_usd), "provider", None, {}, None)

    def _price(
        self,
        usage: Usage,
        provider: str | None,
        model: str | None,
        at: datetime,
        context: Mapping[str, str],
    ) -> Price:
        if usage.input_tokens is None or usage.output_tokens is None:
            return unpriced("usage is not fully known")
        if model is None:
            return unpriced("neither request nor response names a model")
        for override in self._overrides:
            if override.applies(provider, model, at):
                return self._by_override(override, usage)
        if provider is None:
            return unpriced("unknown host: pass provider= to instrument()")
        return self._by_list(provider, model, usage, at, context)

    def _by_override(self, override: PriceOverride, usage: Usage) -> Price:
        from genai_prices.types import ModelPrice

        start = f" from {override.start}" if override.start else ""
        return _product(
            ModelPrice(**override.prices), usage, "override", f"override {override.model}{start}"
        )

    def _by_list(
        self, provider: str, model: str, usage: Usage, at: datetime, context: Mapping[str, str]
    ) -> Price:
        price_id = find_provider(provider).price_id
        found = self._find(price_id, model)
        if found is None:
            return unpriced(f"{price_id}/{model} is not in the price list: add a price override")
        lister, info = found
        return _product(
            info.get_prices(at, dict(context)),
            usage,
            "list",
            f"{_base_version()} {lister.id}/{info.id}",
            _unmatched(info, context),
        )

    def _find(self, price_id: str, model: str) -> tuple[Provider, ModelInfo] | None:
        key = (price_id, model)
        if key not in self._models:
            from genai_prices.data_snapshot import get_snapshot

            try:
                self._models[key] = get_snapshot().find_provider_model(model, None, price_id, None)
            except LookupError:
                if len(self._models) > 10_000:  # model names come from outside: stay bounded
                    self._models.clear()
                self._models[key] = None
        return self._models[key]


def unpriced(reason: str) -> Price:
    """No cost, and why."""
    return Price(cost_pico_usd=None, source="none", reason=reason)


def _stored(
    cost: int, source: CostSource, ref: str | None, units: Mapping[str, str], reason: str | None
) -> Price:
    if not 0 <= cost <= MAX_PICO:
        return unpriced("the cost is beyond what a row can hold")
    return Price(cost, source, ref, units, reason)


def _product(
    prices: ModelPrice, usage: Usage, source: CostSource, ref: str, reason: str | None = None
) -> Price:
    """Multiply counts by unit prices."""
    from genai_prices.types import TieredPrices
    from genai_prices.types import Usage as ListUsage

    counts: dict[str, int] = {
        "input_tokens": usage.input_tokens or 0,
        "output_tokens": usage.output_tokens or 0,
        "cache_read_tokens": usage.cache_read_input_tokens,
        "cache_write_tokens": usage.cache_write_input_tokens,
        "output_reasoning_tokens": usage.reasoning_output_tokens,
        **usage.detail,
    }
    used = {unit: n for unit, n in counts.items() if n}
    units: dict[str, str] = {}
    for unit, price in vars(prices).items():
        if isinstance(price, TieredPrices):
            begun = [tier for tier in price.tiers if counts["input_tokens"] > tier.start]
            units[unit] = str(begun[-1].price if begun else price.base)
        elif isinstance(price, Decimal):
            units[unit] = str(price)
    if not units:
        return unpriced(f"{ref} has no prices")
    try:
        total = prices.calc_price(ListUsage(**used))["total_price"]
    except (ValueError, LookupError, TypeError) as error:
        return unpriced(f"{ref} cannot price this usage: {error}")
    if missing := _uncovered(used, units):
        reason = "; ".join(filter(None, (reason, f"no price for {', '.join(missing)}")))
    return _stored(to_pico(total), source, ref, units, reason)


def _uncovered(used: Mapping[str, int], units: Mapping[str, str]) -> list[str]:
    """The counts that no unit price covers, not even one of a wider unit."""
    from genai_prices.data_units import unit_data

    priced = [
        unit["dimensions"].items() for unit in unit_data.values() if unit["price_key"] in units
    ]
    return [
        name
        for name in used
        if name not in unit_data
        or not any(wider <= unit_data[name]["dimensions"].items() for wider in priced)
    ]


def _unmatched(info: ModelInfo, context: Mapping[str, str]) -> str | None:
    """Say which fact of the response chose no price of its own, where it should have."""
    known: set[tuple[str, str]] = set()
    for variant in info.price_variants or ():
        known.update(variant.when.items())
    odd = [
        f"{key}={value}"
        for key, value in context.items()
        if (key, value) not in known and value not in STANDARD_TIERS
    ]
    return f"no price for {', '.join(odd)}: priced as standard" if odd else None


def _base_version() -> str:
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"
