"""Drops the rows that are older than `Config(keep_days=...)`, bit by bit, while nothing waits.

The writer asks whether it is time, and lends its thread for a moment. Of all processes that
write to an SQLite ledger one at a time does it: it has claimed the task, in the ledger's own
settings and for seconds only, so that another one goes on where it ends.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, runtime_checkable

from costmw.periods import period_span
from costmw.store.base import Store
from costmw.store.layers import ledger_of

logger = logging.getLogger("costmw")

ROWS_AT_ONCE = 100
"""Rows that are rolled up or dropped in one transaction; calls that come meanwhile wait for it."""

IDLE_SHARE = 4
"""How many times as long as a transaction took it is left alone after it."""

LOOK_EVERY = 900.0
"""Seconds after which each process looks for old rows."""

CLAIMED_FOR = 30.0
"""Seconds for which the task is one process's; half of it later it claims it again."""

RETRY_AFTER = 60.0
"""Seconds before what failed is tried again."""

_TASK = "retention"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@runtime_checkable
class Whole(Protocol):
    """A ledger that drops all old rows at once, quickly."""

    def prune(self, before: datetime) -> int:
        """Drop them; gives how many it were."""


@runtime_checkable
class Divisible(Protocol):
    """A ledger that drops old rows in small parts, for one process at a time."""

    def prune_some(self, before: datetime, most: int) -> int:
        """Drop at most so many rows in one transaction; gives how many it were."""

    def claim(self, task: str, owner: str, seconds: float) -> bool:
        """Have a task for so long, unless another owner has it."""


class Retention:
    """Decides when old rows are dropped, and drops some of them; made without any I/O."""

    def __init__(
        self,
        store: Store,
        keep_days: int | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._keep_days = keep_days
        self._now = now
        self._due_at = math.inf if keep_days is None else 0.0
        self._claimed_until = 0.0
        self._owner = secrets.token_hex(8)
        self._failures = 0

    def due_in(self) -> float:
        """Seconds until there is something to do; none when it is time."""
        return max(self._due_at - time.monotonic(), 0.0)

    def work(self, seconds: float = 0.0) -> None:
        """Do one part, or go on for so many seconds; never raises."""
        if self._keep_days is None:
            return
        deadline = time.monotonic() + seconds
        try:
            while (rest := self._one_part(self._keep_days)) < LOOK_EVERY and (
                time.monotonic() < deadline
            ):
                pass
            if seconds:
                self._let_others()
        except Exception as error:  # noqa: BLE001 - whoever lends the thread goes on
            rest = RETRY_AFTER
            self._claimed_until = 0.0
            self._failures += 1
            if (self._failures & (self._failures - 1)) == 0:
                logger.error(
                    "costmw cannot drop rows older than %d days and tries again (%d so far): %s",
                    self._keep_days,
                    self._failures,
                    error,
                )
        self._due_at = time.monotonic() + rest

    def _one_part(self, keep_days: int) -> float:
        """Drop some rows; gives the seconds to leave it alone after it."""
        ledger = ledger_of(self._store)
        before = self._now() - timedelta(days=keep_days)
        if not isinstance(ledger, Divisible):
            if isinstance(ledger, Whole) and self._is_any_older("month", before):
                ledger.prune(before)
            return LOOK_EVERY
        started = time.monotonic()
        if self._claimed_until < started:
            if not self._is_any_older("day", before):
                return LOOK_EVERY
            if not ledger.claim(_TASK, self._owner, CLAIMED_FOR):
                return CLAIMED_FOR
            self._claimed_until = started + CLAIMED_FOR / 2
        # What is not rolled up cannot be dropped.
        if ledger.roll_up(ROWS_AT_ONCE) < ROWS_AT_ONCE and not ledger.prune_some(
            before, ROWS_AT_ONCE
        ):
            self._let_others()
            return LOOK_EVERY
        return (time.monotonic() - started) * IDLE_SHARE

    def _is_any_older(self, unit: Literal["day", "month"], before: datetime) -> bool:
        """Whether there are rows of a day or month that ended before."""
        with self._store.snapshot() as snapshot:
            boundary, _ = period_span(unit, before, self._store.time_zone)
            return bool(snapshot.events_between(_BEGINNING, boundary, scope={}, limit=1))

    def _let_others(self) -> None:
        ledger = ledger_of(self._store)
        if self._claimed_until and isinstance(ledger, Divisible):
            self._claimed_until = 0.0
            ledger.claim(_TASK, self._owner, 0.0)
