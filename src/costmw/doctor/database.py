"""A Postgres store: whether it can be reached, and what waits for it on this host."""

from __future__ import annotations

from collections.abc import Iterator

from costmw.doctor.case import Case, counted
from costmw.doctor.finding import Finding
from costmw.errors import StoreError, StoreUnreachable
from costmw.store.layers import layers_of
from costmw.store.outbox import OutboxStore
from costmw.store.sqlite import SqliteStore


def check_database(case: Case) -> Iterator[Finding]:
    """Whether the database answers and has a ledger."""
    for store in case.stores:
        ledger = layers_of(store)[-1]
        if isinstance(ledger, SqliteStore) or not hasattr(ledger, "snapshot_as_it_is"):
            continue
        try:
            with ledger.snapshot_as_it_is():
                pass
        except StoreUnreachable as error:
            yield Finding(
                "error",
                "store-unreachable",
                f"The database cannot be reached: {error}.",
                "Check the host, port, name and password, and that the database is up. Records "
                "wait on this host meanwhile.",
            )
        except StoreError as error:
            yield Finding(
                "warning",
                "store-missing",
                f"There is no ledger to be read: {error}.",
                "Check the database's name and ?schema=; the app makes the tables as it starts.",
            )


def check_outbox(case: Case) -> Iterator[Finding]:
    """What waits on this host for the database, and what the database refused."""
    for store in case.stores:
        for layer in layers_of(store):
            if isinstance(layer, OutboxStore) and layer.file.path.exists():
                yield from _outbox(layer)


def _outbox(store: OutboxStore) -> Iterator[Finding]:
    try:
        waiting, refused = store.file.count(), store.file.dead_letters()
    except StoreError as error:
        yield Finding(
            "error",
            "outbox-unusable",
            f"{error}.",
            "Records cannot wait on this host when the database is away: mend the file, or name "
            "another one by COSTMW_OUTBOX.",
        )
        return
    if waiting:
        yield Finding(
            "warning",
            "outbox-waiting",
            f"{counted(waiting, 'record')} of this host wait in {store.file.path} for the "
            "database, and no report has them yet.",
            "They are sent by any process that records to this store, once the database answers.",
        )
    if refused:
        yield Finding(
            "warning",
            "dead-letters",
            f"The database refused {counted(len(refused), 'record')} of this host, the last one "
            f"for: {refused[-1].reason}.",
            "They are in the table dead_letters, with the reason: mend what it says, and record "
            "them by hand.",
        )
