"""Statements, put together from our own names and bound values.

What the databases say differently has a name here; `sqlite_sql` and `postgres_sql` fill
it in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from costmw.store.base import Filter, TagScope
from costmw.store.filters import needs_value, small, told_of
from costmw.store.rollup_plan import Range

MILLION = 1_000_000

COUNTS = ("calls", "requests", "unpriced", "flagged", "incomplete", "timed")
"""Fields of `Totals` that no ledger is long enough for to pass 64 bits."""


class Sql(ABC):
    """A statement and its parameters, put together in order; `?` is where a value goes.

    Tag keys and values are always bound as parameters; they never become SQL or JSON
    paths.
    """

    LOOK_UP: ClassVar[str]
    """Joins the rows `r` of a table `{}` that a condition `{}` on its primary key says.

    For every row of what stands before: databases take few rows for many, and read all.
    """

    LEAST: ClassVar[str]
    GREATEST: ClassVar[str]

    CONTAINS: ClassVar[str]
    """Whether `{}` has a text in it that is bound, in small letters; A-Z are like a-z."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._values: list[Any] = []

    @staticmethod
    @abstractmethod
    def moment(at: datetime) -> str:
        """A moment, as the database writes one."""

    @staticmethod
    @abstractmethod
    def from_moment(value: Any) -> datetime:
        """A moment that was read, in UTC."""

    @staticmethod
    @abstractmethod
    def id_of(event_id: UUID) -> Any:
        """The id of an event, as it is bound."""

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
            self.by_tag_sets(Filter(f"tag:{key}", "is", (value,)))

    def having(self, column: str, wanted: Filter) -> None:
        """Keep rows whose `column` is what a filter wants, whatever its key."""
        marks = ", ".join("?" * len(wanted.values))
        match wanted.op:
            case "is":
                self.add(f"AND {column} IN ({marks})", *wanted.values)
            case "not":
                self.add(f"AND coalesce({column} NOT IN ({marks}), true)", *wanted.values)
            case "contains":
                parts = " OR ".join([self.CONTAINS.format(column)] * len(wanted.values))
                self.add(f"AND ({parts})", *map(small, wanted.values))
            case "set":
                self.add(f"AND {column} IS NOT NULL")
            case "unset":
                self.add(f"AND {column} IS NULL")

    def having_tag(self, wanted: Filter) -> None:
        """Keep rows of `e` whose tag set has what a filter of a tag wants; asked of every row."""
        negation = "" if needs_value(wanted) else "NOT "
        self.add(f"AND {negation}EXISTS (")
        self.add("SELECT 1 FROM tags t JOIN facets f ON f.id = t.facet_id")
        self.add("WHERE t.tag_set_id = e.tag_set_id")
        self.add("AND t.key_id = (SELECT n.id FROM facet_keys n WHERE n.key = ?)", wanted.key)
        self.having("f.value", told_of(wanted))
        self.add(")")

    def by_tag_sets(self, wanted: Filter) -> None:
        """The same for a filter that needs a tag: rows are found by a list of tag sets."""
        self.add("AND e.tag_set_id IN (")
        self.tag_sets(wanted)
        self.add(")")

    def tag_sets(self, wanted: Filter) -> None:
        """Select the tag sets that have what a filter wants which needs a tag."""
        is_one = wanted.op == "is" and len(wanted.values) == 1
        self.add("SELECT t.tag_set_id FROM tags t WHERE t.facet_id")
        self.add("= (" if is_one else "IN (")
        self.add("SELECT f.id FROM facets f JOIN facet_keys n ON n.id = f.key_id")
        self.add("WHERE n.key = ?", wanted.key)
        self.having("f.value", wanted)
        self.add(")")

    def statement(self) -> tuple[str, list[Any]]:
        """The text and its values."""
        return "\n".join(self._parts), self._values
