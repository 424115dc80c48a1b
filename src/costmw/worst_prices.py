"""The dearest of several prices: what one unit of each kind costs at most, in pico-USD.

A call's cost is not known before it is answered, and neither is which of a model's prices it
is charged: for a cache, for a long context, for another tier. This takes the highest of all
those that can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache
from typing import TYPE_CHECKING

from costmw.money import PICO, exact

if TYPE_CHECKING:
    from genai_prices.types import TieredPrices

Prices = Mapping[str, "Decimal | TieredPrices | None"]
"""Prices of one kind of call by the list's names of the units."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """What a call may hold beside text, so that its prices count.

    `caches_for` is how long a cache is asked to keep the input, "" when it is not asked to;
    `caches_unasked` says that the provider writes to one by itself.
    """

    caches_for: str = ""
    caches_unasked: bool = True
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """The most that one unit of each kind costs, in pico-USD, for inputs of some length.

    `other` are units that are neither tokens nor uses of a tool, by the list's names.
    """

    input_token: int
    output_token: int
    request: int
    tool_use: int
    other: Mapping[str, int]


class WorstPrices:
    """The highest of several prices, unit by unit and by how long the input is."""

    def __init__(self, all_prices: Iterable[Prices]) -> None:
        self._base: dict[str, Decimal] = {}
        self._tiers: dict[int, dict[str, Decimal]] = {}
        for prices in all_prices:
            for key, price in prices.items():
                if isinstance(price, Decimal):
                    _raise(self._base, key, price)
                elif price is not None:
                    _raise(self._base, key, price.base)
                    for tier in price.tiers:
                        _raise(self._tiers.setdefault(tier.start, {}), key, tier.price)
        self._costs: dict[tuple[int, Kinds], UnitCosts] = {}
        self._starts = sorted(self._tiers)

    def __bool__(self) -> bool:
        return bool(self._base)

    def costs(self, input_tokens: int, kinds: Kinds) -> UnitCosts:
        """What units cost in a call of these kinds with at most so many tokens of input."""
        # A tier begins beyond its start; a shorter input than the bound may be in any below.
        reached = sum(start < input_tokens for start in self._starts)
        key = (reached, kinds)
        if key not in self._costs:
            self._costs[key] = self._find(reached, kinds)
        return self._costs[key]

    def _find(self, reached: int, kinds: Kinds) -> UnitCosts:
        highest = dict(self._base)
        for start in self._starts[:reached]:
            for key, price in self._tiers[start].items():
                _raise(highest, key, price)
        most = {"input": 0, "output": 0, "request": 0, "tool": 0}
        other: dict[str, int] = {}
        with exact():
            for key, price in highest.items():
                unit = _units()[key]
                cost = int((price * PICO / unit.per).to_integral_value(rounding=ROUND_CEILING))
                if unit.family == "tokens":
                    if _counts(unit, kinds):
                        most[unit.direction] = max(most[unit.direction], cost)
                elif unit.family in ("requests", "tool_calls"):
                    kind = "request" if unit.family == "requests" else "tool"
                    most[kind] = max(most[kind], cost)
                else:
                    other[unit.family] = max(other.get(unit.family, 0), cost)
        return UnitCosts(most["input"], most["output"], most["request"], most["tool"], other)


@dataclass(frozen=True, slots=True)
class _Unit:
    family: str
    direction: str
    medium: str
    part: str
    cache_ttl: str
    per: int


@cache
def _units() -> Mapping[str, _Unit]:
    """The list's units by the names of their prices."""
    from genai_prices.data_units import unit_data

    return {
        unit["price_key"]: _Unit(
            family=unit["dimensions"]["family"],
            direction=unit["dimensions"].get("direction", ""),
            medium=unit["dimensions"].get("modality", "text"),
            part=unit["dimensions"].get("token_type", ""),
            cache_ttl=unit["dimensions"].get("cache_ttl", ""),
            per=unit["per"],
        )
        for unit in unit_data.values()
    }


def _counts(unit: _Unit, kinds: Kinds) -> bool:
    """Whether a call of these kinds may be charged for such tokens."""
    if unit.medium != "text" and unit.medium not in (
        kinds.reads if unit.direction == "input" else kinds.writes
    ):
        return False
    if unit.part != "cache_write":
        return True
    if unit.cache_ttl == "1h":
        return kinds.caches_for == "1h"
    return bool(kinds.caches_for) or kinds.caches_unasked


def _raise(prices: dict[str, Decimal], key: str, price: Decimal) -> None:
    prices[key] = max(price, prices.get(key, price))
