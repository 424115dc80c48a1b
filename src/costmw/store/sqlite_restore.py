"""Writes rows of one SQLite ledger into another, in which ids are others."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from costmw.store.interned import CALL_KIND, PRICE, digest_of_row, digest_of_tags
from costmw.store.sqlite_care import pruned_until
from costmw.store.sqlite_rollups import COLUMNS
from costmw.store.sqlite_write import facet, facet_key

REMEMBERED_AT_MOST = 50_000

_MINUTE = 60_000_000

_EVENT = """
INSERT INTO usage_events (
    seq, id, created_at, request_id, first_in_request, call_kind_id, input_tokens,
    output_tokens, cache_read_input_tokens, cache_write_input_tokens,
    reasoning_output_tokens, usage_detail, cost_pico_usd, price_id, status, reason,
    latency_ms, time_to_first_chunk_ms, tag_set_id, response_id, trace_id
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT DO NOTHING
"""

_AMENDMENT = """
INSERT INTO amendments (
    seq, id, event_id, amended_at, reason, status, price_id, cost_pico_usd,
    estimated_cost_pico_usd, unpriced, input_tokens, output_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens
) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
ON CONFLICT DO NOTHING
"""

_SUBMISSION = """
INSERT INTO submissions (
    provider, result_id, created_at, tag_set_id, request_id, first_in_request, api_key_id
) VALUES (?,?,?,?,?,?,?)
ON CONFLICT DO NOTHING
"""

_OUTCOME = """
INSERT INTO call_outcomes (hour, kind, provider, model, tag_set_id, count)
VALUES (?,?,?,?,?,?)
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""

_ROLLUP = f"""
INSERT INTO rollups (every, bucket, facet_id, other_facet_id, {", ".join(COLUMNS)})
VALUES (?, ?, ?, ?{", ?" * len(COLUMNS)}) ON CONFLICT DO NOTHING
"""  # noqa: S608 - our own names

_BIN = """
INSERT INTO rollup_histograms (bucket, facet_id, bin, count) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_BUDGET = """
INSERT INTO budgets (name, source, definition, since) VALUES (?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

_ASSUMED_CHARGE = """
INSERT INTO assumed_charges (id, pico_usd, unpriced, at, tags, expired) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

LOST = "its {} could not be recovered from a damaged file"


class Restorer:
    """Writes the rows of one file; each may come any number of times."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._ids: dict[tuple[str, Any], int | None] = {}
        self._writers: Mapping[str, Callable[..., bool]] = {
            "settings": self._setting,
            "facet_keys": self._facet_key,
            "facets": self._facet,
            "tag_sets": self._tag_set,
            "prices": self._price,
            "call_kinds": self._call_kind,
            "usage_events": self._event,
            "amendments": self._amendment,
            "submissions": self._submission,
            "call_outcomes": self._outcome,
            "rollups": self._rollup,
            "rollup_histograms": self._bin,
            "budgets": self._budget,
            "assumed_charges": self._assumed_charge,
        }

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._ids.clear()

    def restore(
        self, connection: sqlite3.Connection, table: str, values: Sequence[Any], rowid: int | None
    ) -> bool:
        """Write a row, inside of a transaction; gives whether it was not there.

        Raises:
            ValueError, TypeError, sqlite3.IntegrityError: when it cannot be what was written.
        """
        return self._writers[table](connection, values, rowid)

    def _setting(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        key, value = values
        if key == "pruned_until" and int(value) > pruned_until(connection):
            connection.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (key, value))
        return False

    # What other rows refer to.

    def _facet_key(self, connection: sqlite3.Connection, values: Sequence[Any], old: int) -> bool:
        return self._note(connection, "facet_keys", old, facet_key(connection, values[1]))

    def _facet(self, connection: sqlite3.Connection, values: Sequence[Any], old: int) -> bool:
        if not pruned_until(connection):
            return False  # no rollup will be brought over, and rows bring their own
        _, key_id, value = values
        known = self._id(connection, "facet_keys", key_id)
        if known is None:
            return False
        new = facet(connection, known, value)
        (key,) = connection.execute("SELECT key FROM facet_keys WHERE id = ?", (known,)).fetchone()
        if key == "kind":
            connection.execute(
                "INSERT OR IGNORE INTO rollup_kinds "
                "(facet_id, provider, model, operation, status, cost_source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (new, *json.loads(value)),
            )
        return self._note(connection, "facets", old, new)

    def _tag_set(self, connection: sqlite3.Connection, values: Sequence[Any], old: int) -> bool:
        _, digest, text = values
        tags = json.loads(text)
        if digest_of_tags(tags) != (text, digest):
            raise ValueError("not what was written")
        return self._note(connection, "tag_sets", old, self._tags(connection, tags))

    def _tags(self, connection: sqlite3.Connection, tags: Mapping[str, str]) -> int:
        text, digest = digest_of_tags(tags)
        new, is_new = _interned(connection, "tag_sets", digest, {"tags": text})
        if is_new:
            for key, value in tags.items():
                key_id = facet_key(connection, f"tag:{key}")
                connection.execute(
                    "INSERT INTO tags (tag_set_id, key_id, facet_id) VALUES (?, ?, ?)",
                    (new, key_id, facet(connection, key_id, value)),
                )
        return new

    def _price(self, connection: sqlite3.Connection, values: Sequence[Any], old: int) -> bool:
        return self._row(connection, "prices", PRICE, values, old)

    def _call_kind(self, connection: sqlite3.Connection, values: Sequence[Any], old: int) -> bool:
        return self._row(connection, "call_kinds", CALL_KIND, values, old)

    def _row(
        self,
        connection: sqlite3.Connection,
        table: str,
        columns: Sequence[str],
        values: Sequence[Any],
        old: int,
    ) -> bool:
        _, digest, *row = values
        if digest_of_row(tuple(row)) != digest:
            raise ValueError("not what was written")
        new, _ = _interned(connection, table, digest, dict(zip(columns, row, strict=True)))
        return self._note(connection, table, old, new)

    # Rows.

    def _event(self, connection: sqlite3.Connection, values: Sequence[Any], seq: int) -> bool:
        _, event_id, created_at, request_id, first, kind_id, *counts = values
        *counts, cost, price_id, status, reason, latency, first_chunk, tags_id, answer, trace = (
            counts
        )
        if created_at < pruned_until(connection):
            return False  # dropped, and told of by the rollups
        lost = [reason] if reason else []
        if (call_kind_id := self._id(connection, "call_kinds", kind_id)) is None:
            call_kind_id = self._lost_kind(connection)
            lost.append(LOST.format("model and provider"))
        if (known_price_id := self._id(connection, "prices", price_id)) is None:
            known_price_id = self._lost_price(connection)
            lost.append(LOST.format("price"))
        if (tag_set_id := self._id(connection, "tag_sets", tags_id)) is None:
            tag_set_id = self._tags(connection, {})
            lost.append(LOST.format("tags"))
        row = (
            *(event_id, created_at, request_id, first, call_kind_id, *counts, cost),
            *(known_price_id, status, "; ".join(lost) or None, latency, first_chunk, tag_set_id),
            *(answer, trace),
        )
        return _insert(connection, _EVENT, "usage_events", seq, row)

    def _amendment(self, connection: sqlite3.Connection, values: Sequence[Any], seq: int) -> bool:
        _, *row = values
        if row[5] is not None:
            row[5] = self._id(connection, "prices", row[5])
        return _insert(connection, _AMENDMENT, "amendments", seq, tuple(row))

    def _submission(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        provider, result_id, created_at, tags_id, *rest = values
        row = (provider, result_id, created_at, self._tags_of(connection, tags_id), *rest)
        return connection.execute(_SUBMISSION, row).rowcount > 0

    def _outcome(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        *key, tags_id, count = values
        # Counters change: the highest that is found is what counts.
        counted = json.dumps([*key, tags_id])
        more = count - (self._id(connection, "call_outcomes", counted) or 0)
        if more <= 0:
            return False
        row = (*key, self._tags_of(connection, tags_id), more)
        connection.execute(_OUTCOME, row)
        return self._note(connection, "call_outcomes", counted, count)

    def _rollup(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        every, bucket, *facets = values[:4]
        if bucket * _MINUTE >= pruned_until(connection):
            return False  # its rows are there, and are rolled up again
        known = [self._id(connection, "facets", old) if old else 0 for old in facets]
        if None in known:
            raise ValueError("nothing says what it is the sum of")
        row = (every, bucket, *sorted(id_ or 0 for id_ in known), *values[4:])
        return connection.execute(_ROLLUP, row).rowcount > 0

    def _bin(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        bucket, old, position, count = values
        if bucket * _MINUTE >= pruned_until(connection):
            return False
        known = self._id(connection, "facets", old) if old else 0
        if known is None:
            raise ValueError("nothing says what it is the histogram of")
        return connection.execute(_BIN, (bucket, known, position, count)).rowcount > 0

    def _budget(self, connection: sqlite3.Connection, values: Sequence[Any], _: None) -> bool:
        return connection.execute(_BUDGET, values).rowcount > 0

    def _assumed_charge(
        self, connection: sqlite3.Connection, values: Sequence[Any], _: None
    ) -> bool:
        return connection.execute(_ASSUMED_CHARGE, values).rowcount > 0

    # Ids.

    def _tags_of(self, connection: sqlite3.Connection, old: int) -> int:
        known = self._id(connection, "tag_sets", old)
        return self._tags(connection, {}) if known is None else known

    def _lost_kind(self, connection: sqlite3.Connection) -> int:
        row = dict.fromkeys(CALL_KIND) | {"operation": "unknown"}
        return _interned(connection, "call_kinds", digest_of_row(tuple(row.values())), row)[0]

    def _lost_price(self, connection: sqlite3.Connection) -> int:
        row = dict.fromkeys(PRICE) | {"source": "none", "units": "{}"}
        return _interned(connection, "prices", digest_of_row(tuple(row.values())), row)[0]

    def _note(self, connection: sqlite3.Connection, kind: str, old: Any, new: int) -> bool:
        connection.execute(
            "INSERT OR REPLACE INTO recovered_ids (source, kind, old, new) VALUES (?, ?, ?, ?)",
            (self._source, kind, old, new),
        )
        self._ids[kind, old] = new
        return True

    def _id(self, connection: sqlite3.Connection, kind: str, old: Any) -> int | None:
        if (kind, old) not in self._ids:
            if len(self._ids) >= REMEMBERED_AT_MOST:
                self._ids.clear()
            found = connection.execute(
                "SELECT new FROM recovered_ids WHERE source = ? AND kind = ? AND old = ?",
                (self._source, kind, old),
            ).fetchone()
            self._ids[kind, old] = found[0] if found else None
        return self._ids[kind, old]


def _interned(
    connection: sqlite3.Connection, table: str, digest: bytes, row: Mapping[str, str | None]
) -> tuple[int, bool]:
    """The id of a row, which is made when there is none, and whether it was."""
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


def _insert(
    connection: sqlite3.Connection, statement: str, table: str, seq: int, row: tuple[Any, ...]
) -> bool:
    """Write a row in its old place, or in another where that is taken."""
    if connection.execute(statement, (seq, *row)).rowcount > 0:
        return True
    if connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row[0],)).fetchone():  # noqa: S608 - our own names
        return False
    return connection.execute(statement, (None, *row)).rowcount > 0
