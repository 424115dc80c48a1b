"""Breaks a connection that hangs: a server whose disk stalls answers no timeout of its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from psycopg import Error


class HasSocket(Protocol):
    """Something with a socket."""

    def fileno(self) -> int:
        """The number of its socket."""


class Watch:
    """Shuts the socket of one statement or transaction that takes too long.

    Whoever waits for the server then gets an `OperationalError`. One thread watches; it
    sleeps while there is nothing to watch.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._armed = threading.Event()
        self._lock = threading.Lock()
        self._watched: tuple[float, HasSocket] | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, connection: HasSocket, seconds: float) -> Iterator[None]:
        """Let what is inside take so long; one at a time."""
        self._start()
        with self._lock:
            self._watched = (time.monotonic() + seconds, connection)
        self._armed.set()
        try:
            yield
        finally:
            with self._lock:
                self._watched = None

    def after_fork_in_child(self) -> None:
        """The thread is the parent's."""
        self._begin()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        thread = threading.Thread(target=self._run, name="costmw-watch", daemon=True)
        with suppress(RuntimeError):  # no more threads: then nobody watches
            thread.start()
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._armed.wait()
            with self._lock:
                watched = self._watched
                if watched is None:
                    self._armed.clear()
                    continue
                left = watched[0] - time.monotonic()
                if left <= 0:
                    _shut(watched[1])
                    self._watched = None
                    continue
            # What is armed meanwhile has as long a time, most likely: it is seen in time.
            time.sleep(min(left, 0.1))


def _shut(connection: HasSocket) -> None:
    # A copy of the number, so that closing it leaves the connection's own to it.
    with suppress(OSError, Error), socket.socket(fileno=os.dup(connection.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)
