"""The balances that one transaction touches: hold, give back, charge.

Read from the ledger, changed here, and written back in the same transaction, by whoever has
the turn: nobody else changes them meanwhile. Amounts are in pico-USD.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.caps.rules import BalanceKey, Places, Rule


@dataclass(slots=True)
class Balance:
    """What one limit has in one period, in pico-USD.

    `spent` is what the ledger says; `assumed` what calls without a known cost were charged
    with, at most what they may have cost; `held` what calls in flight may cost.
    """

    spent: int = 0
    assumed: int = 0
    held: int = 0

    @property
    def used(self) -> int:
        """What nobody else may use."""
        return self.spent + self.assumed + self.held


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One limit, and what it has in a period."""

    rule: Rule
    key: BalanceKey
    balance: Balance
    zone: ZoneInfo

    @property
    def scope(self) -> dict[str, str]:
        """The tags that this limit is for."""
        return self.rule.tags_of(self.key.scope)

    @property
    def limit(self) -> int:
        """The limit in pico-USD."""
        return self.rule.limit_of(self.key.scope)

    @property
    def remaining(self) -> int:
        """What is left, in pico-USD; none when it is overdrawn."""
        return max(self.limit - self.balance.used, 0)

    @property
    def resets_at(self) -> datetime | None:
        """When its period ends."""
        return self.rule.resets_at(self.key.period_start, self.zone)


@dataclass(frozen=True, slots=True)
class Amount:
    """Pico-USD that are held or charged for a call; `unpriced` when its model has no price."""

    pico_usd: int
    unpriced: bool
    at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a hold does not fit: the first limit that it would exceed, in pico-USD.

    `may_fit` says that it would, if calls in flight gave back what they hold. `unpriced` that
    the budget refuses models without a price.
    """

    rule: Rule
    key: BalanceKey
    asked: int
    spent: int
    held: int
    limit: int
    resets_at: datetime | None
    may_fit: bool
    unpriced: bool = False


class Book:
    """Balances of one transaction, those that are not in it yet being empty."""

    def __init__(self, balances: dict[BalanceKey, Balance], zone: ZoneInfo) -> None:
        self._balances = balances
        self._zone = zone
        self._changed: set[BalanceKey] = set()

    def reserve(self, amount: Amount, places: Places, checked: Collection[str]) -> Refusal | None:
        """Hold an amount in all of its places, or in none.

        Only the limits of the budgets that are `checked` are asked.
        """
        refusal: Refusal | None = None
        may_fit = True
        for rule, key in places:
            if rule.name not in checked:
                continue
            balance = self._balances.get(key) or Balance()
            asked = rule.amount_of(amount.pico_usd, unpriced=amount.unpriced)
            limit = rule.limit_of(key.scope)
            is_barred = amount.unpriced and rule.on_unpriced == "block"
            if not is_barred and (not asked or balance.used + asked <= limit):
                continue
            may_fit &= not is_barred and balance.spent + balance.assumed + asked <= limit
            refusal = refusal or Refusal(
                rule=rule,
                key=key,
                asked=asked,
                spent=balance.spent + balance.assumed,
                held=balance.held,
                limit=limit,
                resets_at=rule.resets_at(key.period_start, self._zone),
                may_fit=True,
                unpriced=is_barred,
            )
        if refusal is not None:
            return replace(refusal, may_fit=may_fit)
        self.hold(amount, places)
        return None

    def hold(self, amount: Amount, places: Places, sign: int = 1) -> None:
        """Hold an amount, whether it fits or not; give it back with a sign of -1."""
        for rule, balance in self._changing(places):
            balance.held += sign * rule.amount_of(amount.pico_usd, unpriced=amount.unpriced)

    def charge(self, amount: Amount, places: Places) -> None:
        """Add to what is spent, or take away with a negative amount."""
        for _, balance in self._changing(places):
            balance.spent += amount.pico_usd

    def assume(self, amount: Amount, places: Places, sign: int = 1) -> None:
        """Charge what a call without a known cost may have cost at most, or take it back."""
        for rule, balance in self._changing(places):
            balance.assumed += sign * rule.amount_of(amount.pico_usd, unpriced=amount.unpriced)

    def _changing(self, places: Places) -> Iterator[tuple[Rule, Balance]]:
        for rule, key in places:
            self._changed.add(key)
            balance = self._balances.get(key)
            if balance is None:
                balance = self._balances[key] = Balance()
            yield rule, balance

    def changes(self) -> dict[BalanceKey, Balance]:
        """The balances to write back."""
        return {key: self._balances[key] for key in self._changed}
