"""A state machine that does to a ledger's budgets what happens to them, and to a plain model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from caps_model import Held, Model, Row
from costmw import Budget
from costmw.caps.book import Refusal
from costmw.caps.rules import Rule
from costmw.events import Amendment, Price, Release, Renewal, Reservation, Usage, UsageEvent, new_id
from costmw.money import from_pico
from costmw.store.holds import EXPIRED

NOW = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)
"""The last day of a month, after the clocks have changed in Europe."""

DAYS = st.sampled_from([-1, 0, 0, 0, 1])
"""Calls begin yesterday, today and tomorrow: clocks are not always right."""

TAGS = st.fixed_dictionaries(
    {},
    optional={"tenant": st.sampled_from(["a", "b", "ä\"'"]), "user": st.sampled_from(["x", "y"])},
)
AMOUNTS = st.integers(0, 12)
COSTS = st.one_of(st.none(), st.integers(0, 15))


def budgets() -> st.SearchStrategy[Budget]:
    limits = st.integers(0, 60).map(from_pico)

    def make(name: str, limit: Decimal, per: Any, **rest: Any) -> Budget:
        limits = {("a",) * len(per): limit * 2} if rest.pop("own") and per else {}
        return Budget(name, limit=limit, per=per or None, limits=limits, action="block", **rest)

    return st.builds(
        make,
        st.sampled_from(["one", "two"]),
        limits,
        st.sampled_from([(), ("tenant",), ("tenant", "user")]),
        where=st.sampled_from([{}, {"user": "x"}]),
        period=st.sampled_from(["day", "week", "month", "total"]),
        on_unpriced=st.sampled_from(["dearest", "allow", "block"]),
        own=st.booleans(),
    )


class CapsMachine(RuleBasedStateMachine):
    """Every answer of the ledger is what the model says, after every step."""

    new_place: ClassVar[Any]
    steps: ClassVar[int] = 0

    open_holds = Bundle("open_holds")
    rows = Bundle("rows")
    expired = Bundle("expired")

    @initialize(first=budgets())
    def begin(self, first: Budget) -> None:
        self.place = type(self).new_place()
        self.store = self.place.open()
        self.store._caps.now = lambda: NOW
        self.model = Model(self.store.time_zone)
        self.now = NOW
        self._declare(first)

    def _declare(self, budget: Budget) -> None:
        self.model.budgets[budget.name] = budget
        self.store.declare([Rule.of(one) for one in self.model.budgets.values()])
        self.store.write([Release(new_id())])

    @rule(budget=budgets())
    def edit(self, budget: Budget) -> None:
        self._declare(budget)

    @rule(target=open_holds, tags=TAGS, days=DAYS, amount=AMOUNTS, unpriced=st.booleans())
    def reserve(
        self, tags: Mapping[str, str], days: int, amount: int, unpriced: bool
    ) -> UUID | None:
        at = NOW + timedelta(days=days)
        asked = a_reservation(tags, at, amount, unpriced, self.now, self.model.budgets)
        refusing = self.model.refusing(tags, at, amount, unpriced=unpriced)
        answers = self.store.write([asked])
        if not refusing:
            assert {} == dict(answers)
            expires_at = asked.expires_at
            self.model.holds[asked.id] = Held(at, tags, amount, unpriced, expires_at)
            return asked.id
        refusal = answers[asked.id]
        assert isinstance(refusal, Refusal)
        assert refusal.rule.name in refusing
        use = self.model.use_of(Rule.of(self.model.budgets[refusal.rule.name]), tags, at)
        assert use == (refusal.spent - use[1], use[1], refusal.held) if use else False
        return None

    @rule(hold=consumes(open_holds), target=rows, cost=COSTS, exact=st.booleans())
    def settle(self, hold: UUID | None, cost: int | None, exact: bool) -> UUID | None:
        held = self.model.holds.pop(hold, None) if hold else None
        if hold is None or held is None:
            return None
        event = an_event(hold, held.at, held.tags, cost)
        self.store.write([event if exact else replace(event, status="estimated")])
        assumed = 0 if exact and cost is not None else max(held.amount - (cost or 0), 0)
        self.model.rows[hold] = Row(held.at, held.tags, cost, assumed, held.unpriced)
        return hold

    @rule(hold=consumes(open_holds))
    def release(self, hold: UUID | None) -> None:
        if hold is not None:
            self.model.holds.pop(hold, None)
            self.store.write([Release(hold)])
            row = self.model.rows.get(hold)
            if row is not None and row.has_expired:
                row.assumed, row.has_expired = 0, False

    @rule(hold=open_holds)
    def renew(self, hold: UUID | None) -> None:
        if hold in self.model.holds:
            until = self.now + timedelta(seconds=60)
            self.model.holds[hold].expires_at = until
            self.store.write([Renewal(hold, until)])

    @rule(hold=consumes(open_holds), target=open_holds)
    def rename(self, hold: UUID | None) -> UUID | None:
        if hold is None or hold not in self.model.holds:
            return None
        held, other = self.model.holds.pop(hold), new_id()
        self.model.holds[other] = held
        self.store.write([Renewal(hold, held.expires_at, as_id=other)])
        return other

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def expire(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        while self.store.expire_holds(self.now):
            pass
        for hold, held in list(self.model.holds.items()):
            if held.expires_at < self.now:
                del self.model.holds[hold]
                self.model.rows[hold] = Row(
                    held.at, held.tags, None, held.amount, held.unpriced, has_expired=True
                )

    @rule(hold=open_holds, cost=COSTS)
    def settle_late(self, hold: UUID | None, cost: int | None) -> None:
        row = self.model.rows.get(hold) if hold else None
        if hold is None or row is None or not row.has_expired:
            return
        # Twice: whoever could not tell whether it was written writes again.
        for _ in range(2):
            self.store.write([an_event(hold, row.at, row.tags, cost)])
        row.has_expired = False
        row.cost = cost
        if cost is not None:
            row.assumed = 0

    @rule(tags=TAGS, days=DAYS, cost=COSTS, target=rows)
    def record(self, tags: Mapping[str, str], days: int, cost: int | None) -> UUID:
        at = NOW + timedelta(days=days)
        event = an_event(new_id(), at, tags, cost)
        self.store.write([event, event])
        self.store.write([event])
        self.model.rows[event.id] = Row(at, tags, cost)
        return event.id

    @rule(tags=TAGS, cost=st.integers(0, 9), more=st.integers(-5, 9), first=st.booleans())
    def record_amended(self, tags: Mapping[str, str], cost: int, more: int, first: bool) -> None:
        event = an_event(new_id(), NOW, tags, cost)
        amendment = Amendment(event.id, "corrected", cost_pico_usd=more)
        for records in ([amendment], [event]) if first else ([event, amendment],):
            self.store.write(records)
        self.model.rows[event.id] = Row(NOW, tags, cost + more)

    @rule(row=rows, more=st.integers(-3, 9))
    def amend(self, row: UUID | None, more: int) -> None:
        found = self.model.rows.get(row) if row else None
        if row is None or found is None:
            return
        amendment = Amendment(row, "corrected", cost_pico_usd=more)
        if found.cost is None:
            amendment = replace(amendment, unpriced=-1)
        elif found.assumed:
            amendment = replace(amendment, status="ok")
        self.store.write([amendment])
        self.store.write([amendment])
        found.cost = (found.cost or 0) + more
        found.assumed = 0

    @rule()
    def rebuild(self) -> None:
        self.store.rebuild_balances()

    @rule()
    def roll_up(self) -> None:
        self.store.roll_up(5)

    @rule()
    def open_anew(self) -> None:
        self.store.close()
        self.store = self.place.open()
        self.store._caps.now = lambda: NOW
        self.store.declare([Rule.of(one) for one in self.model.budgets.values()])

    @invariant()
    def agrees(self) -> None:
        type(self).steps += 1
        if not hasattr(self, "store"):
            return
        assert [] == list(self.store.verify_balances())
        with self.store.snapshot() as snapshot:
            for tags in ({}, {"tenant": "a"}, {"tenant": "b", "user": "x"}):
                for use in snapshot.limits(tags, NOW):
                    budget = self.model.budgets[use.rule.name]
                    assert Rule.of(budget) == use.rule
                    found = (use.balance.spent, use.balance.assumed, use.balance.held)
                    assert found == self.model.use_of(use.rule, tags, NOW), (use, tags)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()


def a_reservation(
    tags: Mapping[str, str],
    at: datetime,
    amount: int,
    unpriced: bool,
    now: datetime,
    checked: Any,
) -> Reservation:
    return Reservation(
        event=an_event(new_id(), at, tags, None),
        pico_usd=amount,
        expires_at=now + timedelta(seconds=60),
        checked=tuple(checked),
        unpriced=unpriced,
    )


def an_event(event_id: UUID, at: datetime, tags: Mapping[str, str], cost: int | None) -> UsageEvent:
    return UsageEvent(
        id=event_id,
        created_at=at,
        operation="chat",
        provider="openai",
        request_model="gpt-5-mini",
        response_model="gpt-5-mini",
        usage=Usage(1, 1),
        price=Price(cost, "none" if cost is None else "list"),
        status="ok",
        tags=tags,
    )


__all__ = ["EXPIRED", "CapsMachine"]
