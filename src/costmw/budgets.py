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

Action = Literal["alert", "block"]

OnUnpriced = Literal["dearest", "allow", "block"]

Fail = Literal["closed", "open"]

LONGEST_WAIT = 600
"""Seconds that a call can be made to wait before it is refused."""

MISSING = "(missing)"
"""The scope of calls that lack a tag which a budget is split by."""


@dataclass(frozen=True, slots=True)
class Budget:
    """An amount to stay within.

    `limit` is in USD, as a string or Decimal. `per` names one tag or several: each
    value, or combination of values, has the limit for itself; `limits` gives some of them
    one of their own, as in `{"acme": "500"}`, or `{("acme", "ann"): "5"}` for two tags.
    `where` are tags that a call must have to count. `alert_at` are the shares of the limit
    at which to alert.

    With `action="block"` a call is refused when what it may cost at most does not fit:

    - `max_output_tokens` is asked of calls that set no limit on their answer themselves;
    - `on_unpriced` says what holds for a model without a price: "dearest" holds the
      provider's dearest known price, "allow" lets it pass uncounted, "block" refuses it;
    - `wait` is how long, in seconds, a call waits for others in flight to give back what
      they do not need, before it is refused;
    - `fail` says whether calls are refused ("closed") or pass ("open") while the store
      cannot be asked.

    Raises:
        ConfigError: when it makes no sense; the message names the field.
    """

    name: str
    limit: Decimal | int | str
    per: str | Sequence[str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    period: BudgetPeriod = "month"
    alert_at: Sequence[float] = (0.5, 0.8, 1.0)
    action: Action = "alert"
    limits: Mapping[str | tuple[str, ...], Decimal | int | str] = field(default_factory=dict)
    max_output_tokens: int | None = None
    on_unpriced: OnUnpriced = "dearest"
    wait: float = 2.0
    fail: Fail = "closed"

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str):
            raise ConfigError("a budget needs a name")
        _limit(self.limit, f"the limit of budget {self.name!r}")
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
        for name, kind in (("action", Action), ("on_unpriced", OnUnpriced), ("fail", Fail)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(
                    f"{name} of budget {self.name!r} is {value!r}; "
                    f"use one of {', '.join(get_args(kind))}"
                )
        self._check_limits()
        tokens = self.max_output_tokens
        if tokens is not None and not (type(tokens) is int and tokens > 0):
            raise ConfigError(
                f"max_output_tokens of budget {self.name!r} is {tokens!r}; "
                "it must be a whole number above 0"
            )
        if isinstance(self.wait, bool) or not (
            isinstance(self.wait, int | float) and 0 <= self.wait <= LONGEST_WAIT
        ):
            raise ConfigError(
                f"wait of budget {self.name!r} is {self.wait!r}; it must be a number of seconds "
                f"from 0 to {LONGEST_WAIT}"
            )

    def _check_limits(self) -> None:
        if not isinstance(self.limits, Mapping):
            raise ConfigError(
                f"limits of budget {self.name!r} is {self.limits!r}; give values of its tag and "
                "their limits, as in {'acme': '500'}"
            )
        for scope, limit in self.limits.items():
            values = (scope,) if isinstance(scope, str) else scope
            if not _all(values, str) or len(values) != len(self.tag_keys):
                raise ConfigError(
                    f"limits of budget {self.name!r} names {scope!r}; it needs one value for each "
                    f"tag that it is split by ({', '.join(self.tag_keys) or 'none'})"
                )
            _limit(limit, f"the limit of {scope!r} in budget {self.name!r}")

    @property
    def limit_pico_usd(self) -> int:
        """The limit in pico-USD."""
        return to_pico(Decimal(self.limit))

    @property
    def limits_pico_usd(self) -> dict[tuple[str, ...], int]:
        """The limits of single values, in pico-USD, by the values of `tag_keys`."""
        return {
            (scope,) if isinstance(scope, str) else tuple(scope): to_pico(Decimal(limit))
            for scope, limit in self.limits.items()
        }

    @property
    def tag_keys(self) -> tuple[str, ...]:
        """The tags that split it; empty for one limit over all."""
        if self.per is None:
            return ()
        return (self.per,) if isinstance(self.per, str) else tuple(self.per)


def _limit(limit: Decimal | int | str, what: str) -> None:
    amount = parse_usd(limit, what)
    if amount < 0:
        raise ConfigError(f"{what} is negative: {amount}")
    if to_pico(amount) > MAX_PICO:
        raise ConfigError(f"{what} is beyond 9.2 million USD")


def _all(values: object, kind: type | UnionType) -> bool:
    """Whether this is a list of values that all are of this kind."""
    return isinstance(values, list | tuple) and all(isinstance(value, kind) for value in values)
