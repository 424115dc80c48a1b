"""Ids that hosts remember, and when they have to forget them.

Who drops tag sets, or puts other tags in them, says so in the settings: another host
would go on to record calls under an id that means something else by now. Whoever hands
out ids holds the row meanwhile, so that it does not change under them.
"""

from __future__ import annotations

from psycopg import Connection

EPOCH = "SELECT xmin::text || ' ' || value FROM settings WHERE key = 'ids_epoch'"
"""Changes when ids change their meaning, and when a copy of the ledger is restored."""


def hold_epoch(connection: Connection) -> str:
    """What `EPOCH` says, which stays so until the end of this transaction."""
    row = connection.execute(f"{EPOCH} FOR SHARE").fetchone()
    assert row is not None  # made with the table
    return str(row[0])


def begin_epoch(connection: Connection) -> None:
    """Have all hosts forget their ids, inside of the transaction that changes them.

    Waits for those that hand out ids. Take the turn before: whoever writes looks once they
    have it.
    """
    connection.execute(
        "UPDATE settings SET value = (value::bigint + 1)::text WHERE key = 'ids_epoch'"
    )
