"""The values of what is grouped by, ranked: a few are named, the rest is summed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from costmw.answering import cost_of
from costmw.question import Metric
from costmw.reports.asked import Asked
from costmw.store.base import Filter, Group, Totals
from costmw.store.rollups import PAIRED_VALUES

Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The values that come first, and the sums of `all` calls asked about.

    `values` is how many there are, calls without any counted as one.
    """

    named: Sequence[tuple[str | None, Totals]]
    values: int
    all: Totals
    from_rows: bool

    @property
    def has_others(self) -> bool:
        """Whether there are values that are not named."""
        return self.values > len(self.named)

    @property
    def is_narrow(self) -> bool:
        """Whether so few values are there that all may be asked for at once."""
        # Calls without a value are one more.
        return self.values <= PAIRED_VALUES + 1


def ranking_of(asked: Asked) -> Ranking:
    """Rank the values of what is grouped by."""
    if asked.by is None:
        found = asked.totals()
        return Ranking([], 0, found.groups.get((), Totals()), found.from_rows)
    found = asked.totals(group_by=(asked.by,))
    ranked = rank(found.groups, asked.question.metric)
    # Adding up thousands takes longer than asking rollups once more, and shorter than rows.
    every = asked.totals().groups[()] if not found.from_rows else whole(found.groups.values())
    return Ranking(ranked[: asked.question.top], len(ranked), every, found.from_rows)


def rank(groups: Mapping[Group, Totals], metric: Metric) -> list[tuple[str | None, Totals]]:
    """Groups of one key by a metric, the largest first, and always in the same order."""
    values = [(None if value is None else str(value), sums) for (value,), sums in groups.items()]
    return sorted(values, key=lambda one: (-measure(one[1], metric), -one[1].calls, str(one[0])))


def measure(totals: Totals, metric: Metric) -> int | Fraction:
    """What values are ranked by; an average over nothing comes last."""
    match metric:
        case "cost":
            return cost_of(totals)
        case "calls":
            return totals.calls
        case "tokens":
            return totals.input_tokens + totals.output_tokens
        case "cost_per_call":
            return _average(cost_of(totals), totals.calls - totals.unpriced)
        case "cost_per_request":
            return _average(totals.cost_in_requests_pico_usd, totals.requests)


def share_of(part: Totals, total: Totals, metric: Metric) -> float:
    """The part that values have of a metric; of the cost, where that is an average."""
    summed: Metric = metric if metric in ("calls", "tokens") else "cost"
    whole_measure = measure(total, summed)
    return float(Fraction(measure(part, summed)) / whole_measure) if whole_measure else 0.0


def _average(pico: int, count: int) -> Fraction:
    return Fraction(pico, count) if count else Fraction(-1)


def whole(parts: Iterable[Totals]) -> Totals:
    """The sums of all parts."""
    total = Totals()
    for part in parts:
        total.add(part)
    return total


def without(total: Totals, parts: Iterable[Totals]) -> Totals:
    """What is left of a whole without some of its parts."""
    rest = whole([total])
    for part in parts:
        rest.add(part, sign=-1)
    return rest


def groups_of_named(
    asked: Asked,
    ranking: Ranking,
    span: Span | None = None,
    *,
    buckets: Sequence[datetime] = (),
) -> Mapping[Group, Totals]:
    """Sums of at least the named values, in another span, or over time."""
    if asked.by is None:
        return {}
    groups: dict[Group, Totals] = {}
    for filters in filters_of_named(asked.by, ranking):
        groups.update(asked.totals(span, (asked.by,), buckets=buckets, filters=filters).groups)
    return groups


def filters_of_named(by: str, ranking: Ranking) -> list[tuple[Filter, ...]]:
    """What to ask, one after the other, to be told of the named values and of few others."""
    named = tuple(value for value, _ in ranking.named if value is not None)
    lacks_value = len(named) < len(ranking.named)
    # Calls without a value are what the others leave of the whole: of few, all may be told.
    if not ranking.has_others or (lacks_value and ranking.is_narrow):
        return [()]
    filters: list[tuple[Filter, ...]] = [(Filter(by, "is", named),)] if named else []
    return [*filters, (Filter(by, "unset"),)] if lacks_value else filters
