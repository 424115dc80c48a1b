"""What events refer to, in Postgres: tags, kinds of calls and prices, each stored once.

Whoever is first stores it: rows are inserted in sorted order and tables always in the
same one, so that no two hosts wait for each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg import Connection

from costmw.events import Price, UsageEvent
from costmw.store.interned import (
    CALL_KIND,
    PRICE,
    InternedRow,
    call_kind_of,
    digest_of,
    digest_of_row,
    digest_of_tags,
    price_of,
)
from costmw.store.postgres_epoch import hold_epoch
from costmw.store.postgres_sql import integers, storable, texts
from costmw.store.rolled import FacetOfKey, Kind, Profiles

REMEMBERED_AT_MOST = 50_000
"""Ids that a process remembers of each sort; more are looked up again."""

TagKey = tuple[tuple[str, str], ...]
PriceKey = tuple[str | None, ...]

Facet = tuple[str, str]
"""A key and a value that calls are grouped by."""


@dataclass(slots=True)
class Wanted:
    """What a batch refers to: all that has to have an id before its rows can be made.

    `kinds` are the rows of `call_kinds`, each with a status and the source of a cost.
    """

    tags: dict[TagKey, Mapping[str, str]] = field(default_factory=dict)
    prices: dict[PriceKey, Price] = field(default_factory=dict)
    kinds: set[tuple[InternedRow, str, str]] = field(default_factory=set)
    tag_set_ids: set[int] = field(default_factory=set)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Want a tag set."""
        self.tags[tuple(tags.items())] = tags

    def add_price(self, price: Price) -> None:
        """Want a price."""
        self.prices[price_key(price)] = price

    def add_call(self, event: UsageEvent) -> InternedRow:
        """Want the kind of a call, which is given, and its price."""
        row = call_kind_of(event)
        self.kinds.add((row, event.status, event.price.source))
        self.add_price(event.price)
        return row


def price_key(price: Price) -> PriceKey:
    """What tells a price from others, quicker than its row."""
    return price.source, price.ref, *(text for unit in price.units.items() for text in unit)


class Interner(Profiles):
    """Gives ids, and remembers them; what is not wanted first is not known."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch: str | None = None
        self._tag_sets: dict[TagKey, int] = {}
        self._tags: dict[int, tuple[FacetOfKey, ...]] = {}
        self._facets: dict[Facet, FacetOfKey] = {}
        self._call_kinds: dict[InternedRow, int] = {}
        self._prices: dict[PriceKey, int] = {}
        self._kinds: dict[Kind, tuple[FacetOfKey, ...]] = {}

    def forget(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        super().forget()
        for remembered in self._remembered():
            remembered.clear()

    def heed_epoch(self, now: str) -> bool:
        """Forget all ids when they have changed their meaning; gives whether they have not."""
        before, self._epoch = self._epoch, now
        if before in (None, now):
            return True
        self.forget()
        return False

    def make_room(self) -> None:
        """Forget all when it has become too much; not in the middle of a batch."""
        if any(len(remembered) > REMEMBERED_AT_MOST for remembered in self._remembered()):
            self.forget()

    def tag_set(self, tags: Mapping[str, str]) -> int:
        """The id of a tag set."""
        return self._tag_sets[tuple(tags.items())]

    def call_kind(self, row: InternedRow) -> int:
        """The id of a row of `call_kinds`."""
        return self._call_kinds[row]

    def price(self, price: Price) -> int:
        """The id of a price."""
        return self._prices[price_key(price)]

    def facets_of_tags(self, tag_set_id: int) -> Iterable[FacetOfKey]:
        """The tags of a tag set."""
        return self._tags[tag_set_id]

    def facets_of_kind(self, kind: Kind) -> Iterable[FacetOfKey]:
        """The facets that a kind has: itself, and the API key."""
        return self._kinds[kind]

    def lacks(self, wanted: Wanted) -> bool:
        """Whether anything has to be looked up or stored."""
        return not (
            wanted.tags.keys() <= self._tag_sets.keys()
            and wanted.prices.keys() <= self._prices.keys()
            and all(
                (self._call_kinds.get(row, 0), status, source) in self._kinds
                for row, status, source in wanted.kinds
            )
            and wanted.tag_set_ids <= self._tags.keys()
        )

    def intern(self, connection: Connection, wanted: Wanted) -> None:
        """Look up and store what is wanted, inside of a transaction."""
        self.heed_epoch(hold_epoch(connection))
        tag_sets = [
            (key, {storable(name): storable(value) for name, value in key})
            for key in wanted.tags
            if key not in self._tag_sets
        ]
        kinds = [
            found
            for found in wanted.kinds
            if (self._call_kinds.get(found[0], 0), *found[1:]) not in self._kinds
        ]
        facets = {(f"tag:{name}", value) for _, tags in tag_sets for name, value in tags.items()}
        facets.update(facet for found in kinds for facet in facets_of(*found))
        self._intern_facets(connection, facets - self._facets.keys())
        self._intern_tag_sets(connection, tag_sets)
        self._intern_kinds(connection, kinds)
        prices = {key: price_of(price) for key, price in wanted.prices.items()}
        prices = {key: row for key, row in prices.items() if key not in self._prices}
        ids, _ = _intern(connection, "prices", PRICE, prices.values())
        self._prices.update((key, ids[row]) for key, row in prices.items())
        self._load_tags(connection, wanted.tag_set_ids - self._tags.keys())

    def _remembered(self) -> tuple[dict[object, object], ...]:
        return (  # type: ignore[return-value]  # dictionaries of all sorts, to be emptied
            self._tag_sets,
            self._tags,
            self._facets,
            self._call_kinds,
            self._prices,
            self._kinds,
        )

    def _intern_facets(self, connection: Connection, wanted: Collection[Facet]) -> None:
        if not wanted:
            return
        keys = _intern_keys(connection, {key for key, _ in wanted})
        rows = {(keys[key], digest_of(value)): (key, value) for key, value in wanted}
        asked = sorted(rows)
        values = (integers(k for k, _ in asked), [digest for _, digest in asked])
        find = (
            "SELECT f.key_id, f.digest, f.id FROM facets f "
            "JOIN unnest($1::int[], $2::bytea[]) w (key_id, digest) "
            "ON f.key_id = w.key_id AND f.digest = w.digest"
        )
        found = {(k, d): i for k, d, i in connection.execute(find, values).fetchall()}
        if new := [row for row in asked if row not in found]:
            inserted = connection.execute(
                "INSERT INTO facets (key_id, digest, value) "
                "SELECT * FROM unnest($1::int[], $2::bytea[], $3::text[]) "
                "ON CONFLICT DO NOTHING RETURNING key_id, digest, id",
                (
                    integers(k for k, _ in new),
                    [digest for _, digest in new],
                    texts(rows[row][1] for row in new),
                ),
            ).fetchall()
            found.update(((k, d), i) for k, d, i in inserted)
            if len(inserted) < len(new):  # another host was quicker
                found.update(((k, d), i) for k, d, i in connection.execute(find, values).fetchall())
            _count_values(connection, Counter(k for k, _, _ in inserted))
        self._facets.update(
            (facet, (key_id, found[key_id, digest])) for (key_id, digest), facet in rows.items()
        )

    def _intern_tag_sets(
        self, connection: Connection, wanted: Sequence[tuple[TagKey, Mapping[str, str]]]
    ) -> None:
        if not wanted:
            return
        rows = {digest_of_tags(tags)[1]: tags for _, tags in wanted}
        ids, new = _intern_by_digest(
            connection,
            "tag_sets",
            ("tags",),
            {digest: (digest_of_tags(tags)[0],) for digest, tags in rows.items()},
        )
        for digest, tags in rows.items():
            self._tags[ids[digest]] = tuple(self._facets[f"tag:{k}", v] for k, v in tags.items())
        said = [(ids[digest], *facet) for digest in new for facet in self._tags[ids[digest]]]
        if said:
            connection.execute(
                "INSERT INTO tags (tag_set_id, key_id, facet_id) "
                "SELECT * FROM unnest($1::bigint[], $2::int[], $3::int[])",
                tuple(integers(column) for column in zip(*said, strict=True)),
            )
        for key, tags in wanted:
            self._tag_sets[key] = ids[digest_of_tags(tags)[1]]

    def _intern_kinds(
        self, connection: Connection, wanted: Sequence[tuple[InternedRow, str, str]]
    ) -> None:
        if not wanted:
            return
        ids, _ = _intern(connection, "call_kinds", CALL_KIND, {row for row, _, _ in wanted})
        self._call_kinds.update(ids)
        kinds = {}
        for row, status, source in wanted:
            facets = tuple(self._facets[facet] for facet in facets_of(row, status, source))
            self._kinds[ids[row], status, source] = facets
            kinds[facets[0][1]] = _rollup_kind(row, status, source)
        facet_ids = sorted(kinds)
        connection.execute(
            "INSERT INTO rollup_kinds "
            "(facet_id, provider, model, operation, status, cost_source) "
            "SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::text[], $5::text[], "
            "$6::text[]) ON CONFLICT DO NOTHING",
            (
                integers(facet_ids),
                *(
                    texts(column)
                    for column in zip(*(kinds[facet_id] for facet_id in facet_ids), strict=True)
                ),
            ),
        )

    def _load_tags(self, connection: Connection, tag_set_ids: Collection[int]) -> None:
        if not tag_set_ids:
            return
        found: dict[int, list[FacetOfKey]] = {tag_set_id: [] for tag_set_id in tag_set_ids}
        for tag_set_id, key_id, facet_id in connection.execute(
            "SELECT tag_set_id, key_id, facet_id FROM tags WHERE tag_set_id = ANY($1::bigint[])",
            (integers(tag_set_ids),),
        ).fetchall():
            found[tag_set_id].append((key_id, facet_id))
        self._tags.update((tag_set_id, tuple(facets)) for tag_set_id, facets in found.items())


def _rollup_kind(row: InternedRow, status: str, source: str) -> tuple[str | None, ...]:
    operation, _, provider, request_model, response_model, _, _ = row
    model = request_model if response_model is None else response_model
    kind = (provider, model, operation, status, source)
    return tuple(text and storable(text) for text in kind)


def facets_of(row: InternedRow, status: str, source: str) -> list[Facet]:
    """The facets that a call has by its kind: the kind itself, and the API key."""
    kind = json.dumps(_rollup_kind(row, status, source), ensure_ascii=False)
    api_key_id = row[CALL_KIND.index("api_key_id")]
    facets = [("kind", kind)]
    if api_key_id is not None:
        facets.append(("api_key_id", storable(api_key_id)))
    return facets


def _intern_keys(connection: Connection, wanted: Collection[str]) -> dict[str, int]:
    keys = sorted(wanted)
    find = "SELECT key, id FROM facet_keys WHERE key = ANY($1::text[])"
    found: dict[str, int] = dict(connection.execute(find, (texts(keys),)).fetchall())
    if new := [key for key in keys if key not in found]:
        connection.execute(
            "INSERT INTO facet_keys (key) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING",
            (texts(new),),
        )
        found = dict(connection.execute(find, (texts(keys),)).fetchall())
    return found


def _count_values(connection: Connection, counts: Mapping[int, int]) -> None:
    for key_id, count in sorted(counts.items()):
        connection.execute(
            "UPDATE facet_keys SET value_count = value_count + $2 WHERE id = $1", (key_id, count)
        )


def _intern(
    connection: Connection, table: str, columns: tuple[str, ...], rows: Collection[InternedRow]
) -> tuple[dict[InternedRow, int], list[bytes]]:
    # By what is stored, so that a row that is read again is found again.
    digests = {row: digest_of_row(tuple(text and storable(text) for text in row)) for row in rows}
    by_digest = {digest: row for row, digest in digests.items()}
    ids, new = _intern_by_digest(connection, table, columns, by_digest)
    return {row: ids[digest] for row, digest in digests.items()}, new


def _intern_by_digest(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    rows: Mapping[bytes, InternedRow],
) -> tuple[dict[bytes, int], list[bytes]]:
    """The ids of rows by their digests, and the digests of those that are new."""
    if not rows:
        return {}, []
    find = f"SELECT digest, id FROM {table} WHERE digest = ANY($1::bytea[])"  # noqa: S608 - our own names
    digests = sorted(rows)
    ids: dict[bytes, int] = dict(connection.execute(find, (digests,)).fetchall())
    missing = [digest for digest in digests if digest not in ids]
    if not missing:
        return ids, []
    arrays = ", ".join(f"${n}::text[]" for n in range(2, len(columns) + 2))
    inserted = connection.execute(
        f"INSERT INTO {table} (digest, {', '.join(columns)}) "  # noqa: S608 - our own names
        f"SELECT * FROM unnest($1::bytea[], {arrays}) "
        "ON CONFLICT (digest) DO NOTHING RETURNING digest, id",
        (missing, *map(texts, zip(*(rows[digest] for digest in missing), strict=True))),
    ).fetchall()
    ids.update(inserted)
    if len(inserted) < len(missing):  # another host was quicker
        ids.update(connection.execute(find, (digests,)).fetchall())
    return ids, [digest for digest, _ in inserted]
