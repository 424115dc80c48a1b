"""Records into rows: what the SQLite store writes inside a transaction."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from costmw.events import Amendment, Outcome, Price, Record, Submission, UsageEvent
from costmw.store.sqlite_read import micros

INTERNED_AT_MOST = 50_000
"""Tag sets and prices that a process remembers the ids of."""

_INSERT_EVENT = """
INSERT INTO usage_events (
    id, created_at, request_id, first_in_request, operation, api, provider,
    request_model, response_model, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens,
    usage_detail, cost_pico_usd, price_id, price_context, status, reason, latency_ms,
    time_to_first_chunk_ms, tag_set_id, api_key_id, response_id, trace_id
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT (id) DO NOTHING
"""

_INSERT_AMENDMENT = """
INSERT INTO amendments (
    id, event_id, amended_at, reason, status, price_id, cost_pico_usd,
    estimated_cost_pico_usd, unpriced, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT (id) DO NOTHING
"""

_INSERT_SUBMISSION = """
INSERT INTO submissions (
    provider, result_id, created_at, tag_set_id, request_id, first_in_request, api_key_id
) VALUES (?,?,?,?,?,?,?)
ON CONFLICT (provider, result_id) DO NOTHING
"""

_INSERT_ALIAS = """
INSERT INTO submissions (
    provider, result_id, created_at, tag_set_id, request_id, first_in_request, api_key_id
)
SELECT provider, ?, created_at, tag_set_id, request_id, first_in_request, api_key_id
FROM submissions WHERE provider = ? AND result_id = ?
ON CONFLICT (provider, result_id) DO NOTHING
"""

# Who asked, and when, is who submitted: not who happened to read the result.
_AS_SUBMITTED = """
UPDATE usage_events AS e
SET created_at = s.created_at, tag_set_id = s.tag_set_id, request_id = s.request_id,
    first_in_request = s.first_in_request, api_key_id = s.api_key_id
FROM submissions AS s
WHERE e.id = ? AND s.provider = ? AND s.result_id = ?
"""

# A batch has many results, and was asked for in one web request.
_COUNTED_IN_REQUEST = """
UPDATE submissions SET first_in_request = 0 WHERE provider = ? AND result_id = ?
"""

_COUNT_OUTCOME = """
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
VALUES (?, ?, ?, ?, ?, 1)
ON CONFLICT DO UPDATE SET count = count + 1
"""


class RecordInserter:
    """Writes records; remembers the ids of tag sets and prices that it has seen."""

    def __init__(self) -> None:
        self._tag_sets: dict[bytes, int] = {}
        self._prices: dict[bytes, int] = {}

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._tag_sets.clear()
        self._prices.clear()

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Write one record; an event or amendment that is there already is skipped."""
        match record:
            case UsageEvent():
                new = connection.execute(_INSERT_EVENT, self._event_row(connection, record))
                if record.submitted_as and new.rowcount:
                    submission = (record.provider or "", record.submitted_as)
                    connection.execute(_AS_SUBMITTED, (record.id.bytes, *submission))
                    connection.execute(_COUNTED_IN_REQUEST, submission)
            case Submission(alias_of=str() as known):
                connection.execute(_INSERT_ALIAS, (record.result_id, record.provider or "", known))
            case Submission():
                connection.execute(
                    _INSERT_SUBMISSION,
                    (
                        record.provider or "",
                        record.result_id,
                        micros(record.created_at),
                        self._tag_set(connection, record.tags),
                        record.request_id.bytes if record.request_id else None,
                        record.first_in_request,
                        record.api_key_id,
                    ),
                )
            case Amendment():
                connection.execute(_INSERT_AMENDMENT, self._amendment_row(connection, record))
            case Outcome():
                connection.execute(
                    _COUNT_OUTCOME,
                    (
                        int(record.at.timestamp()) // 3600,
                        record.kind,
                        record.provider or "",
                        record.model or "",
                        self._tag_set(connection, record.tags),
                    ),
                )

    def _event_row(self, connection: sqlite3.Connection, event: UsageEvent) -> tuple[Any, ...]:
        usage = event.usage
        return (
            event.id.bytes,
            micros(event.created_at),
            event.request_id.bytes if event.request_id else None,
            event.first_in_request,
            event.operation,
            event.api,
            event.provider,
            event.request_model,
            event.response_model,
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_write_input_tokens,
            usage.reasoning_output_tokens,
            _json(usage.detail) if usage.detail else None,
            event.price.cost_pico_usd,
            self._price(connection, event.price),
            _json(event.price_context) if event.price_context else None,
            event.status,
            event.reason,
            event.latency_ms,
            event.time_to_first_chunk_ms,
            self._tag_set(connection, event.tags),
            event.api_key_id,
            event.response_id,
            event.trace_id,
        )

    def _amendment_row(
        self, connection: sqlite3.Connection, amendment: Amendment
    ) -> tuple[Any, ...]:
        return (
            amendment.id.bytes,
            amendment.event_id.bytes,
            micros(amendment.at),
            amendment.reason,
            amendment.status,
            self._price(connection, amendment.price) if amendment.price else None,
            amendment.cost_pico_usd,
            amendment.estimated_cost_pico_usd,
            amendment.unpriced,
            amendment.input_tokens,
            amendment.output_tokens,
            amendment.cache_read_input_tokens,
            amendment.cache_write_input_tokens,
            amendment.reasoning_output_tokens,
        )

    def _tag_set(self, connection: sqlite3.Connection, tags: Mapping[str, str]) -> int:
        text = _json(tags)
        digest = _digest(text)
        known = self._tag_sets.get(digest)
        if known is None:
            known, new = _intern(connection, "tag_sets", digest, {"tags": text})
            if new:
                connection.executemany(
                    "INSERT INTO tags (tag_set_id, key, value) VALUES (?, ?, ?)",
                    [(known, key, value) for key, value in tags.items()],
                )
            _remember(self._tag_sets, digest, known)
        return known

    def _price(self, connection: sqlite3.Connection, price: Price) -> int:
        units = _json(price.units)
        digest = _digest(price.source, price.ref or "", units)
        known = self._prices.get(digest)
        if known is None:
            row = {"source": price.source, "ref": price.ref, "units": units}
            known, _ = _intern(connection, "prices", digest, row)
            _remember(self._prices, digest, known)
        return known


def _intern(
    connection: sqlite3.Connection, table: str, digest: bytes, row: Mapping[str, str | None]
) -> tuple[int, bool]:
    """Give the id of the row with this digest, and whether it is new."""
    found = connection.execute(f"SELECT id FROM {table} WHERE digest = ?", (digest,)).fetchone()  # noqa: S608 - our own names
    if found:
        return found[0], False
    cursor = connection.execute(
        f"INSERT INTO {table} (digest, {', '.join(row)}) "  # noqa: S608 - our own names
        f"VALUES (?{', ?' * len(row)})",
        (digest, *row.values()),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid, True


def _remember(cache: dict[bytes, int], digest: bytes, row_id: int) -> None:
    if len(cache) >= INTERNED_AT_MOST:
        cache.clear()
    cache[digest] = row_id


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
