"""Budgets: how much may be spent, on what, in which period."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from types import UnionType
from typing import Literal, get_args

from costmw.errors import ConfigError
from costmw.money import MAX_PICO, parse_usd, to_pico

BudgetPeriod = Literal["day", "week", "month", "total"]


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount to stay within.

    `limit` is in USD, as a string or Decimal. `per` names one tag or several: each
    value, or combination of values, has the limit for itself. `where` are tags that a
    call must have to count. `alert_at` are the shares of the limit at which to alert.

    Raises:
        ConfigError: when it makes no sense; the message names the field.
    """

    name: str
    limit: Decimal | int | str
    per: str | Sequence[str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    period: BudgetPeriod = "month"
    alert_at: Sequence[float] = (0.5, 0.8, 1.0)
    action: Literal["alert", "block"] = "alert"

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigError("a budget needs a name")
        amount = parse_usd(self.limit, f"the limit of budget {self.name!r}")
        if amount < 0:
            raise ConfigError(f"the limit of budget {self.name!r} is negative: {amount}")
        if to_pico(amount) > MAX_PICO:
            raise ConfigError(f"the limit of budget {self.name!r} is beyond 9.2 million USD")
        if self.period not in get_args(BudgetPeriod):
            raise ConfigError(
                f"the period of budget {self.name!r} is {self.period!r}; "
                f"use one of {', '.join(get_args(BudgetPeriod))}"
            )
        per = (self.per,) if isinstance(self.per, str) else self.per
        if per is not None and not (_all(per, str) and all(per)):
            raise ConfigError(
                f"per of budget {self.name!r} is {self.per!r}; give tags, as in per='tenant'"
            )
        if not isinstance(self.where, Mapping) or not _all(
            (*self.where, *self.where.values()), str
        ):
            raise ConfigError(
                f"where of budget {self.name!r} is {self.where!r}; give tags and their values as "
                "text, as in where={'feature': 'chat'}"
            )
        if not _all(self.alert_at, int | float) or any(not 0 < s <= 10 for s in self.alert_at):
            raise ConfigError(f"alert_at of budget {self.name!r} must be shares such as 0.8")
        if self.action == "block":
            raise ConfigError(
                f"budget {self.name!r} has action='block', which this version cannot do yet; "
                "use action='alert'"
            )
        if self.action != "alert":
            raise ConfigError(f"the action of budget {self.name!r} must be 'alert' or 'block'")

    @property
    def limit_pico_usd(self) -> int:
        """The limit in pico-USD."""
        return to_pico(Decimal(self.limit))

    @property
    def tag_keys(self) -> tuple[str, ...]:
        """The tags that split it; empty for one limit over all."""
        if self.per is None:
            return ()
        return (self.per,) if isinstance(self.per, str) else tuple(self.per)


def _all(values: object, kind: type | UnionType) -> bool:
    """Whether this is a list of values that all are of this kind."""
    return isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
