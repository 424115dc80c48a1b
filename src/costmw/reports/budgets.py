"""How far budgets are used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.answering import cost_of, usd
from costmw.answers import BudgetForecast, BudgetRule, BudgetState, BudgetUse, SingleLimit
from costmw.budgets import MISSING, Budget
from costmw.outlook import LIMITS_AT_MOST, Outlook
from costmw.periods import period_span
from costmw.reports.once import Once
from costmw.store.base import Query, Snapshot, TagScope

FORESEEN = 10
"""Limits of which is said how they go on, the fullest; each has weeks of days to look at."""


def all_budgets(own: Sequence[Budget], view: Snapshot) -> list[Budget]:
    """The app's own, and those of the page."""
    names = {budget.name for budget in own}
    page = [kept.rule for kept in view.rules().kept.values() if kept.source == "page"]
    return [*own, *(rule.budget() for rule in page if rule.name not in names)]


def rule_of(budget: Budget, source: Literal["code", "page"]) -> BudgetRule:
    """What a budget says."""
    return BudgetRule(
        name=budget.name,
        limit_usd=usd(budget.limit_pico_usd),
        period=budget.period,
        per=list(budget.tag_keys),
        where=dict(budget.where),
        action=budget.action,
        alert_at=list(budget.alert_at),
        limits=[
            SingleLimit(values=list(values), limit_usd=usd(limit))
            for values, limit in sorted(budget.limits_pico_usd.items())
        ],
        max_output_tokens=budget.max_output_tokens,
        on_unpriced=budget.on_unpriced,
        wait=budget.wait,
        fail=budget.fail,
        source=source,
    )


def within(scope: TagScope, budgets: Sequence[Budget], view: Snapshot) -> list[Budget]:
    """The budgets that lie wholly inside of a scope: a tenant sees its own, not one it shares."""
    wanted = view.stored(scope)

    def is_within(budget: Budget) -> bool:
        where = view.stored(budget.where)
        return all(
            key in budget.tag_keys or where.get(key) == value for key, value in wanted.items()
        )

    return [budget for budget in budgets if is_within(budget)]


def uses_of(
    budgets: Sequence[Budget], once: Once, now: datetime, zone: ZoneInfo, scope: TagScope
) -> list[BudgetUse]:
    """How much of each limit of these budgets is used, the fullest first."""
    uses = [use for budget in budgets for use in _uses_of(budget, once, now, zone, scope)]
    return sorted(uses, key=lambda use: -use.used)


def _uses_of(
    budget: Budget, once: Once, now: datetime, zone: ZoneInfo, scope: TagScope
) -> list[BudgetUse]:
    start, stop = period_span(budget.period, now, zone)
    group_by = tuple(f"tag:{key}" for key in budget.tag_keys)
    found = once.totals(Query(start, stop, group_by, scope=scope, where=budget.where)).groups
    spending: dict[tuple[str, ...], int] = {} if budget.tag_keys else {(): 0}
    for group, totals in found.items():
        tags = tuple(MISSING if value is None else str(value) for value in group)
        spending[tags] = spending.get(tags, 0) + cost_of(totals)
    limits = {
        tuple(once.view.stored(dict(zip(budget.tag_keys, values, strict=True))).values()): limit
        for values, limit in budget.limits_pico_usd.items()
    }
    uses = []
    for tags, spent in spending.items():
        limit = limits.get(tags, budget.limit_pico_usd)
        used = spent / limit if limit else float(spent > 0)
        uses.append(
            BudgetUse(
                name=budget.name,
                period=budget.period,
                action=budget.action,
                tags=dict(zip(budget.tag_keys, tags, strict=True)),
                start=start,
                stop=stop,
                limit_usd=usd(limit),
                spent_usd=usd(spent),
                used=used,
                reached=[share for share in budget.alert_at if used >= share],
            )
        )
    return uses


def states_of(
    budgets: Sequence[Budget],
    once: Once,
    seer: Outlook,
    *,
    editable: frozenset[str] = frozenset(),
) -> list[BudgetState]:
    """The fullest limits, and how they go on; `editable` are names of budgets."""
    now = seer.now
    uses = uses_of(budgets, once, now, seer.zone, seer.scope)[:LIMITS_AT_MOST]
    foreseen = {_limit_of(one): one for one in seer.of_budgets(budgets, uses[:FORESEEN])}
    states = []
    for use in uses:
        held, assumed = _in_flight(use, budgets, once.view, now)
        ahead = foreseen.get(_limit_of(use))
        expected = ahead.forecast.expected_usd if ahead and ahead.forecast else None
        states.append(
            BudgetState(
                **dict(use),
                held_usd=usd(held),
                assumed_usd=usd(assumed),
                expected_usd=expected,
                runs_out_at=ahead.runs_out_at if ahead else None,
                editable=use.name in editable,
            )
        )
    return states


def _limit_of(one: BudgetUse | BudgetForecast) -> tuple[str, tuple[str, ...]]:
    return one.name, tuple(one.tags.values())


def _in_flight(
    use: BudgetUse, budgets: Sequence[Budget], view: Snapshot, now: datetime
) -> tuple[int, int]:
    """What is held and assumed of a limit, in pico-USD."""
    budget = next(one for one in budgets if one.name == use.name)
    if budget.action != "block":
        return 0, 0
    tags = {key: value for key, value in use.tags.items() if value != MISSING}
    for limit in view.limits({**budget.where, **tags}, now):
        if limit.rule.name == use.name and limit.scope == use.tags:
            return limit.balance.held, limit.balance.assumed
    return 0, 0
