"""The file at a store's path: opened, watched, and left when it is not ours any more.

SQLite goes on writing to a file that was removed or replaced, and to one that is damaged
elsewhere. So the file is looked at before each transaction and after each commit, before
anybody is told of it. What happens then:

- removed: a new one is made, and the rows of the old one, which this process still has
  open, are brought over;
- moved away, or replaced: the store goes on with the file that is there now, or a new
  one; the old one has its rows wherever it is;
- its write-ahead log removed: what is in that is written to the file, and a new one begun;
- damaged: it is set aside under another name, a new one is begun, and what can be read
  is brought over.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.config import Config
from costmw.errors import StoreBusy
from costmw.store.greenlets import in_a_thread
from costmw.store.sqlite_aside import (
    finish_setting_aside,
    free_name,
    sequences_of,
    set_aside,
)
from costmw.store.sqlite_errors import is_damage
from costmw.store.sqlite_file import BESIDE, FileId, Mark, beside, links_of, mark_of, size_of
from costmw.store.sqlite_health import damage_of
from costmw.store.sqlite_open import (
    made_at,
    make_tables,
    prepare_to_write,
    refuse_foreign,
    settle_time_zone,
)
from costmw.store.sqlite_recovery import claim, sources
from costmw.store.sqlite_rescue import Rescuer

logger = logging.getLogger("costmw")

CHECKED_AT_MOST = 64 * 1024**2
"""Bytes that a file may have and still be checked whole when a process opens it (0.2 s).

In larger ones damage is noticed where a row is read or written; `costmw doctor` looks
for it everywhere.
"""

BELIEVED_AFTER = 3
"""How often SQLite may find damage that a check of the whole file does not find."""

Connect = Callable[[Literal["ro", "rwc"]], sqlite3.Connection]


@dataclass(frozen=True, slots=True)
class _Open:
    """A connection to write with, what it is to, and when that was seen in its place."""

    connection: sqlite3.Connection
    mark: Mark
    seen_at: int


class Place:
    """What is at a store's path. Whoever calls has the turn."""

    def __init__(self, path: Path, url: str, config: Config, connect: Connect) -> None:
        self._path = path
        self._url = url
        self._config = config
        self._connect = connect
        self._open: _Open | None = None
        self._suspicions = 0
        self._reported: FileId | None = None
        self._known: FileId | None = None
        self._made = False
        self.rescuer: Rescuer | None = None
        self.zone: ZoneInfo | None = None
        self.brought_over = False
        """Whether the rows of the file that was left last are brought over to this one."""

    def is_open(self) -> bool:
        """Whether there is a connection to write with."""
        return self._open is not None

    def close(self) -> None:
        """Close the connection."""
        left, self._open = self._open, None
        if left is not None:
            left.connection.close()

    def connected(self) -> sqlite3.Connection:
        """A connection to the file that is there now."""
        if not self.is_in_place():
            self._open_anew()
        if self._reported is not None:
            reported, self._reported = self._reported, None
            if self._open is not None and reported == self._open.mark.file:
                self.suspect("a question found damage")
                self._open_anew()
        assert self._open is not None
        return self._open.connection

    def _open_anew(self) -> None:
        if self._open is not None and mark_of(self._path).file == self._open.mark.file:
            self._leave_log(self._open)
        left = self._open
        if left is not None:
            self._take_log_in(left)
        self._open = None
        try:
            connection = self._opened()
        except BaseException:
            self._open = left  # with what is in it, until there is another file
            raise
        mark = mark_of(self._path)
        if left is not None:
            self._leave(left, connection)
        elif self._known not in (None, mark.file):
            logger.error("costmw: %s is another file than before", self._path)
        self._known = mark.file
        self._open = _Open(connection, mark, _now())
        if sources(connection) and self.rescuer is not None:
            self.rescuer.start()

    def is_in_place(self) -> bool:
        """Whether the file that is open is still the one at the path."""
        if self._open is None or mark_of(self._path) != self._open.mark:
            return False
        self._open = _Open(self._open.connection, self._open.mark, _now())
        return True

    def report_damage(self, file: FileId | None) -> None:
        """Say that somebody who reads found damage; the next who has the turn looks at it."""
        self._reported = file

    def check(self) -> None:
        """Look for damage in a file that is not too large, and set it aside."""
        if damage := self._damage():
            self._set_aside(damage[0])

    def suspect(self, what: object) -> bool:
        """Set the file aside when it is damaged indeed; gives whether it was."""
        self._suspicions += 1
        self.close()  # what was kept in memory may have been at fault
        damage = self._damage()
        # Nothing is set aside for what happens once, unless a check says so too.
        enough = 2 if damage is None else BELIEVED_AFTER
        if not damage and self._suspicions < enough:
            logger.error("%s seems to be damaged: %s", self._path, what)
            return False
        self._set_aside(damage[0] if damage else str(what))
        return True

    def _damage(self) -> tuple[str, ...] | None:
        """What is wrong with the file; None when it is too large to be checked."""
        if self._path.stat().st_size > CHECKED_AT_MOST:
            return None
        try:
            with closing(self._connect("ro")) as connection:
                return in_a_thread(damage_of, connection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return (str(error),)

    def _opened(self) -> sqlite3.Connection:
        """Connect to the file that is there, after setting it aside if it is damaged."""
        if finish_setting_aside(self._path):
            logger.warning("%s: the new file takes the place of one that was set aside", self._path)
        if not self._path.exists():
            self._move_orphans()
        try:
            return in_a_thread(self._opened_as_it_is)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self._set_aside(str(error))
            return self._opened_as_it_is()

    def _move_orphans(self) -> None:
        """Move the log of a file that is gone out of the way of a new one."""
        orphan = free_name(self._path, "removed")
        for ending in BESIDE:
            if beside(self._path, ending).exists():
                beside(self._path, ending).rename(beside(orphan, ending))

    def _opened_as_it_is(self) -> sqlite3.Connection:
        connection = self._connect("rwc")
        try:
            refuse_foreign(connection, self._url)
            full = self._config.durability == "commit"
            prepare_to_write(connection, self._url, full=full)
            self._made = make_tables(connection)
            usual = self.zone.key if self.zone else "UTC"
            self.zone = settle_time_zone(connection, self._url, self._config.time_zone, usual)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, damage: str) -> None:
        self.close()
        self._suspicions, self._known = 0, None
        aside = set_aside(self._path, self._url, self.zone, self._config.time_zone)
        logger.error(
            "costmw: %s IS DAMAGED (%s). It is set aside as %s, and a new one is begun. What can "
            "be read of it is brought over in the background; a backup may have more",
            self._path,
            damage,
            aside.name,
        )

    def _leave(self, left: _Open, connection: sqlite3.Connection) -> None:
        """Leave a file that is not at the path any more for one that is."""
        # By the clock only when another process made it: clocks are set back at times.
        is_new = self._made or made_at(connection) > left.seen_at
        links = links_of(left.mark.file)
        self.brought_over = is_new and links == 0
        if self.brought_over:
            if claim(connection, f"{left.mark.file}", sequences_of(left.connection)):
                logger.error(
                    "costmw: %s WAS REMOVED while it is in use. A new one is begun; the rows of "
                    "the old one, which this process still has, are brought over in the "
                    "background",
                    self._path,
                )
                assert self.rescuer is not None
                self.rescuer.keep(left.connection, left.mark.file)
                return
        elif is_new and sources(connection):
            logger.warning("%s was set aside by another process; a new one is begun", self._path)
        elif is_new:
            logger.error(
                "costmw: %s WAS MOVED AWAY while it is in use: a new one is begun. Older rows are "
                "where it was moved to",
                self._path,
            )
        else:
            logger.error(
                "costmw: %s WAS REPLACED while it is in use: costmw goes on with the file that is "
                "there now",
                self._path,
            )
        left.connection.close()

    def _take_log_in(self, left: _Open) -> None:
        """Leave nothing at the path that belongs to a file which is not there any more.

        SQLite takes a log by its name, and would read it into the file that is there now.
        """
        if mark_of(self._path).log != left.mark.log or left.mark.log is None:
            return
        (busy, *_) = left.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreBusy(f"the file of {self._url} was replaced, and its log is in use")
        for ending in BESIDE:
            beside(self._path, ending).unlink(missing_ok=True)

    def _leave_log(self, left: _Open) -> None:
        """Begin a new write-ahead log, after the one that was removed is taken in."""
        if size_of(left.mark.log):
            if mark_of(self._path).log is not None:
                # Somebody has begun another log, on a file that lacks what is in this one.
                self._open = None
                assert self.rescuer is not None
                self.rescuer.keep(left.connection, left.mark.log)
                self._set_aside("its write-ahead log was replaced")
                self.brought_over = True
                return
            (busy, *_) = left.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreBusy(f"the write-ahead log of {self._url} was removed, and is in use")
            logger.error("costmw: the write-ahead log of %s was removed while in use", self._path)
        self.brought_over = True  # nothing was left behind
        self.close()


def _now() -> int:
    return time.time_ns() // 1_000
