"""The outbox's file: records that wait on this host for a database that is away.

One SQLite file for all processes of the host, with every commit on disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from costmw.errors import StoreBusy, StoreError
from costmw.events import Record, new_id
from costmw.store.record_json import encode, retagged
from costmw.store.turns import Turns

logger = logging.getLogger("costmw")

LARGEST_BYTES = 2 * 1024**3
"""Beyond it records wait in memory, as they do when the disk is full."""

_PAGE = 4096
_BUSY_TIMEOUT = 10.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,            -- event, amendment, submission, outcome
    record TEXT NOT NULL,          -- JSON
    added_at TEXT NOT NULL
) STRICT;

-- Records that the database refuses for what is in them; `told`: it has a copy.
CREATE TABLE IF NOT EXISTS dead_letters (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    record TEXT NOT NULL,
    reason TEXT NOT NULL,
    failed_at TEXT NOT NULL,
    told INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE IF NOT EXISTS settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record that waits, by its position."""

    seq: int
    kind: str
    record: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that the database refuses, and why."""

    id: str
    kind: str
    record: str
    reason: str
    failed_at: str


def usual_path(shown: str) -> Path:
    """Where the outbox of a store is when nobody says: in the user's state directory.

    `shown` is the store's URL without its password, which may change.
    """
    name = f"outbox-{hashlib.blake2b(shown.encode(), digest_size=8).hexdigest()}.db"
    state = os.environ.get("XDG_STATE_HOME")
    try:
        folder = Path(state) if state else Path.home() / ".local" / "state"
        (folder / "costmw").mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or none to write to
        folder = Path(tempfile.gettempdir(), f"costmw-{os.getuid() if _HAS_USERS else 'state'}")
        return folder / name
    return folder / "costmw" / name


_HAS_USERS = sys.platform != "win32"


class OutboxFile:
    """Appends records and takes them away again; made without any I/O."""

    def __init__(self, path: Path | None, shown: str) -> None:
        self._path = path
        self._is_usual = path is None
        self._shown = shown
        self._connection: sqlite3.Connection | None = None
        self._known_turns: Turns | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        if self._path is None:
            self._path = usual_path(self._shown)
        return self._path

    @property
    def _turns(self) -> Turns:
        if self._known_turns is None:
            self._known_turns = Turns(Path(f"{self.path}.lock"), self._make)
        return self._known_turns

    def prepare(self) -> None:
        """Make it, so that it is known to be usable when it is needed.

        Raises:
            StoreError: when it is not.
        """
        with self._transaction():
            pass

    def append(self, records: Sequence[Record]) -> None:
        """Commit records behind those that wait; on disk when it returns.

        Raises:
            StoreError: when the file cannot be written to.
        """
        now = datetime.now(UTC).isoformat()
        rows = [(*encode(record), now) for record in records]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO outbox (kind, record, added_at) VALUES (?, ?, ?)", rows
            )

    def is_empty(self) -> bool:
        """Whether nothing waits; does not make the file.

        Raises:
            StoreError: when the file cannot be read.
        """
        if self._connection is None and not self.path.exists():
            return True
        with self._translated(), self._turns.of_this_process():
            row = self._opened().execute("SELECT 1 FROM outbox LIMIT 1").fetchone()
        return row is None

    def count(self) -> int:
        """How many wait."""
        if self._connection is None and not self.path.exists():
            return 0
        with self._translated(), self._turns.of_this_process():
            (count,) = self._opened().execute("SELECT count(*) FROM outbox").fetchone()
        return int(count)

    def head(self, limit: int) -> list[Waiting]:
        """Those that wait longest, in their order."""
        with self._translated(), self._turns.of_this_process():
            rows = self._opened().execute(
                "SELECT seq, kind, record FROM outbox ORDER BY seq LIMIT ?", (limit,)
            )
            return [Waiting(*row) for row in rows.fetchall()]

    def remove(self, sent: Sequence[Waiting]) -> None:
        """Take away what the database has."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM outbox WHERE seq = ?", [(w.seq,) for w in sent])

    def bury(self, kind: str, record: str, reason: str, seq: int | None = None) -> None:
        """Keep a record that the database refuses; it waits no more."""
        letter = (str(new_id()), kind, record, reason, datetime.now(UTC).isoformat())
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO dead_letters (id, kind, record, reason, failed_at) "
                "VALUES (?, ?, ?, ?, ?)",
                letter,
            )
            connection.execute("DELETE FROM outbox WHERE seq = ?", (seq,))

    def dead_letters(self, *, untold: bool = False) -> list[DeadLetter]:
        """Those that were refused, oldest first; `untold`: that the database has no copy of."""
        with self._translated(), self._turns.of_this_process():
            rows = self._opened().execute(
                "SELECT id, kind, record, reason, failed_at FROM dead_letters "
                "WHERE NOT told OR NOT ? ORDER BY rowid",
                (untold,),
            )
            return [DeadLetter(*row) for row in rows.fetchall()]

    def told(self, letter: DeadLetter) -> None:
        """Note that the database has a copy."""
        with self._transaction() as connection:
            connection.execute("UPDATE dead_letters SET told = 1 WHERE id = ?", (letter.id,))

    def retag(self, key: str, value: str, name: str) -> None:
        """Put another value of a tag into all that wait, and into dead letters."""
        if self._connection is None and not self.path.exists():
            return
        with self._transaction() as connection:
            for table in ("outbox", "dead_letters"):
                changed = [
                    (text, row)
                    for row, record in connection.execute(f"SELECT rowid, record FROM {table}")  # noqa: S608
                    if (text := retagged(record, key, value, name)) is not None
                ]
                connection.executemany(f"UPDATE {table} SET record = ? WHERE rowid = ?", changed)  # noqa: S608

    def setting(self, key: str) -> str | None:
        """Something that is remembered for when the database is away."""
        with self._translated(), self._turns.of_this_process():
            row = self._opened().execute("SELECT value FROM settings WHERE key = ?", (key,))
            found = row.fetchone()
        return str(found[0]) if found else None

    def set(self, key: str, value: str) -> None:
        """Remember it."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO settings (key, value) VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def close(self) -> None:
        """Close the file; it can be used again."""
        if self._known_turns is not None:
            with self._turns.of_this_process():
                self._disconnect()

    def before_fork(self) -> None:
        """Nobody is inside of the file, and no connection is open."""
        self._turns.before_fork()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._turns.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Begin anew."""
        self._turns.after_fork_in_child()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._turns.close()
        if connection is not None:
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._turns.mine():
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self._make()
            connection = self._connect()
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute(f"PRAGMA max_page_count = {LARGEST_BYTES // _PAGE}")
                with closing(connection.cursor()) as cursor:
                    cursor.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}; COMMIT")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT, check_same_thread=False, isolation_level=None
        )

    def _make(self) -> None:
        """Make an empty file for its owner alone; SQLite would let everyone read it.

        One that is there is not touched: who opens and closes it by hand gives up all locks
        that this process has on it (https://www.sqlite.org/howtocorrupt.html).
        """
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _HAS_USERS and self._is_usual and folder.stat().st_uid != os.getuid():
            raise StoreError(f"{folder} belongs to someone else; set COSTMW_OUTBOX to another file")
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "") or ""
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise StoreBusy(f"the outbox {self.path} is kept busy: {error}") from error
            raise StoreError(f"cannot use the outbox {self.path}: {error}") from error
        except OSError as error:
            raise StoreError(
                f"cannot use the outbox {self.path}: {error.strerror}; set COSTMW_OUTBOX to a file "
                "in a directory that this user may write to"
            ) from error
