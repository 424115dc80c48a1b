"""What is held for calls in flight, and assumed of calls whose cost the ledger does not know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from costmw.caps.book import Amount
from costmw.events import Price, Renewal, Reservation, Usage, UsageEvent
from costmw.store.caps_sql import Ledger, Readable, delete, insert, select_by_ids
from costmw.store.micros import from_micros, micros

EXPIRED = "the call did not come back: its budgets are charged with all that was held for it"
"""Why the cost of a row is not known that was made when its hold ended."""

EXPIRED_AT_ONCE = 100

Table = Literal["holds", "assumed_charges"]

_AMOUNT = "pico_usd, unpriced, at, tags"


def read_amounts(ledger: Readable, table: Table, ids: Sequence[UUID]) -> dict[UUID, Amount]:
    """What is held or assumed under these ids."""
    rows = select_by_ids(ledger, f"id, {_AMOUNT}", table, ids)
    return {UUID(row_id): _amount_of(*values) for row_id, *values in rows}


def all_amounts(ledger: Readable, table: Table) -> list[Amount]:
    """All that is held, or assumed."""
    return [_amount_of(*row) for row in ledger.ask(f"SELECT {_AMOUNT} FROM {table}")]  # noqa: S608


def insert_holds(ledger: Ledger, granted: Sequence[Reservation]) -> None:
    """Keep what was granted."""
    insert(
        ledger,
        f"holds (id, {_AMOUNT}, expires_at, call)",
        [
            (
                one.id.hex,
                *_values_of(Amount(one.pico_usd, one.unpriced, one.event.created_at, one.tags)),
                micros(one.expires_at),
                _call_of(one.event),
            )
            for one in granted
        ],
    )


def renew_holds(ledger: Ledger, renewals: Sequence[Renewal]) -> None:
    """Let holds last longer, some of them under another id."""
    for one in renewals:
        ledger.run(
            "UPDATE holds SET id = ?, expires_at = ? WHERE id = ?",
            ((one.as_id or one.id).hex, micros(one.expires_at), one.id.hex),
        )


def drop_holds(ledger: Ledger, ids: Sequence[UUID]) -> None:
    """End holds."""
    delete(ledger, "holds", ids)


def expired(ledger: Readable, now: datetime) -> list[UsageEvent]:
    """The rows that are to be made of calls nobody has heard of, at most some of them."""
    found = ledger.ask(
        f"SELECT id, at, tags, call FROM holds WHERE expires_at < ? ORDER BY expires_at "  # noqa: S608
        f"LIMIT {EXPIRED_AT_ONCE}",
        (micros(now),),
    )
    return [_row_of(*row) for row in found]


def insert_assumed(ledger: Ledger, charges: Sequence[tuple[UsageEvent, Amount]]) -> None:
    """Keep what is assumed of rows."""
    insert(
        ledger,
        f"assumed_charges (id, {_AMOUNT}, expired)",
        [
            (event.id.hex, *_values_of(amount), int(event.reason == EXPIRED))
            for event, amount in charges
        ],
    )


def drop_assumed(ledger: Ledger, ids: Sequence[UUID]) -> None:
    """Assume nothing of these rows any more."""
    delete(ledger, "assumed_charges", ids)


def read_expired(ledger: Readable, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these rows were made since their hold had ended."""
    rows = select_by_ids(ledger, "id", "assumed_charges", ids, "AND expired = 1")
    return {UUID(row[0]) for row in rows}


def retag_amounts(ledger: Ledger, key: str, value: str, name: str) -> None:
    """Put `name` in the place of a tag's value."""
    for table in ("holds", "assumed_charges"):
        for text, row_id in ledger.ask(f"SELECT tags, id FROM {table}"):  # noqa: S608
            tags = json.loads(text)
            if tags.get(key) == value:
                retagged = json.dumps({**tags, key: name})
                ledger.run(f"UPDATE {table} SET tags = ? WHERE id = ?", (retagged, row_id))  # noqa: S608


def _amount_of(pico_usd: int, unpriced: int, at: int, tags: str) -> Amount:
    return Amount(int(pico_usd), bool(unpriced), from_micros(int(at)), json.loads(tags))


def _values_of(amount: Amount) -> tuple[int, int, int, str]:
    return (amount.pico_usd, int(amount.unpriced), micros(amount.at), json.dumps(dict(amount.tags)))


def _call_of(event: UsageEvent) -> str:
    """What the row needs that is made of a call which nobody settles, as JSON."""
    return json.dumps(
        {
            "operation": event.operation,
            "api": event.api,
            "provider": event.provider,
            "request_model": event.request_model,
            "request_id": event.request_id.hex if event.request_id else None,
            "api_key_id": event.api_key_id,
            "trace_id": event.trace_id,
        }
    )


def _row_of(hold_id: str, at: int, tags: str, call: str) -> UsageEvent:
    said = json.loads(call)
    request_id = said.pop("request_id")
    return UsageEvent(
        id=UUID(hold_id),
        created_at=from_micros(at),
        response_model=None,
        usage=Usage(),
        price=Price(cost_pico_usd=None, source="none"),
        status="incomplete",
        tags=json.loads(tags),
        reason=EXPIRED,
        request_id=UUID(request_id) if request_id else None,
        **said,
    )
