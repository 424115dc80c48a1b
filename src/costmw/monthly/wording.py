"""A monthly report in words and tables: what to say of the figures, section by section."""

from __future__ import annotations

from collections.abc import Iterator

from costmw import __version__
from costmw.answering import cost_of
from costmw.monthly.advice import anomalies, exactness, savings, to_do
from costmw.monthly.document import (
    Bar,
    Block,
    Cell,
    Chart,
    Column,
    Document,
    Fact,
    Facts,
    Section,
    Table,
)
from costmw.monthly.figures import (
    average,
    change,
    cost,
    count,
    signed,
    usd_dollars,
)
from costmw.monthly.findings import MonthlyReport, Mover, Valued
from costmw.store.base import Totals

TOP = 10
"""Values that a table names; the rest is summed."""

MOST_MOVERS = 6
"""Increases, and decreases."""

MOST_BUDGETS = 20
"""Budgets, the fullest first."""


def document_of(report: MonthlyReport) -> Document:
    """The whole report; sections that have nothing to say are left out."""
    month = report.month
    scope = ", ".join(f"{key} {value}" for key, value in sorted(report.scope.items()))
    until = f", up to {month.now.astimezone(month.zone):%d %B, %H:%M}" if month.goes_on else ""
    sections = [
        Section("At a glance", list(_glance(report))),
        Section("What changed", list(_movers(report))),
        Section("Models", [_values(report, "model"), _values(report, "provider")]),
        Section(
            "Who and what for", [_values(report, by) for by in report.by if by.startswith("tag:")]
        ),
        Section("Tokens", [_tokens(report.total)]),
        Section("Budgets", list(_budgets(report))),
        Section("Days that stand out", list(anomalies(report))),
        Section("What could cost less", list(savings(report))),
        Section("To look after", list(to_do(report))),
        Section("How sure this is", list(exactness(report))),
    ]
    return Document(
        title=f"LLM cost in {month.name}",
        subtitle=f"{scope or 'All calls'}{until}; days of {month.zone.key}",
        sections=[section for section in sections if section.blocks],
        footer=_footer(report),
    )


def _glance(report: MonthlyReport) -> Iterator[Block]:
    total, before = report.total, report.before
    than = "the same days of the month before" if report.month.goes_on else "the month before"
    facts = [
        Fact(
            "Cost",
            cost(total),
            f"{_change(total, before)} from {cost(before)} in {than}"
            if before.calls
            else f"no calls in {than}",
        ),
        Fact("Calls", f"{total.calls:,}", f"before: {before.calls:,}"),
        Fact("Cost per call", _per_call(total), f"before: {_per_call(before)}"),
        Fact("Cost per web request", _per_request(total), f"before: {_per_request(before)}"),
    ]
    if report.forecast is not None:
        seen = report.forecast
        facts.insert(
            1,
            Fact(
                "Expected by the end",
                usd_dollars(seen.expected_usd),
                f"8 times in 10 from {usd_dollars(seen.low_usd)} to {usd_dollars(seen.high_usd)}",
            ),
        )
    yield Facts(facts)
    yield _chart(report)


def _chart(report: MonthlyReport) -> Chart:
    zone = report.month.zone
    marked = {start for start, _ in report.anomalies}
    before = [cost_of(totals) / 1e12 for totals in report.days_before]
    bars = [
        Bar(
            label=f"{start.astimezone(zone):%d %b}",
            value=cost_of(totals) / 1e12,
            text=cost(totals),
            before=before[n] if n < len(before) else 0.0,
            marked=start in marked,
        )
        for n, (start, totals) in enumerate(report.days)
    ]
    dearest = max(bars, key=lambda bar: bar.value)
    return Chart(
        "Cost of each day, and as a line that of the month before; the dearest was "
        f"{dearest.label} with {dearest.text}",
        bars,
    )


def _movers(report: MonthlyReport) -> Iterator[Block]:
    risen, fallen = report.movers(MOST_MOVERS)
    for caption, movers in (("What rose most", risen), ("What fell most", fallen)):
        if movers:
            yield Table(
                caption,
                [
                    Column("Of", "text"),
                    Column("Value", "text"),
                    *map(Column, ("Before", "Now", "Change", "In percent")),
                ],
                [_mover(mover) for mover in movers],
            )


def _mover(mover: Mover) -> list[Cell]:
    value = mover.value
    return [
        _dimension(mover.by),
        _named(value, mover.by),
        cost(value.before),
        cost(value.totals),
        signed(value.change),
        change(cost_of(value.totals), cost_of(value.before)),
    ]


def _values(report: MonthlyReport, by: str) -> Table:
    values = [value for value in report.by[by] if value.totals.calls]
    rows = [
        _row(_named(value, by), value.totals, value.before, report.total) for value in values[:TOP]
    ]
    if rest := values[TOP:]:
        totals, before = Totals(), Totals()
        for value in rest:
            totals.add(value.totals)
            before.add(value.before)
        rows.append(_row(f"{len(rest):,} others", totals, before, report.total))
    return Table(
        f"By {_dimension(by)}",
        [
            Column(_dimension(by).capitalize(), "text"),
            Column("Share", "share"),
            *map(Column, ("Cost", "Before", "Change", "Calls", "Per call", "Per request")),
        ],
        rows,
    )


def _row(name: str, totals: Totals, before: Totals, whole: Totals) -> list[Cell]:
    return [
        name,
        cost_of(totals) / cost_of(whole) if cost_of(whole) else 0.0,
        cost(totals),
        cost(before),
        _change(totals, before),
        f"{totals.calls:,}",
        _per_call(totals),
        _per_request(totals),
    ]


def _tokens(total: Totals) -> Table:
    whole_input, output = total.input_tokens, total.output_tokens

    def row(name: str, tokens: int, whole: int) -> list[Cell]:
        return [name, f"{tokens:,}", tokens / whole if whole else 0.0]

    return Table(
        "Tokens; cached ones are part of the input, reasoning of the output",
        [Column("Kind", "text"), Column("Tokens"), Column("Share", "share")],
        [
            row("Input", whole_input, whole_input),
            row("read from a cache", total.cache_read_input_tokens, whole_input),
            row("written to a cache", total.cache_write_input_tokens, whole_input),
            row("Output", output, output),
            row("reasoning", total.reasoning_output_tokens, output),
        ],
    )


def _budgets(report: MonthlyReport) -> Iterator[Block]:
    if not report.budgets:
        return
    yield Table(
        "The fullest budgets" if len(report.budgets) > MOST_BUDGETS else "Budgets",
        [
            Column("Budget", "text"),
            Column("Of", "text"),
            Column("Used", "share"),
            *map(Column, ("Spent", "Limit", "Period")),
        ],
        [
            [
                use.name,
                ", ".join(use.tags.values()) or "everything",
                use.used,
                usd_dollars(use.spent_usd),
                usd_dollars(use.limit_usd),
                use.period + (", blocks" if use.action == "block" else ""),
            ]
            for use in report.budgets[:MOST_BUDGETS]
        ],
    )


def _footer(report: MonthlyReport) -> str:
    made = f"Made {report.month.now.astimezone(report.month.zone):%Y-%m-%d %H:%M %Z}"
    source = f" from {report.source}" if report.source else ""
    return f"{made}{source}, {count(report.total.calls, 'call')}, by costmw {__version__}."


def _named(value: Valued, by: str) -> str:
    return f"(no {_dimension(by)})" if value.name is None else value.name


def _dimension(by: str) -> str:
    return by.removeprefix("tag:")


def _change(totals: Totals, before: Totals) -> str:
    return change(cost_of(totals), cost_of(before))


def _per_call(totals: Totals) -> str:
    return average(cost_of(totals), totals.calls - totals.unpriced)


def _per_request(totals: Totals) -> str:
    known = totals.calls > totals.unpriced
    return average(totals.cost_in_requests_pico_usd, totals.requests if known else 0)
