"""Rows that are to be dropped: from before which day, and how many they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from costmw.care.opening import Ledger
from costmw.errors import ConfigError
from costmw.periods import period_span
from costmw.store.base import Query
from costmw.store.sqlite import SqliteStore
from costmw.transfer.progress import Advance
from costmw.transfer.spans import BEGINNING, moment_of

AT_ONCE = 1_000
"""Rows that are dropped in one transaction; calls that are recorded meanwhile wait for it."""


@dataclass(frozen=True, slots=True)
class Old:
    """The `calls` whose rows can be dropped, and from when on rows are kept."""

    kept_from: datetime
    calls: int


def old_rows(ledger: Ledger, *, days: int | None, before: str, now: datetime | None = None) -> Old:
    """What can be dropped; SQLite drops whole days, Postgres whole months.

    Args:
        ledger: whose rows.
        days: how many whole days before today are kept; None when `before` says it.
        before: a day or moment in ISO 8601, in the store's time zone when it names none.
        now: the present.

    Raises:
        ConfigError: when not one of both is given, or it is of the future.
        StoreError: when the ledger cannot be read.
    """
    if (days is None) == (not before):
        raise ConfigError("say what to keep: --days 90, or --before 2026-01-01")
    now = now or datetime.now(UTC)
    zone = ledger.time_zone
    moment = moment_of(before, "--before", zone) if days is None else now - timedelta(days=days)
    if moment > now:
        raise ConfigError(f"--before is {before}, which is still to come; name a day of the past")
    kept_from, _ = period_span("day" if isinstance(ledger, SqliteStore) else "month", moment, zone)
    with ledger.snapshot() as snapshot:
        start = snapshot.pruned_until() or BEGINNING
        if start >= kept_from:
            return Old(start, 0)
        found = snapshot.totals(Query(start, kept_from))
    return Old(kept_from, sum(sums.calls for sums in found.groups.values()))


def drop(ledger: Ledger, old: Old, advance: Advance) -> int:
    """Drop the rows; gives how many it were.

    Raises:
        StoreError: when it cannot be done; what is dropped already stays dropped.
    """
    if not isinstance(ledger, SqliteStore):
        return ledger.prune(old.kept_from)
    while ledger.roll_up(AT_ONCE) == AT_ONCE:
        pass
    dropped = 0
    while found := ledger.prune_some(old.kept_from, AT_ONCE):
        dropped += found
        advance(found)
    return dropped
