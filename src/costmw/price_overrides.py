"""The user's own prices: negotiated rates, fine-tunes, own servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from costmw.errors import ConfigError
from costmw.money import parse_usd
from costmw.providers.known import find_provider

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
        if self.provider is not None:
            object.__setattr__(self, "provider", find_provider(self.provider).name)

    @property
    def ref(self) -> str:
        """What a row's price refers to."""
        return f"override {self.model}" + (f" from {self.start}" if self.start else "")

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
    from costmw.toml_file import read_toml

    path = Path(path)
    tables = read_toml(path, "the price file")
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
