"""The Postgres store: one schema of a database, written to by any number of hosts.

Writers of all hosts take turns at one row: every event counts in the same cells of the
rollups, so that they would wait for each other anyway, and some of them for ever.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from costmw.config import Config, zone
from costmw.errors import MissingExtra, StoreBusy, StoreError
from costmw.events import Record
from costmw.periods import midnight, next_month
from costmw.store.fork_gate import ForkGate
from costmw.store.outbox_file import DeadLetter

try:
    import psycopg
    from psycopg_pool import ConnectionPool, PoolTimeout
except ImportError as error:
    raise MissingExtra(package="psycopg", extra="postgres") from error

from costmw.store.postgres_errors import TRY_AGAIN, translated
from costmw.store.postgres_partitions import drop, made, take_turn
from costmw.store.postgres_read import PRUNED, PostgresSnapshot
from costmw.store.postgres_schema import migrate
from costmw.store.postgres_sql import storable
from costmw.store.postgres_url import address_of
from costmw.store.postgres_watch import Watch
from costmw.store.postgres_write import BatchWriter

WRITE_PATIENCE = 30.0
"""Seconds that a transaction may take, server and network together."""

READERS = 8
"""Connections to read with, at most; they are made when they are needed."""

READER_PATIENCE = 2.0
"""Seconds to wait for one of them."""

FORK_PATIENCE = 2.0
"""Seconds that a fork waits for a question before it breaks it off."""

TRIES = 3
"""How often a transaction is tried that others have got in the way of."""

SUBMISSIONS_KEPT_DAYS = 90
OUTCOME_IDS_KEPT_DAYS = 30

KEY_BYTES = 32
"""Length of the secret that API keys are fingerprinted with."""

_SESSION = (
    "SET search_path = {schema}; SET timezone = 'UTC'; SET jit = off; "
    # Nearly all that is looked at is in memory.
    "SET random_page_cost = 1.1; "
    "SET lock_timeout = '10s'; SET statement_timeout = '60s'; "
    # A host that stops in the middle of a transaction does not keep the others out for ever.
    "SET idle_in_transaction_session_timeout = '{idle}s'"
)


class PostgresStore:
    """Keeps the ledger in one schema of a Postgres database; made without any I/O."""

    def __init__(self, url: str, config: Config) -> None:
        self._address = address_of(url)
        self.url = self._address.shown
        """The URL without its secrets."""
        self._config = config
        self._zone: ZoneInfo | None = None
        self._connection: psycopg.Connection | None = None
        self._writer: BatchWriter | None = None
        self._turn = threading.Lock()
        self._watch = Watch()
        self._gate = ForkGate()
        self._pool: ConnectionPool[psycopg.Connection] | None = None
        self._pool_lock = threading.Lock()
        self._reading: set[psycopg.Connection] = set()
        self._inherited: list[object] = []

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone, once the store is open."""
        return self._zone or zone(self._config.time_zone or "UTC")

    def open(self) -> None:
        """Make or check the schema and its tables; see `Store.open`."""
        with self._writing() as (connection, writer):
            connection.execute(
                "DELETE FROM submissions WHERE created_at < now() - make_interval(days => $1)",
                (SUBMISSIONS_KEPT_DAYS,),
            )
            connection.execute(
                "DELETE FROM counted_outcomes WHERE counted_at < now() - make_interval(days => $1)",
                (OUTCOME_IDS_KEPT_DAYS,),
            )
            writer.partitions.make_for(connection, ())

    def write(self, records: Sequence[Record], *, patience: float | None = None) -> None:
        """Commit records in one transaction, within `patience` seconds; see `Store.write`."""
        if not records:
            return
        for left in reversed(range(TRIES)):
            try:
                with self._writing(patience) as (connection, writer):
                    try:
                        writer.write(connection, records)
                    except TRY_AGAIN as error:
                        raise _GotInTheWay from error
            except _GotInTheWay as error:
                if not left:
                    raise StoreBusy(f"{self.url}: others are always quicker") from error.__cause__
            else:
                return

    def roll_up(self, limit: int) -> int:
        """Nothing is left to do: the rollups change with the rows."""
        return 0

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSnapshot]:
        """Open a consistent view on a connection of its own; see `Store.snapshot`."""
        if self._zone is None:
            self.open()
        with self._reader() as connection:
            snapshot = PostgresSnapshot(connection, self._gate, self.time_zone, self.url)
            snapshot.begin()
            yield snapshot

    def prune(self, before: datetime) -> int:
        """Drop the rows of whole months before a moment; the rollups keep their sums for ever.

        Gives the number of rows. A month is dropped with its partition, at once.

        Raises:
            StoreBusy: when someone reads for too long; try again.
        """
        dropped = 0
        with self._writing() as (connection, writer):
            for month in made(connection):
                stop = midnight(next_month(month), self.time_zone)
                if stop > before:
                    break
                with connection.transaction():
                    take_turn(connection)
                    dropped += drop(connection, month)
                    connection.execute(
                        "INSERT INTO settings (key, value) VALUES ($1, $2) "
                        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        (PRUNED, stop.isoformat()),
                    )
            writer.partitions.load(connection)
        return dropped

    def fingerprint_key(self) -> bytes:
        """Read or make the key; it lies in the database, so that all hosts have the same."""
        with self._writing() as (connection, _):
            connection.execute(
                "INSERT INTO settings (key, value) VALUES ('fingerprint_key', $1) "
                "ON CONFLICT (key) DO NOTHING",
                (secrets.token_hex(KEY_BYTES),),
            )
            key = _setting(connection, "fingerprint_key")
        try:
            found = bytes.fromhex(key)
        except ValueError:
            found = b""
        if len(found) < KEY_BYTES:
            raise StoreError(
                f"the fingerprint_key in the settings of {self.url} is damaged: delete it to start "
                "new key ids"
            )
        return found

    def bury(self, letter: DeadLetter) -> None:
        """Keep a copy of a record that cannot be stored."""
        reason = storable(letter.reason).encode("utf-8", "replace").decode()
        with self._writing() as (connection, _):
            connection.execute(
                "INSERT INTO dead_letters (id, kind, record, reason, failed_at) "
                "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                (letter.id, letter.kind, letter.record, reason, letter.failed_at),
            )

    def close(self) -> None:
        """Close all connections that nobody uses."""
        with self._turn:
            self._disconnect()
        self._close_pool()

    def before_fork(self) -> None:
        """Close the connection that writes, and wait for the statements of those that read."""
        self._turn.acquire()
        self._pool_lock.acquire()
        if not self._gate.shut(FORK_PATIENCE):
            for connection in list(self._reading):
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=FORK_PATIENCE)
            self._gate.await_empty(FORK_PATIENCE)
        self._disconnect()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=FORK_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._gate.open()
        self._pool_lock.release()
        self._turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, without the parent's connections.

        Closing one here would say goodbye to the server in the parent's name: its socket
        becomes another file first, and it is never closed.
        """
        for connection in self._reading:
            _sever(connection)
        self._inherited.extend(self._reading)
        self._reading = set()
        self._gate.open(alone=True)
        self._watch.after_fork_in_child()
        self._pool_lock = threading.Lock()
        self._turn = threading.Lock()

    @contextmanager
    def _writing(
        self, patience: float | None = None
    ) -> Iterator[tuple[psycopg.Connection, BatchWriter]]:
        """The connection to write with, for one thread at a time.

        When anything goes wrong its transaction is undone, and ids that were handed out in
        it are forgotten.
        """
        with self._turn, translated(self.url):
            connection, writer = self._connected()
            try:
                with self._watch.limit(connection, patience or WRITE_PATIENCE):
                    yield connection, writer
            except BaseException:
                writer.forget_ids()
                self._undo(connection)
                raise

    def _connected(self) -> tuple[psycopg.Connection, BatchWriter]:
        if self._connection is not None and self._connection.closed:
            self._disconnect()
        if self._connection is None or self._writer is None:
            connection = self._connect()
            try:
                with self._watch.limit(connection, WRITE_PATIENCE):
                    _refuse_other_encodings(connection, self.url)
                    migrate(connection, self._address.schema, self.url)
                    self._zone = self._settle_time_zone(connection)
                    writer = BatchWriter(self._zone)
                    writer.partitions.load(connection)
            except BaseException:
                connection.close()
                raise
            # Whatever was remembered may be of a database that was restored since.
            self._connection, self._writer = connection, writer
        return self._connection, self._writer

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.Connection.connect(
            self._address.conninfo, autocommit=True, cursor_factory=psycopg.RawCursor
        )
        try:
            self._configure(connection, idle=10)
            if self._config.durability != "commit":
                connection.execute("SET synchronous_commit = off")
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: psycopg.Connection, idle: int = 60) -> None:
        connection.execute(_SESSION.format(schema=self._address.schema, idle=idle))

    def _undo(self, connection: psycopg.Connection) -> None:
        try:
            if not connection.closed:
                connection.rollback()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._writer = None
        if connection is not None:
            connection.close()

    @contextmanager
    def _reader(self) -> Iterator[psycopg.Connection]:
        """A connection to read with, known to a fork."""
        pool = self._reader_pool()
        with translated(self.url):
            try:
                connection = pool.getconn(READER_PATIENCE)
            except PoolTimeout:
                # It does not say why: whoever connects is told.
                self._connect().close()
                raise StoreBusy(
                    f"{self.url}: all {READERS} connections to read with are in use"
                ) from None
        self._reading.add(connection)
        try:
            yield connection
        finally:
            self._reading.discard(connection)
            if connection not in self._inherited:
                with suppress(psycopg.Error), self._gate.inside():
                    connection.rollback()
                pool.putconn(connection)

    def _reader_pool(self) -> ConnectionPool[psycopg.Connection]:
        with self._pool_lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._address.conninfo,
                    kwargs={"autocommit": True, "cursor_factory": psycopg.RawCursor},
                    min_size=0,
                    max_size=READERS,
                    num_workers=1,
                    max_idle=60,
                    reconnect_timeout=5,
                    timeout=READER_PATIENCE,
                    configure=self._configure,
                    check=ConnectionPool.check_connection,
                    name="costmw",
                    open=True,
                )
            return self._pool

    def _close_pool(self) -> None:
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _settle_time_zone(self, connection: psycopg.Connection) -> ZoneInfo:
        wanted = self._config.time_zone
        kept = _setting(connection, "time_zone")
        if not kept:
            connection.execute(
                "INSERT INTO settings (key, value) VALUES ('time_zone', $1) "
                "ON CONFLICT (key) DO NOTHING",
                (wanted or "UTC",),
            )
            kept = _setting(connection, "time_zone")
        if wanted is not None and wanted != kept:
            raise StoreError(
                f"{self.url} counts its days in {kept}, and time_zone asks for {wanted}: a store "
                "keeps the zone that it was made with"
            )
        return zone(kept)


class _GotInTheWay(Exception):
    """Another transaction did; the same again may succeed."""


def _setting(connection: psycopg.Connection, key: str) -> str:
    row = connection.execute("SELECT value FROM settings WHERE key = $1", (key,)).fetchone()
    return str(row[0]) if row else ""


def _refuse_other_encodings(connection: psycopg.Connection, shown: str) -> None:
    row = connection.execute("SHOW server_encoding").fetchone()
    if row != ("UTF8",):
        raise StoreError(
            f"the database of {shown} is encoded in {row and row[0]}, which cannot hold every tag; "
            "make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _sever(connection: psycopg.Connection) -> None:
    with suppress(OSError, psycopg.Error), Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), connection.fileno())
