"""A gate that threads pass on their way into the database, and that a fork shuts.

SQLite has locks of its own for the whole process. A child that is forked while another
thread holds one of them waits for it for ever: nobody is left to release it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ForkGate:
    """Counts who is inside; shut, it lets nobody in."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._inside = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside of the database: for one statement, not for longer."""
        with self._moved:
            self._inside += 1
        try:
            yield
        finally:
            with self._moved:
                self._inside -= 1
                self._moved.notify_all()

    def shut(self, timeout: float) -> None:
        """Let nobody in any more, and wait up to `timeout` seconds until nobody is inside."""
        self._moved.acquire()
        self._moved.wait_for(lambda: not self._inside, timeout)

    def open(self) -> None:
        """Let everyone in again; to be called by the thread that shut it."""
        self._moved.release()
