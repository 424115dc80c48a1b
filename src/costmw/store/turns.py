"""Turns: who writes next, among the threads and processes of one host.

SQLite's busy handler starves one of four writers for seconds. Whoever waits in the
system for a lock on a file gets it in order.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from costmw.errors import StoreBusy, StoreError
from costmw.store.greenlets import MadeLate, in_a_thread
from costmw.store.sqlite_errors import is_full

if sys.platform != "win32":
    import fcntl


class Turns:
    """Turns at a file, kept by a lock file beside it.

    `before_first` is called before the lock file is made.
    """

    # A flock belongs to the open file: it keeps processes apart, and not threads.
    _mine = MadeLate(lambda: threading.Lock())

    def __init__(self, path: Path, before_first: Callable[[], None]) -> None:
        self._path = path
        self._before_first = before_first
        self._lock_file: int | None = None

    @contextmanager
    def mine(self, timeout: float = -1) -> Iterator[None]:
        """Take the only turn of all threads and processes; waits for ever unless told.

        Raises:
            StoreBusy: when it does not come within `timeout` seconds.
            StoreError: when the lock file cannot be made.
        """
        if not self._mine.acquire(timeout=timeout):
            raise self._busy(timeout)
        try:
            if sys.platform == "win32":  # SQLite's busy handler has to do
                yield
                return
            lock_file = self._lock(timeout)
            try:
                yield
            finally:
                fcntl.flock(lock_file, fcntl.LOCK_UN)
        finally:
            self._mine.release()

    def of_this_process(self) -> AbstractContextManager[object]:
        """Keep the other threads of this process out."""
        return self._mine

    def close(self) -> None:
        """Close the lock file, which gives the turn up; a child must not unlock it."""
        lock_file, self._lock_file = self._lock_file, None
        if lock_file is not None:
            os.close(lock_file)

    def before_fork(self) -> None:
        """Wait until no thread has the turn, and keep it."""
        self._mine.acquire()

    def after_fork_in_parent(self) -> None:
        """Give it back."""
        self._mine.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: whoever had the turn is the parent's."""
        MadeLate.forget(self, "_mine")

    def _lock(self, timeout: float) -> int:
        # Whoever waits in the system gets a turn in order; asking again and again does not.
        patient = timeout < 0
        deadline = time.monotonic() + timeout
        while True:
            lock_file = self._opened()
            try:
                if patient:
                    in_a_thread(fcntl.flock, lock_file, fcntl.LOCK_EX)
                else:
                    fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise self._busy(timeout) from None
                time.sleep(0.002)
                continue
            if self._is_in_place(lock_file):
                return lock_file
            self.close()  # it was removed: others keep their turns at a new one

    def _opened(self) -> int:
        if self._lock_file is None:
            self._before_first()
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            try:
                self._lock_file = os.open(self._path, flags, 0o644)
            except OSError as error:
                kind = StoreBusy if is_full(error) else StoreError
                raise kind(
                    f"cannot make {self._path}: {error.strerror}; the directory "
                    f"{self._path.parent} must be writable by this user"
                ) from error
        return self._lock_file

    def _is_in_place(self, lock_file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(lock_file), self._path.stat())
        except FileNotFoundError:
            return False

    def _busy(self, timeout: float) -> StoreBusy:
        return StoreBusy(f"{self._path} is locked by another process for more than {timeout:.0f} s")
