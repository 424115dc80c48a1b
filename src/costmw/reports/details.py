"""One call in full: its arithmetic, and what amended it."""

from __future__ import annotations

from uuid import UUID

from costmw.answering import call_of, usd
from costmw.answers import CallAmendment, CallDetail
from costmw.arithmetic import lines_of
from costmw.pricing import Pricing
from costmw.store.base import AppliedAmendment, Snapshot, TagScope


def detail_of(
    view: Snapshot, call_id: UUID, scope: TagScope, pricing: Pricing
) -> CallDetail | None:
    """One call; None when there is none of that id in the scope."""
    event = view.event(call_id, scope=scope)
    if event is None:
        return None
    lines, reason = lines_of(event)
    amendments = view.amendments(call_id, scope=scope) if event.amendments else ()
    return CallDetail(
        **dict(call_of(event)),
        lines=lines,
        lines_reason=reason,
        amendments=[_amendment_of(one) for one in amendments],
        price_date=pricing.since(event),
    )


def _amendment_of(one: AppliedAmendment) -> CallAmendment:
    before, after = one.cost_before_pico_usd, one.cost_after_pico_usd
    return CallAmendment(
        created_at=one.at,
        reason=one.reason,
        status=one.status,
        cost_usd_before=None if before is None else usd(before),
        cost_usd_after=None if after is None else usd(after),
    )
