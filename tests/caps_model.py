"""Budgets, holds and rows as plain lists: what a ledger's balances have to agree with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw import Budget
from costmw.caps.rules import Rule


@dataclass
class Row:
    """A row: what it cost, amendments included, or what is assumed of it."""

    at: datetime
    tags: Mapping[str, str]
    cost: int | None
    assumed: int = 0
    unpriced: bool = False
    has_expired: bool = False


@dataclass
class Held:
    at: datetime
    tags: Mapping[str, str]
    amount: int
    unpriced: bool
    expires_at: datetime


@dataclass
class Model:
    """The reference: nothing is kept but what happened, and everything is counted anew."""

    zone: ZoneInfo
    budgets: dict[str, Budget] = field(default_factory=dict)
    rows: dict[UUID, Row] = field(default_factory=dict)
    holds: dict[UUID, Held] = field(default_factory=dict)

    def use_of(
        self, rule: Rule, tags: Mapping[str, str], at: datetime
    ) -> tuple[int, int, int] | None:
        """What is spent, assumed and held of the limit that a call counts against."""
        scope = rule.scope_of(tags)
        if scope is None:
            return None
        start, stop = rule.span(at, self.zone)

        def counts(one: Row | Held) -> bool:
            return rule.scope_of(one.tags) == scope and start <= one.at < stop

        rows = [row for row in self.rows.values() if counts(row)]
        held = [hold for hold in self.holds.values() if counts(hold)]
        allows = rule.on_unpriced == "allow"
        return (
            sum(row.cost or 0 for row in rows),
            sum(row.assumed for row in rows if not (row.unpriced and allows)),
            sum(hold.amount for hold in held if not (hold.unpriced and allows)),
        )

    def refusing(
        self, tags: Mapping[str, str], at: datetime, amount: int, *, unpriced: bool
    ) -> set[str]:
        """The budgets that refuse a call."""
        names = set()
        for budget in self.budgets.values():
            rule = Rule.of(budget)
            use = self.use_of(rule, tags, at)
            if use is None:
                continue
            asked = 0 if unpriced and rule.on_unpriced == "allow" else amount
            scope = rule.scope_of(tags)
            assert scope is not None
            is_barred = unpriced and rule.on_unpriced == "block"
            if is_barred or (asked and sum(use) + asked > rule.limit_of(scope)):
                names.add(rule.name)
        return names
