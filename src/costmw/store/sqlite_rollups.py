"""Keeps the rollups of the SQLite store: one slice of new events and amendments at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal
from zoneinfo import ZoneInfo

from costmw.store.base import Totals
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import (
    PAIRED_VALUES,
    ROLLED_VALUES,
    Buckets,
    Cell,
    Cells,
    Profile,
)
from costmw.store.sqlite_write import facet, facet_key

MILLION = 1_000_000

COUNTS = ("calls", "requests", "unpriced", "flagged", "incomplete", "timed")
"""Fields of `Totals` that no ledger is long enough for to pass 64 bits."""

_FIELDS = tuple(field.name for field in fields(Totals))

COLUMNS = tuple(
    column for name in _FIELDS for column in ((name,) if name in COUNTS else (name, f"{name}_m"))
)

_IS_COUNT = tuple(name in COUNTS for name in _FIELDS)

Facets = tuple[tuple[int, ...], tuple[int, ...]]
"""Facets of keys of few values, and of many."""

REMEMBERED_AT_MOST = 100_000

ALL = (2**62, 2**62)

_UPSERT = f"""
INSERT INTO rollups (every, bucket, facet_id, other_facet_id, {", ".join(COLUMNS)})
VALUES (?, ?, ?, ?{", ?" * len(COLUMNS)})
ON CONFLICT DO UPDATE SET {", ".join(f"{name} = {name} + excluded.{name}" for name in COLUMNS)}
"""  # noqa: S608 - our own names

_UPSERT_BIN = """
INSERT INTO rollup_histograms (bucket, facet_id, bin, count) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""

_EVENT = """
    e.created_at, e.tag_set_id, e.call_kind_id, e.status, p.source,
    e.first_in_request, e.request_id IS NOT NULL, e.cost_pico_usd, e.reason IS NOT NULL,
    e.input_tokens, e.output_tokens, e.cache_read_input_tokens, e.cache_write_input_tokens,
    e.reasoning_output_tokens, e.latency_ms, e.time_to_first_chunk_ms
"""

_NEW_EVENTS = f"""
SELECT e.seq, {_EVENT},
    e.id, EXISTS (SELECT 1 FROM amendments a WHERE a.event_id = e.id AND a.seq <= ?)
FROM usage_events e CROSS JOIN prices p ON p.id = e.price_id
WHERE e.seq > ? AND e.seq <= ? ORDER BY e.seq LIMIT ?
"""  # noqa: S608 - our own names

_NEW_AMENDMENTS = """
SELECT a.seq, a.event_id FROM amendments a
WHERE a.seq > ? AND a.seq <= ? ORDER BY a.seq LIMIT ?
"""

_ONE_EVENT = f"""
SELECT e.seq, {_EVENT}
FROM usage_events e CROSS JOIN prices p ON p.id = e.price_id
WHERE e.id = ?
"""  # noqa: S608 - our own names

_AMENDMENTS_OF = """
SELECT a.status, p.source, a.cost_pico_usd, a.estimated_cost_pico_usd, a.unpriced,
    a.input_tokens, a.output_tokens, a.cache_read_input_tokens, a.cache_write_input_tokens,
    a.reasoning_output_tokens, a.seq
FROM amendments a LEFT JOIN prices p ON p.id = a.price_id
WHERE a.event_id = ? AND a.seq <= ? ORDER BY a.seq
"""


class Roller:
    """Rolls up what is new; remembers which facets calls have."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._buckets = Buckets(zone)
        self._profiles: dict[Facets, Profile] = {}
        self._of_tags: dict[int, Facets] = {}
        self._of_kinds: dict[tuple[int, str, str], Facets] = {}
        self._widths: dict[int, int] = {}

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._forget_facets()
        self._widths.clear()

    def _forget_facets(self) -> None:
        self._profiles.clear()
        self._of_tags.clear()
        self._of_kinds.clear()

    def slice(
        self, connection: sqlite3.Connection, limit: int, *, until: tuple[int, int] = ALL
    ) -> int:
        """Roll up at most `limit` new events and amendments, inside a transaction.

        `until` are the last of each that may be rolled up.

        Returns:
            How many were rolled up; fewer than `limit` when none are left.
        """
        self._heed_widths(connection)
        events_done, amendments_done = watermarks(connection)
        cells = Cells(self._buckets)
        new = (amendments_done, events_done, until[0], limit)
        events = connection.execute(_NEW_EVENTS, new).fetchall()
        for *row, event_id, amended in events:
            rolled = _Rolled(row)
            if amended:  # by amendments that came before it
                for change in connection.execute(_AMENDMENTS_OF, (event_id, amendments_done)):
                    rolled.amend(change)
            self._add(connection, cells, rolled)
        amendments = []
        if len(events) < limit:  # an amendment comes after its event
            left = limit - len(events)
            fresh = (amendments_done, until[1], left)
            amendments = connection.execute(_NEW_AMENDMENTS, fresh).fetchall()
            for seq, event_id in amendments:
                self._amend(connection, cells, event_id, seq)
        if events or amendments:
            self._store(connection, cells)
            set_watermarks(
                connection,
                events[-1][0] if events else events_done,
                amendments[-1][0] if amendments else amendments_done,
            )
        return len(events) + len(amendments)

    def _add(
        self,
        connection: sqlite3.Connection,
        cells: Cells,
        rolled: _Rolled,
        sign: Literal[1, -1] = 1,
    ) -> None:
        cells.add(
            rolled.created_at,
            self._profile(connection, rolled),
            rolled.totals(),
            rolled.latency_ms,
            rolled.first_chunk_ms,
            sign=sign,
        )

    def _amend(
        self, connection: sqlite3.Connection, cells: Cells, event_id: bytes, seq: int
    ) -> None:
        """Take an event away as it was before an amendment, and add it as it is after."""
        found = connection.execute(_ONE_EVENT, (event_id,)).fetchone()
        if found is None:
            return
        rolled = _Rolled(found)
        changes = connection.execute(_AMENDMENTS_OF, (event_id, seq)).fetchall()
        for change in changes:
            if change[-1] == seq:
                self._add(connection, cells, rolled, -1)
            rolled.amend(change)
        self._add(connection, cells, rolled)

    def _profile(self, connection: sqlite3.Connection, rolled: _Rolled) -> Profile:
        kind = (rolled.call_kind_id, rolled.status, rolled.source)
        of_kind, of_kind_wide = self._kind_facets(connection, kind)
        of_tags, of_tags_wide = self._tag_facets(connection, rolled.tag_set_id)
        key = (of_kind + of_tags, of_kind_wide + of_tags_wide)
        known = self._profiles.get(key)
        if known is None:
            _make_room(self._profiles)
            known = self._profiles[key] = Profile(*key)
        return known

    def _tag_facets(self, connection: sqlite3.Connection, tag_set_id: int) -> Facets:
        known = self._of_tags.get(tag_set_id)
        if known is None:
            _make_room(self._of_tags)
            found = connection.execute(
                "SELECT key_id, facet_id FROM tags WHERE tag_set_id = ?", (tag_set_id,)
            )
            known = self._of_tags[tag_set_id] = self._by_width(found)
        return known

    def _kind_facets(self, connection: sqlite3.Connection, kind: tuple[int, str, str]) -> Facets:
        known = self._of_kinds.get(kind)
        if known is None:
            _make_room(self._of_kinds)
            known = self._of_kinds[kind] = self._intern_kind(connection, *kind)
        return known

    def _intern_kind(
        self, connection: sqlite3.Connection, call_kind_id: int, status: str, source: str
    ) -> Facets:
        provider, model, operation, api_key_id = connection.execute(
            "SELECT provider, coalesce(response_model, request_model), operation, api_key_id "
            "FROM call_kinds WHERE id = ?",
            (call_kind_id,),
        ).fetchone()
        kind = (provider, model, operation, status, source)
        key_id = facet_key(connection, "kind")
        facet_id = facet(connection, key_id, json.dumps(kind, ensure_ascii=False))
        if not connection.execute(
            "SELECT 1 FROM rollup_kinds WHERE facet_id = ?", (facet_id,)
        ).fetchone():
            connection.execute(
                "INSERT INTO rollup_kinds "
                "(facet_id, provider, model, operation, status, cost_source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (facet_id, *kind),
            )
        found = [(key_id, facet_id)]
        if api_key_id is not None:
            key_id = facet_key(connection, "api_key_id")
            found.append((key_id, facet(connection, key_id, api_key_id)))
        return self._by_width(found)

    def _by_width(self, found: Iterable[tuple[int, int]]) -> Facets:
        facets: list[int] = []
        wide: list[int] = []
        for key_id, facet_id in found:
            width = self._widths.get(key_id, 0)
            if width <= PAIRED_VALUES:
                facets.append(facet_id)
            elif width <= ROLLED_VALUES:
                wide.append(facet_id)
        return tuple(facets), tuple(wide)

    def _heed_widths(self, connection: sqlite3.Connection) -> None:
        """Notice keys that have become wide: their values are kept in other cells then."""
        widths = dict(connection.execute("SELECT id, value_count FROM facet_keys"))
        for bound in (PAIRED_VALUES, ROLLED_VALUES):
            if any(width > bound >= self._widths.get(key, 0) for key, width in widths.items()):
                self._forget_facets()
        self._widths = widths

    def _store(self, connection: sqlite3.Connection, cells: Cells) -> None:
        connection.executemany(_UPSERT, _rows(HOUR, cells.by_hour()))
        connection.executemany(_UPSERT, _rows(DAY, cells.by_day()))
        connection.executemany(_UPSERT_BIN, cells.histograms())


class _Rolled:
    """One event as it counts in the rollups, with the amendments that are applied to it."""

    def __init__(self, row: Sequence[Any]) -> None:
        (
            _,
            self.created_at,
            self.tag_set_id,
            self.call_kind_id,
            self.status,
            self.source,
            self._first_in_request,
            self._in_request,
            self._cost,
            self._reason_given,
            *tokens,
            self.latency_ms,
            self.first_chunk_ms,
        ) = row
        exact = self.status == "ok"
        self._sums = [self._cost or 0, 0] if exact else [0, self._cost or 0]
        self._unpriced = self._cost is None
        self._tokens = [count or 0 for count in tokens]

    def amend(self, change: tuple[Any, ...]) -> None:
        """Apply one amendment, a row of `_AMENDMENTS_OF`."""
        status, source, cost, estimated, unpriced, *tokens, _ = change
        self.status = status or self.status
        self.source = source or self.source
        self._sums = [self._sums[0] + cost, self._sums[1] + estimated]
        self._unpriced += unpriced
        self._tokens = [old + new for old, new in zip(self._tokens, tokens, strict=True)]

    def totals(self) -> tuple[int, ...]:
        """What it adds to a cell, in the order of `Totals`."""
        cost, estimated = self._sums
        return (
            1,
            self._first_in_request,
            cost,
            estimated,
            cost + estimated if self._in_request else 0,
            self._unpriced,
            self._reason_given and self._cost is not None,
            self.status != "ok",
            *self._tokens,
            self.latency_ms or 0,
            self.latency_ms is not None,
        )


def _rows(every: int, cells: Iterable[Cell]) -> Iterator[tuple[int, ...]]:
    for bucket, first, second, sums in cells:
        row = [every, bucket, first, second]
        for value, is_count in zip(sums, _IS_COUNT, strict=True):
            row.append(value if is_count else value % MILLION)
            if not is_count:
                row.append(value // MILLION)
        yield tuple(row)


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= REMEMBERED_AT_MOST:
        remembered.clear()


def watermarks(connection: sqlite3.Connection) -> tuple[int, int]:
    """The last event and the last amendment that the rollups have."""
    found = dict(connection.execute("SELECT source, seq FROM rollup_watermarks"))
    return found.get("usage_events", 0), found.get("amendments", 0)


def set_watermarks(connection: sqlite3.Connection, events: int, amendments: int) -> None:
    """Say up to which event and amendment the rollups go."""
    connection.executemany(
        "INSERT INTO rollup_watermarks (source, seq) VALUES (?, ?) "
        "ON CONFLICT DO UPDATE SET seq = excluded.seq",
        [("usage_events", events), ("amendments", amendments)],
    )
