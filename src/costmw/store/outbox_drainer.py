"""Sends what waits in the outbox, once the database is back.

Every process of a host that has put something there has a drainer; a lock on a file lets
one of them work at a time. Records are taken away after the database has committed them:
whatever happens in between, they are sent again, and skipped there.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Protocol

from costmw.errors import StoreError
from costmw.events import Record
from costmw.store.base import Care, Store
from costmw.store.caps import Answers
from costmw.store.outbox_file import DeadLetter, OutboxFile, Waiting
from costmw.store.record_json import decode

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("costmw")

SENT_AT_ONCE = 500
"""Records in one transaction."""

PATIENCE = 10.0
"""Seconds that one may take."""

RETRY_AFTER = (0.2, 0.5, 1.0)
"""Seconds to wait before the database is tried again; the last one repeats."""


class Remote(Store, Care, Protocol):
    """A store that may be away."""

    def write(self, records: Sequence[Record], *, patience: float | None = None) -> Answers:
        """Commit all records, within so many seconds; see `Store.write`."""

    def bury(self, letter: DeadLetter) -> None:
        """Keep a copy of a record that cannot be stored."""


class Drainer:
    """A thread that runs while something waits."""

    def __init__(self, file: OutboxFile, remote: Remote) -> None:
        self._file = file
        self._remote = remote
        self._lock_file: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Something waits: see to it."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop.clear()
            thread = threading.Thread(target=self._run, name="costmw-outbox", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter is ending
                logger.warning("costmw cannot start a thread that drains its outbox: %s", error)
            else:
                self._thread = thread

    def stop(self, timeout: float) -> None:
        """End the thread; what waits is sent when the store is used again."""
        with self._lock:
            thread = self._thread
            self._stop.set()
        if thread is not None:
            thread.join(timeout)

    def after_fork_in_child(self) -> None:
        """The thread is the parent's, and so is its lock, which must not be undone here."""
        lock_file, self._lock_file = self._lock_file, None
        if lock_file is not None:
            os.close(lock_file)
        self._begin()

    def _run(self) -> None:
        failed = sent = 0
        try:
            while not self._stop.is_set():
                try:
                    if not self._is_mine():
                        done = 0
                        wait = RETRY_AFTER[-1]
                    else:
                        done = self.send_some()
                        wait = 0.0
                    failed = 0
                    sent += done
                except StoreError as error:
                    wait = RETRY_AFTER[min(failed, len(RETRY_AFTER) - 1)]
                    failed += 1
                    logger.debug("costmw's outbox waits: %s", error)
                except Exception:
                    wait = RETRY_AFTER[-1]
                    failed += 1
                    logger.exception("costmw cannot drain its outbox, and tries again")
                if not wait and not done:
                    with self._lock:
                        if self._is_drained():
                            self._give_up_turn()
                            self._thread = None
                            break
                self._stop.wait(wait)
        finally:
            self._give_up_turn()
            if sent:
                logger.warning("%s is back: %d record(s) were sent to it", self._remote.url, sent)

    def _is_drained(self) -> bool:
        try:
            return self._file.is_empty()
        except StoreError:
            return False

    def send_some(self) -> int:
        """Send the oldest that wait; gives how many wait no more.

        When the database refuses them for what is in them, smaller and smaller parts are
        tried, until the one record that it cannot take becomes a dead letter.

        Raises:
            StoreError: when the database is away, or the outbox cannot be used.
        """
        waiting = self._file.head(SENT_AT_ONCE)
        left = list(waiting)
        size = len(left)
        while left:
            part = left[:size]
            try:
                records = [decode(one.kind, one.record) for one in part]
                self._remote.write(records, patience=PATIENCE)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a record may cause
                if len(part) > 1:
                    size = len(part) // 2
                    continue
                self._bury(part[0], error)
            else:
                self._file.remove(part)
            size *= 2
            del left[: len(part)]
        self._tell_dead_letters()
        return len(waiting)

    def _bury(self, one: Waiting, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}".strip()
        logger.error(
            "costmw cannot store a record; it is kept in dead_letters of %s. %s",
            self._file.path,
            reason,
        )
        self._file.bury(one.kind, one.record, reason, one.seq)

    def _tell_dead_letters(self) -> None:
        for letter in self._file.dead_letters(untold=True):
            try:
                self._remote.bury(letter)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - it is kept here
                logger.warning("a dead letter cannot be copied to the database: %s", error)
            self._file.told(letter)

    def _is_mine(self) -> bool:
        """Whether this process is the one of its host that drains."""
        if sys.platform == "win32" or self._lock_file is not None:
            return True  # without locks records are sent twice, and skipped once
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            lock_file = os.open(f"{self._file.path}.drainer", flags, 0o600)
        except OSError as error:
            raise StoreError(f"cannot make {self._file.path}.drainer: {error.strerror}") from error
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_file)
            return False
        self._lock_file = lock_file
        return True

    def _give_up_turn(self) -> None:
        lock_file, self._lock_file = self._lock_file, None
        if lock_file is not None:
            if sys.platform != "win32":
                fcntl.flock(lock_file, fcntl.LOCK_UN)
            os.close(lock_file)
