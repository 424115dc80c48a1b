"""Questions to the SQLite store: sums by group, newest events, counters.

Tag keys and values are always bound as parameters; they never become SQL or JSON
paths. Sums are split at a million, since SQLite's `sum` fails beyond 64 bits.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from costmw.errors import ConfigError
from costmw.events import Price, Usage, UsageEvent
from costmw.store.base import DIMENSIONS, Group, OutcomeCount, Query, TagScope, Totals
from costmw.store.fork_gate import ForkGate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HOUR = 3_600_000_000
_SPLIT = 1_000_000

# What the last amendment that says anything of it makes of a column.
_LAST = (
    "(SELECT l.{0} FROM amendments l WHERE l.event_id = e.id AND l.{0} IS NOT NULL "
    "ORDER BY l.seq DESC LIMIT 1)"
)

_COLUMNS = {
    "model": "coalesce(e.response_model, e.request_model)",
    "provider": "e.provider",
    "operation": "e.operation",
    "status": f"coalesce({_LAST.format('status')}, e.status)",
    "cost_source": (
        "(SELECT p.source FROM prices p "  # noqa: S608 - our own names
        f"WHERE p.id = coalesce({_LAST.format('price_id')}, e.price_id))"
    ),
    "api_key_id": "e.api_key_id",
}
assert set(_COLUMNS) == set(DIMENSIONS)

_EXACT = "e.status = 'ok'"

# What one event adds to each field of Totals.
_EVENT_TERMS = {
    "calls": "1",
    "requests": "e.first_in_request",
    "cost_pico_usd": f"iif({_EXACT}, e.cost_pico_usd, 0)",
    "estimated_cost_pico_usd": f"iif({_EXACT}, 0, e.cost_pico_usd)",
    "cost_in_requests_pico_usd": "iif(e.request_id IS NULL, 0, e.cost_pico_usd)",
    "unpriced": "e.cost_pico_usd IS NULL",
    "flagged": "e.cost_pico_usd IS NOT NULL AND e.reason IS NOT NULL",
    "incomplete": f"NOT ({_EXACT})",
    "input_tokens": "e.input_tokens",
    "output_tokens": "e.output_tokens",
    "cache_read_input_tokens": "e.cache_read_input_tokens",
    "cache_write_input_tokens": "e.cache_write_input_tokens",
    "reasoning_output_tokens": "e.reasoning_output_tokens",
    "latency_ms": "e.latency_ms",
    "timed": "e.latency_ms IS NOT NULL",
}
assert list(_EVENT_TERMS) == [f.name for f in fields(Totals)]

# What one amendment adds; what is not here it leaves alone.
_AMENDMENT_TERMS = {
    "cost_pico_usd": "a.cost_pico_usd",
    "estimated_cost_pico_usd": "a.estimated_cost_pico_usd",
    "cost_in_requests_pico_usd": (
        "iif(e.request_id IS NULL, 0, a.cost_pico_usd + a.estimated_cost_pico_usd)"
    ),
    "unpriced": "a.unpriced",
    "incomplete": (
        "iif(a.seq = (SELECT max(l.seq) FROM amendments l "
        "WHERE l.event_id = e.id AND l.status IS NOT NULL), "
        "(a.status <> 'ok') - (e.status <> 'ok'), 0)"
    ),
    "input_tokens": "a.input_tokens",
    "output_tokens": "a.output_tokens",
    "cache_read_input_tokens": "a.cache_read_input_tokens",
    "cache_write_input_tokens": "a.cache_write_input_tokens",
    "reasoning_output_tokens": "a.reasoning_output_tokens",
}

_SELECT_EVENTS = """
SELECT
    e.seq, e.id, e.created_at, e.request_id, e.first_in_request, e.operation, e.api, e.provider,
    e.request_model, e.response_model, e.input_tokens, e.output_tokens,
    e.cache_read_input_tokens, e.cache_write_input_tokens, e.reasoning_output_tokens,
    e.usage_detail, e.cost_pico_usd, e.price_context,
    e.status, e.reason, e.latency_ms, e.time_to_first_chunk_ms,
    e.api_key_id, e.response_id, e.trace_id, s.tags, p.source, p.ref, p.units
FROM usage_events e
JOIN tag_sets s ON s.id = e.tag_set_id
JOIN prices p ON p.id = e.price_id
"""


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


class SqliteSnapshot:
    """A read transaction; see `Snapshot`."""

    def __init__(self, connection: sqlite3.Connection, gate: ForkGate) -> None:
        self._connection = connection
        self._gate = gate
        connection.row_factory = sqlite3.Row

    def begin(self) -> None:
        """See the ledger as it is now from here on."""
        self._rows("BEGIN")
        self._rows("SELECT 1 FROM settings")

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._gate.inside():
            return self._connection.execute(sql, values).fetchall()

    def totals(self, query: Query) -> dict[Group, Totals]:
        """Sum the rows of each group, events first, then what amendments change."""
        groups: dict[Group, Totals] = {}
        self._sum(groups, query, _EVENT_TERMS, "usage_events e")
        self._sum(
            groups,
            query,
            _AMENDMENT_TERMS,
            "amendments a CROSS JOIN usage_events e ON e.id = a.event_id",
        )
        return groups

    def _sum(
        self, groups: dict[Group, Totals], query: Query, terms: Mapping[str, str], source: str
    ) -> None:
        sql = _Sql()
        keys = []
        if query.buckets:
            starts = [micros(moment) for moment in query.buckets]
            stops = [*starts[1:], micros(query.stop)]
            # As text, since some SQLites bind few parameters; they are all numbers.
            rows = ", ".join(
                f"({n}, {start}, {stop})"
                for n, (start, stop) in enumerate(zip(starts, stops, strict=True))
            )
            sql.add(f"WITH bucket (n, start, stop) AS (VALUES {rows})")
            keys.append("b.n")
            source = f"bucket b CROSS JOIN {source}"
            within = "e.created_at >= b.start AND e.created_at < b.stop"
        else:
            within = "e.created_at >= ? AND e.created_at < ?"
        tags = [name.removeprefix("tag:") for name in query.group_by if name.startswith("tag:")]
        keys.extend(
            f"g{tags.index(name[4:])}.value" if name.startswith("tag:") else _column(name)
            for name in query.group_by
        )
        sums = ", ".join(
            f"coalesce(sum(({term}) / {_SPLIT}), 0), coalesce(sum(({term}) % {_SPLIT}), 0)"
            for term in terms.values()
        )
        sql.add(f"SELECT {''.join(f'{key}, ' for key in keys)}{sums} FROM {source}")  # noqa: S608 - our own names
        for position, key in enumerate(tags):
            sql.add(
                f"LEFT JOIN tags g{position} "
                f"ON g{position}.tag_set_id = e.tag_set_id AND g{position}.key = ?",
                key,
            )
        sql.add(f"WHERE {within}")
        if not query.buckets:
            sql.bind((micros(query.start), micros(query.stop)))
        sql.having_tags(query.scope)
        sql.having_tags(query.where)
        if keys:
            sql.add(f"GROUP BY {', '.join(str(n + 1) for n in range(len(keys)))}")
        for row in self._rows(*sql.statement()):
            found = Totals(
                **{
                    name: row[len(keys) + 2 * n] * _SPLIT + row[len(keys) + 2 * n + 1]
                    for n, name in enumerate(terms)
                }
            )
            groups.setdefault(tuple(row)[: len(keys)], Totals()).add(found)

    def events(
        self, *, scope: TagScope, limit: int, before: int | None = None
    ) -> Sequence[tuple[int, UsageEvent]]:
        """The newest events, newest first."""
        sql = _Sql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.seq < ?", 2**62 if before is None else before)
        sql.having_tags(scope)
        sql.add("ORDER BY e.seq DESC LIMIT ?", limit)
        return [(row["seq"], self._event(row)) for row in self._rows(*sql.statement())]

    def event(self, event_id: UUID, *, scope: TagScope) -> UsageEvent | None:
        """One event by its id."""
        sql = _Sql()
        sql.add(_SELECT_EVENTS)
        sql.add("WHERE e.id = ?", event_id.bytes)
        sql.having_tags(scope)
        return next(map(self._event, self._rows(*sql.statement())), None)

    def tag_keys(self, *, scope: TagScope) -> Sequence[str]:
        """The keys of all tags, sorted."""
        sql = _Sql()
        sql.add("SELECT DISTINCT e.key FROM tags e WHERE 1")
        sql.having_tags(scope)
        sql.add("ORDER BY 1")
        return [row[0] for row in self._rows(*sql.statement())]

    def outcomes(
        self, start: datetime, stop: datetime, *, scope: TagScope
    ) -> Sequence[OutcomeCount]:
        """Counters summed over the hours, most frequent first."""
        sql = _Sql()
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
            created_at=_EPOCH + row["created_at"] * _MICROSECOND,
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


class _Sql:
    """A statement and its parameters, put together in order."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        self._parts.append(text)
        self._values.extend(values)

    def bind(self, values: Iterable[Any]) -> None:
        self._values.extend(values)

    def having_tags(self, tags: TagScope) -> None:
        """Keep rows of `e` whose tag set has each of these tags."""
        for key, value in tags.items():
            self.add(
                "AND EXISTS (SELECT 1 FROM tags t WHERE t.tag_set_id = e.tag_set_id "
                "AND t.key = ? AND t.value = ?)",
                key,
                value,
            )

    def statement(self) -> tuple[str, list[Any]]:
        return "\n".join(self._parts), self._values


def _column(name: str) -> str:
    try:
        return _COLUMNS[name]
    except KeyError:
        raise ConfigError(
            f"cannot group by {name!r}; use one of {', '.join(DIMENSIONS)} or 'tag:<key>'"
        ) from None
