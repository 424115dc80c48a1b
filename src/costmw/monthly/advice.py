"""What of a month to look at: what stands out, what could cost less, what is not known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from costmw.anomalies import in_words
from costmw.answering import cost_of
from costmw.monthly.document import Block, Cell, Column, Points, Table, Text
from costmw.monthly.figures import ESTIMATED, cost, count, dollars, percent, signed
from costmw.monthly.findings import MonthlyReport
from costmw.savings import Saving
from costmw.store.base import Totals

MOST_MODELS = 10
"""Models that a sentence names; the rest is counted."""

SOURCES = {
    "provider": "the provider's own figure",
    "list": "the price list",
    "override": "prices of your own",
    "none": "no price",
}

MEND_UNPRICED = (
    "Give the models that have no price one of your own (COSTMW_PRICES), then run costmw "
    "reprice; costmw doctor says why each has none."
)

WHY_INCOMPLETE = (
    "Their readers left, or a limit of time was reached: the provider may bill them all the same."
)

OUTCOMES = {
    "error": "Calls that failed",
    "retry": "Calls that were sent again",
    "refused": "Calls that a budget refused",
    "capture_fault": "Calls that could not be recorded",
}


def anomalies(report: MonthlyReport) -> Iterator[Block]:
    """Days of which nobody should learn from the invoice."""
    if report.anomalies:
        zone = report.month.zone
        yield Points(
            [
                (
                    f"{start.astimezone(zone):%A, %d %B}: {signed(anomaly.peak.excess)}",
                    [in_words(anomaly)],
                )
                for start, anomaly in report.anomalies
            ]
        )


def savings(report: MonthlyReport) -> Iterator[Block]:
    """What the ledger's sums say could have cost less."""
    if report.savings:
        yield Text("They are not to be added up: two of them may be about the same calls.")
        yield Points([(_headline(one), [one.how, one.todo, one.caveat]) for one in report.savings])


def _headline(one: Saving) -> str:
    return f"{one.title}: up to {dollars(one.most_pico_usd)} ({one.confidence} confidence)"


def to_do(report: MonthlyReport) -> Iterator[Block]:
    """Calls that are not as they should be, and what to do about them."""
    unpriced = _calls_of(report, lambda status, totals: totals.unpriced)
    incomplete = _calls_of(
        report, lambda status, totals: totals.calls if status == "incomplete" else 0
    )
    points = []
    if unpriced:
        points.append(
            (
                f"{count(sum(number for _, number in unpriced), 'call')} without a cost",
                [
                    _listed(unpriced),
                    MEND_UNPRICED,
                ],
            )
        )
    if incomplete:
        points.append(
            (
                f"{count(sum(number for _, number in incomplete), 'call')} that did not end",
                [
                    _listed(incomplete),
                    WHY_INCOMPLETE,
                ],
            )
        )
    for kind, title in OUTCOMES.items():
        rows = [row for row in report.outcomes or () if row.kind == kind and row.count]
        if rows:
            named = [
                (f"{row.provider or '(unknown)'}/{row.model or '(unknown)'}", row.count)
                for row in rows
            ]
            points.append(
                (
                    f"{title}: {sum(row.count for row in rows):,}",
                    [_listed(sorted(named, key=lambda one: -one[1]))],
                )
            )
    if points:
        yield Points(points)


def exactness(report: MonthlyReport) -> Iterator[Block]:
    """How far the figures can be trusted."""
    total = report.total
    rows: list[list[Cell]] = [
        [
            SOURCES.get(name, name),
            f"{totals.calls:,}",
            cost(totals),
            cost_of(totals) / cost_of(total) if cost_of(total) else 0.0,
        ]
        for name, totals in sorted(report.sources.items(), key=lambda one: -cost_of(one[1]))
    ]
    yield Table(
        "Where costs are known from",
        [Column("Source", "text"), Column("Calls"), Column("Cost"), Column("Share", "share")],
        rows,
    )
    exact = total.cost_pico_usd / cost_of(total) if cost_of(total) else 1.0
    yield Text(
        f"{percent(exact)} of the cost is exact; {dollars(total.estimated_cost_pico_usd)} is "
        "estimated, for calls that did not tell what they used; amounts with ≈ are estimated by "
        f"{ESTIMATED:.0%} or more. {count(total.unpriced, 'call')} "
        f"without any cost, which {'is' if total.unpriced == 1 else 'are'} in none of the sums; "
        f"{count(total.flagged, 'call')} whose cost leaves something out. Costs are what the price "
        "list says, not what an invoice does: discounts, credits and taxes are not in them."
    )


def _calls_of(
    report: MonthlyReport, number_of: Callable[[str | None, Totals], int]
) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for (provider, model, status), totals in report.kinds.items():
        if number := number_of(status, totals):
            name = f"{provider or '(unknown)'}/{model or '(unknown)'}"
            found[name] = found.get(name, 0) + number
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def _listed(named: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{name} ({number:,})" for name, number in named[:MOST_MODELS])
    return (
        f"{shown} and {len(named) - MOST_MODELS} more." if len(named) > MOST_MODELS else f"{shown}."
    )
