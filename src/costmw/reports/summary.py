"""What the calls asked about come to, and how well that is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from costmw.answering import cost_of, quantiles_of, sums_of, usd
from costmw.answers import (
    Coverage,
    OutcomeCounts,
    OutcomeRow,
    Summary,
    UnpricedModel,
    Untagged,
)
from costmw.pricing import Pricing
from costmw.reports.asked import COMMON_TAGS, Asked
from costmw.reports.cache import cache_savings_of
from costmw.reports.ranking import Ranking
from costmw.reports.series import previous_total
from costmw.store.base import DurationCounts, Filter, OutcomeCount, Totals

MOST_UNPRICED = 20
"""Models without a price in one answer at most."""

OF_OUTCOMES = frozenset({"provider", "model", "tag:route", "tag:tenant"})
"""What attempts that bill nothing are counted by."""


def summary_of(
    asked: Asked,
    ranking: Ranking,
    outcomes: Sequence[OutcomeCount] | None,
    pricing: Pricing,
) -> Summary:
    """The sums of the calls asked about, beside the time before."""
    before = previous_total(asked)
    took = DurationCounts()
    if asked.has_durations():
        took = asked.durations().groups.get((), took)
    return Summary(
        sums=sums_of(ranking.all),
        previous=None if before is None else sums_of(before),
        latency=quantiles_of(took.latency),
        time_to_first_chunk=quantiles_of(took.first_chunk),
        outcomes=_counts_of(outcomes),
        previous_outcomes=_counts_of(_outcomes_before(asked)),
        cache=cache_savings_of(asked, ranking.all, pricing),
        untagged=_untagged(asked, ranking.all),
        coverage=_coverage(asked, ranking.all),
    )


def outcomes_of(asked: Asked) -> Sequence[OutcomeCount] | None:
    """What happened that bills nothing; None when it is not counted by what is asked."""
    return _outcomes_in(asked, asked.frame.start, asked.frame.stop)


def _outcomes_before(asked: Asked) -> Sequence[OutcomeCount] | None:
    return None if asked.frame.previous is None else _outcomes_in(asked, *asked.frame.previous)


def _outcomes_in(asked: Asked, start: datetime, stop: datetime) -> Sequence[OutcomeCount] | None:
    keys = {f"tag:{key}" for key in asked.scope} | {one.key for one in asked.question.filters}
    if not keys <= OF_OUTCOMES:
        return None
    return asked.once.view.outcomes(start, stop, scope=asked.scope, filters=asked.question.filters)


def outcome_rows(outcomes: Sequence[OutcomeCount] | None) -> list[OutcomeRow]:
    """Counts by kind, provider and model, the most frequent first."""
    return [
        OutcomeRow(kind=row.kind, provider=row.provider, model=row.model, count=row.count)
        for row in outcomes or ()
    ]


def _counts_of(outcomes: Sequence[OutcomeCount] | None) -> OutcomeCounts | None:
    if outcomes is None:
        return None
    counts = dict.fromkeys(OutcomeCounts.model_fields, 0)
    for row in outcomes:
        counts[row.kind] = counts.get(row.kind, 0) + row.count
    return OutcomeCounts(**counts)


def _untagged(asked: Asked, every: Totals) -> list[Untagged]:
    """Calls without each of the common tags that are in use, as far as rollups tell."""
    found = []
    for key in (f"tag:{key}" for key in COMMON_TAGS if key in asked.tag_keys):
        if key != asked.by and not asked.is_narrow(key):
            continue
        if key == asked.by:  # which was asked already
            lacking = asked.totals(group_by=(key,)).groups.get((None,), Totals())
        else:
            lacking = asked.totals(filters=(Filter(key, "unset"),)).groups.get((), Totals())
        found.append(
            Untagged(
                key=key.removeprefix("tag:"),
                calls=lacking.calls,
                share=lacking.calls / every.calls if every.calls else 0.0,
                cost_usd=usd(cost_of(lacking)),
            )
        )
    return found


def _coverage(asked: Asked, every: Totals) -> Coverage:
    models = asked.totals(group_by=("provider", "model")).groups if every.unpriced else {}
    unpriced = sorted(
        (
            (-sums.unpriced, str(provider or ""), str(model or ""), provider, model)
            for (provider, model), sums in models.items()
            if sums.unpriced
        ),
        key=lambda one: one[:3],
    )
    return Coverage(
        priced_share=1 - every.unpriced / every.calls if every.calls else 1.0,
        exact_share=every.cost_pico_usd / cost_of(every) if cost_of(every) else 1.0,
        unpriced_calls=every.unpriced,
        models=[
            UnpricedModel(
                provider=None if provider is None else str(provider),
                model=None if model is None else str(model),
                calls=-calls,
            )
            for calls, _, _, provider, model in unpriced[:MOST_UNPRICED]
        ],
    )
