"""Writes a batch into Postgres in one transaction, rollups included.

What it refers to is stored before, in a transaction of its own. Then it takes the turn
of all writers, looks at what is there already, and changes everything at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg import Connection

from costmw.events import Amendment, Record
from costmw.store.caps import Applied, Caps
from costmw.store.interned import InternedRow, call_kind_of
from costmw.store.micros import micros
from costmw.store.postgres_batch import Asked, Batch, Placed
from costmw.store.postgres_caps import PostgresLedger
from costmw.store.postgres_insert import add_cells, insert
from costmw.store.postgres_intern import Interner, Wanted
from costmw.store.postgres_look import look
from costmw.store.postgres_partitions import Partitions
from costmw.store.postgres_rolled import COUNTED
from costmw.store.postgres_sql import uuids
from costmw.store.rolled import Rolled
from costmw.store.rollups import Buckets, Cells

_AMENDED_EVENTS = f"""
SELECT e.id, k.operation, k.api, k.provider, k.request_model, k.response_model, k.api_key_id,
    k.price_context, {COUNTED}
FROM usage_events e JOIN prices p ON p.id = e.price_id JOIN call_kinds k ON k.id = e.call_kind_id
WHERE e.id = ANY($1::uuid[])
"""  # noqa: S608 - our own names


class BatchWriter:
    """Writes batches on one connection; remembers the ids of what it has interned."""

    def __init__(self, zone: ZoneInfo, caps: Caps, shown: str) -> None:
        self.partitions = Partitions(zone)
        self._zone = zone
        self._caps = caps
        self._shown = shown
        self._interner = Interner()
        self._buckets = Buckets(zone)

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._interner.forget()
        self._caps.forget()

    def write(self, connection: Connection, records: Sequence[Record]) -> Applied:
        """Commit records; those that are there already are skipped."""
        batch = Batch.of(records)
        self.partitions.make_for(connection, (event.created_at for event in batch.events))
        self._intern_apart(connection, batch.wanted())
        while not look(connection, self._interner, batch):
            connection.rollback()
            self._intern_apart(connection, batch.wanted())
        cells = Cells(self._buckets)
        self._place_events(connection, batch)
        self._roll_up(connection, batch, cells)
        ledger = PostgresLedger(connection, self._zone, self._shown)
        # Before anything is written: a budget that is new starts from what the ledger says.
        counts = self._caps.heed(ledger, batch.budgets_epoch, self._zone)
        with connection.pipeline():
            insert(connection, self._interner, batch)
            add_cells(connection, cells)
            if not counts:
                connection.execute("COMMIT")
        if not counts:
            return Applied()
        with connection.pipeline():
            holds = self._caps.holds_of(ledger, records)
            applied = self._caps.apply(ledger, records, batch.written(), holds)
            connection.execute("COMMIT")
        return applied

    def intern_kinds(
        self, connection: Connection, kinds: Collection[tuple[InternedRow, str, str]]
    ) -> None:
        """Give facets to kinds of calls that have none."""
        self._intern_apart(connection, Wanted(kinds=set(kinds)))

    def _intern_apart(self, connection: Connection, wanted: Wanted) -> None:
        """Store what is referred to, before the turn: it does no harm when nothing follows."""
        self._interner.make_room()
        if self._interner.lacks(wanted):
            with connection.transaction():
                self._interner.intern(connection, wanted)

    def _place_events(self, connection: Connection, batch: Batch) -> None:
        """Say of each new event who asked for it, and when: later results say it elsewhere."""
        for event in batch.by_id.values():
            if event.id in batch.known_ids:
                continue
            key = (event.provider or "", event.submitted_as or "")
            asked = batch.submitted.get(key) if event.submitted_as else None
            if asked is None:
                asked = Asked(
                    event.created_at,
                    self._interner.tag_set(event.tags),
                    event.request_id,
                    int(event.first_in_request),
                    event.api_key_id,
                )
            elif asked.first_in_request:
                batch.submitted[key] = replace(asked, first_in_request=0)
                batch.counted_in_request.append(key)
            row = batch.call_kinds[event.id]
            if event.api_key_id != asked.api_key_id:
                event = replace(event, api_key_id=asked.api_key_id)
                row = call_kind_of(event)
            batch.placed.append(Placed(event, asked, row))
        if batch.submitted:
            wanted = Wanted(tag_set_ids={placed.asked.tag_set_id for placed in batch.placed})
            for placed in batch.placed:
                wanted.add_call(placed.event)
            self._interner.intern(connection, wanted)

    def _roll_up(self, connection: Connection, batch: Batch, cells: Cells) -> None:
        """Add up what the new events and amendments change."""
        added: dict[UUID, list[Sequence[Any]]] = {}
        for amendment in batch.amendments:
            added.setdefault(amendment.event_id, []).append(_change_of(amendment))
        rolled: list[tuple[Rolled, int]] = []
        rows: dict[UUID, InternedRow] = {}
        kinds: list[tuple[Rolled, InternedRow]] = []
        for placed in batch.placed:
            event_id = placed.event.id
            one = Rolled(_counted(placed, self._interner.call_kind(placed.row)))
            changes = (*batch.changes.get(event_id, ()), *added.pop(event_id, ()))
            for change in changes:
                one.amend(change)
            if changes:
                kinds.append((one, placed.row))
            rolled.append((one, 1))
        if added:
            found = connection.execute(_AMENDED_EVENTS, (uuids(added),)).fetchall()
            for event_id, *rest in found:
                rows[event_id] = tuple(rest[:7])
                before, after = Rolled(rest[7:]), Rolled(rest[7:])
                for change in batch.changes.get(event_id, ()):
                    before.amend(change)
                    after.amend(change)
                for change in added[event_id]:
                    after.amend(change)
                rolled += [(before, -1), (after, 1)]
                kinds += [(before, rows[event_id]), (after, rows[event_id])]
        self._intern_kinds(connection, kinds)
        for one, sign in rolled:
            cells.add(
                one.created_at,
                self._interner.of(one),
                one.totals(),
                one.latency_ms,
                one.first_chunk_ms,
                sign=1 if sign > 0 else -1,
            )

    def _intern_kinds(
        self, connection: Connection, found: Sequence[tuple[Rolled, InternedRow]]
    ) -> None:
        """Know the kinds that amendments have made of events."""
        if found:
            wanted = Wanted(tag_set_ids={one.tag_set_id for one, _ in found})
            wanted.kinds.update((row, one.status, one.source) for one, row in found)
            if self._interner.lacks(wanted):
                self._interner.intern(connection, wanted)


def _counted(placed: Placed, call_kind_id: int) -> Sequence[Any]:
    event, asked, usage = placed.event, placed.asked, placed.event.usage
    return (
        None,
        micros(asked.created_at),
        asked.tag_set_id,
        call_kind_id,
        event.status,
        event.price.source,
        asked.first_in_request,
        asked.request_id is not None,
        event.price.cost_pico_usd,
        event.reason is not None,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_write_input_tokens,
        usage.reasoning_output_tokens,
        event.latency_ms,
        event.time_to_first_chunk_ms,
    )


def _change_of(amendment: Amendment) -> Sequence[Any]:
    return (
        amendment.status,
        amendment.price.source if amendment.price else None,
        amendment.cost_pico_usd,
        amendment.estimated_cost_pico_usd,
        amendment.unpriced,
        amendment.input_tokens,
        amendment.output_tokens,
        amendment.cache_read_input_tokens,
        amendment.cache_write_input_tokens,
        amendment.reasoning_output_tokens,
        None,
    )
