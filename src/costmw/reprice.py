"""Prices for rows that have none, or other prices on purpose: as amendments, with a trail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid5

from costmw.capture.settle import SIDE_MODELS
from costmw.events import Amendment, UsageEvent
from costmw.pricing import Pricing
from costmw.store.base import Store

PAGE = 1000


@dataclass(slots=True)
class Repricing:
    """What a run did: rows looked at, rows that changed, and by how much in pico-USD."""

    looked_at: int = 0
    changed: int = 0
    difference_pico_usd: int = 0


def reprice(
    store: Store,
    pricing: Pricing,
    *,
    since: datetime,
    everything: bool = False,
    dry_run: bool = False,
) -> Repricing:
    """Price rows again by today's prices.

    Args:
        store: whose rows.
        pricing: the prices.
        since: rows of calls that started at or after this moment (aware).
        everything: also rows that have a cost; otherwise only those without.
        dry_run: change nothing, only say what would.

    Raises:
        StoreError: when the store cannot be read or written.
    """
    done = Repricing()
    found: list[Amendment] = []
    for event in _newest_first(store, since):
        done.looked_at += 1
        amendment = _amendment(event, pricing, everything=everything)
        if amendment is not None:
            found.append(amendment)
            done.changed += 1
            done.difference_pico_usd += amendment.cost_pico_usd + amendment.estimated_cost_pico_usd
    if not dry_run:
        for start in range(0, len(found), PAGE):
            store.write(found[start : start + PAGE])
    return done


def _newest_first(store: Store, since: datetime) -> Iterator[UsageEvent]:
    before: int | None = None
    while True:
        with store.snapshot() as snapshot:
            page = snapshot.events(scope={}, limit=PAGE, before=before, start=since)
        if not page:
            return
        yield from (event for _, event in page)
        before = page[-1][0]


def _amendment(event: UsageEvent, pricing: Pricing, *, everything: bool) -> Amendment | None:
    old = event.price
    # The provider's own figure stands; a cost of several models cannot be taken apart again.
    if old.source == "provider" or SIDE_MODELS in event.price_context:
        return None
    if old.cost_pico_usd is not None and not everything:
        return None
    new = pricing.price(
        event.usage,
        provider=event.provider,
        model=event.model,
        at=event.created_at,
        context=event.price_context,
    )
    if new.cost_pico_usd is None or new.cost_pico_usd == old.cost_pico_usd:
        return None
    difference = new.cost_pico_usd - (old.cost_pico_usd or 0)
    exact = event.status == "ok"
    return Amendment(
        # Two runs at once make one amendment: the id says which change it is.
        id=uuid5(event.id, f"{event.amendments} {new.ref} {new.cost_pico_usd}"),
        event_id=event.id,
        reason=f"repriced by {new.ref}" + (f"; {new.reason}" if new.reason else ""),
        price=new,
        cost_pico_usd=difference if exact else 0,
        estimated_cost_pico_usd=0 if exact else difference,
        unpriced=-1 if old.cost_pico_usd is None else 0,
    )
