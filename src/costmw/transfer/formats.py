"""Events into the bytes of a file: CSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import IO, Any, Protocol

from costmw.errors import MissingExtra
from costmw.events import UsageEvent
from costmw.money import format_usd, from_pico
from costmw.transfer.cells import text_cell
from costmw.transfer.columns import COLUMNS, NAMES, Kind, json_text, moment_text

ROW_GROUP = 50_000
"""Rows that a Parquet file keeps together; as many are in memory at once."""


class Sink(Protocol):
    """Takes events and writes them to a file that somebody else opens and closes."""

    def write(self, events: Sequence[UsageEvent]) -> None:
        """Write some events, in order."""

    def finish(self) -> None:
        """Write what is left; nothing comes after."""


Value = Callable[[Any], object]
"""What a value of an event is in a file."""

_CELLS: dict[Kind, Value] = {
    "text": text_cell,
    "integer": lambda number: number,
    "usd": lambda pico: None if pico is None else format_usd(pico),
    "moment": moment_text,
    "json": json_text,
    "flag": int,
}


class CsvSink:
    """RFC 4180: a line of names first; NULL is an empty cell, JSON a text."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._cells = [(column.of, _CELLS[column.kind]) for column in COLUMNS]
        write_lines(file, [NAMES])

    def write(self, events: Sequence[UsageEvent]) -> None:
        """One line an event, and more where a text has line ends."""
        write_lines(self._file, ([cell(of(event)) for of, cell in self._cells] for event in events))

    def finish(self) -> None:
        """Nothing is left."""


def write_lines(file: IO[bytes], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as CSV in UTF-8; None is an empty cell."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    file.write(text.getvalue().encode())


class JsonLinesSink:
    """A JSON object a line; money is a decimal string, tags are an object."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        values = defaultdict[Kind, Value](
            lambda: _as_it_is, usd=_CELLS["usd"], moment=moment_text, json=dict
        )
        self._columns = [(c.name, c.of, values[c.kind]) for c in COLUMNS]

    def write(self, events: Sequence[UsageEvent]) -> None:
        """One line an event."""
        rows = ({name: value(of(event)) for name, of, value in self._columns} for event in events)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        self._file.write("".join(lines).encode())

    def finish(self) -> None:
        """Nothing is left."""


def _decimal(pico: int | None) -> Decimal | None:
    return None if pico is None else from_pico(pico)


def _as_it_is(value: Any) -> object:
    return value


class ParquetSink:
    """Columns with types: money is decimal128(38, 12), times are in UTC, tags are JSON text."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra(package="pyarrow", extra="parquet") from error
        types: dict[Kind, pa.DataType] = {
            "text": pa.string(),
            "integer": pa.int64(),
            "usd": pa.decimal128(38, 12),
            "moment": pa.timestamp("us", tz="UTC"),
            "json": pa.string(),
            "flag": pa.bool_(),
        }
        values = defaultdict[Kind, Value](lambda: _as_it_is, usd=_decimal, json=json_text)
        self._columns = [(c.of, values[c.kind], types[c.kind]) for c in COLUMNS]
        self._pa = pa
        self._schema = pa.schema([(column.name, types[column.kind]) for column in COLUMNS])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._pages: list[Any] = []
        self._rows = 0

    def write(self, events: Sequence[UsageEvent]) -> None:
        """Keep some events, until there are enough for a row group."""
        arrays = [
            self._pa.array([value(of(event)) for event in events], type=arrow_type)
            for of, value, arrow_type in self._columns
        ]
        self._pages.append(self._pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._rows += len(events)
        if self._rows >= ROW_GROUP:
            self._write_group()

    def finish(self) -> None:
        """Write the last row group and the file's directory."""
        if self._pages:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        table = self._pa.Table.from_batches(self._pages, schema=self._schema)
        self._writer.write_table(table, row_group_size=self._rows)
        self._pages, self._rows = [], 0
