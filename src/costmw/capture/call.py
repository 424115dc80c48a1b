"""One attempt on the wire, from its start to its rows."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from costmw.caps.rules import Rule
from costmw.capture.reserving import Request
from costmw.capture.settle import CallEnd, CallStart, End
from costmw.errors import BudgetExceeded
from costmw.events import Reservation
from costmw.providers.base import Reading
from costmw.store.acknowledgement import wait_anywhere

if TYPE_CHECKING:
    from costmw.bounds import Bound
    from costmw.capture.manual import RecordArguments
    from costmw.pipeline import Pipeline
    from costmw.store.acknowledgement import Acknowledgement

NO_REQUEST = Request({}, 0)


_generation = 0


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class Call:
    """Is settled once, by whoever comes first.

    `rules` are the blocking budgets that it counts in, `output_limit` the tokens that its
    answer may have where the request does not say, None for any number. Whoever sends it sets
    `request` to what is sent indeed, and calls `reserve` just before that. `bound` is what it
    may cost at most where somebody says so; otherwise the request tells.
    """

    __slots__ = (
        "__weakref__",
        "_acknowledgement",
        "_generation",
        "_lock",
        "_pipeline",
        "_settled",
        "bound",
        "first_chunk_ns",
        "request",
        "reservation",
        "rules",
        "start",
    )

    def __init__(
        self,
        pipeline: Pipeline,
        start: CallStart,
        request: Request = NO_REQUEST,
        rules: tuple[Rule, ...] = (),
    ) -> None:
        self._pipeline = pipeline
        self.request = request
        self.rules = rules
        self.bound: Bound | None = None
        self.reservation: Reservation | None = None
        self._generation = _generation
        self.start = start
        self.first_chunk_ns: int | None = None
        self._settled = False
        self._acknowledgement: Acknowledgement | None = None
        self._lock = threading.Lock()

    @property
    def output_limit(self) -> int | None:
        """Tokens that the answer may have, where the request itself sets no limit."""
        limits = [rule.max_output_tokens for rule in self.rules if rule.max_output_tokens]
        return min(limits, default=None)

    def reserve(self) -> None:
        """Hold what this call may cost in all of its budgets; waits a while for others.

        Raises:
            BudgetExceeded: when it may not be sent; nothing else.
        """
        if not self.rules:
            return
        try:
            for asked, seconds in self._pipeline.reserve(self):
                asked.wait(seconds)
        except BaseException as error:
            self._not_sent(error)
            raise

    async def areserve(self) -> None:
        """The same without blocking the event loop; see `reserve`."""
        if not self.rules:
            return
        try:
            for asked, seconds in self._pipeline.reserve(self):
                await wait_anywhere(asked, seconds)
        except BaseException as error:
            self._not_sent(error)
            raise

    def _not_sent(self, error: BaseException) -> None:
        """Leave nothing behind of a call that is refused, or not waited for any more."""
        if self._first():
            self.start.origin.note_captured(-1)
            self._give_back()
            if isinstance(error, BudgetExceeded):
                self._pipeline.count_outcome(self.start, "refused")

    def _give_back(self) -> None:
        reservation, self.reservation = self.reservation, None
        if reservation is not None:
            self._pipeline.give_back(reservation)

    def settle(self, reading: Reading, how: End) -> None:
        """Make the rows of what was read. The first call counts, later ones do nothing."""
        if not self._first():
            return
        try:
            end = CallEnd(how, time.monotonic_ns(), self.first_chunk_ns)
            self._acknowledgement = self._pipeline.commit_call(
                self.start, reading, end, self.reservation
            )
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            self._pipeline.fault(error, "settling a call")

    def settle_stated(self, stated: RecordArguments) -> None:
        """Make the row of what was stated by hand. The first call counts, later ones do nothing."""
        if not self._first():
            return
        try:
            self._acknowledgement = self._pipeline.commit_stated(
                self.start, stated, self.reservation
            )
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            self._pipeline.fault(error, "settling a call")

    def redirected(self) -> None:
        """Make nothing of it: the request that follows is a call of its own."""
        if self._first():
            self.start.origin.note_captured(-1)
            self._give_back()

    def not_billed(self, *, retry: bool) -> None:
        """Count an attempt that failed at the provider or on the way there; makes no row."""
        if self._first():
            self.start.origin.note_captured(-1)
            self._give_back()
            self._pipeline.count_outcome(self.start, "error")
            if retry:
                self._pipeline.count_outcome(self.start, "retry")

    def fault(self, error: Exception) -> None:
        """Count and log what went wrong while the response passed."""
        self._pipeline.fault(error, "a response")

    def wait(self) -> None:
        """Wait for the commit, once, as long as the durability asks for."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            self._pipeline.wait(acknowledgement)

    async def wait_async(self) -> None:
        """Wait for the commit without blocking the event loop."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            await self._pipeline.wait_async(acknowledgement)

    def _first(self) -> bool:
        if self._generation != _generation:
            return False
        with self._lock:
            first, self._settled = not self._settled, True
        return first
