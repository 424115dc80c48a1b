"""Answers about money, calls and tokens: sums, over time and by values."""

from __future__ import annotations

from datetime import datetime

from costmw.answers.base import Answer, Usd
from costmw.budgets import BudgetPeriod
from costmw.periods import Granularity


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

    `from_rows`: no rollup had the answer, or most of it, and the single calls were added up,
    which takes the longer the more there are.
    """

    start: datetime
    stop: datetime
    every: Granularity
    time_zone: str
    points: list[Point]
    from_rows: bool


class Row(Answer):
    """One value of what was grouped by; None for calls without it.

    `share` is of what values are ranked by; of the cost where that is an average. `previous`
    are the sums of the span before, when it was asked for. Latencies are from a logarithmic
    histogram, exact to 9%; None where none is kept.
    """

    value: str | None
    share: float
    sums: Sums
    previous: Sums | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None


class Breakdown(Answer):
    """Sums by a dimension or tag, the first in rank first; `other` sums what `rows` leave out.

    `values` is how many there are, calls without any counted as one. `from_rows`: no rollup
    had the answer, and the single calls were added up, which takes the longer the more there
    are.
    """

    by: str | None
    start: datetime
    stop: datetime
    rows: list[Row]
    other: Row | None
    total: Row
    values: int
    from_rows: bool


class Line(Answer):
    """One value over time: in each list an entry for each of the series' `starts`.

    `cost_usd` is exact money, `estimated_cost_usd` comes on top of it; the averages are of
    both. `tokens` are input and output together.
    """

    value: str | None
    cost_usd: list[Usd]
    estimated_cost_usd: list[Usd]
    calls: list[int]
    requests: list[int]
    tokens: list[int]
    cost_per_call_usd: list[Usd | None]
    cost_per_request_usd: list[Usd | None]


class DayAhead(Answer):
    """What a day to come is expected to cost, and the band that holds 8 times in 10.

    The first is what is still to come today.
    """

    start: datetime
    expected_usd: Usd
    low_usd: Usd
    high_usd: Usd


class Series(Answer):
    """Values over time: `lines` of those first in rank, `other` for the rest, `total` for all.

    `previous` is the whole cost in the spans of the time before, by their position; None
    where that had no such span, or for all when it was not asked for. `from_rows`: no rollup
    had the answer, and the single calls were added up.
    """

    by: str | None
    every: Granularity
    starts: list[datetime]
    previous: list[Usd | None] | None
    lines: list[Line]
    other: Line | None
    total: Line
    from_rows: bool
    forecast: list[DayAhead]


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
