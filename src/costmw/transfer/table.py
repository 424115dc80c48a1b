"""A CSV table of calls, from us or from anybody: which columns it has, and its rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from costmw.errors import ConfigError
from costmw.transfer.columns import NAMES

LARGEST_CELL = 2**26
"""Characters in one cell at most: tables of calls may have prompts in them."""

OWN = {"status", "cost_source"}
"""Columns by which an export of ours is known; its cells are taken as they stand."""

_KNOWN_AS: Mapping[str, tuple[str, ...]] = {
    "id": ("event_id", "uuid"),
    "model": ("model_name", "model_id"),
    "provider": ("provider_name", "vendor"),
    "input_tokens": ("prompt_tokens", "tokens_in"),
    "output_tokens": ("completion_tokens", "tokens_out"),
    "cost_usd": ("cost", "total_cost_usd", "total_cost"),
    "latency_ms": ("duration_ms",),
    "tags": ("metadata",),
    "created_at": ("timestamp", "occurred_at", "time", "ts"),
    "cache_read_input_tokens": ("cached_input_tokens", "cached_tokens"),
    "cache_write_input_tokens": ("cache_creation_input_tokens",),
    "reasoning_output_tokens": ("reasoning_tokens",),
}

TAG_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "user_id"),
    "tenant": ("tenant", "tenant_id"),
    "team": ("team", "team_id"),
    "feature": ("feature",),
    "route": ("route",),
    "environment": ("environment", "env"),
}
"""Tags, and the columns that tables of others have them in."""

REQUIRED = ("model", "created_at", "input_tokens", "output_tokens")

Cells = dict[str, str]
"""The cells of one row that are known, by the name of the column."""


class UnreadableRow(ValueError):
    """What is wrong with a row."""


class Table:
    """A CSV file with a line of names; the order of columns does not matter.

    `left_out` are the columns that nothing is known of.

    Raises:
        ConfigError: when there is no such line, or a column that is needed is not in it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self._file = file
        # Bytes that are no UTF-8 are told of with the row that they are in.
        self._text = io.TextIOWrapper(
            file, "utf-8-sig", errors="surrogateescape", newline="", write_through=True
        )
        first = self._text.readline(LARGEST_CELL)
        self._text.seek(0)
        # What stands between cells is what is there at all: some programs write ; or tabs.
        delimiter = max(",;\t", key=first.count)
        self._reader = csv.reader(self._text, delimiter=delimiter, strict=True)
        self._width = 0
        self._names: list[str | None] = []
        self.left_out: list[str] = []
        self.own = False

    def read_header(self) -> None:
        """Read the names of the columns."""
        try:
            header = next(self._reader)
        except (StopIteration, csv.Error):
            raise ConfigError("there is no line with the names of columns") from None
        names = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in header]
        self._width = len(names)
        self.own = set(names) >= OWN
        found = _recognised(names, NAMES if self.own else None)
        self._names = [found.get(position) for position in range(len(names))]
        self.left_out = [h for h, name in zip(header, self._names, strict=True) if name is None]
        if missing := [name for name in REQUIRED if name not in self._names]:
            raise ConfigError(
                f"there is no column {missing[0]}; needed are {', '.join(REQUIRED)}, "
                f"and there are {', '.join(header)[:300]}"
            )

    def rows(self) -> Iterator[tuple[int, Cells | UnreadableRow]]:
        """Each row, or what is wrong with it, with the number of the line that it begins in."""
        while True:
            number = self._reader.line_num + 1
            try:
                row = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, UnreadableRow(f"is no CSV: {error}")
                continue
            if row:
                yield number, self._cells(row)

    def _cells(self, row: list[str]) -> Cells | UnreadableRow:
        if len(row) != self._width:
            return UnreadableRow(f"has {len(row)} cells, and there are {self._width} columns")
        try:
            "".join(row).encode()
        except UnicodeEncodeError:
            return UnreadableRow("is not UTF-8")
        return {name: cell for name, cell in zip(self._names, row, strict=True) if name}

    def position(self) -> int:
        """Bytes that are read."""
        return self._file.tell()

    def close(self) -> None:
        """Leave the file to who opened it."""
        self._text.detach()


@contextmanager
def reading(file: IO[bytes]) -> Iterator[Table]:
    """Read a table from the beginning of a file; may be done again.

    Raises:
        ConfigError: when it is no table of calls.
    """
    limit = csv.field_size_limit(LARGEST_CELL)
    table = Table(file)
    try:
        table.read_header()
        yield table
    finally:
        table.close()
        csv.field_size_limit(limit)


def _recognised(names: list[str], only: tuple[str, ...] | None) -> dict[int, str]:
    """Which column is what, by position; the first of its names that is there is taken."""
    wanted: dict[str, tuple[str, ...]]
    if only is not None:
        wanted = {name: (name,) for name in only}
    else:
        wanted = {name: (name, *_KNOWN_AS.get(name, ())) for name in (*_KNOWN_AS, *_FOREIGN)}
        wanted |= {f"tag:{tag}": columns for tag, columns in TAG_COLUMNS.items()}
    found: dict[int, str] = {}
    for name, columns in wanted.items():
        for column in columns:
            if names.count(column) > 1:
                raise ConfigError(f"there are two columns {column}")
            if column in names:
                found[names.index(column)] = name
                break
    return found


# Of our other columns, those that mean the same in tables of others.
_FOREIGN = ("operation", "api_key_id", "response_id", "trace_id", "currency")
