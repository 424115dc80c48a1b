"""Values over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from costmw.answering import average_usd, cost_of, usd
from costmw.answers import DayAhead, Line, Series
from costmw.periods import spans
from costmw.reports.asked import Asked
from costmw.reports.ranking import Ranking, groups_of_named, whole, without
from costmw.store.base import Totals

_NOTHING = Totals()


def series_of(asked: Asked, ranking: Ranking, forecast: Sequence[DayAhead] = ()) -> Series:
    """The values first in rank, over time, with the rest in one line and all in another."""
    starts = asked.starts
    positions = range(len(starts))
    groups = groups_of_named(asked, ranking, buckets=starts)
    of_named = {
        value: [groups.get((n, value), _NOTHING) for n in positions] for value, _ in ranking.named
    }
    found = asked.totals(buckets=starts)
    total = [found.groups.get((n,), _NOTHING) for n in positions]
    other = None
    if ranking.has_others:
        rest = [without(total[n], (sums[n] for sums in of_named.values())) for n in positions]
        other = _line(None, rest)
    return Series(
        by=asked.by,
        every=asked.frame.every,
        starts=starts,
        previous=_previous(asked, len(starts)),
        lines=[_line(value, sums) for value, sums in of_named.items()],
        other=other,
        total=_line(None, total),
        from_rows=found.from_rows or ranking.from_rows,
        forecast=list(forecast),
    )


def _line(value: str | None, sums: Sequence[Totals]) -> Line:
    return Line(
        value=value,
        cost_usd=[usd(one.cost_pico_usd) for one in sums],
        estimated_cost_usd=[usd(one.estimated_cost_pico_usd) for one in sums],
        calls=[one.calls for one in sums],
        requests=[one.requests for one in sums],
        tokens=[one.input_tokens + one.output_tokens for one in sums],
        cost_per_call_usd=[average_usd(cost_of(one), one.calls - one.unpriced) for one in sums],
        cost_per_request_usd=[
            average_usd(one.cost_in_requests_pico_usd, one.requests) for one in sums
        ],
    )


def _previous(asked: Asked, count: int) -> list[Decimal | None] | None:
    sums = _of_time_before(asked)
    if sums is None:
        return None
    costs = [usd(cost_of(one)) for one in sums[:count]]
    return [*costs, *[None] * (count - len(costs))]


def previous_total(asked: Asked) -> Totals | None:
    """The sums of the time before; None without a comparison."""
    sums = _of_time_before(asked)
    return None if sums is None else whole(sums)


def _of_time_before(asked: Asked) -> list[Totals] | None:
    """The sums of the time before, over time."""
    if asked.frame.previous is None:
        return None
    start, stop = asked.frame.previous
    starts: list[datetime] = []
    if start < stop:
        starts = spans(start, stop, asked.frame.every, asked.frame.zone)
    groups = asked.totals((start, stop), buckets=starts).groups if starts else {}
    return [groups.get((n,), _NOTHING) for n in range(len(starts))]
