"""Statements for SQLite, put together from our own names and bound values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from costmw.store.base import TagScope

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(moment: int) -> datetime:
    """The moment of so many microseconds since 1970, in UTC."""
    return EPOCH + moment * MICROSECOND


class Sql:
    """A statement and its parameters, put together in order.

    Tag keys and values are always bound as parameters; they never become SQL or JSON
    paths.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        """Add a piece, and the values of its placeholders."""
        self._parts.append(text)
        self._values.extend(values)

    def with_values(self, name: str, columns: str, rows: Iterable[Sequence[int]]) -> None:
        """Begin with a table of numbers; as text, since some SQLites bind few parameters."""
        listed = ", ".join(f"({', '.join(map(str, row))})" for row in rows)
        self.add(f"WITH {name} ({columns}) AS (VALUES {listed})")

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
