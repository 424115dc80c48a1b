"""What a report is made of, whatever it is written as: sections of blocks of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that stands for itself, with what it means and what it compares with."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Figures side by side."""

    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list: each point has a title and sentences."""

    points: Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Cells of a share are floats, 1 for all of it."""

    name: str
    kind: Literal["text", "number", "share"] = "number"


Cell = str | float


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; `caption` says what they are of."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of a chart; `before` is what it is compared with, `marked` that it stands out."""

    label: str
    value: float
    text: str
    before: float
    marked: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Days as bars; `caption` says the whole of it in words."""

    caption: str
    bars: Sequence[Bar]


Block = Facts | Text | Points | Table | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report: `subtitle` says what it is of, `footer` what it was made from."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    footer: str
