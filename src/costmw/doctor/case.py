"""What is looked at: the environment, the process of an app, stores and what is in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from costmw.config import Config
from costmw.doctor.finding import Finding
from costmw.doctor.living import Living, living_clients
from costmw.errors import CostmwError
from costmw.events import Price, Usage, UsageEvent
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing
from costmw.store.base import Group, Query, Store, Totals
from costmw.store.layers import ledger_of
from costmw.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from costmw.meter import Meter

NEWEST_CALLS = 1_000
"""Calls of a store that are looked at one by one; sums are over all."""

MODEL_GROUPS = ("provider", "model", "status")
"""What the sums of a ledger are grouped by."""


@dataclass(frozen=True)
class Ledger:
    """What a store has of the last `days` days.

    `groups` are sums by `MODEL_GROUPS`, `newest` at most a thousand of the calls, newest
    first, and `last` the newest call of all, however old. `capture_faults` counts calls
    that costmw failed to record.
    """

    store: Store
    days: int
    groups: Mapping[Group, Totals]
    newest: tuple[UsageEvent, ...]
    last: UsageEvent | None
    capture_faults: int

    @property
    def calls(self) -> int:
        """The number of calls."""
        return sum(totals.calls for totals in self.groups.values())

    @property
    def span(self) -> str:
        """The newest calls in words: which part of all they are."""
        some = len(self.newest) < self.calls
        return f"{'the newest ' if some else ''}{counted(len(self.newest), 'call')}"


@dataclass(frozen=True)
class Case:
    """Everything that the checks look at.

    `app` is the app object, where there is one. `in_process` says that this process is the
    app's, so that its clients and pages can be looked at. `config` is that of the
    environment. `store_problem` says why the store that was named cannot be one.
    """

    environ: Mapping[str, str]
    config: Config
    meters: tuple[Meter, ...]
    stores: tuple[Store, ...]
    store_problem: str | None
    app: object | None
    in_process: bool
    days: int
    now: datetime

    @property
    def metering(self) -> bool:
        """Whether some meter of the process is switched on."""
        return any(meter.enabled for meter in self.meters)

    @cached_property
    def clients(self) -> list[Living]:
        """The clients of LLM SDKs in this process."""
        return living_clients() if self.in_process else []

    @cached_property
    def ledgers(self) -> tuple[Ledger, ...]:
        """What is in the stores; those that cannot be read are left out."""
        found = []
        for store in self.stores:
            ledger = ledger_of(store)
            if isinstance(ledger, SqliteStore) and closed_to_us(ledger.path):
                continue
            try:
                found.append(_read(store, self.days, self.now))
            except CostmwError:
                continue  # said by the checks of the store
        return tuple(found)

    def price(self, store: Store | None, provider: str, model: str) -> Price:
        """The price of a small call by today's prices: those of the store's meter, or of the
        environment."""
        meter = next((meter for meter in self.meters if meter.store is store), None)
        if meter is not None:
            return meter.priced(
                provider=provider, model=model, input_tokens=1, output_tokens=1
            ).price
        usage = Usage(input_tokens=1, output_tokens=1)
        return self._pricing.price(usage, provider=provider, model=model, at=self.now, context={})

    @cached_property
    def _pricing(self) -> Pricing:
        try:
            more = load_overrides(self.config.price_file) if self.config.price_file else ()
        except CostmwError:
            more = ()  # said by the check of the settings
        return Pricing((*self.config.prices, *more))


BESIDE = (".lock", ".key", "-wal", "-shm")
"""What stands beside a store's file, and has to be writable like it."""


def closed_to_us(path: Path) -> list[Path]:
    """What of a store's files, and their directory, this user may not read and write.

    Such a store is not opened: SQLite would leave files of this user's beside it, which
    then keep the app out.
    """
    names = (path.parent, path, *(Path(f"{path}{end}") for end in BESIDE))
    return [name for name in names if name.exists() and not os.access(name, os.W_OK | os.R_OK)]


Check = Callable[[Case], Iterator[Finding]]


def _read(store: Store, days: int, now: datetime) -> Ledger:
    start, stop = now - timedelta(days=days), now + timedelta(days=1)
    # A ledger would be made, or brought up to date, by the usual way to read it.
    snapshot = getattr(ledger_of(store), "snapshot_as_it_is", store.snapshot)
    with snapshot() as view:
        newest = [event for _, event in view.events(scope={}, limit=NEWEST_CALLS)]
        outcomes = view.outcomes(start, stop, scope={})
        return Ledger(
            store=store,
            days=days,
            groups=view.totals(Query(start, stop, MODEL_GROUPS)).groups,
            newest=tuple(event for event in newest if event.created_at >= start),
            last=newest[0] if newest else None,
            capture_faults=sum(row.count for row in outcomes if row.kind == "capture_fault"),
        )


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 call`, `2 calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in one line, at most so many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)
