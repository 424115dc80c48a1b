"""A view of the ledger that is asked for no sum twice."""

from __future__ import annotations

from costmw.store.base import Found, FoundDurations, Query, Snapshot
from costmw.store.rollups import PAIRED_VALUES


class Once:
    """Asks `view` for sums, and gives the same again to whoever asks the same.

    What it gives is for all who ask, and must not be changed.
    """

    def __init__(self, view: Snapshot) -> None:
        self.view = view
        self._totals: dict[object, Found] = {}
        self._durations: dict[object, FoundDurations] = {}

    def totals(self, query: Query) -> Found:
        """See `Snapshot.totals`."""
        key = _key(query)
        if key not in self._totals:
            self._totals[key] = self.view.totals(query)
        return self._totals[key]

    def durations(self, query: Query) -> FoundDurations:
        """See `Snapshot.durations`."""
        key = _key(query)
        if key not in self._durations:
            self._durations[key] = self.view.durations(query)
        return self._durations[key]

    def has_few_values(self, key: str) -> bool:
        """Whether a key has so few values in the whole ledger that rollups have pairs of them."""
        return self.view.value_count(key) <= PAIRED_VALUES


def _key(query: Query) -> object:
    return (
        query.start,
        query.stop,
        query.group_by,
        query.buckets,
        tuple(sorted(query.scope.items())),
        tuple(sorted(query.where.items())),
        query.filters,
    )
