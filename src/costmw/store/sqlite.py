"""The SQLite store: one file, write-ahead log, every commit on disk.

Several processes of one host may write to one file. A lock file beside it makes
them take turns: SQLite's own busy handler starves one of four writers for seconds,
an exclusive `flock` round each transaction keeps them even.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from costmw.caps.rules import Rule
from costmw.config import Config, zone
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Outcome, Record
from costmw.periods import day_start
from costmw.store import sqlite_care as care
from costmw.store.alert_rows import AlertRows
from costmw.store.balances import BalanceDifference, differences
from costmw.store.base import Difference, TagScope, erased_name
from costmw.store.budget_rows import read_epoch
from costmw.store.caps import HOLDING, Answers, Applied, Caps
from costmw.store.claims import Execute, claim
from costmw.store.fork_gate import ForkGate
from costmw.store.greenlets import in_a_thread
from costmw.store.holds import expired
from costmw.store.micros import from_micros, micros
from costmw.store.mounts import is_network, mount_of
from costmw.store.sqlite_caps import SqliteLedger
from costmw.store.sqlite_epoch import epoch
from costmw.store.sqlite_errors import advice, is_busy, is_damage, is_full, is_of_a_record
from costmw.store.sqlite_file import beside, mark_of
from costmw.store.sqlite_forget import forget_value
from costmw.store.sqlite_health import Health, health_of
from costmw.store.sqlite_key import Key
from costmw.store.sqlite_open import connect, refuse_foreign, zone_kept
from costmw.store.sqlite_place import Place
from costmw.store.sqlite_read import SqliteSnapshot
from costmw.store.sqlite_recovery import sources
from costmw.store.sqlite_rescue import Rescuer
from costmw.store.sqlite_rollups import Roller
from costmw.store.sqlite_sql import executing
from costmw.store.sqlite_write import RecordInserter
from costmw.store.turns import Turns

logger = logging.getLogger("costmw")

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process that holds the database."""

FORK_PATIENCE = 2.0
"""Seconds that a fork waits for a question before it breaks it off."""

SUBMISSIONS_KEPT_DAYS = 90
"""How long it is kept who asked for a result that comes later; providers keep them for less."""

REPLACED_AT_MOST = 3
"""How often the file may change under one transaction before it is tried again later."""


def path_of(url: str) -> Path:
    """The file of a URL such as `sqlite:///llmcost.db` or `sqlite:////var/lib/llmcost.db`.

    Three slashes stand before a relative path, four before an absolute one.

    Raises:
        ConfigError: when it is not such a URL.
    """
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    odd = parts.query or parts.fragment or "\0" in path or path == ":memory:"
    if not url.startswith("sqlite:///") or not path or odd:
        raise ConfigError(
            f"store is {url!r}; use 'sqlite:///llmcost.db' for a file in the working directory "
            "or 'sqlite:////absolute/path/llmcost.db'"
        )
    return Path(path)


class SqliteStore:
    """Keeps the ledger in one SQLite file; made without any I/O."""

    def __init__(self, url: str, config: Config) -> None:
        self.url = url
        # A relative path means the directory that the app was started in, for good. SQLite
        # keeps its log beside the file itself, not beside a link to it.
        self.path = Path(os.path.realpath(path_of(url)))
        self._config = config
        self._turns = Turns(beside(self.path, ".lock"), self._refuse_other_files)
        self._gate = ForkGate()
        self._readers: set[sqlite3.Connection] = set()
        self._place = Place(self.path, url, config, self._connect)
        self._place.rescuer = self._rescuer = Rescuer(
            self.path,
            self._transaction,
            self.roll_up,
            self._gate,
            self._readers,
            self.rebuild_balances,
        )
        self._key = Key(beside(self.path, ".key"))
        self._inserter = RecordInserter()
        self._caps = Caps()
        self._roller: Roller | None = None
        self._epoch: int | None = None
        self._used: sqlite3.Connection | None = None

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone, once the store is open."""
        return self._place.zone or zone(self._config.time_zone or "UTC")

    def open(self) -> None:
        """Make or check the file and its tables; see `Store.open`."""
        if not self.path.parent.is_dir():
            raise StoreError(
                f"cannot open {self.url}: the directory {self.path.parent} does not exist; "
                "make it, or name another place"
            )
        if self.path.is_dir():
            raise StoreError(f"cannot open {self.url}: {self.path} is a directory; name a file")
        with self._translated_for_writing(), self._turns.mine(BUSY_TIMEOUT):
            self._warn_of_network()
            self._connected()
            self._warn_of_links()
            self._place.check()
            outdated = micros(datetime.now(UTC)) - SUBMISSIONS_KEPT_DAYS * 86_400_000_000
            with self._committed() as connection:
                connection.execute("DELETE FROM submissions WHERE created_at < ?", (outdated,))
                self._heed_budgets(SqliteLedger(connection, self.time_zone))

    def write(self, records: Sequence[Record]) -> Answers:
        """Commit records in one transaction; see `Store.write`."""
        applied = self._write(records)
        if applied.late:
            self._write(applied.late)
        return applied.refusals

    def _write(self, records: Sequence[Record]) -> Applied:
        with self._translated_for_writing(), self._turns.mine():
            for _ in range(REPLACED_AT_MOST):
                with self._committed() as connection:
                    applied = self._insert(connection, records)
                if self._place.is_in_place():
                    return applied
                # Committed to what is not the store's file any more: once more, to that.
                self._connected()
                if self._place.brought_over:  # events are there once, counters add up
                    records = [r for r in records if not isinstance(r, Outcome)]
        raise StoreError(f"{self.path} is replaced again and again")

    def _insert(self, connection: sqlite3.Connection, records: Sequence[Record]) -> Applied:
        ledger = SqliteLedger(connection, self.time_zone)
        if not self._heed_budgets(ledger):
            self._inserter.insert(connection, records)
            return Applied()
        holds = self._caps.holds_of(ledger, records)
        written = ledger.to_be_written(records, holds)
        self._inserter.insert(connection, [r for r in records if not isinstance(r, HOLDING)])
        return self._caps.apply(ledger, records, written, holds)

    def _heed_budgets(self, ledger: SqliteLedger) -> bool:
        return self._caps.heed(ledger, read_epoch(ledger), self.time_zone)

    def declare(self, rules: Sequence[Rule]) -> None:
        """Say what the app's own blocking budgets are; see `Store.declare`."""
        self._caps.declare(rules)

    def page_rules(self, tags: TagScope) -> Sequence[Rule]:
        """The budgets of the page that a call counts in; see `Store.page_rules`."""
        return self._caps.page_rules(tags)

    def expire_holds(self, now: datetime) -> int:
        """Charge holds that nobody has settled in time; see `Store.expire_holds`."""
        with self._translated_for_writing(), self._turns.mine():
            rows = expired(SqliteLedger(self._connected(), self.time_zone), now)
        if rows:
            self.write(rows)
        return len(rows)

    def keep_budget(self, rule: Rule) -> None:
        """Make or change a budget of the page; see `Store.keep_budget`."""
        with self._transaction() as connection:
            ledger = SqliteLedger(connection, self.time_zone)
            self._heed_budgets(ledger)
            self._caps.keep(ledger, rule)

    def drop_budget(self, name: str) -> None:
        """Take a budget away; see `Store.drop_budget`."""
        with self._transaction() as connection:
            self._caps.drop(SqliteLedger(connection, self.time_zone), name)

    def roll_up(self, limit: int) -> int:
        """Roll up what is new; see `Store.roll_up`."""
        with self._transaction() as connection:
            if sources(connection):  # older rows are still to come
                return 0
            assert self._roller is not None  # made with the connection
            return self._roller.slice(connection, limit)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of this process alone; undone when anything goes wrong in it."""
        with self._translated_for_writing(), self._turns.mine(), self._committed() as connection:
            yield connection

    @contextmanager
    def _committed(self) -> Iterator[sqlite3.Connection]:
        """The same, for who has the turn. A file that proves damaged is set aside."""
        connection = self._connected()
        try:
            in_a_thread(connection.execute, "BEGIN IMMEDIATE")
            self._heed_epoch(connection)
            yield connection
            in_a_thread(connection.execute, "COMMIT")
        except BaseException as error:
            self._forget_ids()
            self._undo(connection)
            if is_damage(error) and self._place.suspect(error):
                raise StoreError(
                    f"{self.path} is damaged ({error}) and set aside; a new one is begun"
                ) from error
            raise

    def _undo(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            # Whatever became of it, nobody goes on with this connection.
            logger.debug("a transaction cannot be undone: %s", error)
            self._place.close()

    def _heed_epoch(self, connection: sqlite3.Connection) -> None:
        now = epoch(connection)
        if now != self._epoch:
            self._forget_ids()
            self._epoch = now

    def _forget_ids(self) -> None:
        self._inserter.forget_ids()
        if self._roller is not None:
            self._roller.forget_ids()
        self._caps.forget()

    def _refuse_while_recovering(self, connection: sqlite3.Connection) -> None:
        if sources(connection):
            raise StoreError(
                f"rows of a file that was set aside are being brought over to {self.path}; "
                "try again when that is done"
            )

    def prune(self, before: datetime) -> int:
        """Drop the rows of calls before a moment; the rollups keep their sums for ever.

        Whole days only: rows from the day that `before` is in are kept. Gives the number
        of rows; those that are not rolled up yet are rolled up first.
        """
        with self._transaction() as connection:
            self._refuse_while_recovering(connection)
        while self.roll_up(care.DROPPED_AT_ONCE) == care.DROPPED_AT_ONCE:
            pass
        dropped = 0
        while found := self.prune_some(before, care.DROPPED_AT_ONCE):
            dropped += found
        return dropped

    def prune_some(self, before: datetime, most: int) -> int:
        """Do a part of `prune` in one transaction: at most so many rows, of those rolled up.

        Gives how many it were; none when there are no more.
        """
        with self._transaction() as connection:
            self._refuse_while_recovering(connection)
            # Never back again: rebuilding would drop the sums of what is pruned already.
            kept_until = from_micros(care.pruned_until(connection))
            boundary = max(day_start(before, self.time_zone), kept_until)
            return care.prune_slice(connection, boundary, most)

    def claim(self, task: str, owner: str, seconds: float) -> bool:
        """Have a task for so long, among all processes; False while another owner has it."""
        with self._transaction() as connection:
            return claim(executing(connection), task, owner, seconds, time.time())

    @property
    def alerts(self) -> AlertRows:
        """The alerts of this ledger; nobody else writes while they change."""
        return AlertRows(self._executing, lambda _: time.time())

    @contextmanager
    def _executing(self) -> Iterator[Execute]:
        with self._transaction() as connection:
            yield executing(connection)

    def rebuild(self) -> int:
        """Make the rollups anew from the rows; gives how many were rolled up.

        What was pruned keeps the rollups that it has.
        """
        with self._transaction() as connection:
            self._refuse_while_recovering(connection)
        while self.roll_up(care.DROPPED_AT_ONCE) == care.DROPPED_AT_ONCE:
            pass  # amendments of rows that are to be dropped
        with self._transaction() as connection:
            while care.prune_slice(connection, from_micros(care.pruned_until(connection))):
                pass
            care.forget_rollups(connection)
        rolled_up = 0
        while found := self.roll_up(care.DROPPED_AT_ONCE):
            rolled_up += found
        return rolled_up

    def verify(self) -> list[Difference]:
        """Compare the rollups with the rows that they were made of; nothing is changed."""
        with self._translated(), self._reader() as connection, self._gate.inside():
            connection.execute("BEGIN")
            return list(care.differences(connection, self.time_zone))

    def verify_balances(self) -> list[BalanceDifference]:
        """Compare balances with rows and holds; see `Care.verify_balances`."""
        with self.snapshot() as snapshot:
            return differences(snapshot, snapshot.rules(), self._caps.now())

    def rebuild_balances(self) -> None:
        """Make balances anew; see `Care.rebuild_balances`."""
        with self._transaction() as connection:
            ledger = SqliteLedger(connection, self.time_zone)
            self._heed_budgets(ledger)
            self._caps.rebuild(ledger)

    def forget(self, key: str, value: str, *, substitute: str | None = None) -> int:
        """Put something else in the place of a tag's value; gives how many tag sets had it."""
        name = substitute or erased_name()
        with self._transaction() as connection:
            count = forget_value(connection, key, value, name)
            ledger = SqliteLedger(connection, self.time_zone)
            self._heed_budgets(ledger)
            self._caps.retag(ledger, key, value, name)
        return count

    def backup(self, target: Path) -> None:
        """Copy the ledger, as it is at one moment, while it is in use.

        Raises:
            StoreError: when the copy cannot be made, or there is something already.
        """
        if target.exists():
            raise StoreError(f"{target} exists already; name a file that does not")
        with (
            self._translated_for_writing(),
            closing(sqlite3.connect(target)) as copy,
            self._reader() as connection,
            self._gate.inside(),
        ):
            connection.backup(copy)

    @contextmanager
    def snapshot(self) -> Iterator[SqliteSnapshot]:
        """Open a consistent view on a connection of its own; see `Store.snapshot`."""
        with self._translated():
            if self._place.zone is None or not self.path.exists():
                if not self.path.exists():
                    logger.warning("%s does not exist yet: making an empty store", self.path)
                self.open()
            with self._view() as snapshot:
                yield snapshot

    @contextmanager
    def snapshot_as_it_is(self) -> Iterator[SqliteSnapshot]:
        """Open a view of a file that is there; nothing is made, migrated or locked.

        Raises:
            StoreError: when there is no file, or none of ours, or it cannot be read.
        """
        with self._translated(), self._view(is_ours=False) as snapshot:
            yield snapshot

    @contextmanager
    def _view(self, *, is_ours: bool = True) -> Iterator[SqliteSnapshot]:
        file = mark_of(self.path).file
        try:
            with self._reader() as connection:
                with self._gate.inside():
                    if not is_ours:
                        refuse_foreign(connection, self.url)
                    kept = zone_kept(connection)
                snapshot = SqliteSnapshot(connection, self._gate, kept)
                snapshot.begin()
                if mark_of(self.path).file == file:
                    yield snapshot
                    return
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self._place.report_damage(file)
            raise
        # Another file took its place, and SQLite opens a log by its name, not as this one's.
        with self._view(is_ours=is_ours) as snapshot:
            yield snapshot

    def health(self, patience: float = 20.0) -> Health:
        """Look at a file that is there, for `patience` seconds; nothing is changed.

        Raises:
            StoreError: when there is no file, or none of ours, or it cannot be read.
        """
        with self._translated(), self._reader() as connection, self._gate.inside():
            refuse_foreign(connection, self.url)
            return health_of(connection, patience)

    def fingerprint_key(self) -> bytes:
        """Read or make `<file>.key`, readable by the owner alone."""
        with self._translated():
            # A call may ask for it: it waits no longer than for its own commit.
            return self._key.read_or_make(self._turns.mine(self._config.ack_timeout))

    def close(self) -> None:
        """Close the writing connection and the lock file."""
        self._rescuer.stop()
        with self._turns.of_this_process():
            self._disconnect()

    def before_fork(self) -> None:
        """Close the connection that writes, and wait for the statements of those that read."""
        self._turns.before_fork()
        if not self._gate.shut(FORK_PATIENCE):
            for connection in list(self._readers):
                with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                    connection.interrupt()
            self._gate.await_empty(BUSY_TIMEOUT)
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._gate.open()
        self._turns.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Begin anew, without the parent's connections.

        They are closed, not only dropped: SQLite thinks that the locks of an open
        connection are this process's own, and would do without them.
        """
        for connection in self._readers:
            connection.close()
        self._readers.clear()
        self._rescuer.begin_anew()
        self._gate.open(alone=True)
        self._turns.after_fork_in_child()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, known to a fork."""
        with self._gate.inside():
            connection = self._connect("ro")
            self._readers.add(connection)
        try:
            yield connection
        finally:
            with self._gate.inside():
                self._readers.discard(connection)
                connection.close()

    def _disconnect(self) -> None:
        self._turns.close()
        self._place.close()

    def _connect(self, mode: Literal["ro", "rwc"]) -> sqlite3.Connection:
        return connect(self.path, mode, BUSY_TIMEOUT)

    def _connected(self) -> sqlite3.Connection:
        """The connection to write with, to a file that is in its place and has its tables."""
        connection = self._place.connected()
        if connection is not self._used:
            self._used = connection
            assert self._place.zone is not None  # known with the connection
            self._inserter.forget_ids()
            self._caps.forget()
            self._roller = Roller(self._place.zone)
            self._epoch = None
        return connection

    def _warn_of_network(self) -> None:
        mount = mount_of(self.path)
        if mount is not None and is_network(mount.kind) and self.path not in _warned:
            _warned.add(self.path)
            logger.warning(
                "%s is on a network file system (%s): locks and the write-ahead log do not hold "
                "there, and rows can be lost. Put the file on a local disk",
                self.path,
                mount.kind,
            )

    def _warn_of_links(self) -> None:
        if self.path.stat().st_nlink > 1 and self.path not in _warned:
            _warned.add(self.path)
            logger.warning(
                "%s has another name (a hard link): who opens it by that one writes another log, "
                "and damages it. Remove the link, or make it a symbolic one",
                self.path,
            )

    def _refuse_other_files(self) -> None:
        """Leave nothing beside a file that is not ours: look before anything is made.

        Only SQLite may open the file: who closes it by hand gives up all locks that this
        process has on it (https://www.sqlite.org/howtocorrupt.html).
        """
        if self.path.is_file() and self.path.stat().st_size:
            try:
                with closing(self._connect("ro")) as connection:
                    refuse_foreign(connection, self.url)
            except sqlite3.DatabaseError as error:
                # The lock file is made beside our own files alone: this one was, before.
                if not (is_damage(error) and beside(self.path, ".lock").exists()):
                    raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database and the system raise into errors that say what to do."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if is_of_a_record(error):
                raise  # one bad record, not the store: the writer leaves it out
            if is_busy(error):
                raise StoreBusy(
                    f"{self.url} is locked by another process for more than {BUSY_TIMEOUT:.0f} s"
                ) from error
            kind = StoreBusy if is_full(error) else StoreError
            raise kind(f"cannot use {self.url}: {advice(error)}") from error

    @contextmanager
    def _translated_for_writing(self) -> Iterator[None]:
        """The same, and what the system raises: locking a file may fail on some disks."""
        try:
            with self._translated():
                yield
        except OSError as error:
            kind = StoreBusy if is_full(error) else StoreError
            raise kind(f"cannot use {self.url}: {error.strerror or error}") from error


_warned: set[Path] = set()
"""Files that were warned of, for where they are: once a process."""
