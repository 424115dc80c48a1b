"""What stands before a ledger, and the ledger itself."""

from __future__ import annotations

from pathlib import Path

from costmw.config import Config, store_from_environment
from costmw.errors import ConfigError
from costmw.store.alert_rows import AlertRows, KeepsAlerts
from costmw.store.base import Store
from costmw.store.hashed_tags import HashedTags


def layers_of(store: Store) -> list[Store]:
    """A store and all behind it: hashed tags, an outbox, and the ledger at last."""
    from costmw.store.outbox import OutboxStore

    layers = [store]
    while isinstance(layers[-1], HashedTags | OutboxStore):
        layers.append(layers[-1].remote)
    return layers


def ledger_of(store: Store) -> Store:
    """The store that keeps the rows."""
    return layers_of(store)[-1]


def alerts_of(store: Store) -> AlertRows | None:
    """The alerts of a store's ledger; None for one that keeps none."""
    ledger: object = ledger_of(store)
    return ledger.alerts if isinstance(ledger, KeepsAlerts) else None


def open_store(store: str | Store | None, config: Config) -> Store:
    """Make the store of a URL, of `COSTMW_STORE` when there is none; without any I/O.

    Raises:
        ConfigError: when there is no URL at all, or it is not one of a store.
    """
    found = _store_of(store, config) if store is None or isinstance(store, str) else store
    return HashedTags(found, config.hash_tags) if config.hash_tags else found


def _store_of(url: str | None, config: Config) -> Store:
    url = url or store_from_environment()
    if not url:
        raise ConfigError("no store: pass Meter('sqlite:///llmcost.db') or set COSTMW_STORE")
    scheme, colon, _ = url.partition(":")
    if scheme in ("postgresql", "postgres"):
        from costmw.store.outbox import OutboxStore
        from costmw.store.postgres import PostgresStore

        outbox = Path(config.outbox) if config.outbox else None
        return OutboxStore(PostgresStore(url, config), outbox, config)
    if scheme != "sqlite":
        # A URL may hold a password: only its scheme is repeated.
        told = f"a {scheme}: URL" if colon else repr(url)
        raise ConfigError(
            f"store is {told}, which is not known; use 'sqlite:///llmcost.db' or "
            "'postgresql://user@host/database'"
        )
    from costmw.store.sqlite import SqliteStore

    return SqliteStore(url, config)
