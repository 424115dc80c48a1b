"""Records into rows: what the SQLite store writes inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from costmw.events import Amendment, Outcome, Price, Record, Submission, UsageEvent
from costmw.store.interned import (
    CALL_KIND,
    PRICE,
    InternedRow,
    call_kind_of,
    digest_of_row,
    digest_of_tags,
    json_text,
    price_of,
)
from costmw.store.micros import micros

INTERNED_AT_MOST = 50_000
"""Ids that a process remembers, of tag sets, prices and the like."""

_INSERT_EVENT = """
INSERT INTO usage_events (
    id, created_at, request_id, first_in_request, call_kind_id, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens,
    usage_detail, cost_pico_usd, price_id, status, reason, latency_ms,
    time_to_first_chunk_ms, tag_set_id, response_id, trace_id
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
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

_INSERT_TAG = "INSERT INTO tags (tag_set_id, key_id, facet_id) VALUES (?, ?, ?)"

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

_FIND_SUBMISSION = """
SELECT created_at, tag_set_id, request_id, first_in_request, api_key_id
FROM submissions WHERE provider = ? AND result_id = ?
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


OUTCOMES_COUNTED = "outcomes_counted"
"""The setting that says how many outcomes were counted, ever."""

_COUNT_OUTCOMES = """
INSERT INTO settings (key, value) VALUES (?, 1)
ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1
"""


class RecordInserter:
    """Writes records; remembers the ids of what it has interned."""

    def __init__(self) -> None:
        self._ids: dict[Hashable, int] = {}
        self._new_tags: list[tuple[int, int, int]] = []

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._ids.clear()
        self._new_tags.clear()

    def insert(self, connection: sqlite3.Connection, records: Iterable[Record]) -> None:
        """Write records in their order; an event or amendment that is there is skipped."""
        rows: list[tuple[Any, ...]] = []
        for record in records:
            if isinstance(record, UsageEvent) and not record.submitted_as:
                rows.append(self._event_row(connection, record))
                continue
            # Events together, since that is quicker; but none after what comes after it.
            connection.executemany(_INSERT_EVENT, rows)
            rows.clear()
            self._insert_one(connection, record)
        connection.executemany(_INSERT_EVENT, rows)
        connection.executemany(_INSERT_TAG, self._new_tags)
        self._new_tags.clear()

    def _insert_one(self, connection: sqlite3.Connection, record: Record) -> None:
        match record:
            case UsageEvent():
                self._insert_result(connection, record)
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
                connection.execute(_COUNT_OUTCOMES, (OUTCOMES_COUNTED,))
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

    def _insert_result(self, connection: sqlite3.Connection, event: UsageEvent) -> None:
        """Write a result that came later; who asked for it, and when, is who submitted it."""
        key = (event.provider or "", event.submitted_as)
        found = connection.execute(_FIND_SUBMISSION, key).fetchone()
        if found is None:
            connection.execute(_INSERT_EVENT, self._event_row(connection, event))
            return
        created_at, tag_set_id, request_id, first_in_request, api_key_id = found
        asked = _Asked(created_at, request_id, first_in_request, tag_set_id)
        row = self._event_row(connection, replace(event, api_key_id=api_key_id), asked)
        if connection.execute(_INSERT_EVENT, row).rowcount:
            connection.execute(_COUNTED_IN_REQUEST, key)

    def _event_row(
        self, connection: sqlite3.Connection, event: UsageEvent, asked: _Asked | None = None
    ) -> tuple[Any, ...]:
        usage = event.usage
        if asked is None:
            asked = _Asked(
                micros(event.created_at),
                event.request_id.bytes if event.request_id else None,
                event.first_in_request,
                self._tag_set(connection, event.tags),
            )
        return (
            event.id.bytes,
            asked.created_at,
            asked.request_id,
            asked.first_in_request,
            self._call_kind(connection, event),
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_write_input_tokens,
            usage.reasoning_output_tokens,
            json_text(usage.detail) if usage.detail else None,
            event.price.cost_pico_usd,
            self._price(connection, event.price),
            event.status,
            event.reason,
            event.latency_ms,
            event.time_to_first_chunk_ms,
            asked.tag_set_id,
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
        key = ("tag_sets", *tags.items())
        known = self._ids.get(key)
        if known is None:
            text, digest = digest_of_tags(tags)
            known, new = _intern(connection, "tag_sets", digest, {"tags": text})
            if new:
                self._new_tags += [
                    (known, *self._facet(connection, f"tag:{key}", value))
                    for key, value in tags.items()
                ]
            self._remember(key, known)
        return known

    def _facet(self, connection: sqlite3.Connection, key: str, value: str) -> tuple[int, int]:
        key_id = self._ids.get(key)
        if key_id is None:
            key_id = facet_key(connection, key)
            self._remember(key, key_id)
        facet_id = self._ids.get((key_id, value))
        if facet_id is None:
            facet_id = facet(connection, key_id, value)
            self._remember((key_id, value), facet_id)
        return key_id, facet_id

    def _call_kind(self, connection: sqlite3.Connection, event: UsageEvent) -> int:
        key = (
            "call_kinds",
            event.operation,
            event.api,
            event.provider,
            event.request_model,
            event.response_model,
            event.api_key_id,
            *event.price_context.items(),
        )
        known = self._ids.get(key)
        if known is None:
            known = self._interned(connection, "call_kinds", CALL_KIND, call_kind_of(event))
            self._remember(key, known)
        return known

    def _price(self, connection: sqlite3.Connection, price: Price) -> int:
        key = ("prices", price.source, price.ref, *price.units.items())
        known = self._ids.get(key)
        if known is None:
            known = self._interned(connection, "prices", PRICE, price_of(price))
            self._remember(key, known)
        return known

    def _interned(
        self,
        connection: sqlite3.Connection,
        table: str,
        columns: tuple[str, ...],
        row: InternedRow,
    ) -> int:
        known = self._ids.get(row)
        if known is None:
            values = dict(zip(columns, row, strict=True))
            known, _ = _intern(connection, table, digest_of_row(row), values)
            self._remember(row, known)
        return known

    def _remember(self, key: Hashable, row_id: int) -> None:
        if len(self._ids) >= INTERNED_AT_MOST:
            self._ids.clear()
        self._ids[key] = row_id


class _Asked(NamedTuple):
    """Who asked for a call, and when, as a row has it."""

    created_at: int
    request_id: bytes | None
    first_in_request: bool
    tag_set_id: int


def facet_key(connection: sqlite3.Connection, key: str) -> int:
    """The id of a key that calls are grouped by."""
    found = connection.execute("SELECT id FROM facet_keys WHERE key = ?", (key,)).fetchone()
    if found:
        return int(found[0])
    cursor = connection.execute("INSERT INTO facet_keys (key) VALUES (?)", (key,))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def facet(connection: sqlite3.Connection, key_id: int, value: str) -> int:
    """The id of a value of a key, which is counted when it is new."""
    row = (key_id, value)
    found = connection.execute(
        "SELECT id FROM facets WHERE key_id = ? AND value = ?", row
    ).fetchone()
    if found:
        return int(found[0])
    cursor = connection.execute("INSERT INTO facets (key_id, value) VALUES (?, ?)", row)
    connection.execute(
        "UPDATE facet_keys SET value_count = value_count + 1 WHERE id = ?", (key_id,)
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _intern(
    connection: sqlite3.Connection, table: str, digest: bytes, row: Mapping[str, str | None]
) -> tuple[int, bool]:
    """Give the id of the row with this digest, and whether it is new."""
    made = connection.execute(
        f"INSERT INTO {table} (digest, {', '.join(row)}) "  # noqa: S608 - our own names
        f"VALUES (?{', ?' * len(row)}) ON CONFLICT (digest) DO NOTHING",
        (digest, *row.values()),
    )
    if made.rowcount:
        assert made.lastrowid is not None
        return made.lastrowid, True
    (known,) = connection.execute(f"SELECT id FROM {table} WHERE digest = ?", (digest,)).fetchone()  # noqa: S608 - our own names
    return known, False
