"""One thread a process that looks for what is worth an alert, when it is this process's turn.

Of all processes with the same settings one at a time has claimed that in the ledger, for
seconds only: where it ends, another goes on. What it finds is kept in the ledger, each thing
once, and couriers take it from there.
"""

from __future__ import annotations

import hashlib
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from costmw.alerts.channel import Channel
from costmw.alerts.courier import Courier
from costmw.alerts.file import load_alerts
from costmw.alerts.lookouts import Ground, Lookout, models, on_course, thresholds, velocity
from costmw.alerts.settings import Alerts, settings_of
from costmw.budgets import Budget
from costmw.errors import ConfigError, StoreError
from costmw.store.alert_rows import AlertRow
from costmw.store.base import Store
from costmw.store.greenlets import MadeLate
from costmw.store.layers import alerts_of

logger = logging.getLogger("costmw")

LOOKOUTS: tuple[tuple[Lookout, int], ...] = (
    (thresholds, 1),
    (models, 4),
    (velocity, 4),
    (on_course, 40),
)
"""What is looked for, and at every how many looks."""

CLAIMED_FOR = 4
"""How many pauses long the task is one process's."""

SHARE_OF_TIME = 0.05
"""The part of its time that a process looks at most: a ledger that answers slowly is asked less."""

LONGEST_PAUSE = 800.0
"""Seconds between two looks at most."""

REMEMBERED_AT_MOST = 100_000

FORGET_EVERY = 3_600.0
"""Seconds after which old alerts are dropped."""


class Watch:
    """Looks, every `alerts.every` seconds; made without any I/O.

    Raises:
        ConfigError: when the store is one that keeps no alerts.
    """

    _lock = MadeLate(lambda: threading.Lock())

    def __init__(
        self,
        store: Store,
        budgets: Sequence[Budget],
        alerts: Alerts,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        rows = alerts_of(store)
        if rows is None:
            raise ConfigError(f"{store.url} keeps no alerts: use an SQLite or Postgres store")
        self._rows = rows
        self._store = store
        self._budgets = tuple(budgets)
        self.alerts = alerts
        self._now = now
        # Who looks for the same has one task with us.
        self._task = f"alerts {_digest_of(self._budgets, alerts)}"
        self._begin()

    def _begin(self) -> None:
        MadeLate.forget(self, "_lock")
        self._thread: threading.Thread | None = None
        self._stop: threading.Event | None = None
        self._owner = secrets.token_hex(8)
        self._couriers = [Courier(channel, self._rows) for channel in self.alerts.channels]
        self._is_registered = False
        self._pause = self.alerts.every
        self._looks = 0
        self._failures = 0
        self._seen_at: dict[Lookout, int] = {}
        self._told: set[str] = set()
        self._forget_at = 0.0

    @property
    def running(self) -> bool:
        """Whether it has begun, in this process."""
        return self._thread is not None

    def start(self) -> None:
        """Begin, unless it has begun; never raises, and costs nothing the second time."""
        if self._thread is not None or not self._couriers:
            return
        with self._lock:
            if self.running:
                return
            # Made here and not before: a server may have made greenlets of threads meanwhile.
            self._stop = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(self._stop,), name="costmw-alerts", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is ending
                logger.warning("costmw cannot start a thread that looks for alerts: %s", error)
            else:
                self._thread = thread

    def stop(self, timeout: float) -> None:
        """Look once more, and end; what is not delivered within `timeout` seconds waits."""
        with self._lock:
            thread, self._thread = self._thread, None
            if self._stop is not None:
                self._stop.set()
        if thread is not None:
            thread.join(timeout)

    def after_fork_in_child(self) -> None:
        """The threads are the parent's; here they start with the next call."""
        self._begin()

    def _run(self, stop: threading.Event) -> None:
        ends = False
        while not ends:
            ends = stop.is_set()  # then this is the last look
            began = time.monotonic()
            self._surely(lambda: self._take_turn(stop), "look for alerts")
            taken = time.monotonic() - began
            self._pause = min(max(self.alerts.every, taken / SHARE_OF_TIME), LONGEST_PAUSE)
            # Workers that start together do not come together.
            if not ends:
                stop.wait(self._pause * random.uniform(0.8, 1.0))  # noqa: S311
        for courier in self._couriers:
            courier.join(LONGEST_PAUSE)
        self._surely(lambda: self._rows.claim(self._task, self._owner, 0.0), "give up its turn")

    def _surely(self, work: Callable[[], object], what: str) -> None:
        """Do something that may fail: the thread must survive everything."""
        try:
            work()
        except StoreError as error:
            logger.debug("costmw cannot %s now: %s", what, error)
        except Exception:
            self._failures += 1
            if (self._failures & (self._failures - 1)) == 0:
                logger.exception(
                    "costmw cannot %s (%d such errors so far), and tries again",
                    what,
                    self._failures,
                )

    def _take_turn(self, stop: threading.Event) -> None:
        """Look, if it is this process's turn, and see to the channels."""
        if not self._is_registered:
            for courier in self._couriers:
                self._rows.register(courier.channel.name, courier.channel.address)
            self._is_registered = True
        if self._rows.claim(self._task, self._owner, CLAIMED_FOR * self._pause):
            self.look()
            for courier in self._couriers:
                courier.start(stop)

    def look(self) -> None:
        """Look for everything that is due, and keep what is found.

        Raises:
            StoreError: when the ledger cannot be used.
        """
        with self._store.snapshot() as view:
            position = view.position()
        ground = Ground(self._store, self._budgets, self.alerts, self._now(), self._rows.known)
        due = [lookout for lookout, every in LOOKOUTS if not self._looks % every]
        self._looks += 1
        for lookout in due:
            # Nothing new was recorded: nothing new is found.
            if self._seen_at.get(lookout) != position:
                self._surely(partial(self._look_for, lookout, ground, position), "look for alerts")
        if time.monotonic() >= self._forget_at:
            self._rows.drop_forgotten()
            self._forget_at = time.monotonic() + FORGET_EVERY

    def _look_for(self, lookout: Lookout, ground: Ground, position: int) -> None:
        self._keep([row for row in lookout(ground) if row.digest not in self._told])
        self._seen_at[lookout] = position

    def _keep(self, rows: Sequence[AlertRow]) -> None:
        if not rows:
            return
        self._rows.add(rows)
        if len(self._told) > REMEMBERED_AT_MOST:
            self._told.clear()
        self._told.update(row.digest for row in rows)


def watch_of(
    store: Store,
    budgets: Sequence[Budget],
    alerts: Alerts | Sequence[Channel] | None,
    path: Path | str | None,
) -> Watch | None:
    """The watch of `Meter(alerts=...)`, or of the `[alerts]` in a file; None without either.

    Raises:
        ConfigError: when something of it cannot be used.
    """
    found = load_alerts(path) if alerts is None and path else alerts
    return None if found is None else Watch(store, budgets, settings_of(found))


def _digest_of(budgets: Sequence[Budget], alerts: Alerts) -> str:
    channels = sorted((channel.name, channel.address) for channel in alerts.channels)
    told = (
        sorted(map(repr, budgets)),
        channels,
        (alerts.on_course, alerts.velocity, str(alerts.velocity_floor), alerts.models),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
