"""The views of the page, each asked with a question."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from costmw.answering import call_of
from costmw.answers import (
    Anomalies,
    Breakdown,
    BudgetList,
    BudgetRule,
    Call,
    CallDetail,
    Overview,
    Series,
    Values,
)
from costmw.budgets import Budget
from costmw.outlook import Outlook
from costmw.question import Question
from costmw.reports.asking import Asking
from costmw.reports.breakdown import breakdown_of
from costmw.reports.budgets import all_budgets, rule_of, states_of, within
from costmw.reports.details import detail_of
from costmw.reports.overview import overview_of
from costmw.reports.ranking import ranking_of
from costmw.reports.series import series_of
from costmw.reports.unusual import anomalies_of
from costmw.store.base import TagScope

USUAL = Question()
"""The last 30 days beside those before, by the first common tag that is in use."""

ALL_TIME = Question(range="all", compare="none", by=None)


class Views(Asking):
    """Answers what the page asks.

    Each raises ConfigError when a question makes no sense; the message says why.
    """

    def overview(
        self,
        question: Question = USUAL,
        *,
        scope: TagScope | None = None,
        can_edit: bool = False,
    ) -> Overview:
        """Everything of the page's first screen, at one moment.

        `can_edit` says whether whoever asks may change the budgets of the page.

        Raises:
            ConfigError: when the question makes no sense; the message says why.
        """
        with self._asked(question, scope) as asked:
            budgets = all_budgets(self._budgets, asked.once.view)
            editable = self._editable(budgets) if can_edit else frozenset[str]()
            return overview_of(asked, budgets, self.pricing, editable)

    def breakdown(self, question: Question = USUAL, *, scope: TagScope | None = None) -> Breakdown:
        """Sums by what the question groups by, ranked, beside the time before.

        Raises:
            ConfigError: when the question makes no sense; the message says why.
        """
        with self._asked(question, scope) as asked:
            return breakdown_of(asked, ranking_of(asked))

    def series(self, question: Question = USUAL, *, scope: TagScope | None = None) -> Series:
        """The values of what the question groups by, over time.

        Raises:
            ConfigError: when the question makes no sense; the message says why.
        """
        with self._asked(question, scope) as asked:
            return series_of(asked, ranking_of(asked))

    def anomalies(self, question: Question = USUAL, *, scope: TagScope | None = None) -> Anomalies:
        """Days, and hours of today, that cost far more than is usual.

        Raises:
            ConfigError: when the question makes no sense; the message says why.
        """
        with self._asked(question, scope) as asked:
            return Anomalies(
                start=asked.frame.start, stop=asked.frame.stop, anomalies=anomalies_of(asked)
            )

    def budget_list(self, *, scope: TagScope | None = None, can_edit: bool = False) -> BudgetList:
        """The fullest limits and how they go on; what budgets say, without a scope only."""
        with self.at_one_moment() as now, now._view() as once:
            budgets = all_budgets(self._budgets, once.view)
            editable = self._editable(budgets)
            seer = Outlook(once, now._now(), self._store.time_zone, scope or {})
            return BudgetList(
                budgets=states_of(
                    within(scope or {}, budgets, once.view),
                    once,
                    seer,
                    editable=editable if can_edit else frozenset(),
                ),
                rules=[] if scope else list(now.budget_rules().values()),
            )

    def budget_rules(self) -> dict[str, BudgetRule]:
        """What all budgets say, by their names."""
        with self._view() as once:
            budgets = all_budgets(self._budgets, once.view)
        page = self._editable(budgets)
        return {one.name: rule_of(one, "page" if one.name in page else "code") for one in budgets}

    def values(
        self, key: str, *, contains: str = "", limit: int = 50, scope: TagScope | None = None
    ) -> Values:
        """Values of a dimension or of `tag:<key>` to choose from, sorted.

        Raises:
            ConfigError: when there is no such dimension.
        """
        with self._view() as once:
            found = once.view.values(key, scope=scope or {}, contains=contains, limit=limit)
        return Values(key=key, values=list(found))

    def calls(
        self,
        limit: int = 50,
        *,
        before: int | None = None,
        question: Question = ALL_TIME,
        scope: TagScope | None = None,
    ) -> list[tuple[int, Call]]:
        """The newest calls, each with the position to go on from (`before`).

        Raises:
            ConfigError: when the question makes no sense; the message says why.
        """
        with self._asked(question, scope) as asked:
            return [(position, call_of(event)) for position, event in asked.events(limit, before)]

    def call(self, call_id: UUID, *, scope: TagScope | None = None) -> CallDetail | None:
        """One call in full; None when there is none of that id in the scope."""
        with self._view() as once:
            return detail_of(once.view, call_id, scope or {}, self.pricing)

    def _editable(self, budgets: Sequence[Budget]) -> frozenset[str]:
        """The names of those that were made on the page."""
        return frozenset({one.name for one in budgets} - {one.name for one in self._budgets})
