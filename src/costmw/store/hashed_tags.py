"""Tags whose values are stored as keyed hashes, so that nobody is named in the ledger.

This stands between a store and everyone else, and is the only place where values become
hashes: what is written has them from the start, and a question that names a value in
clear text finds its hash. The values are never read back.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.caps.book import LimitUse
from costmw.caps.rules import Rule, Rules
from costmw.context import tag_value
from costmw.events import Amendment, Record, Release, Renewal, Reservation, UsageEvent
from costmw.store.base import (
    AppliedAmendment,
    Filter,
    Found,
    FoundDurations,
    OutcomeCount,
    Query,
    Snapshot,
    Store,
    TagScope,
)

if TYPE_CHECKING:
    from costmw.store.caps import Answers

PREFIX = "hashed:"
"""What a hash begins with, before its 16 hexadecimal digits."""

REMEMBERED_AT_MOST = 10_000

_HASH = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")


def hash_of(secret: bytes, key: str, value: str) -> str:
    """The hash that stands for a tag's value; one of another key or store is another.

    A hash stays as it is: an export can come back.
    """
    if _HASH.fullmatch(value):
        return value
    told = f"{key}\0{tag_value(value)}".encode()
    return PREFIX + hmac.digest(secret, told, "sha256").hex()[:16]


class TagHasher:
    """Puts hashes in the place of the values of some tags; asks for the secret when it needs it."""

    def __init__(self, keys: Sequence[str], secret: Callable[[], bytes]) -> None:
        self._keys = keys
        self._secret = secret
        self._known: dict[tuple[str, str], str] = {}

    def hashed(self, tags: Mapping[str, str]) -> Mapping[str, str]:
        """The same tags, with hashes.

        Raises:
            StoreError: when the secret cannot be had.
        """
        found = [key for key in self._keys if key in tags]
        return {**tags, **{key: self._hash(key, tags[key]) for key in found}} if found else tags

    def hashed_in(self, record: Record) -> Record:
        """The same record, with hashes in its tags."""
        match record:
            case Amendment() | Release() | Renewal():
                return record
            case Reservation():
                tags = self.hashed(record.tags)
                return replace(record, event=replace(record.event, tags=tags))
            case _:
                tags = self.hashed(record.tags)
                return record if tags is record.tags else replace(record, tags=tags)

    def hashed_rule(self, rule: Rule) -> Rule:
        """The same budget, whose tags have hashes."""
        named = (
            *rule.where,
            *(tag for scope, _ in rule.limits for tag in zip(rule.keys, scope, strict=True)),
        )
        return rule.with_tags(
            {(key, value): self._hash(key, value) for key, value in named if key in self._keys}
        )

    def hashed_for(self, query: Query) -> Query:
        """The same question, about hashes."""
        scope, where = self.hashed(query.scope), self.hashed(query.where)
        return replace(query, scope=scope, where=where, filters=self.hashed_filters(query.filters))

    def hashed_filters(self, filters: Sequence[Filter]) -> tuple[Filter, ...]:
        """The same filters, about hashes; a part of a value is looked for in the hash."""
        return tuple(self._hashed_filter(wanted) for wanted in filters)

    def _hashed_filter(self, wanted: Filter) -> Filter:
        kind, _, key = wanted.key.partition(":")
        if kind != "tag" or key not in self._keys or wanted.op not in ("is", "not"):
            return wanted
        return replace(wanted, values=tuple(self._hash(key, value) for value in wanted.values))

    def _hash(self, key: str, value: str) -> str:
        known = self._known.get((key, value))
        if known is None:
            if len(self._known) >= REMEMBERED_AT_MOST:
                self._known.clear()
            # Returned as it is: another thread may forget it right away.
            known = self._known[key, value] = hash_of(self._secret(), key, value)
        return known


class HashedTags:
    """A store in which the values of the tags `keys` are hashes; made without any I/O.

    The secret is the one that API keys are fingerprinted with: it is read once, by the
    writer's thread or by whoever starts the app or asks.
    """

    def __init__(self, remote: Store, keys: Sequence[str]) -> None:
        self.remote = remote
        self.url = remote.url
        self._hasher = TagHasher(keys, self.fingerprint_key)
        self._secret: bytes | None = None
        self._declared: tuple[Rule, ...] = ()

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone that days and months are counted in."""
        return self.remote.time_zone

    def open(self) -> None:
        """See `Store.open`."""
        self.remote.open()

    def write(self, records: Sequence[Record]) -> Answers:
        """Commit records with hashes; see `Store.write`. Without the secret nothing is written."""
        if self._declared:
            self.remote.declare([self._hasher.hashed_rule(rule) for rule in self._declared])
            self._declared = ()
        return self.remote.write([self._hasher.hashed_in(record) for record in records])

    def declare(self, rules: Sequence[Rule]) -> None:
        """See `Store.declare`; they are hashed with the first records."""
        self._declared = tuple(rules)

    def page_rules(self, tags: TagScope) -> Sequence[Rule]:
        """See `Store.page_rules`."""
        return self.remote.page_rules(self._hasher.hashed(tags))

    def expire_holds(self, now: datetime) -> int:
        """See `Store.expire_holds`."""
        return self.remote.expire_holds(now)

    def keep_budget(self, rule: Rule) -> None:
        """See `Store.keep_budget`."""
        self.remote.keep_budget(self._hasher.hashed_rule(rule))

    def drop_budget(self, name: str) -> None:
        """See `Store.drop_budget`."""
        self.remote.drop_budget(name)

    def roll_up(self, limit: int) -> int:
        """See `Store.roll_up`."""
        return self.remote.roll_up(limit)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A view that is asked in clear text; see `Store.snapshot`."""
        with self.remote.snapshot() as snapshot:
            yield _HashedSnapshot(snapshot, self._hasher)

    def fingerprint_key(self) -> bytes:
        """The secret, which is read once."""
        if self._secret is None:
            self._secret = self.remote.fingerprint_key()
        return self._secret

    def close(self) -> None:
        """See `Store.close`."""
        self.remote.close()

    def before_fork(self) -> None:
        """See `Store.before_fork`."""
        self.remote.before_fork()

    def after_fork_in_parent(self) -> None:
        """See `Store.after_fork_in_parent`."""
        self.remote.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """See `Store.after_fork_in_child`."""
        self.remote.after_fork_in_child()


class _HashedSnapshot:
    """A view of the ledger that hashes what it is asked for; see `Snapshot`."""

    def __init__(self, snapshot: Snapshot, hasher: TagHasher) -> None:
        self._snapshot = snapshot
        self._hasher = hasher

    def totals(self, query: Query) -> Found:
        return self._snapshot.totals(self._hasher.hashed_for(query))

    def durations(self, query: Query) -> FoundDurations:
        return self._snapshot.durations(self._hasher.hashed_for(query))

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
        return self._snapshot.events(
            scope=self._hasher.hashed(scope),
            limit=limit,
            before=before,
            start=start,
            stop=stop,
            filters=self._hasher.hashed_filters(filters),
        )

    def amendments(self, event_id: UUID, *, scope: TagScope) -> Sequence[AppliedAmendment]:
        return self._snapshot.amendments(event_id, scope=self._hasher.hashed(scope))

    def value_count(self, key: str) -> int:
        return self._snapshot.value_count(key)

    def values(
        self, key: str, *, scope: TagScope, contains: str = "", limit: int = 50
    ) -> Sequence[str]:
        scope = self._hasher.hashed(scope)
        return self._snapshot.values(key, scope=scope, contains=contains, limit=limit)

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        return self._snapshot.event(event_id, scope=self._hasher.hashed(scope))

    def events_between(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        limit: int,
        after: int | None = None,
    ) -> Sequence[tuple[int, UsageEvent]]:
        scope = self._hasher.hashed(scope)
        return self._snapshot.events_between(start, stop, scope=scope, limit=limit, after=after)

    def known_ids(self, ids: Sequence[UUID]) -> set[UUID]:
        return self._snapshot.known_ids(ids)

    def pruned_until(self) -> datetime | None:
        return self._snapshot.pruned_until()

    def rules(self) -> Rules:
        return self._snapshot.rules()

    def limits(self, tags: TagScope, at: datetime) -> Sequence[LimitUse]:
        return self._snapshot.limits(self._hasher.hashed(tags), at)

    def stored(self, tags: TagScope) -> TagScope:
        return self._hasher.hashed(tags)

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        return self._snapshot.tag_keys(scope=self._hasher.hashed(scope))

    def outcomes(
        self,
        start: datetime,
        stop: datetime,
        *,
        scope: TagScope,
        buckets: Sequence[datetime] = (),
        filters: Sequence[Filter] = (),
    ) -> Sequence[OutcomeCount]:
        return self._snapshot.outcomes(
            start,
            stop,
            scope=self._hasher.hashed(scope),
            buckets=buckets,
            filters=self._hasher.hashed_filters(filters),
        )

    def position(self) -> int:
        return self._snapshot.position()
