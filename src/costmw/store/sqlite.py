"""The SQLite store: one file, write-ahead log, every commit on disk.

Several processes of one host may write to one file. A lock file beside it makes
them take turns: SQLite's own busy handler starves one of four writers for seconds,
an exclusive `flock` round each transaction keeps them even.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from costmw.config import Config, zone
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Record
from costmw.periods import day_start
from costmw.store import sqlite_care as care
from costmw.store.base import Difference
from costmw.store.fork_gate import ForkGate
from costmw.store.migrations import migrations
from costmw.store.sqlite_health import Health, health_of
from costmw.store.sqlite_read import SqliteSnapshot
from costmw.store.sqlite_rollups import Roller
from costmw.store.sqlite_sql import from_micros, micros
from costmw.store.sqlite_write import RecordInserter
from costmw.store.turns import Turns

logger = logging.getLogger("costmw")

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process that holds the database."""

FORK_PATIENCE = 2.0
"""Seconds that a fork waits for a question before it breaks it off."""

SUBMISSIONS_KEPT_DAYS = 90
"""How long it is kept who asked for a result that comes later; providers keep them for less."""

KEY_BYTES = 32
"""Length of the secret that API keys are fingerprinted with."""


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
        # A relative path means the directory that the app was started in, for good.
        self.path = path_of(url).absolute()
        self._config = config
        self._zone: ZoneInfo | None = None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._turns = Turns(Path(f"{self.path}.lock"), self._refuse_other_files)
        self._gate = ForkGate()
        self._readers: set[sqlite3.Connection] = set()
        self._inserter = RecordInserter()
        self._roller: Roller | None = None

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone, once the store is open."""
        return self._zone or zone(self._config.time_zone or "UTC")

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
            connection = self._connected()
            outdated = micros(datetime.now(UTC)) - SUBMISSIONS_KEPT_DAYS * 86_400_000_000
            connection.execute("DELETE FROM submissions WHERE created_at < ?", (outdated,))

    def write(self, records: Sequence[Record]) -> None:
        """Commit records in one transaction; see `Store.write`."""
        with self._transaction() as connection:
            self._inserter.insert(connection, records)

    def roll_up(self, limit: int) -> int:
        """Roll up what is new; see `Store.roll_up`."""
        with self._transaction() as connection:
            assert self._roller is not None  # made with the connection
            return self._roller.slice(connection, limit)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of this process alone; undone when anything goes wrong in it."""
        with self._translated_for_writing(), self._turns.mine():
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                self._forget_ids()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _forget_ids(self) -> None:
        self._inserter.forget_ids()
        if self._roller is not None:
            self._roller.forget_ids()

    def prune(self, before: datetime) -> int:
        """Drop the rows of calls before a moment; the rollups keep their sums for ever.

        Whole days only: rows from the day that `before` is in are kept. Gives the number
        of rows; those that are not rolled up yet are rolled up first.
        """
        boundary = day_start(before, self.time_zone)
        while self.roll_up(care.DROPPED_AT_ONCE) == care.DROPPED_AT_ONCE:
            pass
        dropped = 0
        while True:
            with self._transaction() as connection:
                if not (found := care.prune_slice(connection, boundary)):
                    care.drop_unused_tag_sets(connection)
                    self._forget_ids()
                    return dropped
                dropped += found

    def rebuild(self) -> int:
        """Make the rollups anew from the rows; gives how many were rolled up.

        What was pruned keeps the rollups that it has.
        """
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

    def forget(self, key: str, value: str, *, substitute: str | None = None) -> int:
        """Put something else in the place of a tag's value; gives how many tag sets had it."""
        with self._transaction() as connection:
            found = care.forget_value(connection, key, value, substitute)
            self._forget_ids()
            return found

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
            if self._zone is None:
                if not self.path.exists():
                    logger.warning("%s does not exist yet: making an empty store", self.path)
                self.open()
            with self._reader() as connection:
                snapshot = SqliteSnapshot(connection, self._gate, self.time_zone)
                snapshot.begin()
                yield snapshot

    @contextmanager
    def snapshot_as_it_is(self) -> Iterator[SqliteSnapshot]:
        """Open a view of a file that is there; nothing is made, migrated or locked.

        Raises:
            StoreError: when there is no file, or none of ours, or it cannot be read.
        """
        with self._translated(), self._reader() as connection:
            self._refuse_foreign(connection)
            snapshot = SqliteSnapshot(connection, self._gate, _zone_kept(connection))
            snapshot.begin()
            yield snapshot

    def health(self, patience: float = 20.0) -> Health:
        """Look at a file that is there, for `patience` seconds; nothing is changed.

        Raises:
            StoreError: when there is no file, or none of ours, or it cannot be read.
        """
        with self._translated(), self._reader() as connection, self._gate.inside():
            self._refuse_foreign(connection)
            return health_of(connection, patience)

    def fingerprint_key(self) -> bytes:
        """Read or make `<file>.key`, readable by the owner alone."""
        path = Path(f"{self.path}.key")
        try:
            if not path.exists():
                with self._translated(), self._turns.mine(BUSY_TIMEOUT):
                    if not path.exists():
                        _write_key(path)
            key = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read or make {path}: {error.strerror}") from error
        if len(key) < KEY_BYTES:
            raise StoreError(f"{path} is damaged: remove it to start new key ids")
        return key

    def close(self) -> None:
        """Close the writing connection and the lock file."""
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
        self._gate.open(alone=True)
        self._turns.after_fork_in_child()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with, known to a fork."""
        with self._gate.inside():
            connection = self._connect(read_only=True)
            self._readers.add(connection)
        try:
            yield connection
        finally:
            with self._gate.inside():
                self._readers.discard(connection)
                connection.close()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._turns.close()
        if connection is not None:
            connection.close()

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            timeout=BUSY_TIMEOUT,
            check_same_thread=False,
            isolation_level=None,
            cached_statements=64,
        )
        try:
            if not read_only:
                self._refuse_foreign(connection)
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise StoreError(
                        f"cannot open {self.url}: no write-ahead log here (journal mode {mode}); "
                        "put the file on a local disk"
                    )
                synchronous = "NORMAL" if self._config.durability != "commit" else "FULL"
                connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self) -> sqlite3.Connection:
        """The connection to write with, to a file that has its tables."""
        if self._connection is not None and self._file != _identity(self.path):
            if self.path.exists():
                raise StoreError(
                    f"{self.path} was replaced while it is in use; put the file back that was "
                    "there, or restart the app"
                )
            logger.error("%s was removed while it is in use: a new one is made", self.path)
            self._connection.close()
            self._connection = None
        if self._connection is None:
            connection = self._connect()
            try:
                self._migrate(connection)
                self._zone = self._settle_time_zone(connection)
            except BaseException:
                connection.close()
                raise
            self._inserter.forget_ids()
            self._roller = Roller(self._zone)
            self._file = _identity(self.path)
            self._connection = connection
        return self._connection

    def _refuse_other_files(self) -> None:
        """Leave nothing beside a file that is not ours: look before anything is made.

        Only SQLite may open the file: who closes it by hand gives up all locks that this
        process has on it (https://www.sqlite.org/howtocorrupt.html).
        """
        if self.path.is_file() and self.path.stat().st_size:
            connection = self._connect(read_only=True)
            try:
                self._refuse_foreign(connection)
            finally:
                connection.close()

    def _busy(self) -> str:
        return f"{self.url} is locked by another process for more than {BUSY_TIMEOUT:.0f} s"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database and the system raise into errors that say what to do."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError):
            raise  # one bad record, not the store: the writer leaves it out
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreBusy(self._busy()) from error
            raise StoreError(f"cannot use {self.url}: {_advice(name, error)}") from error

    @contextmanager
    def _translated_for_writing(self) -> Iterator[None]:
        """The same, and what the system raises: locking a file may fail on some disks."""
        try:
            with self._translated():
                yield
        except OSError as error:
            raise StoreError(f"cannot use {self.url}: {error.strerror or error}") from error

    def _refuse_foreign(self, connection: sqlite3.Connection) -> None:
        """Refuse a database of something else before anything in it is changed."""
        steps = migrations()
        tables = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master "
                "WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            )
        ]
        if steps.migrations_table in tables:
            tables.remove(steps.migrations_table)
            if connection.execute(
                f"SELECT 1 FROM {steps.migrations_table} WHERE migration_set = ?",  # noqa: S608
                (steps.name,),
            ).fetchone():
                return
        if tables:
            raise StoreError(
                f"{self.url} is a database of something else (it has a table {tables[0]}); "
                "give costmw a file of its own"
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        from sqlite_utils import Database

        connection.isolation_level = "DEFERRED"  # sqlite-utils manages transactions the default way
        try:
            migrations().apply(Database(connection))
        finally:
            connection.isolation_level = None

    def _settle_time_zone(self, connection: sqlite3.Connection) -> ZoneInfo:
        wanted = self._config.time_zone
        connection.execute(
            "INSERT OR IGNORE INTO settings (key, value) VALUES ('time_zone', ?)",
            (wanted or "UTC",),
        )
        (kept,) = connection.execute(
            "SELECT value FROM settings WHERE key = 'time_zone'"
        ).fetchone()
        if wanted is not None and wanted != kept:
            raise StoreError(
                f"{self.url} counts its days in {kept}, and time_zone asks for {wanted}: a store "
                "keeps the zone that it was made with"
            )
        return zone(kept)


def _zone_kept(connection: sqlite3.Connection) -> ZoneInfo:
    found = connection.execute("SELECT value FROM settings WHERE key = 'time_zone'").fetchone()
    return zone(found[0] if found else "UTC")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells one file from another at the same path; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _write_key(path: Path) -> None:
    """Make a key that is there whole or not at all."""
    new = Path(f"{path}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _advice(name: str, error: Exception) -> str:
    if name.startswith("SQLITE_NOTADB"):
        return "the file is not an SQLite database; move it away or name another file"
    if name.startswith("SQLITE_CANTOPEN"):
        return "the file cannot be opened; it and its directory must be writable by this user"
    if name.startswith("SQLITE_READONLY"):
        return "the file is read-only for this user; give it write permission"
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; free some space"
    if name.startswith("SQLITE_INTERRUPT"):
        return "the question was broken off, since the app forked a process; ask again"
    if name.startswith("SQLITE_CORRUPT"):
        return "the file is damaged; restore a backup or move it away"
    return str(error)
