"""Connections that read from Postgres: a pool of a few, which survives forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from costmw.errors import StoreBusy
from costmw.store.fork_gate import ForkGate
from costmw.store.postgres_errors import translated

READERS = 8
"""Connections to read with, at most; they are made when they are needed."""

READER_PATIENCE = 2.0
"""Seconds to wait for one of them."""

FORK_PATIENCE = 2.0
"""Seconds that a fork waits for a question before it breaks it off."""


class Readers:
    """Lends connections to whoever asks; made without any I/O.

    `connect` makes a connection, and says why that fails; `configure` prepares one of the
    pool's.
    """

    def __init__(
        self,
        conninfo: str,
        shown: str,
        connect: Callable[[], psycopg.Connection],
        configure: Callable[[psycopg.Connection], None],
    ) -> None:
        self.gate = ForkGate()
        self._conninfo = conninfo
        self._shown = shown
        self._connect = connect
        self._configure = configure
        self._pool: ConnectionPool[psycopg.Connection] | None = None
        self._lock = threading.Lock()
        self._lent: set[psycopg.Connection] = set()
        self._inherited: list[object] = []

    @contextmanager
    def one(self) -> Iterator[psycopg.Connection]:
        """A connection to read with, known to a fork."""
        pool = self._opened()
        with translated(self._shown):
            try:
                connection = pool.getconn(READER_PATIENCE)
            except PoolTimeout:
                # It does not say why: whoever connects is told.
                self._connect().close()
                raise StoreBusy(
                    f"{self._shown}: all {READERS} connections to read with are in use"
                ) from None
        self._lent.add(connection)
        try:
            yield connection
        finally:
            self._lent.discard(connection)
            if connection not in self._inherited:
                with suppress(psycopg.Error), self.gate.inside():
                    connection.rollback()
                pool.putconn(connection)

    def close(self) -> None:
        """Close all that nobody uses."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def before_fork(self) -> None:
        """Wait for their statements, and close those that are not lent."""
        self._lock.acquire()
        if not self.gate.shut(FORK_PATIENCE):
            for connection in list(self._lent):
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=FORK_PATIENCE)
            self.gate.await_empty(FORK_PATIENCE)
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(timeout=FORK_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.gate.open()
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, without the parent's connections.

        Closing one here would say goodbye to the server in the parent's name: its socket
        becomes another file first, and it is never closed.
        """
        for connection in self._lent:
            _sever(connection)
        self._inherited.extend(self._lent)
        self._lent = set()
        self.gate.open(alone=True)
        self._lock = threading.Lock()

    def _opened(self) -> ConnectionPool[psycopg.Connection]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    self._conninfo,
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


def _sever(connection: psycopg.Connection) -> None:
    with suppress(OSError, psycopg.Error), Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), connection.fileno())
