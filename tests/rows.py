"""Makes records for tests that need many, with only what matters said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from costmw import Config
from costmw.events import (
    Outcome,
    OutcomeKind,
    Price,
    Reservation,
    Usage,
    UsageEvent,
    new_id,
)
from costmw.store.sqlite import SqliteStore

NOON = datetime(2026, 3, 17, 12, 0, tzinfo=UTC)


def an_event(cost: int | None = 1_000, **changes: Any) -> UsageEvent:
    """One call of NOON that cost so many pico-USD, or whose cost is unknown."""
    event = UsageEvent(
        id=new_id(),
        created_at=NOON,
        operation="chat",
        provider="openai",
        request_model="gpt-5-mini",
        response_model="gpt-5-mini",
        usage=Usage(input_tokens=100, output_tokens=10),
        price=Price(cost, "none" if cost is None else "list", reason=None),
        status="ok",
        tags={},
        reason="no price" if cost is None else None,
    )
    return replace(event, **changes)


def an_outcome(
    kind: OutcomeKind = "error", *, at: datetime = NOON, tags: Mapping[str, str] | None = None
) -> Outcome:
    """One attempt that billed nothing."""
    return Outcome(kind=kind, at=at, provider="openai", model="gpt-5-mini", tags=tags or {})


@contextmanager
def opened(path: Path, **settings: Any) -> Iterator[SqliteStore]:
    """A store of this file, open; closed in the end."""
    store = SqliteStore(f"sqlite:///{path}", Config(**settings))
    try:
        store.open()
        yield store
    finally:
        store.close()


def stored(store: SqliteStore) -> list[UsageEvent]:
    """All events as they read now, in the order that they were committed in."""
    with store.snapshot() as snapshot:
        found = dict(snapshot.events(scope={}, limit=1_000_000))
    return [found[position] for position in sorted(found)]


def a_reservation(
    tags: Mapping[str, str],
    pico_usd: int,
    *,
    at: datetime = NOON,
    checked: tuple[str, ...] = (),
    expires_at: datetime | None = None,
    unpriced: bool = False,
) -> Reservation:
    """What a call of NOON may cost at most; it lasts for a minute."""
    return Reservation(
        event=an_event(
            None, created_at=at, tags=tags, status="incomplete", reason=None, usage=Usage()
        ),
        pico_usd=pico_usd,
        expires_at=expires_at or at + timedelta(minutes=1),
        checked=checked,
        unpriced=unpriced,
    )


def settled(reservation: Reservation, cost: int | None, **changes: Any) -> UsageEvent:
    """The row of a call that was reserved for, and cost so much."""
    price = Price(cost, "none" if cost is None else "list")
    reason = "no price" if cost is None else None
    changes = {"usage": Usage(100, 10), "status": "ok", "reason": reason, **changes}
    return replace(reservation.event, price=price, **changes)
