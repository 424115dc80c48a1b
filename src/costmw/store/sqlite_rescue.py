"""The thread that brings the rows of files over which were set aside, or removed.

It takes a turn for each slice, as every writer does, and rests as long as it worked, so
that calls are recorded meanwhile. It ends when there is nothing more to do.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from costmw.errors import StoreError
from costmw.store.fork_gate import ForkGate
from costmw.store.greenlets import MadeLate
from costmw.store.sqlite_aside import free_name
from costmw.store.sqlite_file import BESIDE, FileId, beside, sync_folder
from costmw.store.sqlite_recovery import Progress, Recovery, finish, register, sources

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("costmw")

LONGEST_REST = 0.05
"""Seconds between two slices at most."""

TRIES = 5
"""How often a slice may fail for another reason than the store's, before it is given up."""

ROLLED_UP_AT_ONCE = 128

COPY_PATIENCE = 30.0
"""Seconds that the end of a process waits for the copy of a file that was removed."""


class Rescuer:
    """Brings rows over in a thread of its own, which runs while there are any to bring."""

    _lock = MadeLate(lambda: threading.Lock())
    _stop = MadeLate(lambda: threading.Event())

    def __init__(
        self,
        path: Path,
        transaction: Callable[[], AbstractContextManager[sqlite3.Connection]],
        roll_up: Callable[[int], int],
        gate: ForkGate,
        readers: set[sqlite3.Connection],
        when_done: Callable[[], None],
    ) -> None:
        self._path = path
        self._transaction = transaction
        self._roll_up = roll_up
        self._gate = gate
        self._readers = readers
        self._when_done = when_done
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what the parent of a forked process does."""
        MadeLate.forget(self, "_lock", "_stop")
        self._thread: threading.Thread | None = None
        self._removed: list[tuple[sqlite3.Connection, FileId | None]] = []

    def keep(self, connection: sqlite3.Connection, file: FileId | None) -> None:
        """Copy a file that was removed, from the connection that still has it."""
        self._readers.add(connection)
        self._removed.append((connection, file))
        self.start()

    def start(self) -> None:
        """Go on in the background, if nobody does."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._stop.clear()
                self._thread = threading.Thread(target=self._run, name="costmw-rescue", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter is ending
                    self._thread = None
                    logger.warning("costmw cannot bring rows over now: %s", error)

    def stop(self) -> None:
        """End the thread after its slice; a file that was removed is copied first."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        deadline = time.monotonic() + COPY_PATIENCE
        while self._removed and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._stop.set()
        thread.join(COPY_PATIENCE)
        for connection, file in self._removed:
            logger.error("the rows of %s, which was removed, are lost (%s)", self._path, file)
            self._let_go(connection)
        self._removed.clear()

    def _run(self) -> None:
        failed = 0
        while not self._stop.is_set():
            try:
                if not self._go_on():
                    return
                failed = 0
            except StoreError as error:
                logger.debug("costmw brings rows over later: %s", error)
                self._stop.wait(1.0)
            except Exception as error:
                failed += 1
                logger.debug("costmw cannot bring rows over", exc_info=error)
                if failed == TRIES:
                    self._give_up(error)
                    return
                self._stop.wait(1.0)

    def _go_on(self) -> bool:
        """Do something; gives whether there may be more to do."""
        if self._removed:
            self._copy(*self._removed[0])
            self._removed.pop(0)
            return True
        with self._transaction() as connection:
            names = sources(connection)
        if names:
            self._bring_over(self._path.with_name(names[0]))
            return True
        if self._roll_up(ROLLED_UP_AT_ONCE) == ROLLED_UP_AT_ONCE:
            return True
        self._when_done()
        return False

    def _copy(self, connection: sqlite3.Connection, file: FileId | None) -> None:
        """Make a file again of one that was removed, and have its rows brought over."""
        copy = free_name(self._path, "removed")
        part = beside(copy, ".part")
        part.unlink(missing_ok=True)
        try:
            with self._gate.inside():
                connection.execute("VACUUM INTO ?", (str(part),))
        except sqlite3.OperationalError as error:
            # Broken off for a fork, or the disk is full.
            raise StoreError(str(error)) from error
        part.rename(copy)
        sync_folder(copy.parent)
        with self._transaction() as ours:
            register(ours, copy.name)
        self._let_go(connection)
        logger.warning("%s, which was removed, is copied to %s", self._path, copy.name)

    def _let_go(self, connection: sqlite3.Connection) -> None:
        with self._gate.inside():
            self._readers.discard(connection)
            connection.close()

    def _bring_over(self, source: Path) -> None:
        """Bring the rows of one file over, unless another process does."""
        if not source.exists():
            logger.error("%s is gone: what is not brought over yet is lost", source)
            with self._transaction() as connection:
                finish(connection, source.name, Progress())
            return
        with source.open("rb") as claimed:
            if not _claim(claimed.fileno()):
                self._stop.wait(1.0)
                return
            recovery = Recovery(source)
            try:
                outcome = None
                while outcome is None:
                    if self._stop.is_set():
                        return
                    began = time.monotonic()
                    recovery.read()
                    outcome = self._put(recovery)
                    self._stop.wait(min(time.monotonic() - began, LONGEST_REST))
            finally:
                recovery.close()
        logger.warning("%s: %s are brought over from %s", self._path, outcome.said(), source.name)
        if ".removed-" in source.name and not outcome.damaged:
            for ending in ("", *BESIDE):  # whoever removed it wanted no second one
                beside(source, ending).unlink(missing_ok=True)

    def _put(self, recovery: Recovery) -> Progress | None:
        try:
            with self._transaction() as connection:
                return recovery.put(connection)
        except BaseException:
            recovery.forget_ids()
            raise

    def _give_up(self, error: Exception) -> None:
        logger.error(
            "costmw cannot bring the rows over of a file beside %s that was set aside; "
            "'sqlite3 FILE .recover' may",
            self._path,
            exc_info=error,
        )
        for connection, _ in self._removed:
            self._let_go(connection)
        self._removed.clear()
        with suppress(StoreError), self._transaction() as connection:
            for name in sources(connection):
                finish(connection, name, Progress())


def _claim(file: int) -> bool:
    """Whether no other process brings the rows of a file over."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
