"""The files of an SQLite store: which one is open, and whether it is still in its place.

SQLite notices neither that its file was removed or replaced, nor that its write-ahead
log was: it goes on writing to what nobody else can see, and says that all is well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FileId = tuple[int, int]
"""Device and inode: what tells one file from another at the same path."""

BESIDE = ("-wal", "-shm")
"""What SQLite keeps beside a database: the write-ahead log and its index."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The files that are at a store's path; None for what is not there."""

    file: FileId | None
    log: FileId | None


def mark_of(path: Path) -> Mark:
    """The files that are there now."""
    return Mark(_id_of(str(path)), _id_of(f"{path}-wal"))


def beside(path: Path, ending: str) -> Path:
    """A file beside a store's."""
    return Path(f"{path}{ending}")


def _id_of(path: str) -> FileId | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - several times a commit, and quicker
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def links_of(file: FileId | None) -> int | None:
    """How many names a file has that this process has open; None when it has not.

    Nothing is opened for that: to close a database's file by hand is to give up the
    locks that this process has on it (https://www.sqlite.org/howtocorrupt.html).
    """
    return max((found.st_nlink for found in _open_files(file)), default=None)


def size_of(file: FileId | None) -> int:
    """The size of a file that this process has open, whatever its name is now."""
    return max((found.st_size for found in _open_files(file)), default=0)


def _open_files(file: FileId | None) -> Iterator[os.stat_result]:
    folder = Path("/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd")
    try:
        opened = list(folder.iterdir()) if file else []
    except OSError:  # not on this system
        return
    for number in opened:
        try:
            found = os.fstat(int(number.name))
        except (OSError, ValueError):  # closed meanwhile
            continue
        if (found.st_dev, found.st_ino) == file:
            yield found


def sync_folder(folder: Path) -> None:
    """Have the disk know which names files have now."""
    if sys.platform == "win32":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
