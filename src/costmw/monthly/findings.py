"""What a monthly report says, in figures: no words yet, and no layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from costmw.anomalies import Anomaly
from costmw.answering import cost_of
from costmw.answers import BudgetUse, SpendForecast
from costmw.monthly.month import Month
from costmw.savings import Saving
from costmw.store.base import OutcomeCount, TagScope, Totals


@dataclass(frozen=True, slots=True)
class Valued:
    """What one value of a dimension cost, and in the time before; `name` is None without one."""

    name: str | None
    totals: Totals
    before: Totals

    @property
    def change(self) -> int:
        """By how much the cost has changed, in pico-USD."""
        return cost_of(self.totals) - cost_of(self.before)


@dataclass(frozen=True, slots=True)
class Mover:
    """A value whose cost has changed much since the time before."""

    by: str
    value: Valued


@dataclass(frozen=True, slots=True)
class MonthlyReport:
    """All that is known of a month, within a scope.

    `by` holds the values of each dimension, the dearest first: `"model"`, `"provider"`,
    `"tag:feature"`. `days` are the whole or begun days with their sums. `outcomes` is None
    where they are not counted by what the scope asks for. `sources` are sums by where the cost
    is known from. `source` says which ledger it was made from.
    """

    month: Month
    scope: TagScope
    source: str
    total: Totals
    before: Totals
    forecast: SpendForecast | None
    days: Sequence[tuple[datetime, Totals]]
    days_before: Sequence[Totals]
    by: Mapping[str, Sequence[Valued]]
    budgets: Sequence[BudgetUse]
    anomalies: Sequence[tuple[datetime, Anomaly]]
    kinds: Mapping[tuple[str | None, str | None, str | None], Totals]
    sources: Mapping[str, Totals]
    outcomes: Sequence[OutcomeCount] | None
    savings: Sequence[Saving]

    def movers(self, most: int) -> tuple[list[Mover], list[Mover]]:
        """The largest increases and decreases of models and tags."""
        every = [
            Mover(by, value)
            for by, values in self.by.items()
            if by == "model" or by.startswith("tag:")
            for value in values
        ]
        risen = sorted((m for m in every if m.value.change > 0), key=lambda m: -m.value.change)
        fallen = sorted((m for m in every if m.value.change < 0), key=lambda m: m.value.change)
        return risen[:most], fallen[:most]
