"""Refusals in words: which budget, what is left of it, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from costmw.budgets import MISSING
from costmw.caps.book import Refusal
from costmw.caps.rules import Rule
from costmw.capture.settle import CallStart
from costmw.errors import BudgetExceeded
from costmw.money import format_usd, plain_usd

_NONE = Decimal(0)

ANY_AMOUNT = 1
"""Pico-USD that are held for a call of which nobody says what it may cost: a budget that is
used up refuses it, and one with any room does not."""


def beyond_limit(refusal: Refusal, start: CallStart) -> BudgetExceeded:
    """What the call may cost at most does not fit."""
    left = max(refusal.limit - refusal.spent - refusal.held, 0)
    scope = _scope(refusal.rule, start)
    held = f", {format_usd(refusal.held)} USD are held by calls in flight" if refusal.held else ""
    until = f" until {refusal.resets_at:%Y-%m-%d %H:%M} UTC" if refusal.resets_at else ""
    asks = refusal.asked > ANY_AMOUNT
    may_cost = f"may cost up to {format_usd(refusal.asked)} USD" if asks else "would go beyond that"
    return BudgetExceeded(
        f"budget {_named(refusal.rule, scope)} has {format_usd(left)} of "
        f"{format_usd(refusal.limit)} USD left{until}{held}; this call of {start.request_model} "
        f"{may_cost}",
        budget=refusal.rule.name,
        scope=scope,
        limit=plain_usd(refusal.limit),
        spent=plain_usd(refusal.spent),
        held=plain_usd(refusal.held),
        asked=plain_usd(refusal.asked) if asks else None,
        resets_at=refusal.resets_at,
    )


def no_price(rule: Rule, start: CallStart, reason: str | None = None) -> BudgetExceeded:
    """The model has no price, and the budget takes none without."""
    said = f" ({reason})" if reason else ""
    return _of_rule(
        rule,
        start,
        f"takes no model without a price, and {start.request_model} has none{said}: add a price "
        "override, or Budget(on_unpriced='allow')",
    )


def no_bound(rule: Rule, start: CallStart, reason: str | None) -> BudgetExceeded:
    """Nothing bounds what the call may cost."""
    return _of_rule(
        rule,
        start,
        f"cannot hold what this call may cost, since nothing bounds that: {reason}. "
        "Budget(on_unpriced='allow') lets such calls pass",
    )


def not_asked(rule: Rule, start: CallStart, error: object) -> BudgetExceeded:
    """The ledger does not answer, and the budget refuses calls then."""
    said = f" ({error})" if error else " in time"
    return _of_rule(
        rule,
        start,
        f"cannot be asked, since the ledger did not answer{said}; Budget(fail='open') lets calls "
        "pass then",
    )


def _of_rule(rule: Rule, start: CallStart, what: str) -> BudgetExceeded:
    scope = _scope(rule, start)
    limit = rule.limit_of(tuple(scope.values()))
    return BudgetExceeded(
        f"budget {_named(rule, scope)} {what}",
        budget=rule.name,
        scope=scope,
        limit=plain_usd(limit),
        spent=_NONE,
        held=_NONE,
        asked=None,
        resets_at=None,
    )


def _scope(rule: Rule, start: CallStart) -> dict[str, str]:
    # By the call's own tags: the ledger may know them by their hashes alone.
    return {key: start.tags.get(key, MISSING) for key in rule.keys}


def _named(rule: Rule, scope: Mapping[str, str]) -> str:
    return " ".join([repr(rule.name), *(f"{key}={value}" for key, value in scope.items())])
