"""Sets a damaged file aside and puts a new one in its place, in an order that no crash upsets.

The new file is made whole under another name, and knows already whose rows it is to
bring over. Then the old one is renamed, its log with it, and the new one takes its
name. Whoever finds no file, but the new one beside its place, finishes that.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from costmw.store.sqlite_file import BESIDE, beside, sync_folder
from costmw.store.sqlite_open import connect, make_tables, prepare_to_write, settle_time_zone
from costmw.store.sqlite_pages import Pages
from costmw.store.sqlite_recovery import continue_sequences, register, sources
from costmw.store.sqlite_shapes import table_of

NEW = ".new"
"""How the name of a file ends that will take the place of another."""

_LOOKED_AT = 2_000
"""Pages that are looked at for the settings; they are among the first."""

_FAR = 2**40
"""Where new rows begin when nothing says how many there were."""


def free_name(path: Path, why: str) -> Path:
    """A name for a file that is set aside: `<file>.<why>-<UTC time>`."""
    name = f"{path}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    numbered = (Path(f"{name}-{n}" if n else name) for n in range(1_000_000))
    return next(free for free in numbered if not free.exists())


def set_aside(path: Path, url: str, zone: ZoneInfo | None, wanted: str | None) -> Path:
    """Rename a file and start a new one; gives the old one's name now. Takes the turn.

    `zone` is the time zone that the file had, as far as known; `wanted` the one to take
    when nothing says. What of the old file can be read is brought over later.
    """
    aside, new = free_name(path, "damaged"), beside(path, NEW)
    # Reading the file by hand gives up the locks that this process has on it: the last to
    # close it may take its log in meanwhile, which is as good.
    kept_zone, sequences = _glance(path)
    for ending in ("", *BESIDE):
        beside(new, ending).unlink(missing_ok=True)
    with closing(connect(new, "rwc", 0)) as connection:
        prepare_to_write(connection, url, full=True)
        make_tables(connection)
        settle_time_zone(connection, url, zone.key if zone else kept_zone or wanted)
        connection.execute("BEGIN IMMEDIATE")
        continue_sequences(connection, sequences)
        register(connection, aside.name)
        connection.execute("COMMIT")
    # Were its log renamed first, it would be there without its last commits.
    path.rename(aside)
    finish_setting_aside(path)
    return aside


def finish_setting_aside(path: Path) -> bool:
    """Put the new file in its place, where that was not done; gives whether there is one."""
    new = beside(path, NEW)
    if path.exists() or not new.exists():
        return False
    with closing(connect(new, "rwc", 0)) as connection:
        names = sources(connection)
    for ending in BESIDE:
        for name in names:
            old, moved = beside(path, ending), beside(path.with_name(name), ending)
            if old.exists() and not moved.exists():
                old.rename(moved)
    for ending in BESIDE:  # of the new file, when it was not closed
        if beside(new, ending).exists():
            beside(new, ending).rename(beside(path, ending))
    sync_folder(path.parent)
    new.rename(path)
    sync_folder(path.parent)
    return True


def sequences_of(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows each table has had."""
    return dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))


def _glance(path: Path) -> tuple[str | None, dict[str, int]]:
    """The time zone of a file, and how many rows there were, whatever state it is in."""
    zone = None
    sequences: dict[str, int] = {}
    with Pages(path) as pages:
        for number in range(1, min(pages.count, _LOOKED_AT) + 1):
            for row in pages.rows(number):
                table = table_of(row)
                if table == "settings" and row.values[0] == "time_zone":
                    zone = row.values[1]
                elif table == "sqlite_sequence" and row.values[0] in _COUNTED:
                    name, seq = row.values
                    sequences[name] = max(seq, sequences.get(name, 0))
                elif table not in (None, "settings", "sqlite_sequence"):
                    break  # the rows of a page are of one table
    usual = 0 if sequences else _FAR
    return zone, {name: sequences.get(name, usual) for name in _COUNTED}


_COUNTED = ("usage_events", "amendments")
