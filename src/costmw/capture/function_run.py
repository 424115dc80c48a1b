"""One run of a metered function: its block of tags, and the call that nothing else sees of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmw.capture.manual import RecordArguments, checked
from costmw.capture.refusing import ANY_AMOUNT
from costmw.context import Block, close_block, open_block
from costmw.meters import current_meter
from costmw.providers.base import Match, Reading, WireFormat

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.meter import Meter

ReadUsage = Callable[[Any], RecordArguments | None]

logger = logging.getLogger("costmw")

_NO_FORMAT = WireFormat(
    api="function", operation="chat", path=re.compile("$^"), read=lambda body: Reading()
)


@dataclass(frozen=True, slots=True)
class Recording:
    """What is recorded of a function, what a run may cost at most in pico-USD, and where."""

    usage: ReadUsage
    max_pico_usd: int | None
    meter: Meter | None

    def find_meter(self) -> Meter | None:
        """Where to record now; None where nobody wants it."""
        meter = self.meter or current_meter()
        return meter if meter is not None and meter.enabled else None


class FunctionRun:
    """Entered, it opens the function's block of tags; any number of times, one after another."""

    def __init__(self, name: str, tags: Mapping[str, object], recording: Recording | None) -> None:
        self._name = name
        self._block = Block(tags)
        self._recording = recording
        self._call: Call | None = None

    def __enter__(self) -> None:
        open_block(self._block)

    def __exit__(self, *error: object) -> None:
        close_block(self._block)

    def reserve(self) -> None:
        """Hold what the run may cost, once; waits a while for other calls.

        Raises:
            BudgetExceeded: when it may not run.
        """
        if self._begins() and self._call is not None:
            self._call.reserve()

    async def areserve(self) -> None:
        """The same without blocking the event loop; see `reserve`."""
        if self._begins() and self._call is not None:
            await self._call.areserve()

    def let_go(self) -> None:
        """Give back what is held, unless the run was recorded: nothing was billed."""
        if self._call is not None:
            self._call.redirected()

    def record(self, result: Any) -> None:
        """Record what `usage` reads of the result, and wait for its commit."""
        if read := self._read(result):
            meter, stated = read
            with self:
                if self._call is None:
                    meter.record(**stated)
                else:
                    self._call.settle_stated(stated)
                    self._call.wait()

    async def record_async(self, result: Any) -> None:
        """The same without blocking the event loop; see `record`."""
        if read := self._read(result):
            meter, stated = read
            with self:
                if self._call is None:
                    await meter.arecord(**stated)
                else:
                    self._call.settle_stated(stated)
                    await self._call.wait_async()

    def _begins(self) -> bool:
        """Start the call; False where there is none, or it has started before."""
        recording = self._recording
        meter = recording.find_meter() if recording is not None else None
        if self._call is not None or recording is None or meter is None:
            return False
        try:
            with self:
                self._call = meter.start_call(Match(_NO_FORMAT, None), self._name, None)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            meter.fault(error, "a metered function")
            return False
        from costmw.bounds import Bound  # late: it knows every provider's limits

        self._call.bound = Bound(max(recording.max_pico_usd or 0, ANY_AMOUNT))
        return True

    def _read(self, result: Any) -> tuple[Meter, RecordArguments] | None:
        found = self._asked(result)
        if found is None:
            self.let_go()
        return found

    def _asked(self, result: Any) -> tuple[Meter, RecordArguments] | None:
        own = 0 if self._call is None else 1
        if self._recording is None or self._block.captured > own:
            return None
        meter = self._recording.find_meter()
        if meter is None:
            if current_meter() is None:
                logger.warning("@metered(usage=...) has no Meter to record to: make one first")
            return None
        try:
            stated = self._recording.usage(result)
            if stated is not None:
                checked(**stated)
        except Exception as error:  # noqa: BLE001 - the function itself went well
            meter.fault(error, "what usage= read from a metered function")
            if self._call is not None and self._recording.max_pico_usd is not None:
                # It ran, and may have billed: its budgets are charged with all that was held.
                self._call.settle(Reading(unreadable=True, problem="usage= failed"), "end")
            return None
        return (meter, stated) if stated is not None else None
