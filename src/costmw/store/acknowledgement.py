"""Whether a record is committed, for whoever waits: a thread, or a task of an event loop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from costmw.caps.book import Refusal

logger = logging.getLogger("costmw")


class Acknowledgement:
    """Whether one record has been committed; can be waited for in a thread or a task.

    `dropped` says that it never will be: there is nothing to wait for. `since` is when it
    was handed in, in seconds of the monotonic clock. `refusal` says why a reservation that was
    looked at is not granted; None when it is.
    """

    __slots__ = ("_committed", "_lock", "_waiter", "dropped", "refusal", "since")

    def __init__(self) -> None:
        self.dropped = False
        self.refusal: Refusal | Exception | None = None
        self.since = time.monotonic()
        self._committed = False
        self._lock = threading.Lock()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._lock.acquire()

    @property
    def committed(self) -> bool:
        """True once the record is in the store."""
        return self._committed

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; gives whether the record is committed."""
        if not self._committed and self._lock.acquire(timeout=timeout):
            self._lock.release()
        return self._committed

    async def wait_async(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds without blocking the event loop."""
        if not self._committed:
            import asyncio

            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiter = (loop, future)
            # The commit may have come between the check and the line above.
            if not self._committed:
                late = loop.call_later(timeout, _wake, (future,))
                try:
                    await future
                finally:
                    late.cancel()
                    self._waiter = None
        return self._committed

    def release(self) -> tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None:
        """Mark as committed and wake a waiting thread; gives the task that waits, if any."""
        self._committed = True
        self._lock.release()
        return self._waiter


async def wait_anywhere(acknowledgement: Acknowledgement, timeout: float) -> bool:
    """Wait without blocking the event loop, whichever library runs it."""
    if acknowledgement.committed:
        return True
    try:
        return await acknowledgement.wait_async(timeout)
    except RuntimeError:  # no asyncio here (trio): wait in a thread
        import anyio.to_thread

        return await anyio.to_thread.run_sync(acknowledgement.wait, timeout)


def release_all(acknowledgements: Iterable[Acknowledgement]) -> None:
    """Wake everyone who waits; each event loop once, since waking one is a system call."""
    tasks: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for acknowledgement in acknowledgements:
        if waiter := acknowledgement.release():
            tasks.setdefault(waiter[0], []).append(waiter[1])
    for loop, futures in tasks.items():
        try:
            loop.call_soon_threadsafe(_wake, futures)
        except Exception as error:  # noqa: BLE001 - closed, most likely
            logger.debug("the event loop that waited for a commit cannot be woken: %s", error)


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
