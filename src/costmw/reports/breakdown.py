"""Sums by the values of a dimension or tag."""

from __future__ import annotations

from collections.abc import Mapping

from costmw.answering import quantiles_of, sums_of
from costmw.answers import Breakdown, Quantiles, Row
from costmw.reports.asked import Asked
from costmw.reports.ranking import Ranking, filters_of_named, groups_of_named, share_of, without
from costmw.reports.series import previous_total
from costmw.store.base import Totals

_NOTHING = Totals()


def breakdown_of(asked: Asked, ranking: Ranking) -> Breakdown:
    """The values first in rank, each beside the time before, and the rest in one."""
    before = _before(asked, ranking)
    took = _took(asked, ranking)

    def row(value: str | None, sums: Totals, previous: Totals | None) -> Row:
        latency = took.get(value)
        return Row(
            value=value,
            share=share_of(sums, ranking.all, asked.question.metric),
            sums=sums_of(sums),
            previous=None if previous is None else sums_of(previous),
            latency_p50_ms=latency.p50_ms if latency else None,
            latency_p95_ms=latency.p95_ms if latency else None,
        )

    rows = [
        row(value, sums, None if before is None else before.get(value, _NOTHING))
        for value, sums in ranking.named
    ]
    whole_before = previous_total(asked)
    total = row(None, ranking.all, whole_before)
    other = None
    if ranking.has_others:
        rest = without(ranking.all, (sums for _, sums in ranking.named))
        rest_before = None
        if whole_before is not None and before is not None:
            named = [value for value, _ in ranking.named]
            rest_before = without(whole_before, (before.get(v, _NOTHING) for v in named))
        other = row(None, rest, rest_before).model_copy(update=_UNTIMED)
    return Breakdown(
        by=asked.by,
        start=asked.frame.start,
        stop=asked.frame.stop,
        rows=rows,
        other=other,
        total=total.model_copy(update=_UNTIMED),
        values=ranking.values,
        from_rows=ranking.from_rows,
    )


_UNTIMED = {"latency_p50_ms": None, "latency_p95_ms": None}


def _before(asked: Asked, ranking: Ranking) -> Mapping[str | None, Totals] | None:
    """The sums of the named values in the time before."""
    if asked.frame.previous is None:
        return None
    groups = groups_of_named(asked, ranking, asked.frame.previous)
    return {None if value is None else str(value): sums for (value,), sums in groups.items()}


def _took(asked: Asked, ranking: Ranking) -> Mapping[str | None, Quantiles]:
    """How long calls of each value took, where that is kept."""
    if asked.by is None or not asked.has_durations(asked.by):
        return {}
    return {
        None if value is None else str(value): quantiles_of(counts.latency)
        for filters in filters_of_named(asked.by, ranking)
        for (value,), counts in asked.durations((asked.by,), filters).groups.items()
    }
