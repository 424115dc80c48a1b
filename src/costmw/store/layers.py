"""What stands before a ledger, and the ledger itself."""

from __future__ import annotations

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
