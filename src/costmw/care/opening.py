"""The ledger that a command cares for: one that is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, runtime_checkable

from costmw.config import Config
from costmw.errors import ConfigError, StoreError
from costmw.store.base import Care, Store
from costmw.store.layers import open_store
from costmw.transfer.absence import is_absent


@runtime_checkable
class Ledger(Store, Care, Protocol):
    """A store that can be cared for."""


@contextmanager
def named(url: str) -> Iterator[Ledger]:
    """The ledger of a URL, or of `COSTMW_STORE`, not opened yet; closed in the end.

    Raises:
        ConfigError: when it is not the URL of one.
        StoreError: when there is none.
    """
    # What is stored is looked at as it is: in clear text, where it was stored so.
    ledger = open_store(url or None, replace(Config.from_environment(), hash_tags=()))
    try:
        if is_absent(ledger):
            raise StoreError(f"there is no store at {ledger.url}")
        if not isinstance(ledger, Ledger):
            raise ConfigError(f"{ledger.url} is a store that cannot be cared for")
        yield ledger
    finally:
        ledger.close()


@contextmanager
def opened(url: str) -> Iterator[Ledger]:
    """The same, open: its tables are brought up to date.

    Raises:
        ConfigError: when it is not the URL of one.
        StoreError: when there is none, or it cannot be used.
    """
    with named(url) as ledger:
        ledger.open()
        yield ledger
