"""A question, as it is put to one view of the ledger at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.answers import AskedFilter, AskedQuestion
from costmw.events import UsageEvent
from costmw.periods import spans
from costmw.question import AUTO, Frame, Question, frame_of
from costmw.reports.once import Once
from costmw.store.base import Filter, Found, FoundDurations, Query, TagScope
from costmw.store.rollup_plan import KIND, OF_KIND

COMMON_TAGS = ("feature", "team", "tenant", "user", "route")
"""The tags that views are grouped by unless asked otherwise, the first that is in use."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with its span of time and what it is grouped by, to the calls of a scope."""

    once: Once
    now: datetime
    scope: TagScope
    question: Question
    frame: Frame
    by: str | None
    tag_keys: Sequence[str]
    ledger_zone: ZoneInfo

    def totals(
        self,
        span: tuple[datetime, datetime] | None = None,
        group_by: tuple[str, ...] = (),
        *,
        buckets: Sequence[datetime] = (),
        filters: tuple[Filter, ...] = (),
    ) -> Found:
        """Sums of the calls asked about, in their span of time or another one."""
        return self.once.totals(self._query(span, group_by, buckets, filters))

    def durations(
        self, group_by: tuple[str, ...] = (), filters: tuple[Filter, ...] = ()
    ) -> FoundDurations:
        """How long the calls asked about took."""
        return self.once.durations(self._query(None, group_by, (), filters))

    @property
    def starts(self) -> list[datetime]:
        """The starts of the spans that a series is told by."""
        frame = self.frame
        return spans(frame.start, frame.stop, frame.every, frame.zone)

    @property
    def is_rolled_up(self) -> bool:
        """Whether days of the calls asked about are told of by rollups, and not one by one."""
        frame, starts = self.frame, self.starts
        if frame.every == "hour":
            starts = spans(frame.start, frame.stop, "day", frame.zone)
        return not self.totals(buckets=starts).from_rows

    def events(self, limit: int, before: int | None = None) -> Sequence[tuple[int, UsageEvent]]:
        """The newest calls asked about, each with the position to go on from."""
        return self.once.view.events(
            scope=self.scope,
            limit=limit,
            before=before,
            start=self.frame.start,
            stop=self.frame.stop,
            filters=self.question.filters,
        )

    def is_narrow(self, key: str) -> bool:
        """Whether rollups tell of the calls asked about by all values of a key, and quickly."""
        return self._are_few({*self._keys(), _facet_of(key)}, at_most=2)

    def has_durations(self, key: str | None = None) -> bool:
        """Whether rollups tell how long the calls asked about took, by the values of a key."""
        also = {_facet_of(key)} if key else set()
        return self._are_few({*self._keys(), *also}, at_most=1)

    def _keys(self) -> set[str]:
        filtered = (_facet_of(one.key) for one in self.question.filters)
        return {*(f"tag:{tag}" for tag in self.scope), *filtered}

    def _are_few(self, keys: set[str], at_most: int) -> bool:
        return len(keys) <= at_most and all(map(self.once.has_few_values, keys))

    def _query(
        self,
        span: tuple[datetime, datetime] | None,
        group_by: tuple[str, ...],
        buckets: Sequence[datetime],
        filters: tuple[Filter, ...],
    ) -> Query:
        start, stop = span or (self.frame.start, self.frame.stop)
        return Query(
            start,
            stop,
            group_by,
            tuple(buckets),
            scope=self.scope,
            filters=(*self.question.filters, *filters),
        )

    def as_answer(self) -> AskedQuestion:
        """What was asked, as it was understood."""
        frame, question = self.frame, self.question
        previous_start, previous_stop = frame.previous or (None, None)
        return AskedQuestion(
            range=question.range,
            start=frame.start,
            stop=frame.stop,
            every=frame.every,
            time_zone=frame.zone.key,
            previous_start=previous_start,
            previous_stop=previous_stop,
            filters=[
                AskedFilter(key=one.key, op=one.op, values=list(one.values))
                for one in question.filters
            ],
            by=self.by,
            metric=question.metric,
            top=question.top,
        )


def _facet_of(key: str) -> str:
    """What rollups are kept by: dimensions of a kind of call have one facet together."""
    return KIND if key in OF_KIND else key


def asked_of(
    once: Once, question: Question, scope: TagScope, now: datetime, zone: ZoneInfo
) -> Asked:
    """Put a question; `zone` is the ledger's.

    Raises:
        ConfigError: when its range makes no sense.
    """
    frame = frame_of(question, now, zone)
    keys = once.view.tag_keys(scope=scope)
    by = question.by
    if by == AUTO:
        by = next((f"tag:{key}" for key in COMMON_TAGS if key in keys), "model")
    return Asked(once, now, scope, question, frame, by, keys, zone)
