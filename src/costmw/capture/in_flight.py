"""Streams that are being read: remembered, so that none ends without a row."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmw.capture.tee import Tee


class InFlight:
    """The streams of one meter. `idle_timeout` is in seconds."""

    def __init__(self, idle_timeout: float) -> None:
        self._idle_timeout = idle_timeout
        self._next_sweep_ns = 0
        self.forget()

    def forget(self) -> None:
        """Start empty, as in a forked child: what is under way is the parent's."""
        self._streams: weakref.WeakSet[Tee] = weakref.WeakSet()
        self._lock = threading.Lock()

    def add(self, stream: Tee) -> None:
        """Remember a stream; settle those that nobody reads any more, now and then."""
        now_ns = time.monotonic_ns()
        with self._lock:
            self._streams.add(stream)
            if now_ns < self._next_sweep_ns:
                return
            self._next_sweep_ns = now_ns + int(self._idle_timeout * 1e9 / 4)
            streams = list(self._streams)
        for followed in streams:
            followed.abandon_if_idle(now_ns, self._idle_timeout)

    def end_all(self) -> None:
        """Settle all: nobody will read on."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            stream.abandon()
