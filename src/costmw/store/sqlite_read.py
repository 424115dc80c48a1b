"""Questions to the SQLite store: sums by group, newest events, counters."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.events import Price, Usage, UsageEvent
from costmw.periods import day_start, day_stop
from costmw.store.base import Found, Group, OutcomeCount, Query, TagScope, Totals
from costmw.store.fork_gate import ForkGate
from costmw.store.rollup_plan import DAY, Range, plan, ranges_of
from costmw.store.sqlite_rolled import rolled_up
from costmw.store.sqlite_rollups import watermarks
from costmw.store.sqlite_sql import EPOCH, MICROSECOND, Sql, micros
from costmw.store.sqlite_totals import add_new_rows, add_rows, check_dimensions

_HOUR = 3_600_000_000

_SELECT_EVENTS = """
SELECT
    e.seq, e.id, e.created_at, e.request_id, e.first_in_request, k.operation, k.api, k.provider,
    k.request_model, k.response_model, e.input_tokens, e.output_tokens,
    e.cache_read_input_tokens, e.cache_write_input_tokens, e.reasoning_output_tokens,
    e.usage_detail, e.cost_pico_usd, k.price_context,
    e.status, e.reason, e.latency_ms, e.time_to_first_chunk_ms,
    k.api_key_id, e.response_id, e.trace_id, s.tags, p.source, p.ref, p.units
FROM usage_events e
JOIN call_kinds k ON k.id = e.call_kind_id
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""


class SqliteSnapshot:
    """A read transaction; see `Snapshot`."""

    def __init__(self, connection: sqlite3.Connection, gate: ForkGate, zone: ZoneInfo) -> None:
        self._connection = connection
        self._gate = gate
        self._zone = zone
        self._extent: tuple[datetime, datetime] | None = None
        connection.row_factory = sqlite3.Row

    def begin(self) -> None:
        """See the ledger as it is now from here on."""
        self._rows("BEGIN")
        self._rows("SELECT 1 FROM settings")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._gate.inside():
            return self._connection.execute(sql, values).fetchall()

    def totals(self, query: Query) -> Found:
        """Sum the rows of each group, from the rollups where they have the answer."""
        check_dimensions(query.group_by)
        asked = [span for span in map(self._clipped, ranges_of(query)) if span]
        done = watermarks(self._connection)
        planned = plan(query, asked, self._zone, self._width_of)
        from_rows = planned is None or self._moves_groups(query, done[1])
        groups: dict[Group, Totals] = {}
        if planned is None or from_rows:
            add_rows(self._rows, groups, query, asked)
        else:
            groups = rolled_up(self._rows, query, planned)
            add_new_rows(self._rows, groups, query, planned.rolled, done)
            add_rows(self._rows, groups, query, planned.rows)
        # What an amendment has moved away leaves an empty cell behind.
        groups = {group: sums for group, sums in groups.items() if sums != Totals()}
        if not query.group_by and not query.buckets:
            groups.setdefault((), Totals())
        return Found(groups, from_rows=from_rows)

    def _moves_groups(self, query: Query, amendments_done: int) -> bool:
        """Whether an amendment that is not rolled up may move an event to another group."""
        if not {"status", "cost_source"} & set(query.group_by):
            return False
        return bool(
            self._rows("SELECT 1 FROM amendments WHERE seq > ? LIMIT 1", (amendments_done,))
        )

    def _width_of(self, key: str) -> int:
        found = self._rows("SELECT value_count FROM facet_keys WHERE key = ?", (key,))
        return found[0][0] if found else 0

    def _clipped(self, asked: Range) -> Range | None:
        """The part of a span that the ledger has anything of."""
        if self._extent is None:
            self._extent = self._find_extent()
        start, stop = max(asked.start, self._extent[0]), min(asked.stop, self._extent[1])
        return Range(asked.position, start, stop) if start < stop else None

    def _find_extent(self) -> tuple[datetime, datetime]:
        ((first_row, last_row, first_day, last_day),) = self._rows(
            "SELECT (SELECT min(created_at) FROM usage_events), "
            "(SELECT max(created_at) FROM usage_events), "
            "(SELECT min(bucket) FROM rollups WHERE every = ?), "
            "(SELECT max(bucket) FROM rollups WHERE every = ?)",
            (DAY, DAY),
        )
        moments = [EPOCH + micros * MICROSECOND for micros in (first_row, last_row) if micros]
        moments += [EPOCH + timedelta(minutes=m) for m in (first_day, last_day) if m is not None]
        if not moments:
            return EPOCH, EPOCH
        return day_start(min(moments), self._zone), day_stop(max(moments), self._zone)

    def events(
        self, *, scope: TagScope, limit: int, before: int | None = None
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        sql = Sql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.seq < ?", 2**62 if before is None else before)
        sql.having_tags(scope)
        sql.add("ORDER BY e.seq DESC LIMIT ?", limit)
        return [(row["seq"], self._event(row)) for row in self._rows(*sql.statement())]

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = Sql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.id = ?", event_id.bytes)
        sql.having_tags(scope)
        return next(map(self._event, self._rows(*sql.statement())), None)

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = Sql()
        sql.add(
            "SELECT n.key FROM facet_keys n WHERE n.key LIKE 'tag:%' AND EXISTS "
            "(SELECT 1 FROM tags e WHERE e.key_id = n.id"
        )
        sql.having_tags(scope)
        sql.add(") ORDER BY 1")
        return [row[0].removeprefix("tag:") for row in self._rows(*sql.statement())]

    def outcomes(
        self, start: datetime, stop: datetime, *, scope: TagScope
    ) -> Sequence[OutcomeCount]:
        """Counters summed over the hours, most frequent first."""
        sql = Sql()
        sql.add("SELECT e.kind, e.provider, e.model, sum(e.count) FROM call_outcomes e")
        sql.add("WHERE e.hour >= ?", micros(start) // _HOUR)
        sql.add("AND e.hour < ?", -(-micros(stop) // _HOUR))
        sql.having_tags(scope)
        sql.add("GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3")
        return [
            OutcomeCount(kind, provider or None, model or None, count)
            for kind, provider, model, count in self._rows(*sql.statement())
        ]

    def position(self) -> int:
        """Grows with every event and amendment."""
        ((position,),) = self._rows(
            "SELECT coalesce(sum(seq), 0) FROM sqlite_sequence "
            "WHERE name IN ('usage_events', 'amendments')"
        )
        return int(position)

    def _event(self, row: sqlite3.Row) -> UsageEvent:
        changes = self._rows(
            "SELECT a.*, p.source, p.ref, p.units FROM amendments a "
            "LEFT JOIN prices p ON p.id = a.price_id WHERE a.event_id = ? ORDER BY a.seq",
            (row["id"],),
        )

        def amended(name: str) -> int | None:
            delta = sum(change[name] for change in changes)
            value: int | None = row[name]
            return value if not delta else (value or 0) + delta

        cost = row["cost_pico_usd"]
        if (cost is None) + sum(change["unpriced"] for change in changes) > 0:
            cost = None
        else:
            cost = (cost or 0) + sum(
                change["cost_pico_usd"] + change["estimated_cost_pico_usd"] for change in changes
            )
        priced = next((c for c in reversed(changes) if c["price_id"] is not None), row)
        status = next((c["status"] for c in reversed(changes) if c["status"]), row["status"])
        return UsageEvent(
            id=UUID(bytes=row["id"]),
            created_at=EPOCH + row["created_at"] * MICROSECOND,
            request_id=UUID(bytes=row["request_id"]) if row["request_id"] else None,
            first_in_request=bool(row["first_in_request"]),
            operation=row["operation"],
            api=row["api"],
            provider=row["provider"],
            request_model=row["request_model"],
            response_model=row["response_model"],
            usage=Usage(
                input_tokens=amended("input_tokens"),
                output_tokens=amended("output_tokens"),
                cache_read_input_tokens=amended("cache_read_input_tokens") or 0,
                cache_write_input_tokens=amended("cache_write_input_tokens") or 0,
                reasoning_output_tokens=amended("reasoning_output_tokens") or 0,
                detail=json.loads(row["usage_detail"] or "{}"),
            ),
            price=Price(
                cost_pico_usd=cost,
                source=priced["source"],
                ref=priced["ref"],
                units=json.loads(priced["units"]),
            ),
            status=status,
            reason=changes[-1]["reason"] if changes else row["reason"],
            tags=json.loads(row["tags"]),
            latency_ms=row["latency_ms"],
            time_to_first_chunk_ms=row["time_to_first_chunk_ms"],
            api_key_id=row["api_key_id"],
            response_id=row["response_id"],
            trace_id=row["trace_id"],
            price_context=json.loads(row["price_context"] or "{}"),
            amendments=len(changes),
        )
