"""What rows change in balances: what they cost, or what is assumed where that is not known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID, uuid5

from costmw.caps.book import Amount, Book
from costmw.caps.rules import Places
from costmw.events import Amendment, Record, UsageEvent
from costmw.store.caps_sql import Ledger
from costmw.store.holds import (
    EXPIRED,
    drop_assumed,
    insert_assumed,
    read_amounts,
    read_expired,
)

LATE = "settled after its hold had ended"

_LATE_IDS = UUID("0a6e1f7c-6c83-5f0e-a1d5-9a2d0d1f6b11")
"""Namespace of the ids of corrections of rows whose call came back late (UUIDv5)."""


@dataclass(slots=True)
class Written:
    """What a transaction writes, as far as balances go by it: rows that are new, rows whose ids
    are there already, new amendments."""

    new: list[UsageEvent] = field(default_factory=list)
    known: list[UsageEvent] = field(default_factory=list)
    amendments: list[Amendment] = field(default_factory=list)

    @classmethod
    def of(
        cls, records: Iterable[Record], known: Collection[UUID], known_amendments: Collection[UUID]
    ) -> Written:
        """Tell the records apart, by the ids that the ledger had before."""
        seen: set[UUID] = set()
        written = cls()
        for record in records:
            match record:
                case UsageEvent(id=event_id) if event_id in known:
                    written.known.append(record)
                case UsageEvent(id=event_id) if event_id not in seen:
                    written.new.append(record)
                    seen.add(event_id)
                case Amendment(id=amendment_id) if amendment_id not in known_amendments:
                    written.amendments.append(record)
        return written


@dataclass(frozen=True, slots=True)
class Change:
    """An amount that is added to balances, or with a sign of -1 taken away."""

    amount: Amount
    what: Literal["spent", "assumed", "held"]
    sign: int = 1

    def make(self, book: Book, places: Places) -> None:
        """Change the balances of these places."""
        match self.what:
            case "spent":
                book.charge(self.amount, places)
            case "assumed":
                book.assume(self.amount, places, self.sign)
            case "held":
                book.hold(self.amount, places, self.sign)


def changes_of(ledger: Ledger, written: Written, holds: Mapping[UUID, Amount]) -> Iterator[Change]:
    """What rows and amendments change; `holds` are those that the rows settle."""
    if written.new:
        yield from _charges_of_new(ledger, written.new, holds)
    new = {event.id for event in written.new}
    amendments = [a for a in written.amendments if a.event_id not in new]
    if not amendments:
        return
    ids = list(dict.fromkeys(a.event_id for a in amendments))
    booked = ledger.booked(ids)
    assumed = read_amounts(ledger, "assumed_charges", ids)
    priced: list[UUID] = []
    for amendment in amendments:
        if amendment.event_id not in booked:
            continue  # its row is still to come, and takes it in then
        at, tags, has_cost = booked[amendment.event_id]
        cost = amendment.cost_pico_usd + amendment.estimated_cost_pico_usd
        if cost:
            yield Change(Amount(cost, False, at, tags), "spent")
        is_exact_now = amendment.unpriced < 0 or (has_cost and amendment.status == "ok")
        if is_exact_now and amendment.event_id in assumed:
            yield Change(assumed.pop(amendment.event_id), "assumed", -1)
            priced.append(amendment.event_id)
    drop_assumed(ledger, priced)


def corrections(ledger: Ledger, known: Sequence[UsageEvent]) -> list[Amendment]:
    """The amendments of rows that were made as their holds ended, and whose calls came back."""
    came_back = [event for event in known if event.reason != EXPIRED]
    rows = read_expired(ledger, [event.id for event in came_back])
    return [_late(event) for event in came_back if event.id in rows]


def given_back(ledger: Ledger, ids: Sequence[UUID]) -> list[Change]:
    """What is not charged after all, of calls that were held to be lost."""
    assumed = read_amounts(ledger, "assumed_charges", ids)
    drop_assumed(ledger, list(assumed))
    return [Change(amount, "assumed", -1) for amount in assumed.values()]


def _charges_of_new(
    ledger: Ledger, events: Sequence[UsageEvent], holds: Mapping[UUID, Amount]
) -> Iterator[Change]:
    # Who asked for a result that came later is what its submission says.
    later = [event.id for event in events if event.submitted_as]
    booked = ledger.booked(later) if later else {}
    # Nobody corrects a call that is in flight; others may have been corrected before they came.
    strange = [event.id for event in events if event.id not in holds]
    amended = ledger.amended(strange) if strange else {}
    assumed: list[tuple[UsageEvent, Amount]] = []
    for event in events:
        at, tags, _ = booked.get(event.id) or (event.created_at, event.tags, None)
        added, unpriced = amended.get(event.id, (0, 0))
        cost = event.price.cost_pico_usd
        known = cost is not None or unpriced < 0
        if known:
            yield Change(Amount((cost or 0) + added, False, at, tags), "spent")
        hold = holds.get(event.id)
        if hold is not None and not (known and event.status == "ok"):
            # An estimate may be far too low: no bytes tell of hidden reasoning.
            rest = max(hold.pico_usd - (cost or 0), 0)
            charged = Amount(rest, hold.unpriced, at, tags)
            yield Change(charged, "assumed")
            assumed.append((event, charged))
    insert_assumed(ledger, assumed)


def _late(event: UsageEvent) -> Amendment:
    """The correction of a row that was made as its hold ended, by what the call came to."""
    cost, usage = event.price.cost_pico_usd, event.usage
    return Amendment(
        event_id=event.id,
        id=uuid5(_LATE_IDS, event.id.hex),
        reason=f"{LATE}; {event.reason}" if event.reason else LATE,
        status=event.status,
        price=event.price if cost is not None else None,
        cost_pico_usd=(cost or 0) if event.status == "ok" else 0,
        estimated_cost_pico_usd=0 if event.status == "ok" else (cost or 0),
        unpriced=0 if cost is None else -1,
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_write_input_tokens=usage.cache_write_input_tokens,
        reasoning_output_tokens=usage.reasoning_output_tokens,
    )
