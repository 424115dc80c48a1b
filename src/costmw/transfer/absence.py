"""Whether there is a store at all: to open one that is a file makes it."""

from __future__ import annotations

from costmw.store.base import Store
from costmw.store.layers import ledger_of
from costmw.store.sqlite import SqliteStore


def is_absent(store: Store) -> bool:
    """Whether the store would be a file that is not there."""
    ledger = ledger_of(store)
    return isinstance(ledger, SqliteStore) and not ledger.path.exists()
