"""Statements about budgets that SQLite and Postgres understand alike.

`?` stands for a value. Each call of SQLite lets other threads run, and may wait for them:
what can be said in one statement is said in one. How many rows it has is a power of two, so
that there are few statements and all of them stay prepared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from costmw.store.base import Found, Query

T = TypeVar("T")

ROWS_AT_ONCE = 64
IDS_AT_ONCE = 256


class Booked(NamedTuple):
    """When a row's call began, its tags, and whether it has a cost of its own."""

    at: datetime
    tags: Mapping[str, str]
    has_cost: bool


class Readable(Protocol):
    """A view of a ledger, as far as balances need it."""

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement; gives its rows."""

    def totals(self, query: Query) -> Found:
        """Sum rows, as this view or transaction sees them."""


class Ledger(Readable, Protocol):
    """A transaction of a ledger that has its turn."""

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run a statement that gives nothing."""

    def booked(self, ids: Sequence[UUID]) -> Mapping[UUID, Booked]:
        """What these rows say."""

    def amended(self, ids: Sequence[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """What amendments add to these rows: pico-USD, and to whether there is no price."""


def insert(ledger: Ledger, into: str, rows: Sequence[Sequence[Any]], on_conflict: str = "") -> None:
    """Insert rows into a table; `into` names it and its columns."""
    for some in _bundles(rows):
        row = f"({', '.join('?' * len(some[0]))})"
        values = [value for one in some for value in one]
        ledger.run(f"INSERT INTO {into} VALUES {marks(row, len(some))} {on_conflict}", values)  # noqa: S608


def delete(ledger: Ledger, table: str, ids: Sequence[UUID]) -> None:
    """Delete the rows of these ids."""
    for some in padded(ids):
        values = [one.hex for one in some]
        ledger.run(f"DELETE FROM {table} WHERE id IN ({marks('?', len(some))})", values)  # noqa: S608


def select_by_ids(
    ledger: Readable, columns: str, table: str, ids: Sequence[UUID], condition: str = ""
) -> Iterator[Sequence[Any]]:
    """The rows of these ids, as far as there are any."""
    for some in padded(ids):
        sql = f"SELECT {columns} FROM {table} WHERE id IN ({marks('?', len(some))}) {condition}"  # noqa: S608
        yield from ledger.ask(sql, [one.hex for one in some])


def marks(mark: str, count: int) -> str:
    """So many marks, one after the other."""
    return ", ".join([mark] * count)


def _bundles(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """All rows, in bundles whose sizes are powers of two."""
    first = 0
    while first < len(rows):
        size = min(1 << ((len(rows) - first).bit_length() - 1), ROWS_AT_ONCE)
        yield rows[first : first + size]
        first += size


def padded(items: Sequence[T], most: int = IDS_AT_ONCE) -> Iterator[Sequence[T]]:
    """All items, in parts whose sizes are powers of two: the last one comes again."""
    for first in range(0, len(items), most):
        some = items[first : first + most]
        size = 1 << (len(some) - 1).bit_length()
        yield [*some, *[some[-1]] * (size - len(some))]
