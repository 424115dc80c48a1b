"""What an SQLite file says of its own state."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

from costmw.store.migrations import migrations

MOST_DAMAGE = 5
"""Damaged places that are named; a file that has one has many."""


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a file.

    `damage` names what is wrong in it; None when that took too long to find out.
    `missing_steps` are migrations that it has not had yet, `unknown_steps` those of a
    newer costmw.
    """

    journal_mode: str
    time_zone: str | None
    damage: tuple[str, ...] | None
    missing_steps: tuple[str, ...]
    unknown_steps: tuple[str, ...]


def health_of(connection: sqlite3.Connection, patience: float) -> Health:
    """Look at a file for `patience` seconds at most; changes nothing."""
    from sqlite_utils import Database

    (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    time_zone = connection.execute("SELECT value FROM settings WHERE key = 'time_zone'").fetchone()
    steps = migrations()
    with closing(sqlite3.connect(":memory:")) as empty:
        ours = [step.name for step in steps.pending(Database(empty))]
    done = [step.name for step in steps.applied(Database(connection))]
    return Health(
        journal_mode=str(journal_mode),
        time_zone=time_zone[0] if time_zone else None,
        damage=_damage(connection, patience),
        missing_steps=tuple(name for name in ours if name not in done),
        unknown_steps=tuple(name for name in done if name not in ours),
    )


def damage_of(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What is wrong in a file, however long that takes to find out.

    Raises:
        sqlite3.DatabaseError: when it cannot even be looked at.
    """
    found = connection.execute(f"PRAGMA quick_check({MOST_DAMAGE})").fetchall()
    lines = [line for (text,) in found for line in str(text).splitlines()]
    return tuple(line for line in lines if line != "ok" and not line.startswith("*** "))


def _damage(connection: sqlite3.Connection, patience: float) -> tuple[str, ...] | None:
    deadline = time.monotonic() + patience
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        return damage_of(connection)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
