"""Keeps the rollups of the SQLite store: one slice of new events and amendments at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import groupby
from operator import itemgetter
from typing import Literal
from zoneinfo import ZoneInfo

from costmw.store.base import Totals
from costmw.store.rolled import FacetOfKey, Kind, Profiles, Rolled
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import Buckets, Cell, Cells
from costmw.store.sql import COUNTS, MILLION
from costmw.store.sqlite_write import facet, facet_key

_FIELDS = tuple(field.name for field in fields(Totals))

COLUMNS = tuple(
    column for name in _FIELDS for column in ((name,) if name in COUNTS else (name, f"{name}_m"))
)

_AMOUNTS = tuple(name for name in _FIELDS if name not in COUNTS)
_AMOUNTS_OF = itemgetter(*map(_FIELDS.index, _AMOUNTS))

# Picks the columns of a cell out of its sums, the rests of its amounts, and their millions.
_PARTS = (*(f"sum of {name}" for name in _FIELDS), *_AMOUNTS, *(f"{name}_m" for name in _AMOUNTS))
_COLUMNS_OF = itemgetter(
    *(_PARTS.index(f"sum of {name}" if name in COUNTS else name) for name in COLUMNS)
)

ALL = (2**62, 2**62)

_LOOKED_UP_AT_ONCE = 500

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
        self._profiles = _SqliteProfiles()

    def forget_ids(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._profiles.forget()

    def slice(
        self, connection: sqlite3.Connection, limit: int, *, until: tuple[int, int] = ALL
    ) -> int:
        """Roll up at most `limit` new events and amendments, inside a transaction.

        `until` are the last of each that may be rolled up.

        Returns:
            How many were rolled up; fewer than `limit` when none are left.
        """
        self._profiles.begin(connection)
        events_done, amendments_done = watermarks(connection)
        cells = Cells(self._buckets)
        new = (amendments_done, events_done, until[0], limit)
        events = connection.execute(_NEW_EVENTS, new).fetchall()
        self._profiles.look_up({row[2] for row in events})
        for *row, event_id, amended in events:
            rolled = Rolled(row)
            if amended:  # by amendments that came before it
                for change in connection.execute(_AMENDMENTS_OF, (event_id, amendments_done)):
                    rolled.amend(change)
            self._add(cells, rolled)
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

    def _add(self, cells: Cells, rolled: Rolled, sign: Literal[1, -1] = 1) -> None:
        cells.add(
            rolled.created_at,
            self._profiles.of(rolled),
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
        rolled = Rolled(found)
        changes = connection.execute(_AMENDMENTS_OF, (event_id, seq)).fetchall()
        for change in changes:
            if change[-1] == seq:
                self._add(cells, rolled, -1)
            rolled.amend(change)
        self._add(cells, rolled)

    def _store(self, connection: sqlite3.Connection, cells: Cells) -> None:
        connection.executemany(_UPSERT, _rows(HOUR, cells.by_hour()))
        connection.executemany(_UPSERT, _rows(DAY, cells.by_day()))
        connection.executemany(_UPSERT_BIN, cells.histograms())


class _SqliteProfiles(Profiles):
    """Looks up and makes the facets of calls, on the connection of the current slice."""

    _connection: sqlite3.Connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """Go on, on this connection, with how many values each key has by now."""
        self._connection = connection
        self.heed_widths(dict(connection.execute("SELECT id, value_count FROM facet_keys")))

    def look_up(self, tag_set_ids: Iterable[int]) -> None:
        """Look up the tags of many tag sets together, which is quicker."""
        strange = sorted(self.not_remembered(tag_set_ids))
        for first in range(0, len(strange), _LOOKED_UP_AT_ONCE):
            some = strange[first : first + _LOOKED_UP_AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(
                "SELECT tag_set_id, key_id, facet_id FROM tags "  # noqa: S608 - placeholders
                f"WHERE tag_set_id IN ({marks}) ORDER BY tag_set_id",
                some,
            )
            for tag_set_id, tags in groupby(rows, itemgetter(0)):
                self.remember(tag_set_id, [(key_id, facet_id) for _, key_id, facet_id in tags])

    def facets_of_tags(self, tag_set_id: int) -> Iterable[FacetOfKey]:
        return self._connection.execute(
            "SELECT key_id, facet_id FROM tags WHERE tag_set_id = ?", (tag_set_id,)
        )

    def facets_of_kind(self, kind: Kind) -> Iterable[FacetOfKey]:
        connection = self._connection
        call_kind_id, status, source = kind
        provider, model, operation, api_key_id = connection.execute(
            "SELECT provider, coalesce(response_model, request_model), operation, api_key_id "
            "FROM call_kinds WHERE id = ?",
            (call_kind_id,),
        ).fetchone()
        row = (provider, model, operation, status, source)
        key_id = facet_key(connection, "kind")
        facet_id = facet(connection, key_id, json.dumps(row, ensure_ascii=False))
        if not connection.execute(
            "SELECT 1 FROM rollup_kinds WHERE facet_id = ?", (facet_id,)
        ).fetchone():
            connection.execute(
                "INSERT INTO rollup_kinds "
                "(facet_id, provider, model, operation, status, cost_source) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (facet_id, *row),
            )
        yield key_id, facet_id
        if api_key_id is not None:
            key_id = facet_key(connection, "api_key_id")
            yield key_id, facet(connection, key_id, api_key_id)


def _rows(every: int, cells: Iterable[Cell]) -> Iterator[tuple[int, ...]]:
    for bucket, first, second, sums in cells:
        amounts = _AMOUNTS_OF(sums)
        rests = [value % MILLION for value in amounts]
        millions = [value // MILLION for value in amounts]
        yield every, bucket, first, second, *_COLUMNS_OF((*sums, *rests, *millions))


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
