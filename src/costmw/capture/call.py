"""One attempt on the wire, from its start to its row."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from costmw.events import Status
from costmw.providers.base import Reading
from costmw.providers.registry import Match

if TYPE_CHECKING:
    from costmw.meter import Meter
    from costmw.store.writer import Acknowledgement

End = Literal["end", "closed", "failed", "dropped"]
"""How a body ended: read to its end, closed early, by an exception, by nobody."""

_EARLY = {
    "end": "the response ended early",
    "closed": "the client closed the stream before its end",
    "failed": "the connection failed before the end of the response",
    "dropped": "the stream was dropped before its end",
}


@dataclass(frozen=True, slots=True)
class CallStart:
    """What is settled when a call starts and does not change any more."""

    id: UUID
    created_at: datetime
    match: Match
    request_model: str | None
    tags: Mapping[str, str]
    request_id: UUID | None
    first_in_request: bool
    api_key_id: str | None
    trace_id: str | None
    monotonic_ns: int


class Call:
    """Becomes one row at most, whoever comes first to settle it."""

    __slots__ = (
        "__weakref__",
        "_acknowledgement",
        "_lock",
        "_meter",
        "_settled",
        "first_chunk_ns",
        "start",
    )

    def __init__(self, meter: Meter, start: CallStart) -> None:
        self._meter = meter
        self.start = start
        self.first_chunk_ns: int | None = None
        self._settled = False
        self._acknowledgement: Acknowledgement | None = None
        self._lock = threading.Lock()

    def settle(self, reading: Reading, end: End) -> None:
        """Make the row from what was read. The first call counts, later ones do nothing."""
        with self._lock:
            if self._settled:
                return
            self._settled = True
        try:
            status, reason = judge(reading, end)
            self._acknowledgement = self._meter.commit_call(
                self.start,
                reading,
                status,
                reason,
                ended_ns=time.monotonic_ns(),
                first_chunk_ns=self.first_chunk_ns,
            )
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            self._meter.fault(error, "settling a call")

    def redirected(self) -> None:
        """Make nothing of it: the request that follows is a call of its own."""
        self._settled = True

    def not_billed(self, *, retry: bool) -> None:
        """Count an attempt that failed at the provider or on the way there; makes no row."""
        with self._lock:
            if self._settled:
                return
            self._settled = True
        self._meter.count_outcome(self.start, "error")
        if retry:
            self._meter.count_outcome(self.start, "retry")

    def wait(self) -> None:
        """Wait for the row's commit, once, as long as the durability asks for."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            self._meter.wait(acknowledgement)

    async def wait_async(self) -> None:
        """Wait for the row's commit without blocking the event loop."""
        acknowledgement, self._acknowledgement = self._acknowledgement, None
        if acknowledgement is not None:
            await self._meter.wait_async(acknowledgement)


def judge(reading: Reading, end: End) -> tuple[Status, str | None]:
    """How far the usage of a call is known, and why not further."""
    usage = reading.usage
    known = usage is not None and None not in (usage.input_tokens, usage.output_tokens)
    if reading.unreadable:
        return "unmetered", reading.problem
    if reading.finished:
        return ("ok", None) if known else ("unmetered", reading.problem)
    return "incomplete", _EARLY[end]
