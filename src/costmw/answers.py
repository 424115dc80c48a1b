"""The answers of reports: pydantic models, for Python and as JSON.

Money is `Decimal` USD, in JSON a plain decimal string.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PlainSerializer

from costmw.budgets import Action, BudgetPeriod
from costmw.periods import Granularity

Usd = Annotated[Decimal, PlainSerializer(lambda usd: format(usd, "f"), when_used="json")]
"""US dollars; a plain decimal string in JSON, never a float."""


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class Sums(Answer):
    """Sums over some calls.

    `cost_usd` is exact money, `estimated_cost_usd` what was worked out for calls that
    did not tell; `total_usd` is both. `unpriced_calls` have no cost at all and are in
    none of them. `cost_per_call_usd` is over the calls that have a cost,
    `cost_per_request_usd` what web requests caused over their number.
    """

    total_usd: Usd
    cost_usd: Usd
    estimated_cost_usd: Usd
    cost_per_call_usd: Usd | None
    cost_per_request_usd: Usd | None
    calls: int
    requests: int
    unpriced_calls: int
    flagged_calls: int
    incomplete_calls: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    average_latency_ms: int | None


class Spend(Answer):
    """What one period has cost so far, and the same length of the period before.

    `previous` goes up to `previous_stop`: as far as the period has come, in whole hours.
    """

    period: BudgetPeriod
    start: datetime
    stop: datetime
    time_zone: str
    sums: Sums
    previous: Sums
    previous_start: datetime
    previous_stop: datetime


class Point(Answer):
    """One hour, day or month."""

    start: datetime
    sums: Sums


class Trend(Answer):
    """Cost over time, a point for every span, empty ones too.

    `from_rows`: no rollup had the answer, and the single calls were added up, which takes
    the longer the more there are.
    """

    start: datetime
    stop: datetime
    every: Granularity
    time_zone: str
    points: list[Point]
    from_rows: bool


class Row(Answer):
    """One value of what was grouped by; None for calls without it. `share` is of the cost."""

    value: str | None
    share: float
    sums: Sums


class Breakdown(Answer):
    """Cost by a dimension or tag, the dearest first; `other` sums what `rows` leave out.

    `from_rows`: no rollup had the answer, and the single calls were added up, which takes
    the longer the more there are.
    """

    by: str
    start: datetime
    stop: datetime
    rows: list[Row]
    other: Row | None
    total: Sums
    from_rows: bool


class Quantiles(Answer):
    """How long calls took, in milliseconds: what 50, 90, 95 and 99 of 100 do not exceed.

    From a logarithmic histogram, exact to 9%. None without any call that was timed.
    """

    calls: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class DurationRow(Answer):
    """One value of what was grouped by; None for calls without it."""

    value: str | None
    latency: Quantiles
    time_to_first_chunk: Quantiles


class Durations(Answer):
    """How long calls took, whole and until something came, of the slowest values first.

    `from_rows`: no rollup had the answer, and the single calls were looked at.
    """

    by: str | None
    start: datetime
    stop: datetime
    rows: list[DurationRow]
    total: DurationRow
    from_rows: bool


class UnitCost(Answer):
    """Cost per call and per web request in one span of time."""

    start: datetime
    cost_per_call_usd: Usd | None
    cost_per_request_usd: Usd | None
    calls: int
    requests: int


class UnitCosts(Answer):
    """Cost per call and per web request over time."""

    every: Granularity
    time_zone: str
    points: list[UnitCost]


class Tokens(Answer):
    """Tokens of a span of time; cached ones are part of the input, reasoning of the output."""

    start: datetime
    stop: datetime
    input_tokens: int
    uncached_input_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    output_tokens: int
    reasoning_output_tokens: int


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


class Call(Answer):
    """One recorded call. `cost_usd` is None when unknown; `reason` says why."""

    id: UUID
    created_at: datetime
    operation: str
    provider: str | None
    model: str | None
    status: str
    cost_usd: Usd | None
    cost_source: str
    price_ref: str | None
    unit_prices_usd: dict[str, str]
    reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    reasoning_output_tokens: int
    detail: dict[str, int]
    latency_ms: int | None
    time_to_first_chunk_ms: int | None
    tags: dict[str, str]
    api_key_id: str | None
    response_id: str | None


class OutcomeRow(Answer):
    """How often something that bills nothing happened."""

    kind: str
    provider: str | None
    model: str | None
    count: int


class Overview(Answer):
    """The seven views at one moment: what the page shows first."""

    generated_at: datetime
    time_zone: str
    position: int
    month: Spend
    trend: Trend
    by_model: Breakdown
    by_tag: Breakdown
    tag_keys: list[str]
    unit_costs: UnitCosts
    tokens: Tokens
    budgets: list[BudgetUse]
    outcomes: list[OutcomeRow]
    calls: list[Call]
