"""A table of calls into a ledger: all of it or, when a row is wrong, nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from uuid import UUID, uuid5

from costmw.capture.key_ids import KeyIds
from costmw.errors import ConfigError
from costmw.events import Amendment, Record, UsageEvent
from costmw.pricing import Pricing
from costmw.store.base import Store
from costmw.transfer.absence import is_absent
from costmw.transfer.identity import Identities
from costmw.transfer.progress import Advance
from costmw.transfer.rows import RowReader
from costmw.transfer.table import Table, UnreadableRow, reading

BATCH = 500
"""Rows that are committed in one transaction; an app that records meanwhile waits so long."""

ROLLED_UP_AT_ONCE = 2_500
"""Rows that are rolled up in one transaction: the more they are, the fewer cells change twice."""

Report = Callable[[int, str], None]
"""Takes the number of a line and what is wrong with the row that begins there."""


@dataclass(slots=True)
class Imported:
    """What an import did, in rows of the table.

    `new` were added (or would be), `known` were there already, `bad` were left out.
    `unpriced` are new ones without a cost. `left_out` are columns that nothing is known of.
    """

    new: int = 0
    known: int = 0
    bad: int = 0
    unpriced: int = 0
    left_out: tuple[str, ...] = ()


def import_file(
    store: Store,
    path: Path,
    pricing: Pricing,
    *,
    provider: str | None = None,
    dry_run: bool = False,
    skip_bad: bool = False,
    report: Report = lambda line, problem: None,
    advance: Advance = lambda done: None,
) -> Imported:
    """Import a CSV file of the `llm_usage_events` shape.

    An import that breaks off can be run again: rows that are there already add nothing.

    Args:
        store: where to.
        path: the file.
        pricing: prices rows of others that have no cost.
        provider: who billed the rows that do not say.
        dry_run: change nothing, only say what would.
        skip_bad: leave out rows that are wrong; otherwise one of them stops it all.
        report: told of each row that is wrong.
        advance: told of bytes that are read; each is read twice unless `skip_bad`.

    Raises:
        ConfigError: when the file cannot be read, is no table of calls, or rows are wrong.
        StoreError: when the store cannot be read or written.
    """
    pruned_until = None
    if not is_absent(store):
        with store.snapshot() as snapshot:
            pruned_until = snapshot.pruned_until()
    keys = KeyIds(store.fingerprint_key, _raise)
    rows = RowReader(
        pricing,
        provider=provider,
        key_id=(lambda key: None) if dry_run else keys.id_of,
        pruned_until=pruned_until,
    )
    with _opened(path) as file:
        if not skip_bad:
            _refuse_bad(file, rows, report, advance)
        return _Import(store, rows, dry_run, report, advance).run(file)


def _refuse_bad(file: IO[bytes], rows: RowReader, report: Report, advance: Advance) -> None:
    bad = 0

    def count(line: int, problem: str) -> None:
        nonlocal bad
        bad += 1
        report(line, problem)

    with reading(file) as table:
        for _ in _events(table, rows, count, advance):
            pass
    if bad:
        raise ConfigError(
            f"{bad} {'row is' if bad == 1 else 'rows are'} wrong, and nothing is imported; "
            "mend the file, or import the others with --skip-bad"
        )


class _Import:
    """One run over one file."""

    def __init__(
        self, store: Store, rows: RowReader, dry_run: bool, report: Report, advance: Advance
    ) -> None:
        self._store = store
        self._rows = rows
        self._dry_run = dry_run
        self._report = report
        self._advance = advance
        self._done = Imported()
        self._behind = 0

    def run(self, file: IO[bytes]) -> Imported:
        batch: list[tuple[UUID, UsageEvent]] = []
        with reading(file) as table, Identities() as identities:
            self._done.left_out = tuple(table.left_out)
            for cells, event in _events(table, self._rows, self._skip, self._advance):
                event_id, repeated = identities.identify(cells, event.created_at)
                if repeated:
                    self._done.known += 1
                    continue
                batch.append((event_id, event))
                if len(batch) == BATCH:
                    self._add(batch)
                    batch = []
            self._add(batch)
        self._roll_up()
        return self._done

    def _skip(self, line: int, problem: str) -> None:
        self._done.bad += 1
        self._report(line, problem)

    def _add(self, batch: list[tuple[UUID, UsageEvent]]) -> None:
        known = self._known([event_id for event_id, _ in batch])
        new = [self._rows.completed(event, id_) for id_, event in batch if id_ not in known]
        self._done.known += len(batch) - len(new)
        self._done.new += len(new)
        self._done.unpriced += sum(event.price.cost_pico_usd is None for event in new)
        if new and not self._dry_run:
            self._store.write([record for event in new for record in _records(event)])
            self._behind += len(new)
            if self._behind >= ROLLED_UP_AT_ONCE:
                self._roll_up()

    def _roll_up(self) -> None:
        while self._behind and self._store.roll_up(ROLLED_UP_AT_ONCE) == ROLLED_UP_AT_ONCE:
            pass
        self._behind = 0

    def _known(self, ids: list[UUID]) -> set[UUID]:
        if self._dry_run and is_absent(self._store):
            return set()
        with self._store.snapshot() as snapshot:
            return snapshot.known_ids(ids)


def _records(event: UsageEvent) -> Iterator[Record]:
    """An event, and why it was amended: that is not something which its cost leaves out."""
    if not event.amendments:
        yield event
        return
    yield replace(event, reason=None, amendments=0)
    yield Amendment(
        id=uuid5(event.id, "imported as amended"),
        event_id=event.id,
        reason=event.reason or "amended before it was imported",
        at=event.created_at,
    )


def _events(
    table: Table, rows: RowReader, report: Report, advance: Advance
) -> Iterator[tuple[dict[str, str], UsageEvent]]:
    """The rows that can be read, with their events; the others are reported."""
    read = 0
    for line, cells in table.rows():
        if (position := table.position()) != read:
            advance(position - read)
            read = position
        try:
            if isinstance(cells, UnreadableRow):
                raise cells
            yield cells, rows.event(cells, own=table.own)
        except UnreadableRow as problem:
            report(line, str(problem))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file that can be read twice; a pipe is copied first.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if file.seekable():
                yield file
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(file, copy)
                yield copy
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def _raise(error: Exception) -> None:
    raise error
