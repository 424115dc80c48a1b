"""Statements, put together from our own names and bound values.

What the databases say differently has a name here; `sqlite_sql` and `postgres_sql` fill
it in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from costmw.store.base import TagScope
from costmw.store.rollup_plan import Range

MILLION = 1_000_000

COUNTS = ("calls", "requests", "unpriced", "flagged", "incomplete", "timed")
"""Fields of `Totals` that no ledger is long enough for to pass 64 bits."""


class Sql(ABC):
    """A statement and its parameters, put together in order; `?` is where a value goes.

    Tag keys and values are always bound as parameters; they never become SQL or JSON
    paths.
    """

    JOIN: ClassVar[str]
    """Joins in the order that is written, where the database would choose another."""

    LEAST: ClassVar[str]
    GREATEST: ClassVar[str]

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._values: list[Any] = []

    @staticmethod
    @abstractmethod
    def moment(at: datetime) -> str:
        """A moment, as the database writes one."""

    @staticmethod
    @abstractmethod
    def has_millions(name: str) -> bool:
        """Whether the rollups keep the whole millions of a sum in a column of their own."""

    def add(self, text: str, *values: Any) -> None:
        """Add a piece, and the values of its placeholders."""
        self._parts.append(text)
        self._values.extend(values)

    def with_values(self, name: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
        """Begin with a table of numbers; as text, since some SQLites bind few parameters."""
        listed = ", ".join(f"({', '.join(map(str, row))})" for row in rows)
        self.add(f"WITH {name} ({columns}) AS (VALUES {listed})")

    def with_spans(self, name: str, columns: str, ranges: Iterable[Range]) -> None:
        """Begin with a table of spans of time: position, start and stop."""
        rows = [(span.position, self.moment(span.start), self.moment(span.stop)) for span in ranges]
        self.with_values(name, columns, rows)

    @abstractmethod
    def within(self, ranges: Sequence[Range]) -> None:
        """Say once more that rows of `e` began within these spans, where that helps."""

    def having_tags(self, tags: TagScope) -> None:
        """Keep rows of `e` whose tag set has each of these tags."""
        for key, value in tags.items():
            self.add(
                "AND e.tag_set_id IN (SELECT t.tag_set_id FROM tags t WHERE t.facet_id = "
                "(SELECT f.id FROM facets f JOIN facet_keys n ON n.id = f.key_id "
                "WHERE n.key = ? AND f.value = ?))",
                f"tag:{key}",
                value,
            )

    def statement(self) -> tuple[str, list[Any]]:
        """The text and its values."""
        return "\n".join(self._parts), self._values
