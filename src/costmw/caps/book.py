"""The balances that one transaction touches: hold, give back, charge.

Read from the ledger, changed here, and written back in the same transaction, by whoever has
the turn: nobody else changes them meanwhile. Amounts are in pico-USD.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.caps.rules import BalanceKey, Rule, Rules


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
    """Pico-USD that are held or assumed for a call; `unpriced` when its model has no price."""

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

    def __init__(self, rules: Rules, balances: dict[BalanceKey, Balance]) -> None:
        self._rules = rules
        self._balances = balances
        self.changed: set[BalanceKey] = set()

    def reserve(self, amount: Amount, checked: Collection[str]) -> Refusal | None:
        """Hold an amount in all of its balances, or in none.

        Only the limits of the budgets that are `checked` are asked.
        """
        places = list(self._rules.places_of(amount.tags, amount.at))
        refusal: Refusal | None = None
        may_fit = True
        for rule, key in places:
            if rule.name not in checked:
                continue
            balance = self._of(key)
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
                resets_at=rule.resets_at(key.period_start, self._rules.zone),
                may_fit=True,
                unpriced=is_barred,
            )
        if refusal is not None:
            return replace(refusal, may_fit=may_fit)
        self.hold(amount)
        return None

    def hold(self, amount: Amount) -> None:
        """Hold an amount, whether it fits or not."""
        self._hold(amount, +1)

    def release(self, hold: Amount) -> None:
        """Give back what was held."""
        self._hold(hold, -1)

    def charge(self, tags: Mapping[str, str], at: datetime, pico_usd: int) -> None:
        """Add to what is spent, or take away with a negative amount."""
        for _, key in self._rules.places_of(tags, at):
            self._of(key).spent += pico_usd
            self.changed.add(key)

    def assume(self, amount: Amount, sign: int = 1) -> None:
        """Charge what a call without a known cost may have cost at most, or take it back."""
        for rule, key in self._rules.places_of(amount.tags, amount.at):
            pico_usd = rule.amount_of(amount.pico_usd, unpriced=amount.unpriced)
            self._of(key).assumed += sign * pico_usd
            self.changed.add(key)

    def _hold(self, amount: Amount, sign: int) -> None:
        for rule, key in self._rules.places_of(amount.tags, amount.at):
            pico_usd = rule.amount_of(amount.pico_usd, unpriced=amount.unpriced)
            self._of(key).held += sign * pico_usd
            self.changed.add(key)

    def _of(self, key: BalanceKey) -> Balance:
        return self._balances.setdefault(key, Balance())

    def changes(self) -> dict[BalanceKey, Balance]:
        """The balances to write back."""
        return {key: self._balances[key] for key in self.changed}
