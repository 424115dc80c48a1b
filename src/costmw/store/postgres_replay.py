"""The rollups of a day as they ought to be, worked out from its rows, beside those that are.

Rows go through the same code as when they were written. One day at a time, so that no more
than its cells are in memory; nothing is written, and everything is seen at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.periods import day_start, day_stop
from costmw.store.base import Totals
from costmw.store.interned import CALL_KIND, InternedRow, digest_of
from costmw.store.postgres_intern import facets_of
from costmw.store.postgres_rolled import AMENDMENTS_OF, COUNTED
from costmw.store.postgres_sql import integers, uuids
from costmw.store.rolled import FacetOfKey, Kind, Profiles, Rolled
from costmw.store.rollup_plan import DAY, HOUR
from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES, Buckets, Cells, minutes
from costmw.store.row_select import Ask

FIELDS = tuple(field.name for field in fields(Totals))

CellKey = tuple[int, int, int, int]
"""Minutes that it spans, when it begins, and two facets."""

BinKey = tuple[int, int, int]
"""Day, facet and bin of a histogram."""

NOTHING = (0,) * len(FIELDS)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Found by its index, each: the next day of which there is anything.
_NEXT = f"""
SELECT (SELECT min(created_at) FROM usage_events WHERE created_at >= $1),
    (SELECT min(bucket) FROM rollups WHERE every = {HOUR} AND bucket >= $2),
    (SELECT min(bucket) FROM rollups WHERE every = {DAY} AND bucket >= $2),
    (SELECT min(bucket) FROM rollup_histograms WHERE bucket >= $2)
"""  # noqa: S608 - our own names

_ROWS = f"""
SELECT e.id, {COUNTED}
FROM usage_events e JOIN prices p ON p.id = e.price_id
WHERE e.created_at >= $1 AND e.created_at < $2
"""  # noqa: S608 - our own names

_WIDTH = "coalesce((SELECT value_count FROM facet_keys WHERE id = {}.key_id), 0)"

_CELLS = f"""
SELECT r.every, r.bucket, r.facet_id, r.other_facet_id,
    greatest({_WIDTH.format("f")}, {_WIDTH.format("g")}), {", ".join(f"r.{n}" for n in FIELDS)}
FROM rollups r
LEFT JOIN facets f ON f.id = r.facet_id LEFT JOIN facets g ON g.id = r.other_facet_id
WHERE r.every IN ({HOUR}, {DAY}) AND r.bucket >= $1 AND r.bucket < $2
"""  # noqa: S608 - our own names

_BINS = f"""
SELECT h.bucket, h.facet_id, h.bin, {_WIDTH.format("f")}, h.count
FROM rollup_histograms h LEFT JOIN facets f ON f.id = h.facet_id
WHERE h.bucket >= $1 AND h.bucket < $2
"""  # noqa: S608 - our own names


@dataclass(slots=True)
class Compared:
    """One day: what the rollups say, what its rows do, and how many rows and amendments."""

    start: datetime
    stop: datetime
    told: dict[CellKey, tuple[int, ...]] = field(default_factory=dict)
    found: dict[CellKey, tuple[int, ...]] = field(default_factory=dict)
    told_bins: dict[BinKey, int] = field(default_factory=dict)
    found_bins: dict[BinKey, int] = field(default_factory=dict)
    replayed: int = 0

    def differing(self) -> list[CellKey]:
        """Cells of which the two do not say the same; none is the same as nothing but zeros."""
        return sorted(
            key
            for key in self.told.keys() | self.found.keys()
            if self.told.get(key, NOTHING) != self.found.get(key, NOTHING)
        )

    def differing_bins(self) -> list[BinKey]:
        """Bins that differ."""
        return sorted(
            key
            for key in self.told_bins.keys() | self.found_bins.keys()
            if self.told_bins.get(key, 0) != self.found_bins.get(key, 0)
        )


class Replay(Profiles):
    """Goes through the rows again, in one snapshot.

    `ask` gives the rows of a statement, `in_slices` many rows, some at a time.
    """

    def __init__(
        self,
        ask: Ask,
        in_slices: Callable[[str, Sequence[Any]], Iterator[Sequence[Any]]],
        zone: ZoneInfo,
    ) -> None:
        super().__init__()
        self._ask = ask
        self._in_slices = in_slices
        self._zone = zone
        self._tags: dict[int, list[FacetOfKey]] = {}
        self._names: dict[int, str] = {}
        self.unknown: set[tuple[InternedRow, str, str]] = set()
        """Kinds of calls that no cell can have, since they have no facet."""
        self.heed_widths(dict(ask("SELECT id, value_count FROM facet_keys", ())))  # type: ignore[arg-type]

    def next_day(self, after: datetime) -> tuple[datetime, datetime] | None:
        """The first day from this moment on of which there are rows or rollups."""
        ((row, *buckets),) = self._ask(_NEXT, (after, minutes(after)))
        moments = [_EPOCH + timedelta(minutes=bucket) for bucket in buckets if bucket is not None]
        if row is not None:
            moments.append(row.astimezone(UTC))
        if not moments:
            return None
        return day_start(min(moments), self._zone), day_stop(min(moments), self._zone)

    def compare(self, start: datetime, stop: datetime) -> Compared:
        """One day, by when it starts and stops."""
        day = Compared(start, stop)
        cells = Cells(Buckets(self._zone))
        for rows in self._in_slices(_ROWS, (start, stop)):
            day.replayed += self._add(cells, rows)
        for every, found in ((HOUR, cells.by_hour()), (DAY, cells.by_day())):
            for bucket, first, second, sums in found:
                day.found[every, bucket, first, second] = tuple(sums)
        for bucket, facet_id, position, count in cells.histograms():
            day.found_bins[bucket, facet_id, position] = count
        span = (minutes(start), minutes(stop))
        for rows in self._in_slices(_CELLS, span):
            for every, bucket, first, second, width, *told in rows:
                if _is_used(every, first, width):
                    day.told[every, bucket, first, second] = tuple(map(int, told))
        for rows in self._in_slices(_BINS, span):
            for bucket, facet_id, position, width, count in rows:
                if width <= PAIRED_VALUES:
                    day.told_bins[bucket, facet_id, position] = count
        return day

    def name_of(self, facet_id: int) -> str:
        """A facet in words, such as `tag:tenant=acme`."""
        if facet_id not in self._names:
            found = self._ask(
                "SELECT k.key || '=' || f.value FROM facets f "
                "JOIN facet_keys k ON k.id = f.key_id WHERE f.id = $1",
                (facet_id,),
            )
            self._names[facet_id] = found[0][0] if found else f"(no facet has the id {facet_id})"
        return self._names[facet_id]

    def _add(self, cells: Cells, rows: Sequence[Any]) -> int:
        """Add rows to the cells; gives how many rows and amendments they were."""
        changes: dict[UUID, list[Sequence[Any]]] = {}
        amendments = self._ask(AMENDMENTS_OF, (uuids(row[0] for row in rows),))
        for amendment in amendments:
            changes.setdefault(amendment[0], []).append(amendment[1:])
        events = [(row[0], Rolled(row[1:])) for row in rows]
        self._load_tags({one.tag_set_id for _, one in events} - self._tags.keys())
        for event_id, one in events:
            for change in changes.get(event_id, ()):
                one.amend(change)
            cells.add(
                one.created_at, self.of(one), one.totals(), one.latency_ms, one.first_chunk_ms
            )
        return len(rows) + len(amendments)

    def facets_of_tags(self, tag_set_id: int) -> Iterable[FacetOfKey]:
        """The tags of a tag set."""
        return self._tags[tag_set_id]

    def facets_of_kind(self, kind: Kind) -> Iterable[FacetOfKey]:
        """The facets that a kind has: itself, and the API key."""
        call_kind_id, status, source = kind
        columns = ", ".join(CALL_KIND)
        (row,) = self._ask(f"SELECT {columns} FROM call_kinds WHERE id = $1", (call_kind_id,))  # noqa: S608
        for key, value in facets_of(tuple(row), status, source):
            found = self._ask(
                "SELECT f.key_id, f.id FROM facets f JOIN facet_keys k ON k.id = f.key_id "
                "WHERE k.key = $1 AND f.digest = $2",
                (key, digest_of(value)),
            )
            if found:
                yield found[0][0], found[0][1]
            else:
                # One that no facet has, so that it is told what is missing.
                self.unknown.add((tuple(row), status, source))
                facet_id = 2**32 - 1 - len(self._names)
                self._names[facet_id] = f"{key}={value}"
                yield 0, facet_id

    def _load_tags(self, tag_set_ids: Iterable[int]) -> None:
        wanted = integers(tag_set_ids)
        for tag_set_id in tag_set_ids:
            self._tags[tag_set_id] = []
        sql = "SELECT tag_set_id, key_id, facet_id FROM tags WHERE tag_set_id = ANY($1::bigint[])"
        for tag_set_id, key_id, facet_id in self._ask(sql, (wanted,)):
            self._tags[tag_set_id].append((key_id, facet_id))


def _is_used(every: int, first: int, width: int) -> bool:
    """Whether questions are answered from a cell: its key may have become too wide for it."""
    if width <= PAIRED_VALUES:
        return True
    return width <= ROLLED_VALUES and every == DAY and first == 0
