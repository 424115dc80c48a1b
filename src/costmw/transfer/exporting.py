"""Rows of a ledger into a file, a page at a time: as little in memory for many as for few."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from costmw.errors import ConfigError, StoreError
from costmw.events import UsageEvent
from costmw.store.base import Query, Store, TagScope
from costmw.transfer.absence import is_absent
from costmw.transfer.focus import FocusSink
from costmw.transfer.formats import CsvSink, JsonLinesSink, ParquetSink, Sink
from costmw.transfer.progress import Advance, progress
from costmw.transfer.spans import BEGINNING, END, moment_of
from costmw.transfer.whole_file import STANDARD_OUTPUT, whole_file

PAGE = 1000
"""Rows that are read in one transaction."""

FORMATS: Mapping[str, Callable[[IO[bytes]], Sink]] = {
    "csv": CsvSink,
    "jsonl": JsonLinesSink,
    "parquet": ParquetSink,
    "focus": FocusSink,
}


def export(
    store: Store,
    sink: Sink,
    *,
    start: datetime = BEGINNING,
    stop: datetime = END,
    where: TagScope | None = None,
    advance: Advance = lambda done: None,
) -> int:
    """Write the calls that began from `start` to before `stop` and have all tags of `where`.

    Oldest first, amendments applied. Each page is read as it is then: no long transaction
    is in the way of an app that records meanwhile. What it records meanwhile may be in or not.

    Returns:
        How many calls it were.

    Raises:
        StoreError: when the store cannot be read.
    """
    count = 0
    for page in _pages(store, start, stop, where or {}):
        sink.write(page)
        count += len(page)
        advance(len(page))
    sink.finish()
    return count


def _pages(
    store: Store, start: datetime, stop: datetime, where: TagScope
) -> Iterator[Sequence[UsageEvent]]:
    after: int | None = None
    while True:
        with store.snapshot() as snapshot:
            found = snapshot.events_between(start, stop, scope=where, limit=PAGE, after=after)
        if not found:
            return
        after, last = found[-1]
        start = last.created_at
        yield [event for _, event in found]


def export_to_file(
    store: Store,
    output: str = STANDARD_OUTPUT,
    *,
    file_format: str = "",
    start: str = "",
    stop: str = "",
    where: TagScope | None = None,
) -> int:
    """What `costmw export` does: to a file that is there whole or not at all.

    Args:
        store: whose rows.
        output: a file, or `-` for the standard output.
        file_format: one of `FORMATS`; what the file's name ends in, or CSV, when left out.
        start: a day or moment in ISO 8601, in the store's time zone when it names none.
        stop: the same, exclusive.
        where: tags that rows must have.

    Returns:
        How many calls it were.

    Raises:
        ConfigError: when an argument cannot be used, or the file cannot be written.
        StoreError: when there is no store, or it cannot be read.
    """
    file_format = file_format or _format_of(output)
    if file_format not in FORMATS:
        raise ConfigError(f"format is {file_format!r}; use one of {', '.join(FORMATS)}")
    to_terminal = output == STANDARD_OUTPUT and sys.stdout.isatty()
    if to_terminal and file_format == "parquet":
        raise ConfigError("Parquet is not for a terminal: name a file with --output")
    if is_absent(store):
        raise StoreError(f"there is no store at {store.url}")
    with store.snapshot():
        zone = store.time_zone
    first = moment_of(start, "--from", zone) if start else BEGINNING
    last = moment_of(stop, "--to", zone) if stop else END

    def total() -> int:
        with store.snapshot() as snapshot:
            found = snapshot.totals(Query(first, last, scope=where or {}))
        return sum(totals.calls for totals in found.groups.values())

    with (
        whole_file(output) as file,
        progress("Exporting calls", total, shown=not to_terminal) as advance,
    ):
        return export(
            store,
            FORMATS[file_format](file),
            start=first,
            stop=last,
            where=where,
            advance=advance,
        )


def _format_of(output: str) -> str:
    suffix = Path(output).suffix.lower().removeprefix(".")
    return suffix if suffix in FORMATS else "csv"
