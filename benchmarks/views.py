"""The seven views and a filtered one, at several sizes of the ledger, beside the naive design.

The naive design is one table with its tags as JSON and one index on the time, which each
view groups by `json_extract`. A Postgres ledger of the middle size is asked the same, and
has to answer the same. With `--folder` the ledgers are kept and used again.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ledger_events import DAYS, START, events
from benchmarks.measure import main
from costmw import Budget, Config
from costmw.reports import Reports
from costmw.store.base import Store
from costmw.store.sqlite import SqliteStore

SIZES = (100_000, 1_000_000, 10_000_000)
COMPARED = 1_000_000
"""The size at which the naive design, and Postgres, are asked too."""

WRITTEN_AT_ONCE = 1_000
ROLLED_UP_AT_ONCE = 10_000
ROUNDS = 9
NAIVE_ROUNDS = 3

NOW = START + timedelta(days=DAYS) - timedelta(minutes=20)
BUDGETS = (Budget("tenants", limit="5000", per="tenant"), Budget("all", limit="100000"))

View = Callable[[Reports], object]

VIEWS: Mapping[str, View] = {
    "spend this month": lambda reports: reports.spend(),
    "trend of 30 days": lambda reports: reports.trend(),
    "by model": lambda reports: reports.by("model"),
    "by feature": lambda reports: reports.by("tag:feature"),
    "cost per request": lambda reports: reports.unit_costs(),
    "input and output tokens": lambda reports: reports.tokens(),
    "budgets": lambda reports: reports.budgets(),
    "a tenant by model": lambda reports: reports.by("model", where={"tenant": "tenant-03"}),
}

_SINCE = int((NOW - timedelta(days=DAYS)).timestamp())
_SUMS = "count(*), sum(cost_usd), sum(input_tokens), sum(output_tokens), sum(cached_tokens)"
_WHERE = f"FROM naive WHERE created_at >= {_SINCE}"

# What is made of every view in the naive design.
NAIVE: Mapping[str, str] = {
    "spend this month": f"SELECT {_SUMS} {_WHERE}",
    "trend of 30 days": f"SELECT created_at / 86400, {_SUMS} {_WHERE} GROUP BY 1",
    "by model": f"SELECT model, {_SUMS} {_WHERE} GROUP BY 1",
    "by feature": f"SELECT json_extract(tags, '$.feature'), {_SUMS} {_WHERE} GROUP BY 1",
    "cost per request": (
        f"SELECT created_at / 86400, sum(cost_usd) / count(DISTINCT request_id) {_WHERE} GROUP BY 1"
    ),
    "input and output tokens": f"SELECT {_SUMS} {_WHERE}",
    "budgets": f"SELECT json_extract(tags, '$.tenant'), sum(cost_usd) {_WHERE} GROUP BY 1",
    "a tenant by model": (
        f"SELECT model, {_SUMS} {_WHERE} AND json_extract(tags, '$.tenant') = 'tenant-03' "
        "GROUP BY 1"
    ),
}


def run(
    sizes: Sequence[int] = SIZES, folder: Path | None = None, *, postgres: bool = True
) -> dict[str, Any]:
    """Measure all sizes and print milliseconds a view; `folder` keeps the ledgers."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return run(sizes, Path(temporary), postgres=postgres)
    folder.mkdir(exist_ok=True)
    figures: dict[str, Any] = {}
    for size in sizes:
        store = built(folder / f"ledger-{size}.db", size)
        found = figures[str(size)] = measured(store)
        found["bytes an event"] = bytes_of(store.path) / size
        if size == COMPARED:
            figures["naive"] = measured_naively(folder / f"naive-{size}.db", store.path)
            if postgres:
                figures["postgres"] = measured_on_postgres(store, size)
        store.close()
    show(figures)
    return figures


def built(path: Path, size: int) -> SqliteStore:
    """A ledger of so many events with its rollups, made unless it is there."""
    store = SqliteStore(f"sqlite:///{path}", Config(durability="process"))
    is_there = path.exists()
    store.open()
    if not is_there:
        fill(store, size)
    return store


def fill(store: Store, size: int) -> None:
    """Write so many events, and roll them up."""
    batch = []
    for n, event in enumerate(events(size), 1):
        batch.append(event)
        if len(batch) == WRITTEN_AT_ONCE or n == size:
            store.write(batch)
            batch = []
        if n % ROLLED_UP_AT_ONCE == 0:
            store.roll_up(ROLLED_UP_AT_ONCE)
    while store.roll_up(ROLLED_UP_AT_ONCE):
        pass


def measured(store: Store) -> dict[str, float]:
    """Milliseconds of each view, the median of several rounds in turn."""
    reports = Reports(store, BUDGETS, now=lambda: NOW)
    return _medians({name: partial(view, reports) for name, view in VIEWS.items()}, ROUNDS)


def measured_naively(path: Path, ledger: Path) -> dict[str, float]:
    """The same of a table of the naive design with the same events."""
    is_there = path.exists()
    with closing(sqlite3.connect(path)) as connection:
        if not is_there:
            connection.executescript(
                f"""
                CREATE TABLE naive (
                    id TEXT PRIMARY KEY, created_at INTEGER, request_id TEXT, model TEXT,
                    input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER,
                    cost_usd REAL, tags TEXT
                );
                ATTACH '{ledger}' AS ledger;
                INSERT INTO naive
                SELECT hex(e.id), e.created_at / 1000000, hex(e.request_id), k.response_model,
                    e.input_tokens, e.output_tokens, e.cache_read_input_tokens,
                    e.cost_pico_usd / 1e12, s.tags
                FROM ledger.usage_events e
                JOIN ledger.call_kinds k ON k.id = e.call_kind_id
                JOIN ledger.tag_sets s ON s.id = e.tag_set_id;
                CREATE INDEX naive_by_time ON naive (created_at);
                """
            )

        def ask(sql: str) -> object:
            return connection.execute(sql).fetchall()

        return _medians({name: partial(ask, sql) for name, sql in NAIVE.items()}, NAIVE_ROUNDS)


def measured_on_postgres(sqlite: SqliteStore, size: int) -> dict[str, float]:
    """The same of a Postgres ledger with the same events, whose answers must be the same."""
    from benchmarks.postgres_server import running
    from costmw.store.postgres import PostgresStore

    with running() as server, closing(PostgresStore(server.url(), Config())) as store:
        store.open()
        fill(store, size)
        expected = Reports(sqlite, BUDGETS, now=lambda: NOW)
        found = Reports(store, BUDGETS, now=lambda: NOW)
        for name, view in VIEWS.items():
            if view(expected) != view(found):
                raise SystemExit(f"Postgres answers {name!r} differently")
        return measured(store)


def bytes_of(path: Path) -> int:
    """Bytes on disk, with the log written to the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.stat().st_size


def _medians(asked: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in asked}
    for ask in asked.values():
        ask()
    for _ in range(rounds):
        for name, ask in asked.items():
            started = time.perf_counter()
            ask()
            times[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def show(figures: Mapping[str, Mapping[str, float]]) -> None:
    """Print milliseconds of each view at each size."""
    print(f"\n  {'ms':<26}" + "".join(f"{name:>12}" for name in figures))
    for view in (*VIEWS, "bytes an event"):
        cells = [found.get(view) for found in figures.values()]
        print(f"  {view:<26}" + "".join(f"{c:>12.2f}" if c else f"{'':>12}" for c in cells))
    sums = [sum(found[view] for view in VIEWS) for found in figures.values()]
    print(f"  {'all':<26}" + "".join(f"{total:>12.2f}" for total in sums))
    if str(COMPARED) in figures:
        base = sum(figures[str(COMPARED)][view] for view in VIEWS)
        print(
            f"  {'over ' + format(COMPARED, ','):<26}" + "".join(f"{t / base:>12.2f}" for t in sums)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--folder", type=Path, help="keep the ledgers here")
    parser.add_argument("--no-postgres", action="store_true", help="SQLite alone")
    main(
        "views",
        lambda asked: run(asked.sizes, asked.folder, postgres=not asked.no_postgres),
        parser,
    )
