"""The writer: one thread that commits what callers hand in, many at a time.

A caller gets an `Acknowledgement` that is released once its record is committed.
Waiting for it costs a caller one commit, shared with everyone who came meanwhile.
The thread starts with the first record, survives every error, and starts anew in a
forked child.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from costmw.errors import StoreError
from costmw.events import Amendment, Record, Release, Reservation, UsageEvent
from costmw.store.acknowledgement import Acknowledgement, release_all
from costmw.store.greenlets import MadeLate
from costmw.store.hold_keeper import Holder, HoldKeeper

if TYPE_CHECKING:
    from costmw.config import Config
    from costmw.store.base import Store
    from costmw.store.caps import Answers

logger = logging.getLogger("costmw")

RETRY_AFTER = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds to wait before a failed commit is tried again; the last one repeats."""


ROLL_UP_AT_ONCE = 48
"""Rows that are rolled up in one transaction; calls that come meanwhile wait for it."""

CATCH_UP_AT_ONCE = 512
"""The same, when much is left: by the row larger slices are quicker."""

BEHIND_AT_MOST = 10_000
"""Committed rows that are left alone while calls wait, and then rolled up at once."""


CARE_AT_END = 0.25
"""Seconds that a process which ends goes on dropping rows that are too old."""


@dataclass(slots=True)
class WriterCounts:
    """What happened in this process; records, seconds and a message."""

    committed: int = 0
    dropped: int = 0
    rejected: int = 0
    failures: int = 0
    last_error: str | None = None


class Writer:
    """Commits records to a store in the order that they were handed in."""

    # Reentrant: the garbage collector may end a stream, which submits, anywhere.
    _wanted = MadeLate(lambda: threading.Condition(threading.RLock()))
    # Held through a transaction, so that a fork never happens inside of one. Whoever needs
    # both takes this one first.
    _writing = MadeLate(lambda: threading.Lock())

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._config = config
        self.holder: Holder | None = None
        """Who has calls in flight, for which something is held."""
        self.counts = WriterCounts()
        self._make_locks()
        with _forking:
            _writers.add(self)

    def _make_locks(self) -> None:
        self._queue: deque[tuple[Record, Acknowledgement]] = deque()
        self._in_hand: list[tuple[Record, Acknowledgement]] = []
        MadeLate.forget(self, "_wanted", "_writing")
        self._thread: threading.Thread | None = None
        self._closing = 0
        self._behind = 0
        from costmw.store.retention import Retention

        self._retention = Retention(self._store, self._config.keep_days)
        self._keeper: HoldKeeper | None = None

    def keep_holds(self, holder: Holder) -> None:
        """Keep an eye on holds from now on, even while nothing is written."""
        self.holder = holder
        with self._wanted:
            self._start()

    @property
    def waiting(self) -> int:
        """Records that are handed in and not yet committed."""
        return len(self._queue) + len(self._in_hand)

    @property
    def waiting_seconds(self) -> float:
        """How long the record that waits longest does so; 0 when none waits."""
        with self._wanted:
            for records in (self._in_hand, self._queue):
                if records:
                    return time.monotonic() - records[0][1].since
        return 0.0

    @property
    def behind(self) -> int:
        """Records that are committed, and perhaps not rolled up yet."""
        return self._behind

    def submit(self, record: Record) -> Acknowledgement:
        """Hand in one record; never blocks, never raises.

        When `queue_size` records wait already the record is dropped, counted and logged.
        """
        acknowledgement = Acknowledgement()
        with self._wanted:
            if self.waiting >= self._config.queue_size:
                self.counts.dropped += 1
                dropped = self.counts.dropped
            else:
                dropped = 0
                self._queue.append((record, acknowledgement))
                self._start()
                self._wanted.notify()
        if _ending and self._thread is None and not self._writing.locked():
            self._commit()  # Python 3.12 starts no thread any more as it ends
        if dropped and (dropped & (dropped - 1)) == 0:
            logger.error(
                "costmw dropped %d record(s): %d wait for the store already. Last error: %s",
                dropped,
                self._config.queue_size,
                self.counts.last_error,
            )
        acknowledgement.dropped = dropped > 0
        return acknowledgement

    def flush(self, timeout: float | None) -> bool:
        """Wait until all that was handed in is committed; False when it took too long."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._wanted:
            pending = [ack for _, ack in (*self._in_hand, *self._queue)]
            if pending:
                self._start()
        for acknowledgement in pending:
            left = 3600.0 if deadline is None else deadline - time.monotonic()
            if not acknowledgement.wait(max(left, 0.0)):
                return False
        return True

    def close(self, timeout: float) -> bool:
        """Commit what waits, up to `timeout` seconds, and end the thread.

        The next record starts it again. False when something still waits.
        """
        deadline = time.monotonic() + timeout
        with self._wanted:
            self._closing += 1
            self._wanted.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)
        if thread is None or not thread.is_alive():
            # No thread could be started, or it gave up: what waits gets a last try here.
            while self.waiting and self._commit():
                pass
        if self._writing.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            self._store.close()
            self._writing.release()
        with self._wanted:
            self._closing -= 1
        return self.waiting == 0

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = None
        if _ending:
            return
        thread = threading.Thread(target=self._run, name="costmw-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is ending
            self._failed(error)
        else:
            self._thread = thread
            _close_with_a_pool()

    def _run(self) -> None:
        failed = 0
        while True:
            with self._wanted:
                while not self.waiting and not self._closing and not self._behind:
                    if not (due_in := self._due_in()):
                        break
                    # Not for ever: what a finalizer submits between these lines wakes nobody.
                    self._wanted.wait(min(due_in, 1.0))
                if failed:
                    pause = RETRY_AFTER[min(failed, len(RETRY_AFTER)) - 1]
                    self._wanted.wait_for(lambda: self._closing, pause)
                if self._closing and (failed or not self.waiting):
                    self._thread = None
                    return
            failed = 0 if self._commit() else failed + 1
            if not failed:
                self._keep_holds()
                self._roll_up()
                self._drop_old_rows()

    def _due_in(self) -> float:
        """Seconds until something is to be done though nothing was handed in."""
        if self.holder is not None and self._keeper is None:
            self._keeper = HoldKeeper(self._store, self.holder, self._config.hold_ttl)
        kept_in = self._keeper.due_in() if self._keeper is not None else None
        due_in = self._retention.due_in()
        return due_in if kept_in is None else min(due_in, kept_in)

    def _keep_holds(self) -> None:
        if self._keeper is not None and self._keeper.due_in() == 0:
            with self._writing:
                self._keeper.work()

    def _roll_up(self) -> None:
        """Roll up what was committed: bit by bit while nothing waits, much at once otherwise."""
        behind = self._behind
        if not behind or (self._queue and behind < BEHIND_AT_MOST):
            return
        if behind < ROLL_UP_AT_ONCE and not self._quiet():
            return
        if self._queue:
            limit = BEHIND_AT_MOST
        else:
            limit = CATCH_UP_AT_ONCE if behind >= CATCH_UP_AT_ONCE else ROLL_UP_AT_ONCE
        with self._writing:
            try:
                done = self._store.roll_up(limit)
            except Exception as error:  # noqa: BLE001 - the writer must survive everything
                self._failed(error)
                self._behind = 0  # with the next commit it is tried again
                return
        # Other processes write too: a slice that is full says that there is more.
        self._behind = max(behind - done, CATCH_UP_AT_ONCE) if done == limit else 0

    def _drop_old_rows(self) -> None:
        """Let old rows be dropped, when it is time; a process that ends does its part of it."""
        if not self._queue and not self._retention.due_in():
            with self._writing:
                self._retention.work(CARE_AT_END if self._closing else 0.0)

    def _quiet(self) -> bool:
        """Wait for a second in which nothing comes, or for the end."""
        with self._wanted:
            self._wanted.wait_for(lambda: self.waiting or self._closing, 1.0)
            return not self.waiting

    def _take(self) -> None:
        with self._wanted:
            while self._queue and len(self._in_hand) < self._config.batch_size:
                self._in_hand.append(self._queue.popleft())

    def _commit(self) -> bool:
        """Commit one batch; False when the store cannot be written to now.

        When the store refuses it for what is in it, smaller and smaller parts are tried,
        until the one record that it cannot take is left out.
        """
        with self._writing:
            self._take()
            size = len(self._in_hand)
            while self._in_hand:
                part = self._in_hand[:size]
                try:
                    answers = self._store.write([record for record, _ in part])
                except StoreError as error:
                    self._failed(error)
                    return False
                except Exception as error:  # noqa: BLE001 - the writer must survive everything
                    if len(part) > 1:
                        size = len(part) // 2
                        continue
                    self._rejected(error)
                    part[0][1].refusal = error
                else:
                    if answers:
                        _tell(part, answers)
                    self.counts.committed += len(part)
                    self._behind += sum(_is_rolled_up(record) for record, _ in part)
                size *= 2
                with self._wanted:
                    del self._in_hand[: len(part)]
                release_all(acknowledgement for _, acknowledgement in part)
                if self.holder is not None and any(_gives_back(record) for record, _ in part):
                    self.holder.ring()
        return True

    def _rejected(self, error: Exception) -> None:
        self.counts.rejected += 1
        self.counts.last_error = str(error)
        if (self.counts.rejected & (self.counts.rejected - 1)) == 0:
            logger.error(
                "costmw cannot store a record and leaves it out (%d so far)",
                self.counts.rejected,
                exc_info=error,
            )

    def _failed(self, error: Exception) -> None:
        self.counts.failures += 1
        self.counts.last_error = str(error)
        if (self.counts.failures & (self.counts.failures - 1)) == 0:
            logger.error(
                "costmw cannot write to its store and tries again; %d record(s) wait. %s",
                self.waiting,
                error,
            )

    def before_fork(self) -> None:
        """Come to rest: no lock held by another thread, nobody inside of the store."""
        self._writing.acquire()
        try:
            self._store.before_fork()
        except Exception as error:  # noqa: BLE001 - the fork goes on
            self._failed(error)
        self._wanted.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._wanted.release()
        self._writing.release()
        self._store.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start empty: what waits belongs to the parent, which commits it."""
        self._make_locks()
        self.counts = WriterCounts()
        self._store.after_fork_in_child()


def _is_rolled_up(record: Record) -> bool:
    return isinstance(record, UsageEvent | Amendment)


def _gives_back(record: Record) -> bool:
    """Whether there may be more room in a budget after it."""
    return isinstance(record, UsageEvent | Release | Amendment)


def _tell(part: Iterable[tuple[Record, Acknowledgement]], answers: Answers) -> None:
    for record, acknowledgement in part:
        if isinstance(record, Reservation):
            acknowledgement.refusal = answers.get(record.id)


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()

# Held from before a fork until after it: the writers that came to rest are all there are.
_forking = threading.RLock()
_at_rest: list[Writer] = []


def _before_fork() -> None:
    _forking.acquire()
    _at_rest.extend(_writers)
    for writer in _at_rest:
        writer.before_fork()


def _after_fork_in_parent() -> None:
    try:
        while _at_rest:
            _at_rest.pop().after_fork_in_parent()
    finally:
        _forking.release()


def _after_fork_in_child() -> None:
    global _is_new_child
    _is_new_child = True
    try:
        while _at_rest:
            _at_rest.pop().after_fork_in_child()
    finally:
        _forking.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


_is_new_child = False
"""Whether the process was forked, and has recorded nothing yet."""


def _close_with_a_pool() -> None:
    """Processes of `multiprocessing` end by `os._exit`: they run no hooks but its own."""
    global _is_new_child
    if _is_new_child:
        _is_new_child = False
        if util := sys.modules.get("multiprocessing.util"):
            util.Finalize(None, _close_all, exitpriority=100)


_ending = False
"""Whether the interpreter ends."""


@atexit.register
def _close_all() -> None:
    global _ending
    _ending = True
    for writer in list(_writers):
        # Processes that live for one call roll it up as well, or nobody might.
        if (writer.waiting or writer.behind) and not writer.close(timeout=5.0):
            logger.error(
                "%d record(s) of costmw are lost as the process ends. %s",
                writer.waiting,
                writer.counts.last_error,
            )
