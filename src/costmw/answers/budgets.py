"""Answers about budgets, and about how spend goes on."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from costmw.answers.base import Answer, Usd
from costmw.budgets import Action, BudgetPeriod, Fail, OnUnpriced


class BudgetUse(Answer):
    """How much of one budget is used, for one value of what it is split by.

    `used` is the share of the limit, 1 for all of it. `tags` are those of the split.
    """

    name: str
    period: BudgetPeriod
    action: Action
    tags: dict[str, str]
    start: datetime
    stop: datetime
    limit_usd: Usd
    spent_usd: Usd
    used: float
    reached: list[float]


class SpendForecast(Answer):
    """What is expected to be spent by the end of a span, and the band that holds 8 times in 10.

    All three are whole amounts: `spent_usd` so far is part of them. Estimates, to the cent or
    finer: nobody is billed by them.
    """

    spent_usd: Usd
    expected_usd: Usd
    low_usd: Usd
    high_usd: Usd


class BudgetForecast(Answer):
    """How one budget will be used, for one value of what it is split by.

    It is foreseen up to `stop`: the end of its period, or 30 days ahead for a budget without
    periods. `forecast` is None while too little is known. `runs_out_at` is when the limit is
    expected to be reached; None when it lasts until `stop`, or nothing is foreseen.
    """

    name: str
    period: BudgetPeriod
    tags: dict[str, str]
    start: datetime
    stop: datetime
    limit_usd: Usd
    spent_usd: Usd
    forecast: SpendForecast | None
    runs_out_at: datetime | None


class Forecast(Answer):
    """How spend goes on: of the month, and of each budget.

    `month` is None while too little is known: fewer than 5 days have cost anything.
    """

    start: datetime
    stop: datetime
    time_zone: str
    month: SpendForecast | None
    budgets: list[BudgetForecast]


class BudgetState(BudgetUse):
    """How much of a budget is used, and how it goes on.

    `held_usd` is what calls in flight may still cost, `assumed_usd` what calls without a known
    cost were charged with; both are known of budgets that block. `expected_usd` is what will be
    spent by the end of the period (30 days ahead for one without periods), `runs_out_at` when
    the limit is expected to be reached; None while nothing is foreseen, which is done for the
    10 fullest limits. `editable` says whether
    whoever asks may change it.
    """

    held_usd: Usd
    assumed_usd: Usd
    expected_usd: Usd | None
    runs_out_at: datetime | None
    editable: bool


class SingleLimit(Answer):
    """A limit of its own for one value, or combination of values, of what a budget is split by."""

    values: list[str]
    limit_usd: Usd


class BudgetRule(Answer):
    """What a budget says; see `costmw.Budget`.

    `source` is "code" for one that the app declares, "page" for one that was made on the page.
    """

    name: str
    limit_usd: Usd
    period: BudgetPeriod
    per: list[str]
    where: dict[str, str]
    action: Action
    alert_at: list[float]
    limits: list[SingleLimit]
    max_output_tokens: int | None
    on_unpriced: OnUnpriced
    wait: float
    fail: Fail
    source: Literal["code", "page"]


class BudgetList(Answer):
    """The fullest limits, and what all budgets say: that is for those only who see everything."""

    budgets: list[BudgetState]
    rules: list[BudgetRule]
