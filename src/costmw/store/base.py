"""What every store gives: committed batches in, totals and rows out.

A store is used by one writer thread at a time (`write`) and by any number of
readers (`snapshot`). It holds the ledger: events and amendments, never changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.caps.book import LimitUse
from costmw.caps.rules import Rule, Rules
from costmw.events import Record, UsageEvent

if TYPE_CHECKING:
    from costmw.store.balances import BalanceDifference
    from costmw.store.caps import Answers

DIMENSIONS = ("model", "provider", "operation", "status", "cost_source", "api_key_id")
"""What rows can be grouped by, beside time (`bucket`) and any tag (`tag:<key>`)."""

TagScope = Mapping[str, str]
"""Tags that a reader is confined to: every answer counts only rows that have them all."""


Operator = Literal["is", "not", "contains", "set", "unset"]


@dataclass(frozen=True, slots=True)
class Filter:
    """What calls must have, beside tags of a fixed value.

    `key` is a name of `DIMENSIONS` or `tag:<key>`. `op` says which calls pass: "is": it is
    one of `values`; "not": it is none of them, or the call has no such key; "contains": any
    of `values` is a part of it, where A-Z are like a-z, and no other letters alike; "set",
    "unset": the call has one, or has none, and `values` is empty.
    """

    key: str
    op: Operator
    values: tuple[str, ...] = ()


def erased_name() -> str:
    """What stands in the place of a tag's value that is erased: its calls stay apart."""
    return f"(erased {secrets.token_hex(4)})"


@dataclass(frozen=True, slots=True)
class Query:
    """One question to the ledger: which rows, in which groups.

    `start` is inclusive, `stop` exclusive, both aware. `buckets` are the starts of the
    spans of time to group by, ascending, the first at `start`; empty for no grouping by
    time. `group_by` holds names from `DIMENSIONS` or `tag:<key>`. `scope` and `where`
    are tags that rows must have; `scope` comes from who asks, `where` from what is asked.
    All of `filters` must hold besides.
    """

    start: datetime
    stop: datetime
    group_by: tuple[str, ...] = ()
    buckets: tuple[datetime, ...] = ()
    scope: TagScope = field(default_factory=dict)
    where: TagScope = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()


@dataclass(slots=True)
class Totals:
    """Sums over one group of rows, amendments included; money in pico-USD.

    `cost_pico_usd` is exact money only; what was estimated is in
    `estimated_cost_pico_usd`; `cost_in_requests_pico_usd` is the part of both that web
    requests caused. `unpriced` counts rows without any cost, `flagged` those whose cost
    leaves something out, `incomplete` those with a status other than `ok`. `requests`
    counts web requests by their first call. `latency_ms` is the sum over the `timed`
    rows that have one.
    """

    calls: int = 0
    requests: int = 0
    cost_pico_usd: int = 0
    estimated_cost_pico_usd: int = 0
    cost_in_requests_pico_usd: int = 0
    unpriced: int = 0
    flagged: int = 0
    incomplete: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    latency_ms: int = 0
    timed: int = 0

    def add(self, other: Totals, *, sign: Literal[1, -1] = 1) -> None:
        """Add another group's sums to these, or take them away."""
        for name in _TOTALS:
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))


_TOTALS = tuple(f.name for f in fields(Totals))

Group = tuple[str | int | None, ...]
"""The values of one group: the bucket's position first when there are buckets."""


@dataclass(frozen=True, slots=True)
class Found:
    """Sums by group; `from_rows` says that rollups had few or none, and rows were added up."""

    groups: dict[Group, Totals]
    from_rows: bool = False


@dataclass(slots=True)
class DurationCounts:
    """How long the calls of one group took: counts of calls by bin (`costmw.store.rollups`).

    `latency` is of whole calls, `first_chunk` of the time until something came.
    """

    latency: dict[int, int] = field(default_factory=dict)
    first_chunk: dict[int, int] = field(default_factory=dict)

    def add(self, other: DurationCounts, *, sign: Literal[1, -1] = 1) -> None:
        """Add another group's counts to these, or take them away."""
        for mine, others in (
            (self.latency, other.latency),
            (self.first_chunk, other.first_chunk),
        ):
            for position, count in others.items():
                mine[position] = mine.get(position, 0) + sign * count
                if not mine[position]:
                    del mine[position]


@dataclass(frozen=True, slots=True)
class FoundDurations:
    """DurationCounts by group; `from_rows` says that no rollup had them, and rows were counted."""

    groups: dict[Group, DurationCounts]
    from_rows: bool = False


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How often something that bills nothing happened; `position` is that of the bucket."""

    kind: str
    provider: str | None
    model: str | None
    count: int
    position: int = 0


@dataclass(frozen=True, slots=True)
class AppliedAmendment:
    """What one amendment made of an event; money in pico-USD, None where it is unknown.

    `status` is the new one, None when it stayed.
    """

    at: datetime
    reason: str
    status: str | None
    cost_before_pico_usd: int | None
    cost_after_pico_usd: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A cell of the rollups that the rows do not bear out, or that is not there.

    `every_minutes` is 60 or 1440, `bucket_minutes` when it begins (since 1970, UTC),
    `facets` what it counts ("tag:tenant=acme"), none for everything. `sums` are what the
    rollups say, or with `in_rollups` False what the rows do.
    """

    every_minutes: int
    bucket_minutes: int
    facets: tuple[str, ...]
    sums: Mapping[str, int]
    in_rollups: bool


class Snapshot(Protocol):
    """A consistent view of the ledger, for as long as it is open."""

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group; groups without rows are left out.

        A question without groups or buckets has one answer, under `()`.

        Raises:
            ConfigError: when there is no such dimension, or a filter cannot be.
        """

    def durations(self, query: Query) -> FoundDurations:
        """How long the calls of each group took; groups without any are left out.

        Raises:
            ConfigError: when there is no such dimension, or a filter cannot be.
        """

    def events(
        self,
        *,
        scope: TagScope,
        limit: int,
        before: int | None = None,
        start: datetime | None = None,
        stop: datetime | None = None,
        filters: Sequence[Filter] = (),
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest calls first, by when they began, amendments applied, each with its position.

        `before` is the position to go on from. `start` is inclusive, `stop` exclusive.

        Raises:
            ConfigError: when a filter cannot be.
        """

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event, amendments applied; None when there is none in this scope."""

    def amendments(self, event_id: UUID, *, scope: TagScope) -> Sequence[AppliedAmendment]:
        """What amended an event, oldest first; none when there is none in this scope."""

    def events_between(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        limit: int,
        after: int | None = None,
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The events of a span of time, oldest first, amendments applied, each with its position.

        To go on, `start` is when the last one began and `after` its position: those that
        began at `start` itself and stand up to there are left out.
        """

    def known_ids(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids events have."""

    def pruned_until(self) -> datetime | None:
        """Rows that began before are dropped, and told of by sums alone; None when none are."""

    def rules(self) -> Rules:
        """The blocking budgets of the ledger."""

    def limits(self, tags: TagScope, at: datetime) -> Sequence[LimitUse]:
        """The limits of blocking budgets that a call with these tags counts against."""

    def stored(self, tags: TagScope) -> TagScope:
        """The same tags, in their order, as the ledger has them: some may be hashes."""

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of tags that rows have, sorted."""

    def value_count(self, key: str) -> int:
        """How many values `tag:<key>`, `api_key_id` or `kind` has had in the whole ledger."""

    def values(
        self, key: str, *, scope: TagScope, contains: str = "", limit: int = 50
    ) -> Sequence[str]:
        """The values of a dimension or of `tag:<key>` that there are in this scope, sorted.

        `contains` is a part that they must have, where A-Z are like a-z.

        Raises:
            ConfigError: when there is no such dimension.
        """

    def outcomes(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        buckets: Sequence[datetime] = (),
        filters: Sequence[Filter] = (),
    ) -> Sequence[OutcomeCount]:
        """What happened from the hour of `start` to `stop` that bills nothing.

        Each is told for every bucket apart; an hour is in the one that it begins in.
        Counters keep provider, model, route and tenant only: a scope by other tags sees
        none, and so does a filter.

        Raises:
            ConfigError: when a filter cannot be.
        """

    def position(self) -> int:
        """A number that grows with every committed change; the same means nothing is new."""


class Store(Protocol):
    """A place where events are kept."""

    url: str

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone that days and months are counted in."""

    def open(self) -> None:
        """Check the store, make or migrate its tables.

        Raises:
            StoreError: when it cannot be used; the message says what to do.
            StoreBusy: when another process holds it too long.
        """

    def write(self, records: Sequence[Record]) -> Answers:
        """Commit all records in one transaction; events that are there already are skipped.

        Returns:
            The reservations that were not granted, and why.

        Raises:
            StoreError: when nothing was committed.
        """

    def declare(self, rules: Sequence[Rule]) -> None:
        """Say what the app's own blocking budgets are; the next transaction takes them in."""

    def page_rules(self, tags: TagScope) -> Sequence[Rule]:
        """The blocking budgets made on the page that a call with these tags counts in.

        As the last transaction of this process saw them; never waits.
        """

    def expire_holds(self, now: datetime) -> int:
        """Charge some of the holds that nobody has settled in time, each as a row of its own.

        Gives how many they were.

        Raises:
            StoreError: when nothing was charged.
        """

    def keep_budget(self, rule: Rule) -> None:
        """Make or change a blocking budget for all who write to this ledger.

        Raises:
            ConfigError: when an app's code has one of this name.
            StoreError: when it cannot be kept.
        """

    def drop_budget(self, name: str) -> None:
        """Take a blocking budget away; an app that has it in its code makes it anew.

        Raises:
            StoreError: when it cannot be done.
        """

    def roll_up(self, limit: int) -> int:
        """Roll up at most `limit` new events and amendments in one transaction.

        Returns:
            How many it were; fewer than `limit` when none are left.

        Raises:
            StoreError: when nothing was rolled up.
        """

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open a consistent view.

        Raises:
            StoreError: when the store cannot be read.
        """

    def fingerprint_key(self) -> bytes:
        """The secret that API keys are fingerprinted with; kept beside the store."""

    def close(self) -> None:
        """Release connections and files; the store can be opened again."""

    def before_fork(self) -> None:
        """Come to rest: no connection to write with, no thread inside of the database."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Go on, without anything that belongs to the parent."""


class Care(Protocol):
    """What is done to a ledger as a whole; a store can do it while others write to it."""

    def prune(self, before: datetime) -> int:
        """Drop the rows of calls before a moment; the rollups keep their sums for ever.

        Whole days or months only: the rows of the one that `before` is in are kept. Gives the
        number of rows.

        Raises:
            StoreError: when it cannot be done; what is dropped already stays dropped.
        """

    def rebuild(self) -> int:
        """Make the rollups anew from the rows; gives how many rows were rolled up.

        What was pruned keeps the rollups that it has.

        Raises:
            StoreError: when it cannot be done.
        """

    def verify_balances(self) -> Sequence[BalanceDifference]:
        """Compare what budgets say is used with the rows and holds; nothing is changed.

        Raises:
            StoreError: when the ledger cannot be read.
        """

    def rebuild_balances(self) -> None:
        """Make anew what budgets say is used, from the rows and holds.

        Raises:
            StoreError: when it cannot be done.
        """

    def verify(self) -> Sequence[Difference]:
        """Compare the rollups with the rows that they were made of; nothing is changed.

        Raises:
            StoreError: when the ledger cannot be read.
        """

    def forget(self, key: str, value: str, *, substitute: str | None = None) -> int:
        """Put something else in the place of a tag's value, in all rows and rollups.

        `substitute` None erases it: a random name keeps its calls apart from others'. Where
        others have the substitute already, these calls become theirs. Gives the number of
        distinct sets of tags that had the value.

        Raises:
            StoreError: when it cannot be done.
        """

    def backup(self, target: Path) -> None:
        """Copy the ledger, as it is at one moment, while it is in use.

        Raises:
            StoreError: when the copy cannot be made, or there is something already.
        """
