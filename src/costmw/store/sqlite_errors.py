"""What SQLite's errors mean, and what to do about them."""

from __future__ import annotations

import errno
import sqlite3


def name_of(error: BaseException) -> str:
    """SQLite's own name of an error, such as `SQLITE_BUSY`; empty when it has none."""
    return getattr(error, "sqlite_errorname", "") or ""


def is_busy(error: BaseException) -> bool:
    """Whether somebody else holds the database."""
    return name_of(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_full(error: BaseException) -> bool:
    """Whether the disk has no room left; the app goes on until it has."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return name_of(error) in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


def is_damage(error: BaseException) -> bool:
    """Whether the file cannot be what SQLite has written."""
    return isinstance(error, sqlite3.DatabaseError) and name_of(error).startswith(
        # A read beyond the end is of a log that was cut off.
        ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_CORRUPTFS")
    )


def is_of_a_record(error: BaseException) -> bool:
    """Whether what was to be written is at fault, and not the store."""
    return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError)


def advice(error: BaseException) -> str:
    """What is wrong, and what to do."""
    name = name_of(error)
    for beginning, text in _ADVICE.items():
        if name.startswith(beginning):
            return text
    return str(error)


_ADVICE = {
    "SQLITE_NOTADB": "the file is not an SQLite database; move it away or name another file",
    "SQLITE_CANTOPEN": (
        "the file cannot be opened; it and its directory must be writable by this user"
    ),
    "SQLITE_READONLY": "the file is read-only for this user; give it write permission",
    "SQLITE_FULL": "the disk is full; free some space",
    "SQLITE_IOERR_SHMSIZE": "the disk is full; free some space",
    "SQLITE_INTERRUPT": ("the question was broken off, since the app forked a process; ask again"),
    "SQLITE_CORRUPT": "the file is damaged; restore a backup or move it away",
    "SQLITE_IOERR_SHORT_READ": "the file is damaged; restore a backup or move it away",
}
