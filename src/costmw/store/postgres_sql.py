"""What Postgres says in its own way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from costmw.store.claims import Execute
from costmw.store.rollup_plan import Range
from costmw.store.sql import Sql


def executing(connection: Connection) -> Execute:
    """Runs statements that are the same for every database."""

    def execute(text: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        sql = PostgresSql()
        sql.add(text, *values)
        cursor = connection.execute(*sql.statement())
        return cursor.fetchall() if cursor.description else []

    return execute


def clock(execute: Execute) -> float:
    """Seconds since 1970 by the server's clock, which all hosts have in common."""
    ((seconds,),) = execute("SELECT extract(epoch FROM clock_timestamp())::float8", ())
    return float(seconds)


class PostgresSql(Sql):
    """A statement for Postgres, with numbered placeholders."""

    LOOK_UP = "CROSS JOIN LATERAL (SELECT * FROM {} r WHERE {} OFFSET 0) r"
    LEAST = "least"
    GREATEST = "greatest"
    CONTAINS = 'strpos(lower({} COLLATE "C"), ?) > 0'

    def add(self, text: str, *values: Any) -> None:
        """Add a piece; each `?` becomes the number of its value."""
        first, *rest = text.split("?")
        position = len(self._values)
        text = first + "".join(f"${position + n}{part}" for n, part in enumerate(rest, 1))
        super().add(text, *(storable(v) if isinstance(v, str) else v for v in values))

    @staticmethod
    def moment(at: datetime) -> str:
        """A timestamp, to the microsecond."""
        return f"timestamptz '{at.isoformat()}'"

    @staticmethod
    def from_moment(value: datetime) -> datetime:
        """The same, in UTC."""
        return value.astimezone(UTC)

    @staticmethod
    def id_of(event_id: UUID) -> UUID:
        """The id itself."""
        return event_id

    @staticmethod
    def has_millions(name: str) -> bool:
        """None has: sums are numeric, which has no end."""
        return False

    def within(self, ranges: Sequence[Range]) -> None:
        """Say it once more, so that only the partitions of these months are looked at."""
        start = min(span.start for span in ranges)
        stop = max(span.stop for span in ranges)
        self.add(f"AND e.created_at >= {self.moment(start)} AND e.created_at < {self.moment(stop)}")


def storable(text: str) -> str:
    """Text without the character that Postgres does not store."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


# Arrays are bound as text: one parameter a column is a fifth of the work of one a value.


def integers(values: Iterable[int | None]) -> str:
    """An array of numbers."""
    return f"{{{','.join(['NULL' if value is None else f'{value:d}' for value in values])}}}"


def uuids(values: Iterable[UUID | None]) -> str:
    """An array of ids."""
    return f"{{{','.join(['NULL' if value is None else value.hex for value in values])}}}"


def moments(values: Iterable[datetime]) -> str:
    """An array of moments."""
    return f"{{{','.join([value.isoformat() for value in values])}}}"


def texts(values: Iterable[str | None]) -> str:
    """An array of texts."""
    return f"{{{','.join([_quoted(value) for value in values])}}}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    if not isinstance(text, str):
        raise TypeError(f"{type(text).__name__} where text is wanted")
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{storable(text)}"'
