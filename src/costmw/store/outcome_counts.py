"""Asking the counters of what bills nothing; the text is the same for every database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from costmw.store.base import Filter, OutcomeCount, TagScope
from costmw.store.row_select import Ask
from costmw.store.sql import Sql

KEPT = ("provider", "model", "tag:route", "tag:tenant")
"""What counters keep of an attempt."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


def count_outcomes(
    sql: type[Sql],
    ask: Ask,
    buckets: Sequence[datetime],
    stop: datetime,
    scope: TagScope,
    filters: Sequence[Filter],
) -> list[OutcomeCount]:
    """Counters of each bucket, most frequent first; none for filters of what they do not keep."""
    hours = list(_hours(buckets, stop))
    if not hours or any(wanted.key not in KEPT for wanted in filters):
        return []
    asked = sql()
    asked.with_values("buckets", "n, first, beyond", hours)
    asked.add("SELECT b.n, e.kind, nullif(e.provider, ''), nullif(e.model, ''), sum(e.count)")
    asked.add("FROM buckets b CROSS JOIN call_outcomes e")
    asked.add("WHERE e.hour >= b.first AND e.hour < b.beyond")
    asked.having_tags(scope)
    for wanted in filters:
        if wanted.key.startswith("tag:"):
            asked.having_tag(wanted)
        else:
            asked.having(f"nullif(e.{wanted.key}, '')", wanted)
    asked.add("GROUP BY 1, 2, 3, 4")
    counts = [
        OutcomeCount(kind, provider, model, int(count), position)
        for position, kind, provider, model, count in ask(*asked.statement())
    ]
    return sorted(counts, key=_rank)


def _rank(found: OutcomeCount) -> tuple[int, int, str, str, str]:
    return found.position, -found.count, found.kind, found.provider or "", found.model or ""


def _hours(buckets: Sequence[datetime], stop: datetime) -> Iterator[tuple[int, int, int]]:
    """Position of a bucket, its first hour since 1970 and the one after its last."""
    first = (buckets[0] - _EPOCH) // _HOUR
    for position, end in enumerate((*buckets[1:], stop)):
        beyond = -(-(end - _EPOCH) // _HOUR)
        if first < beyond:
            yield position, first, beyond
        first = max(first, beyond)
