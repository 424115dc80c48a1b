"""The ledger that a run breaks, and what is in it afterwards: one class a database."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol


class Ledger(Protocol):
    """Where workers write to."""

    url: str
    path: Path
    """Its file, if it is one; other files of a run may lie beside it."""

    def look_into(self) -> tuple[Sequence[bytes], str]:
        """The ids of its rows, each as often as it is there, and whether it is sound."""

    def differences(self) -> int:
        """How many cells of the rollups the rows do not bear out."""


class SqliteLedger:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"

    def look_into(self) -> tuple[Sequence[bytes], str]:
        """The ids in a copy of the file, and what its integrity check says; it stays as it is."""
        with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
            copy = Path(folder, self.path.name)
            shutil.copyfile(self.path, copy)
            if (log := Path(f"{self.path}-wal")).exists():
                shutil.copyfile(log, f"{copy}-wal")
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                try:
                    integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
                    if not connection.execute("PRAGMA table_info(usage_events)").fetchall():
                        return [], integrity  # even the tables were not on disk yet
                    # Not by the index, which would find each id once.
                    rows = connection.execute("SELECT id FROM usage_events NOT INDEXED")
                    return [row[0] for row in rows], integrity
                except sqlite3.DatabaseError as error:
                    return [], str(error)

    def differences(self) -> int:
        """Roll up all there is first."""
        from costmw import Config
        from costmw.store.sqlite import SqliteStore

        store = SqliteStore(self.url, Config())
        try:
            store.open()
            while store.roll_up(5_000):
                pass
            return len(store.verify())
        finally:
            store.close()


class PostgresLedger:
    """A schema of a server of its own, and the outbox of its one host."""

    def __init__(self, url: str, path: Path) -> None:
        self.url = url
        self.path = path

    @property
    def outbox(self) -> Path:
        """Where records wait while the server is away."""
        return self.path.parent / "outbox.db"

    def look_into(self) -> tuple[Sequence[bytes], str]:
        """Once nothing waits any more."""
        import psycopg

        from costmw.store.outbox_file import OutboxFile
        from costmw.store.postgres_url import address_of

        file = OutboxFile(self.outbox, "")
        with contextlib.closing(file):
            waiting, dead = file.count(), len(file.dead_letters()) if self.outbox.exists() else 0
        address = address_of(self.url)
        with psycopg.connect(address.conninfo) as connection:
            rows = connection.execute(f"SELECT id FROM {address.schema}.usage_events").fetchall()
        unsound = f"{waiting} wait, {dead} are dead letters"
        return [row[0].bytes for row in rows], unsound if waiting or dead else "ok"

    def differences(self) -> int:
        """As it is."""
        from costmw import Config
        from costmw.store.postgres import PostgresStore

        with contextlib.closing(PostgresStore(self.url, Config())) as store:
            return len(store.verify())

    def drained(self, timeout: float = 60.0) -> bool:
        """Let the host send what waits; gives whether nothing does any more."""
        from costmw import Config
        from costmw.store.layers import open_store

        deadline = time.monotonic() + timeout
        with contextlib.closing(open_store(self.url, Config(outbox=self.outbox))) as store:
            store.open()
            while (waiting := store.waiting()) and time.monotonic() < deadline:  # type: ignore[attr-defined]
                time.sleep(0.05)
        return not waiting


@contextlib.contextmanager
def ledger_of(store: str, folder: Path) -> Iterator[Ledger]:
    """An empty ledger; `store` is sqlite or postgres."""
    path = folder / "llmcost.db"
    if store == "sqlite":
        yield SqliteLedger(path)
        return
    from benchmarks.postgres_server import running

    with running("fsync=off", "full_page_writes=off") as server:
        yield PostgresLedger(server.url("faults"), path)
