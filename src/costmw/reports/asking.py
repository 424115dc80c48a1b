"""What asks a ledger: each question has one consistent view of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Self

from costmw.budgets import Budget
from costmw.pricing import Pricing
from costmw.question import Question
from costmw.reports.asked import Asked, asked_of
from costmw.reports.once import Once
from costmw.store.base import Store, TagScope


class Asking:
    """Opens a view of a ledger for each question, or one for all of a moment."""

    def __init__(
        self,
        store: Store,
        budgets: Sequence[Budget] = (),
        *,
        pricing: Pricing | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.pricing = pricing or Pricing()
        self._store = store
        self._budgets = budgets
        self._now = now
        self._pinned: Once | None = None

    @contextmanager
    def at_one_moment(self) -> Iterator[Self]:
        """Reports that all see the ledger as it is now: `with reports.at_one_moment() as r:`."""
        with self._store.snapshot() as snapshot:
            moment = self._now()
            pinned = type(self)(
                self._store, self._budgets, pricing=self.pricing, now=lambda: moment
            )
            pinned._pinned = Once(snapshot)
            yield pinned

    @contextmanager
    def _view(self) -> Iterator[Once]:
        if self._pinned is not None:
            yield self._pinned
        else:
            with self._store.snapshot() as snapshot:
                yield Once(snapshot)

    @contextmanager
    def _asked(self, question: Question, scope: TagScope | None) -> Iterator[Asked]:
        with self._view() as once:
            yield asked_of(once, question, scope or {}, self._now(), self._store.time_zone)
