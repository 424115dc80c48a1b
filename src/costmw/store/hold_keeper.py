"""Keeps holds alive while their calls are in flight, and charges those that nobody settles.

The writer lends its thread, as for retention. Every process that reserves looks for holds
that have ended, its own and others': one that was killed leaves some behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from costmw.store.base import Store

logger = logging.getLogger("costmw")

LOOK_EVERY = 0.5
"""Seconds after which each process looks for holds that have ended."""


class Holder(Protocol):
    """Who has calls in flight."""

    @property
    def is_used(self) -> bool:
        """Whether anything was ever to be held."""

    def renew(self) -> None:
        """Let the holds of all calls in flight last longer."""

    def ring(self) -> None:
        """Something was committed, and may have been given back."""


class HoldKeeper:
    """Decides when to look; `ttl` is how long a hold lasts, in seconds."""

    def __init__(
        self,
        store: Store,
        holder: Holder,
        ttl: float,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._holder = holder
        self._now = now
        self._renew_every = ttl / 3
        self._look_at = 0.0
        self._renew_at = time.monotonic() + self._renew_every
        self._failures = 0

    def due_in(self) -> float | None:
        """Seconds until there is something to do; None while nothing is ever held."""
        if not self._holder.is_used:
            return None
        return max(min(self._look_at, self._renew_at) - time.monotonic(), 0.0)

    def work(self) -> None:
        """Do what is due; never raises."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + self._renew_every
            self._holder.renew()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            try:
                while self._store.expire_holds(self._now()):
                    pass
            except Exception as error:  # noqa: BLE001 - whoever lends the thread goes on
                self._failures += 1
                if (self._failures & (self._failures - 1)) == 0:
                    logger.error(
                        "costmw cannot look for holds that have ended and tries again (%d so "
                        "far): %s",
                        self._failures,
                        error,
                    )
