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
        self._shut_by: int | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside of the database: for one statement, not for longer."""
        with self._moved:
            # Not for the thread that forks: the garbage collector may close a reader in it.
            self._moved.wait_for(lambda: self._shut_by in (None, threading.get_ident()))
            self._inside += 1
        try:
            yield
        finally:
            with self._moved:
                self._inside -= 1
                self._moved.notify_all()

    def shut(self, timeout: float) -> bool:
        """Let nobody in any more; gives whether all inside come out within `timeout` seconds.

        The lock stays with the thread that forks, so that the child's gate can be opened.
        """
        self._moved.acquire()
        self._shut_by = threading.get_ident()
        return self.await_empty(timeout)

    def await_empty(self, timeout: float) -> bool:
        """Wait on, once it is shut."""
        return self._moved.wait_for(lambda: not self._inside, timeout)

    def open(self, *, alone: bool = False) -> None:
        """Let everyone in again; `alone` in a child, where nobody else is left."""
        if alone:
            self._inside = 0
        self._shut_by = None
        self._moved.notify_all()
        self._moved.release()
