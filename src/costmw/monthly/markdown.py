"""A report as Markdown: the same sections, for chats, wikis and mails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from costmw.monthly.document import (
    Block,
    Cell,
    Chart,
    Column,
    Document,
    Facts,
    Points,
    Table,
    Text,
)
from costmw.monthly.figures import percent
from costmw.monthly.markup import printable

_MARKS = re.compile(r"([\\`*_\[\]<>#|~&])")
"""What Markdown may take for something else, in one of its dialects."""


def as_markdown(document: Document) -> str:
    """Write a report as Markdown, with tables as GitHub has them."""
    lines = [f"# {_plain(document.title)}", "", _plain(document.subtitle), ""]
    for section in document.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    lines += [_plain(document.footer)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Facts(facts):
            for fact in facts:
                note = f" ({_plain(fact.note)})" if fact.note else ""
                yield f"- {_plain(fact.label)}: **{_plain(fact.value)}**{note}"
        case Text(text):
            yield _plain(text)
        case Points(points):
            for title, sentences in points:
                yield f"- **{_plain(title)}**  "
                yield from (f"  {_plain(sentence)}" for sentence in sentences)
        case Table():
            yield from _table(block)
        case Chart(caption, bars):
            yield from _table(
                Table(
                    caption,
                    [Column("Day", "text"), Column("Cost"), Column("", "text")],
                    [[bar.label, bar.text, "stands out" if bar.marked else ""] for bar in bars],
                )
            )


def _table(table: Table) -> Iterator[str]:
    yield f"{_plain(table.caption)}:"
    yield ""
    yield _row([column.name for column in table.columns])
    yield _row(["---" if column.kind == "text" else "---:" for column in table.columns], raw=True)
    for row in table.rows:
        yield _row(row)


def _row(cells: Sequence[Cell], *, raw: bool = False) -> str:
    texts = [cell if isinstance(cell, str) else percent(cell) for cell in cells]
    return f"| {' | '.join(text if raw else _plain(text) for text in texts)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = re.sub(r"\s+", " ", printable(text))
    return _MARKS.sub(r"\\\1", text)
