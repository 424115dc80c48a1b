"""Opening an SQLite file as a ledger: nothing of others is touched, tables are made."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.config import zone
from costmw.errors import StoreError
from costmw.store.migrations import migrations

LOG_KEPT = 16 * 1024**2
"""Bytes of the write-ahead log that are kept; a question that runs for long makes it grow."""

PAGES_IN_LOG = 3_000
"""Pages, 12 MB of them, after which the log is written to the file: each that often once."""

MADE_AT = "made_at"
"""The setting that says when a file was made, in microseconds since 1970."""


def connect(path: Path, mode: Literal["ro", "rwc"], timeout: float) -> sqlite3.Connection:
    """Connect to a file, without any check."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout,
        check_same_thread=False,
        isolation_level=None,
        cached_statements=64,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare_to_write(connection: sqlite3.Connection, url: str, *, full: bool) -> None:
    """Have commits go to a write-ahead log, and with `full` to the disk.

    Only who has the turn writes, and so checkpoints: SQLite does that in a commit, and
    as the last connection to a file is closed. Versions 3.7.0 to 3.51.2 but 3.44.6 and
    3.50.7 may damage a file where one writes while another checkpoints.

    Raises:
        StoreError: when there can be no such log.
    """
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"cannot open {url}: no write-ahead log here (journal mode {mode}); "
            "put the file on a local disk"
        )
    connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {PAGES_IN_LOG}")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT}")


def refuse_foreign(connection: sqlite3.Connection, url: str) -> None:
    """Refuse a database of something else before anything in it is changed.

    Raises:
        StoreError: when it is one.
    """
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
            f"{url} is a database of something else (it has a table {tables[0]}); "
            "give costmw a file of its own"
        )


def make_tables(connection: sqlite3.Connection) -> bool:
    """Bring the tables up to date; gives whether there were none."""
    from sqlite_utils import Database

    is_new = not connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    connection.isolation_level = "DEFERRED"  # sqlite-utils manages transactions the default way
    try:
        migrations().apply(Database(connection))
    finally:
        connection.isolation_level = None
    if is_new:
        connection.execute(
            "INSERT OR IGNORE INTO settings (key, value) VALUES (?, ?)",
            (MADE_AT, str(time.time_ns() // 1_000)),
        )
    return is_new


def made_at(connection: sqlite3.Connection) -> int:
    """When the file was made; 0 when it does not say."""
    found = connection.execute("SELECT value FROM settings WHERE key = ?", (MADE_AT,)).fetchone()
    return int(found[0]) if found else 0


def settle_time_zone(
    connection: sqlite3.Connection, url: str, wanted: str | None, usual: str = "UTC"
) -> ZoneInfo:
    """Give a file the zone that is wanted, or else the usual one; or keep the one that it has.

    Raises:
        StoreError: when it has another.
    """
    connection.execute(
        "INSERT OR IGNORE INTO settings (key, value) VALUES ('time_zone', ?)", (wanted or usual,)
    )
    kept = zone_kept(connection)
    if wanted is not None and wanted != kept.key:
        raise StoreError(
            f"{url} counts its days in {kept}, and time_zone asks for {wanted}: a store "
            "keeps the zone that it was made with"
        )
    return kept


def zone_kept(connection: sqlite3.Connection) -> ZoneInfo:
    """The time zone of a file."""
    found = connection.execute("SELECT value FROM settings WHERE key = 'time_zone'").fetchone()
    return zone(found[0] if found else "UTC")
