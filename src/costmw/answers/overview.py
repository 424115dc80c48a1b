"""The answer that the first screen of the page is drawn from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from costmw.answers.base import Answer, Usd
from costmw.answers.budgets import BudgetState, SpendForecast
from costmw.answers.calls import Call, OutcomeRow
from costmw.answers.durations import Quantiles
from costmw.answers.spending import Breakdown, Series, Spend, Sums
from costmw.periods import Granularity
from costmw.question import Metric, RangeName
from costmw.store.base import Operator


class AskedFilter(Answer):
    """What calls must have; see `costmw.store.base.Filter`."""

    key: str
    op: Operator
    values: list[str]


class AskedQuestion(Answer):
    """What was asked, as it was understood: defaults filled in, days turned into moments.

    `stop` and `previous_stop` are exclusive. There is no time before without a comparison.
    """

    range: RangeName
    start: datetime
    stop: datetime
    every: Granularity
    time_zone: str
    previous_start: datetime | None
    previous_stop: datetime | None
    filters: list[AskedFilter]
    by: str | None
    metric: Metric
    top: int


class OutcomeCounts(Answer):
    """How often something happened that bills nothing."""

    error: int
    retry: int
    refused: int
    capture_fault: int


class CacheSavings(Answer):
    """What cached input has saved: its list price, less what reading and writing it cost.

    An estimate, by today's price list; `read_share` is the part of the input that was read
    from a cache.
    """

    saved_usd: Usd
    read_share: float
    is_estimate: Literal[True] = True


class Untagged(Answer):
    """Calls that lack a tag: how many, which part of all, and what they cost."""

    key: str
    calls: int
    share: float
    cost_usd: Usd


class UnpricedModel(Answer):
    """A model with calls whose cost is not known."""

    provider: str | None
    model: str | None
    calls: int


class Coverage(Answer):
    """How much is known: the part of the calls that has a cost, and of the cost that is exact."""

    priced_share: float
    exact_share: float
    unpriced_calls: int
    models: list[UnpricedModel]


class Summary(Answer):
    """The sums of the span, and beside them the time before."""

    sums: Sums
    previous: Sums | None
    latency: Quantiles
    time_to_first_chunk: Quantiles
    outcomes: OutcomeCounts | None
    previous_outcomes: OutcomeCounts | None
    cache: CacheSavings | None
    untagged: list[Untagged]
    coverage: Coverage


class AnomalyCause(Answer):
    """The value that explains most of what was too much; None for calls without one."""

    by: str
    value: str | None
    excess_usd: Usd


class Anomaly(Answer):
    """A day or hour that cost far more than is usual.

    `score` is how many usual deviations it lies above what was expected. `cause` is None when
    everything rose alike.
    """

    start: datetime
    stop: datetime
    every: Literal["day", "hour"]
    expected_usd: Usd
    cost_usd: Usd
    excess_usd: Usd
    score: float
    cause: AnomalyCause | None
    kind: Literal["more calls", "dearer calls", "new"]
    text: str


class Overview(Answer):
    """Everything of the first screen, at one moment.

    `month` and `forecast` are of the calendar month, within the same scope and filters.
    """

    generated_at: datetime
    question: AskedQuestion
    month: Spend
    forecast: SpendForecast | None
    summary: Summary
    series: Series
    breakdown: Breakdown
    budgets: list[BudgetState]
    anomalies: list[Anomaly]
    outcomes: list[OutcomeRow]
    calls: list[Call]
    tag_keys: list[str]
    dimensions: list[str]


class Anomalies(Answer):
    """What was unusual in the span asked about, oldest first."""

    start: datetime
    stop: datetime
    anomalies: list[Anomaly]
