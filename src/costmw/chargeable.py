"""Which prices a call may be charged, as far as its request tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from costmw.worst_prices import Prices, WorstPrices

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

ANY_TIER = frozenset({"auto"})
"""Tiers by which a request leaves the choice to the provider."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says that chooses its price.

    `tiers` are all service tiers that it may be charged at, beside the standard one.
    """

    tiers: frozenset[str] = frozenset()
    speed: str = ""
    batch: bool = False

    def may_be(self, when: Mapping[str, str]) -> bool:
        """Whether such a call can be charged prices that hold for these facts."""
        tier = when.get("service_tier")
        return (
            "processing" not in when
            and (tier is None or tier in self.tiers or not ANY_TIER.isdisjoint(self.tiers))
            and when.get("speed", self.speed) == self.speed
        )


@dataclass(frozen=True, slots=True)
class Chargeable:
    """The highest prices that a call may be charged, and the most that its model takes.

    `context_window` is in tokens, None when it is not known. `unpriced` says why the model
    has no price: `prices` are then the dearest ones of its provider, or None.
    """

    prices: WorstPrices | None
    context_window: int | None
    unpriced: str | None = None


def prices_of(info: ModelInfo, at: datetime, asked: Asked) -> Iterator[Prices]:
    """All prices of a model that may be charged."""
    if asked.batch:
        yield vars(info.get_prices(at, {"processing": "batch"}))
        return
    yield vars(info.get_prices(at))
    for variant in info.price_variants or ():
        if asked.may_be(variant.when):
            yield vars(info.get_prices(at, variant.when))


def dearest_of(infos: Iterable[ModelInfo], at: datetime) -> Chargeable:
    """The dearest prices of several models, unit by unit, and the largest context of one."""
    infos = list(infos)
    worst = WorstPrices(
        prices for info in infos for prices in prices_of(info, at, Asked(tiers=ANY_TIER))
    )
    windows = [info.context_window for info in infos if info.context_window]
    return Chargeable(worst or None, max(windows, default=None))
