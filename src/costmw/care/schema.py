"""Which migrations a ledger has had, and which it lacks; looked at without changing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

from costmw.care.opening import Ledger
from costmw.errors import ConfigError, StoreError
from costmw.store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Schema:
    """The migrations of a ledger by name: had, still to come, and those of a newer costmw."""

    done: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    @classmethod
    def of(cls, ours: Iterable[str], done: Iterable[str]) -> Schema:
        """Compare the migrations of this version with those of a ledger."""
        known, had = list(ours), set(done)
        return cls(
            tuple(name for name in known if name in had),
            tuple(name for name in known if name not in had),
            tuple(sorted(had.difference(known))),
        )


def schema_of(ledger: Ledger, url: str) -> Schema:
    """Look at a ledger; `url` is its own, with all that is needed to connect.

    Raises:
        StoreError: when it cannot be read.
    """
    if isinstance(ledger, SqliteStore):
        return _of_sqlite(ledger)
    return _of_postgres(url)


def _of_sqlite(store: SqliteStore) -> Schema:
    from sqlite_utils import Database

    from costmw.store.migrations import migrations
    from costmw.store.sqlite_open import connect, refuse_foreign

    steps = migrations()
    with closing(sqlite3.connect(":memory:")) as empty:
        ours = [step.name for step in steps.pending(Database(empty))]
    try:
        with closing(connect(store.path, "ro", 10.0)) as connection:
            refuse_foreign(connection, store.url)
            done = [step.name for step in steps.applied(Database(connection))]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"cannot read {store.url}: {error}") from error
    return Schema.of(ours, done)


def _of_postgres(url: str) -> Schema:
    import psycopg

    from costmw.store.postgres_schema import MIGRATIONS, applied_steps
    from costmw.store.postgres_url import address_of

    if not url:
        raise ConfigError("name the store, or set COSTMW_STORE")
    address = address_of(url)
    try:
        with psycopg.Connection.connect(
            address.conninfo, autocommit=True, cursor_factory=psycopg.RawCursor
        ) as connection:
            connection.execute(f"SET search_path = {address.schema}".encode())
            return Schema.of(MIGRATIONS, applied_steps(connection, address.schema))
    except psycopg.Error as error:
        raise StoreError(f"cannot read {address.shown}: {error}") from error
