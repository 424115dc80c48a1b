"""One attempt on the wire, from its start to its rows."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from costmw.capture.settle import CallEnd, CallStart, End
from costmw.providers.base import Reading

if TYPE_CHECKING:
    from costmw.meter import Meter
    from costmw.store.acknowledgement import Acknowledgement


_generation = 0


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Call:
    """Is settled once, by whoever comes first."""

    __slots__ = (
        "__weakref__",
        "_acknowledgement",
        "_generation",
        "_lock",
        "_meter",
        "_settled",
        "first_chunk_ns",
        "start",
    )

    def __init__(self, meter: Meter, start: CallStart) -> None:
        self._meter = meter
        self._generation = _generation
        self.start = start
        self.first_chunk_ns: int | None = None
        self._settled = False
        self._acknowledgement: Acknowledgement | None = None
        self._lock = threading.Lock()

    def settle(self, reading: Reading, how: End) -> None:
        """Make the rows of what was read. The first call counts, later ones do nothing."""
        if not self._first():
            return
        try:
            end = CallEnd(how, time.monotonic_ns(), self.first_chunk_ns)
            self._acknowledgement = self._meter.commit_call(self.start, reading, end)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            self._meter.fault(error, "settling a call")

    def redirected(self) -> None:
        """Make nothing of it: the request that follows is a call of its own."""
        if self._first():
            self.start.origin.note_captured(-1)

    def not_billed(self, *, retry: bool) -> None:
        """Count an attempt that failed at the provider or on the way there; makes no row."""
        if self._first():
            self.start.origin.note_captured(-1)
            self._meter.count_outcome(self.start, "error")
            if retry:
                self._meter.count_outcome(self.start, "retry")

    def fault(self, error: Exception) -> None:
        """Count and log what went wrong while the response passed."""
        self._meter.fault(error, "a response")

    def wait(self) -> None:
        """Wait for the commit, once, as long as the durability asks for."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            self._meter.wait(acknowledgement)

    async def wait_async(self) -> None:
        """Wait for the commit without blocking the event loop."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            await self._meter.wait_async(acknowledgement)

    def _first(self) -> bool:
        if self._generation != _generation:
            return False
        with self._lock:
            first, self._settled = not self._settled, True
        return first
