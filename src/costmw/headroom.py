"""What is left of blocking budgets, for apps that show limits or adapt to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from costmw.caps.book import LimitUse
from costmw.caps.rules import Rule
from costmw.errors import ConfigError
from costmw.money import parse_usd, plain_usd, to_pico

if TYPE_CHECKING:
    from costmw.bounds import Bounds
    from costmw.store.base import Store


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit that a call counts against, in USD.

    `scope` are the tags that this limit of the budget is for. `spent` includes what calls
    without a known cost were charged with, `held` is what calls in flight may still cost.
    `resets_at` is when the period ends, None for a budget that has no end.
    """

    budget: str
    scope: Mapping[str, str]
    limit: Decimal
    spent: Decimal
    held: Decimal
    remaining: Decimal
    resets_at: datetime | None


class Headroom:
    """Asks the ledger, as it is now; calls in flight may change the answer at any time."""

    def __init__(
        self,
        store: Store,
        bounds: Callable[[], Bounds],
        rules_for: Callable[[Mapping[str, str]], Sequence[Rule]],
    ) -> None:
        self._store = store
        self._bounds = bounds
        self._rules_for = rules_for

    def allowances(self, tags: Mapping[str, str]) -> list[Allowance]:
        """The limits that a call with these tags counts against, the tightest first."""
        return [
            Allowance(
                budget=use.rule.name,
                scope={key: tags.get(key, value) for key, value in use.scope.items()},
                limit=plain_usd(use.limit),
                spent=plain_usd(use.balance.spent + use.balance.assumed),
                held=plain_usd(use.balance.held),
                remaining=plain_usd(use.remaining),
                resets_at=use.resets_at,
            )
            for use in self._limits(tags)
        ]

    def remaining(self, tags: Mapping[str, str]) -> Decimal | None:
        """USD that a call with these tags may cost at most; None when no budget bars it."""
        limits = self._limits(tags)
        return plain_usd(limits[0].remaining) if limits else None

    def would_exceed(self, cost_usd: Decimal | int | str, tags: Mapping[str, str]) -> bool:
        """Whether a call that may cost so much would not fit now.

        Raises:
            ConfigError: when the cost is no amount of money.
        """
        cost = parse_usd(cost_usd, "cost_usd")
        if cost < 0:
            raise ConfigError(f"cost_usd is negative: {cost}")
        return any(to_pico(cost) > use.remaining for use in self._limits(tags))

    def affordable_tokens(
        self, model: str, provider: str | None, input_tokens: int, tags: Mapping[str, str]
    ) -> int | None:
        """Tokens that an answer may have; see `Meter.affordable_tokens`."""
        limits = self._limits(tags)
        if not limits:
            return None
        return self._bounds().affordable_tokens(
            limits[0].remaining,
            provider=provider,
            model=model,
            input_tokens=input_tokens,
            at=datetime.now(UTC),
        )

    def _limits(self, tags: Mapping[str, str]) -> Sequence[LimitUse]:
        with self._store.snapshot() as snapshot:
            found = snapshot.limits(tags, datetime.now(UTC))
        # The ledger may keep others, which no app has any more.
        barring = {rule.name for rule in self._rules_for(tags)}
        found = [use for use in found if use.rule.name in barring]
        return sorted(found, key=lambda use: use.remaining)
