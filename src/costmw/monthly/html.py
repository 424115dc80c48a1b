"""A report as one HTML page: no script, nothing to load, light, dark and on paper."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from costmw.monthly.document import (
    Block,
    Cell,
    Chart,
    Column,
    Document,
    Facts,
    Points,
    Section,
    Table,
    Text,
)
from costmw.monthly.figures import percent
from costmw.monthly.markup import Markup, element

_BAR_WIDTH, _CHART_HEIGHT = 20, 160


def as_html(document: Document) -> str:
    """Write a report as a page of its own."""
    head = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # Or a browser asks the host for one.
        '<link rel="icon" href="data:,">\n'
    )
    body = element(
        "main",
        element("header", element("h1", document.title), element("p", document.subtitle)),
        *(_section(section) for section in document.sections),
        element("footer", element("p", document.footer)),
    )
    return f"{head}{element('title', document.title)}\n<style>{_style()}</style>\n{body}\n</html>\n"


@functools.cache
def style_hash() -> str:
    """What a policy must allow as `style-src`: `'sha256-...'`."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"'sha256-{digest}'"


@functools.cache
def _style() -> str:
    return files("costmw.monthly").joinpath("report.css").read_text("utf-8")


def _section(section: Section) -> Markup:
    return element("section", element("h2", section.title), *map(_block, section.blocks))


def _block(block: Block) -> Markup:
    match block:
        case Facts(facts):
            return element(
                "dl",
                *(
                    element(
                        "div",
                        element("dt", fact.label),
                        element("dd", element("strong", fact.value), element("span", fact.note)),
                    )
                    for fact in facts
                ),
                class_="facts",
            )
        case Text(text):
            return element("p", text)
        case Points(points):
            return element(
                "ul",
                *(
                    element("li", element("h3", title), *(element("p", line) for line in lines))
                    for title, lines in points
                ),
                class_="points",
            )
        case Table():
            return _table(block)
        case Chart():
            return _chart(block)


def _table(table: Table) -> Markup:
    heads = (
        element("th", column.name, scope="col", class_=column.kind) for column in table.columns
    )
    return element(
        "div",
        element(
            "table",
            element("caption", table.caption),
            element("thead", element("tr", *heads)),
            element("tbody", *(_row(table.columns, row) for row in table.rows)),
        ),
        class_="wide",
        # What can be scrolled must be reached by the keyboard.
        tabindex=0,
        role="region",
        aria_label=table.caption,
    )


def _row(columns: Sequence[Column], cells: Sequence[Cell]) -> Markup:
    first, *rest = zip(columns, cells, strict=True)
    return element(
        "tr",
        element("th", element("bdi", str(first[1])), scope="row"),
        *(_cell(column, cell) for column, cell in rest),
    )


def _cell(column: Column, cell: Cell) -> Markup:
    if isinstance(cell, str):
        return element("td", element("bdi", cell), class_=column.kind)
    return element("td", percent(cell), _share(cell), class_=column.kind)


def _share(share: float) -> Markup:
    """A bar as long as the share, a full one for all and more."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}"
    return element(
        "svg",
        element("rect", width=width, height=6, class_="over" if share > 1 else "bar"),
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _chart(chart: Chart) -> Markup:
    most = max((max(bar.value, bar.before) for bar in chart.bars), default=0.0) or 1.0
    width = _BAR_WIDTH * len(chart.bars)

    def height(value: float) -> float:
        return round(value / most * _CHART_HEIGHT, 1)

    bars = [
        element(
            "rect",
            element("title", f"{bar.label}: {bar.text}"),
            x=n * _BAR_WIDTH + 2,
            y=round(_CHART_HEIGHT - height(bar.value), 1),
            width=_BAR_WIDTH - 4,
            height=height(bar.value),
            class_="marked" if bar.marked else "bar",
        )
        for n, bar in enumerate(chart.bars)
    ]
    line = " ".join(
        f"{n * _BAR_WIDTH + _BAR_WIDTH // 2},{round(_CHART_HEIGHT - height(bar.before), 1)}"
        for n, bar in enumerate(chart.bars)
    )
    picture = element(
        "svg",
        *bars,
        element("polyline", points=line, class_="before"),
        viewBox=f"0 0 {width} {_CHART_HEIGHT + 4}",
        preserveAspectRatio="none",
        role="img",
        aria_label=chart.caption,
    )
    days = Table(
        "Each day",
        [Column("Day", "text"), Column("Cost")],
        [[bar.label, bar.text] for bar in chart.bars],
    )
    return element(
        "figure",
        picture,
        element("figcaption", chart.caption),
        element("details", element("summary", "As a table"), _table(days)),
    )
