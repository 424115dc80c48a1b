"""One event as it counts in the rollups, and the cells that it counts in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from costmw.store.rollups import PAIRED_VALUES, ROLLED_VALUES, FacetCells, Profile

REMEMBERED_AT_MOST = 100_000

Kind = tuple[int, str, str]
"""What tells calls of one kind from others: call kind, status, source of the cost."""

FacetOfKey = tuple[int, int]
"""A key and one of its values, by their ids."""

Facets = tuple[tuple[int, ...], tuple[int, ...]]
"""Facets of keys of few values, and of many."""


class Rolled:
    """One event as it counts in the rollups, with the amendments that are applied to it.

    Made of a row: position, created_at in microseconds, tag set, call kind, status, source
    of the cost, whether it is the first of its web request, whether it has one, cost,
    whether there is a reason, five counts of tokens, latency, time to the first chunk.
    """

    __slots__ = (
        "_cost",
        "_first_in_request",
        "_in_request",
        "_reason_given",
        "_sums",
        "_tokens",
        "_unpriced",
        "call_kind_id",
        "created_at",
        "first_chunk_ms",
        "latency_ms",
        "source",
        "status",
        "tag_set_id",
    )

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

    @property
    def kind(self) -> Kind:
        """What its kind is by now."""
        return self.call_kind_id, self.status, self.source

    def amend(self, change: Sequence[Any]) -> None:
        """Apply an amendment: status, source, cost, estimated cost, unpriced, tokens, position."""
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


class Profiles(ABC):
    """Knows the profile of an event by its tag set and kind; remembers what it has looked up."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, ...], FacetCells] = {}
        self._of_tags: dict[int, Facets] = {}
        self._of_kinds: dict[Kind, Facets] = {}
        self._widths: Mapping[int, int] = {}

    @abstractmethod
    def facets_of_tags(self, tag_set_id: int) -> Iterable[FacetOfKey]:
        """The tags of a tag set."""

    @abstractmethod
    def facets_of_kind(self, kind: Kind) -> Iterable[FacetOfKey]:
        """The facets that a kind has: itself, and the API key."""

    def of(self, rolled: Rolled) -> Profile:
        """The cells that an event counts in."""
        of_kind, of_kind_wide = self._kind_facets(rolled.kind)
        of_tags, of_tags_wide = self._tag_facets(rolled.tag_set_id)
        facets = of_kind + of_tags
        cells = self._cells.get(facets)
        if cells is None:
            _make_room(self._cells)
            cells = self._cells[facets] = FacetCells(facets)
        return cells, of_kind_wide + of_tags_wide

    def heed_widths(self, widths: Mapping[int, int]) -> None:
        """Notice keys that have become wide: their values are kept in other cells then.

        `widths` says how many values a key has; one that is left out has few.
        """
        for bound in (PAIRED_VALUES, ROLLED_VALUES):
            if any(width > bound >= self._widths.get(key, 0) for key, width in widths.items()):
                self._forget_facets()
        self._widths = widths

    def forget(self) -> None:
        """Forget ids that were handed out in a transaction that is undone."""
        self._forget_facets()
        self._widths = {}

    def _forget_facets(self) -> None:
        self._cells.clear()
        self._of_tags.clear()
        self._of_kinds.clear()

    def not_remembered(self, tag_set_ids: Iterable[int]) -> list[int]:
        """Those tag sets whose tags are not remembered."""
        return [tag_set_id for tag_set_id in tag_set_ids if tag_set_id not in self._of_tags]

    def remember(self, tag_set_id: int, facets: Iterable[FacetOfKey]) -> None:
        """Remember the tags of a tag set, which need not be looked up then."""
        _make_room(self._of_tags)
        self._of_tags[tag_set_id] = self._by_width(facets)

    def _tag_facets(self, tag_set_id: int) -> Facets:
        known = self._of_tags.get(tag_set_id)
        if known is None:
            self.remember(tag_set_id, self.facets_of_tags(tag_set_id))
            known = self._of_tags[tag_set_id]
        return known

    def _kind_facets(self, kind: Kind) -> Facets:
        known = self._of_kinds.get(kind)
        if known is None:
            _make_room(self._of_kinds)
            known = self._of_kinds[kind] = self._by_width(self.facets_of_kind(kind))
        return known

    def _by_width(self, found: Iterable[FacetOfKey]) -> Facets:
        facets: list[int] = []
        wide: list[int] = []
        for key_id, facet_id in found:
            width = self._widths.get(key_id, 0)
            if width <= PAIRED_VALUES:
                facets.append(facet_id)
            elif width <= ROLLED_VALUES:
                wide.append(facet_id)
        return tuple(facets), tuple(wide)


def _make_room(remembered: dict[Any, Any]) -> None:
    if len(remembered) >= REMEMBERED_AT_MOST:
        remembered.clear()
