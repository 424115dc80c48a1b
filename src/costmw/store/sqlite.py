"""The SQLite store: one file, write-ahead log, every commit on disk.

Several processes of one host may write to one file. A lock file beside it makes
them take turns: SQLite's own busy handler starves one of four writers for seconds,
an exclusive `flock` round each transaction keeps them even.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from costmw.config import Config, zone
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Record
from costmw.store.migrations import migrations
from costmw.store.sqlite_read import SqliteSnapshot
from costmw.store.sqlite_write import RecordInserter

if sys.platform != "win32":
    import fcntl

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process that holds the database."""

KEY_BYTES = 32
"""Length of the secret that API keys are fingerprinted with."""


def path_of(url: str) -> Path:
    """The file of a URL such as `sqlite:///llmcost.db` or `sqlite:////var/lib/llmcost.db`.

    Three slashes stand before a relative path, four before an absolute one.

    Raises:
        ConfigError: when it is not such a URL.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2 or parts.query:
        raise ConfigError(
            f"store is {url!r}; use 'sqlite:///llmcost.db' for a file in the working directory "
            "or 'sqlite:////absolute/path/llmcost.db'"
        )
    return Path(unquote(parts.path[1:]))


class SqliteStore:
    """Keeps the ledger in one SQLite file; made without any I/O."""

    def __init__(self, url: str, config: Config) -> None:
        self.url = url
        # A relative path means the directory that the app was started in, for good.
        self.path = path_of(url).absolute()
        self._config = config
        self._zone: ZoneInfo | None = None
        self._connection: sqlite3.Connection | None = None
        self._lock_file: int | None = None
        # A flock belongs to the open file: it keeps processes apart, and not threads.
        self._turn = threading.Lock()
        self._inserter = RecordInserter()

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
        with self._translated(), self._exclusive():
            connection = self._connected()
            self._migrate(connection)
            self._zone = self._settle_time_zone(connection)

    def write(self, records: Sequence[Record]) -> None:
        """Commit records in one transaction; see `Store.write`."""
        with self._translated(), self._exclusive():
            connection = self._connected()
            if self._zone is None:
                self._migrate(connection)
                self._zone = self._settle_time_zone(connection)
            connection.execute("BEGIN IMMEDIATE")
            try:
                for record in records:
                    self._inserter.insert(connection, record)
                connection.execute("COMMIT")
            except BaseException:
                self._inserter.forget_ids()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[SqliteSnapshot]:
        """Open a consistent view on a connection of its own; see `Store.snapshot`."""
        with self._translated():
            if self._zone is None:
                self.open()
            connection = self._connect(read_only=True)
            try:
                connection.execute("BEGIN")
                yield SqliteSnapshot(connection)
            finally:
                connection.close()

    def fingerprint_key(self) -> bytes:
        """Read or make `<file>.key`, readable by the owner alone."""
        path = Path(f"{self.path}.key")
        with self._translated(), self._exclusive():
            if not path.exists():
                unfinished = Path(f"{path}.new")
                unfinished.unlink(missing_ok=True)
                handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(secrets.token_bytes(KEY_BYTES))
                unfinished.rename(path)
            key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StoreError(f"{path} is damaged: remove it, and key ids start anew")
        return key

    def close(self) -> None:
        """Close the writing connection and the lock file."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def forget_connections(self) -> None:
        """Start without a connection: the writer closed it before the fork."""
        self._connection = None
        self._lock_file = None
        self._turn = threading.Lock()

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
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._turn:
            if sys.platform == "win32":  # SQLite's busy handler has to do
                yield
                return
            if self._lock_file is None:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                self._lock_file = os.open(f"{self.path}.lock", flags, 0o644)
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what the database and the system raise into errors that say what to do."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # one bad record, not the store: the writer leaves it out
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreBusy(
                    f"{self.url} is locked by another process for more than {BUSY_TIMEOUT:.0f} s"
                ) from error
            raise StoreError(f"cannot use {self.url}: {_advice(name, error)}") from error
        except OSError as error:
            raise StoreError(
                f"cannot open {self.url}: {error.strerror}; the directory {self.path.parent} "
                "must be writable by this user"
            ) from error

    def _migrate(self, connection: sqlite3.Connection) -> None:
        steps = migrations()
        if not connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = ?", (steps.migrations_table,)
        ).fetchone():
            tables = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1"
            ).fetchone()
            if tables:
                raise StoreError(
                    f"{self.url} is a database of something else (it has a table {tables[0]}); "
                    "give costmw a file of its own"
                )
        from sqlite_utils import Database

        connection.isolation_level = "DEFERRED"  # sqlite-utils manages transactions the default way
        try:
            steps.apply(Database(connection))
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


def _advice(name: str, error: Exception) -> str:
    if name.startswith("SQLITE_NOTADB"):
        return "the file is not an SQLite database; move it away or name another file"
    if name.startswith("SQLITE_CANTOPEN"):
        return "the file cannot be opened; it and its directory must be writable by this user"
    if name.startswith("SQLITE_READONLY"):
        return "the file is read-only for this user; give it write permission"
    if name.startswith("SQLITE_FULL"):
        return "the disk is full; free some space"
    if name.startswith("SQLITE_CORRUPT"):
        return "the file is damaged; restore a backup or move it away"
    return str(error)
