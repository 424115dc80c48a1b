"""Everything of the page's first screen, each part asked of one view of the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from costmw.answering import call_of
from costmw.answers import DayAhead, Overview
from costmw.budgets import Budget
from costmw.outlook import Outlook
from costmw.periods import period_span
from costmw.pricing import Pricing
from costmw.reports.asked import Asked
from costmw.reports.breakdown import breakdown_of
from costmw.reports.budgets import states_of, within
from costmw.reports.ranking import ranking_of
from costmw.reports.series import series_of
from costmw.reports.spend import spend_of
from costmw.reports.summary import outcome_rows, outcomes_of, summary_of
from costmw.reports.unusual import anomalies_of
from costmw.store.base import DIMENSIONS

NEWEST = 20
"""Calls on the first screen."""


def overview_of(
    asked: Asked,
    budgets: Sequence[Budget],
    pricing: Pricing,
    editable: frozenset[str] = frozenset(),
) -> Overview:
    """The first screen; `editable` are the names of budgets that may be changed."""
    once, now, scope, filters = asked.once, asked.now, asked.scope, asked.question.filters
    month = spend_of(once, "month", now, asked.frame.zone, scope, filters)
    seer = Outlook(once, now, asked.frame.zone, scope, filters)
    of_ledger = Outlook(once, now, asked.ledger_zone, scope)
    ranking, outcomes = ranking_of(asked), outcomes_of(asked)
    return Overview(
        generated_at=now,
        question=asked.as_answer(),
        month=month,
        forecast=seer.of_span(month.start, month.stop) if asked.is_rolled_up else None,
        summary=summary_of(asked, ranking, outcomes, pricing),
        series=series_of(asked, ranking, _days_ahead(asked, seer)),
        breakdown=breakdown_of(asked, ranking),
        budgets=states_of(within(scope, budgets, once.view), once, of_ledger, editable=editable),
        anomalies=anomalies_of(asked),
        outcomes=outcome_rows(outcomes),
        calls=[call_of(event) for _, event in asked.events(NEWEST)],
        tag_keys=list(asked.tag_keys),
        dimensions=list(DIMENSIONS),
    )


def _days_ahead(asked: Asked, seer: Outlook) -> list[DayAhead]:
    """The rest of the month, where the days up to it are shown."""
    frame, now = asked.frame, asked.now
    reaches_now = frame.start <= now < frame.stop
    if frame.every != "day" or not reaches_now or not asked.is_rolled_up:
        return []
    _, stop = period_span("month", now, frame.zone)
    return seer.of_days(stop)
