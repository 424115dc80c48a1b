"""The SQLite store: one file, write-ahead log, every commit on disk.

Several processes of one host may write to one file. A lock file beside it makes
them take turns: SQLite's own busy handler starves one of four writers for seconds,
an exclusive `flock` round each transaction keeps them even.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from costmw.config import Config, zone
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Amendment, Outcome, Price, Record, UsageEvent
from costmw.store.migrations import migrations
from costmw.store.sqlite_read import SqliteSnapshot, micros

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: SQLite's busy handler has to do
    fcntl = None  # type: ignore[assignment]

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process that holds the database."""

INTERNED_AT_MOST = 50_000
"""Tag sets and prices that a process remembers the ids of."""

_INSERT_EVENT = """
INSERT OR IGNORE INTO usage_events (
    id, created_at, request_id, first_in_request, operation, api, provider,
    request_model, response_model, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens,
    usage_detail, cost_pico_usd, price_id, status, reason, latency_ms,
    time_to_first_chunk_ms, tag_set_id, api_key_id, response_id, trace_id
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
"""

_INSERT_AMENDMENT = """
INSERT OR IGNORE INTO amendments (
    id, event_id, amended_at, reason, status, price_id, cost_pico_usd,
    estimated_cost_pico_usd, unpriced, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
"""

_COUNT_OUTCOME = """
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT DO UPDATE SET count = count + 1
"""


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
        self.forget_connections()
        self._tag_sets: dict[bytes, int] = {}
        self._prices: dict[bytes, int] = {}

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
                    self._insert(connection, record)
                connection.execute("COMMIT")
            except BaseException:
                # Ids handed out in a transaction that is undone must not be remembered.
                self._tag_sets.clear()
                self._prices.clear()
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
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) >= 32:
                return key
            raise StoreError(f"{path} is damaged: remove it to start new key ids") from None
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror}") from error
        with os.fdopen(handle, "wb") as file:
            file.write(key := secrets.token_bytes(32))
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
        self._connection: sqlite3.Connection | None = None
        self._lock_file: int | None = None
        # A flock belongs to the open file, so it keeps processes apart and not threads.
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
            if fcntl is None:
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

        connection.isolation_level = ""  # sqlite-utils manages transactions the default way
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

    def _insert(self, connection: sqlite3.Connection, record: Record) -> None:
        match record:
            case UsageEvent():
                connection.execute(_INSERT_EVENT, self._event_row(connection, record))
            case Amendment():
                connection.execute(_INSERT_AMENDMENT, self._amendment_row(connection, record))
            case Outcome():
                connection.execute(
                    _COUNT_OUTCOME,
                    (
                        int(record.at.timestamp()) // 3600,
                        record.kind,
                        record.provider or "",
                        record.model or "",
                        self._tag_set(connection, record.tags),
                    ),
                )

    def _event_row(self, connection: sqlite3.Connection, event: UsageEvent) -> tuple[Any, ...]:
        usage = event.usage
        return (
            event.id.bytes,
            micros(event.created_at),
            event.request_id.bytes if event.request_id else None,
            event.first_in_request,
            event.operation,
            event.api,
            event.provider,
            event.request_model,
            event.response_model,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_write_input_tokens,
            usage.reasoning_output_tokens,
            _json(usage.detail) if usage.detail else None,
            event.price.cost_pico_usd,
            self._price(connection, event.price),
            event.status,
            event.reason,
            event.latency_ms,
            event.time_to_first_chunk_ms,
            self._tag_set(connection, event.tags),
            event.api_key_id,
            event.response_id,
            event.trace_id,
        )

    def _amendment_row(
        self, connection: sqlite3.Connection, amendment: Amendment
    ) -> tuple[Any, ...]:
        return (
            amendment.id.bytes,
            amendment.event_id.bytes,
            micros(amendment.at),
            amendment.reason,
            amendment.status,
            self._price(connection, amendment.price) if amendment.price else None,
            amendment.cost_pico_usd,
            amendment.estimated_cost_pico_usd,
            amendment.unpriced,
            amendment.input_tokens,
            amendment.output_tokens,
            amendment.cache_read_input_tokens,
            amendment.cache_write_input_tokens,
            amendment.reasoning_output_tokens,
        )

    def _tag_set(self, connection: sqlite3.Connection, tags: Mapping[str, str]) -> int:
        text = _json(tags)
        digest = _digest(text)
        known = self._tag_sets.get(digest)
        if known is None:
            known, new = _intern(connection, "tag_sets", digest, {"tags": text})
            if new:
                connection.executemany(
                    "INSERT INTO tags (tag_set_id, key, value) VALUES (?, ?, ?)",
                    [(known, key, value) for key, value in tags.items()],
                )
            _remember(self._tag_sets, digest, known)
        return known

    def _price(self, connection: sqlite3.Connection, price: Price) -> int:
        units = _json(price.units)
        digest = _digest(price.source, price.ref or "", units)
        known = self._prices.get(digest)
        if known is None:
            row = {"source": price.source, "ref": price.ref, "units": units}
            known, _ = _intern(connection, "prices", digest, row)
            _remember(self._prices, digest, known)
        return known


def _intern(
    connection: sqlite3.Connection, table: str, digest: bytes, row: Mapping[str, str | None]
) -> tuple[int, bool]:
    """Give the id of the row with this digest, and whether it is new."""
    found = connection.execute(f"SELECT id FROM {table} WHERE digest = ?", (digest,)).fetchone()  # noqa: S608 - our own names
    if found:
        return found[0], False
    cursor = connection.execute(
        f"INSERT INTO {table} (digest, {', '.join(row)}) "  # noqa: S608 - our own names
        f"VALUES (?{', ?' * len(row)})",
        (digest, *row.values()),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, True


def _remember(cache: dict[bytes, int], digest: bytes, row_id: int) -> None:
    if len(cache) >= INTERNED_AT_MOST:
        cache.clear()
    cache[digest] = row_id


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()


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
