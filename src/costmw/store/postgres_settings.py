"""What a Postgres ledger keeps beside its rows: its time zone, its key, and the like."""

from __future__ import annotations

import secrets
from typing import Any
from zoneinfo import ZoneInfo

from psycopg import Connection

from costmw.config import zone
from costmw.errors import StoreError

KEY_BYTES = 32
"""Length of the secret that API keys are fingerprinted with."""

_ADD = "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) "


def setting(connection: Connection, key: str) -> str:
    """What is kept under a key; empty when nothing is."""
    row: Any = connection.execute("SELECT value FROM settings WHERE key = $1", (key,)).fetchone()
    return str(row[0]) if row else ""


def keep(connection: Connection, key: str, value: str) -> None:
    """Keep something under a key, in the place of what was there."""
    connection.execute(f"{_ADD} DO UPDATE SET value = excluded.value", (key, value))


def settled(connection: Connection, key: str, value: str) -> str:
    """What is kept under a key; the value, from now on, when nothing was."""
    connection.execute(f"{_ADD} DO NOTHING", (key, value))
    return setting(connection, key)


def settle_time_zone(connection: Connection, wanted: str | None, shown: str) -> ZoneInfo:
    """The accounting time zone; the first who opens a ledger chooses it.

    Raises:
        StoreError: when another one is wanted now; `shown` is the store's URL.
    """
    kept = setting(connection, "time_zone") or settled(connection, "time_zone", wanted or "UTC")
    if wanted is not None and wanted != kept:
        raise StoreError(
            f"{shown} counts its days in {kept}, and time_zone asks for {wanted}: a store "
            "keeps the zone that it was made with"
        )
    return zone(kept)


def fingerprint_key(connection: Connection, shown: str) -> bytes:
    """The key, made when there is none; all hosts have the same.

    Raises:
        StoreError: when it is damaged.
    """
    key = settled(connection, "fingerprint_key", secrets.token_hex(KEY_BYTES))
    try:
        found = bytes.fromhex(key)
    except ValueError:
        found = b""
    if len(found) < KEY_BYTES:
        raise StoreError(
            f"the fingerprint_key in the settings of {shown} is damaged: delete it to start new "
            "key ids"
        )
    return found
