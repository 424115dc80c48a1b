"""Ids that processes remember, and when they have to forget them.

Who drops tag sets, or puts other tags in them, says so in the settings: another process
would go on to record calls under an id that means something else by now.
"""

from __future__ import annotations

import sqlite3

_EPOCH = "ids_epoch"


def epoch(connection: sqlite3.Connection) -> int:
    """How often ids have changed their meaning."""
    found = connection.execute("SELECT value FROM settings WHERE key = ?", (_EPOCH,)).fetchone()
    return int(found[0]) if found else 0


def begin_epoch(connection: sqlite3.Connection) -> None:
    """Have all processes forget their ids, inside of the transaction that changes them."""
    connection.execute(
        "INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)",
        (_EPOCH, str(epoch(connection) + 1)),
    )
