"""Rows into the SQLite ledger, rollups included, against raw `executemany` of the same rows.

And end to end: 100 callers that record one call after another, each waiting for its commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.ledger_events import a_call, events
from benchmarks.measure import main
from costmw import Config, Meter
from costmw.events import UsageEvent
from costmw.store.sqlite import SqliteStore
from costmw.store.writer import BEHIND_AT_MOST

EVENTS = 60_000
WARM_UP = 20_000
ROUNDS = 3
BATCHES = (50, 200, 500)
CALLERS = 100
SECONDS = 8.0

LEDGER = ("tag_sets", "tags", "usage_events")
"""Tables that grow with the events; the others stay small."""


def run() -> dict[str, Any]:
    """Write the same events both ways, in turn, and print microseconds an event."""
    made = list(events(WARM_UP + EVENTS, days=3))
    figures: dict[str, Any] = {}
    print("\n  batch   costmw us   of it rollups   raw us   raw / costmw")
    for batch in BATCHES:
        rounds = [_round(made, batch) for _ in range(ROUNDS)]
        written, rolled, raw = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = raw / (written + rolled)
        print(f"  {batch:>5}{written + rolled:>12.1f}{rolled:>16.1f}{raw:>9.1f}{ratio:>15.2f}")
        figures[str(batch)] = {
            "us": written + rolled,
            "us_rollups": rolled,
            "us_raw": raw,
            "ratio": ratio,
        }
    for kind, calls in (("asyncio", _by_tasks), ("threads", _by_threads)):
        figures[kind] = _end_to_end(calls)
        print(f"\n  {CALLERS} callers, {kind}: {figures[kind]:,.0f} calls a second")
    return figures


def _end_to_end(calls: Callable[[Meter], None]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        meter = Meter(f"sqlite:///{Path(directory, 'ledger.db')}", config=Config())
        meter.start()
        started = time.perf_counter()
        calls(meter)
        taken = time.perf_counter() - started
        committed = meter.status().committed
        meter.close()
    return committed / taken


def _by_tasks(meter: Meter) -> None:
    async def calls() -> None:
        until = time.perf_counter() + SECONDS

        async def caller(n: int) -> None:
            while time.perf_counter() < until:
                await meter.arecord(**a_call(n))
                n += CALLERS

        await asyncio.gather(*map(caller, range(CALLERS)))

    asyncio.run(calls())


def _by_threads(meter: Meter) -> None:
    until = time.perf_counter() + SECONDS

    def caller(n: int) -> None:
        while time.perf_counter() < until:
            meter.record(**a_call(n))
            n += CALLERS

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(caller, range(CALLERS)))


def _round(made: list[UsageEvent], batch: int) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "ledger.db")
        store = SqliteStore(f"sqlite:///{path}", Config())
        store.open()
        _fill(store, made[:WARM_UP], 500)
        seen = _counts(path)
        written, rolled = _fill(store, made[WARM_UP:], batch)
        store.close()
        raw = _raw(path, Path(directory, "raw.db"), seen, batch)
    return tuple(seconds / EVENTS * 1e6 for seconds in (written, rolled, raw))  # type: ignore[return-value]


def _fill(store: SqliteStore, made: list[UsageEvent], batch: int) -> tuple[float, float]:
    """Write and roll up like the writer when it is never idle; seconds of each."""
    written = rolled = 0.0
    behind = 0
    for first in range(0, len(made), batch):
        part = made[first : first + batch]
        started = time.perf_counter()
        store.write(part)
        written += time.perf_counter() - started
        behind += len(part)
        if behind >= BEHIND_AT_MOST or part[-1] is made[-1]:
            started = time.perf_counter()
            behind -= store.roll_up(BEHIND_AT_MOST)
            rolled += time.perf_counter() - started
    return written, rolled


def _counts(path: Path) -> dict[str, int]:
    connection = sqlite3.connect(path)
    try:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in LEDGER
        }
    finally:
        connection.close()


def _raw(source: Path, target: Path, seen: dict[str, int], batch: int) -> float:
    """Insert the finished rows of the same tables, in transactions of as many events."""
    read = sqlite3.connect(source)
    write = sqlite3.connect(target, isolation_level=None)
    write.execute("PRAGMA journal_mode = WAL")
    write.execute("PRAGMA synchronous = FULL")
    for (sql,) in read.execute(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%' "
        "AND type IN ('table', 'index')"
    ):
        write.execute(sql)
    rows = {table: read.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in LEDGER}
    inserts = {
        table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(found[0]))})"
        for table, found in rows.items()
    }
    for table in LEDGER:  # as it was when the events to be timed came
        write.execute("BEGIN")
        write.executemany(inserts[table], rows[table][: seen[table]])
        write.execute("COMMIT")
    new = {table: found[seen[table] :] for table, found in rows.items()}
    transactions = -(-len(new["usage_events"]) // batch)
    started = time.perf_counter()
    for n in range(transactions):
        write.execute("BEGIN IMMEDIATE")
        for table, found in new.items():
            first, last = (len(found) * k // transactions for k in (n, n + 1))
            write.executemany(inserts[table], found[first:last])
        write.execute("COMMIT")
    taken = time.perf_counter() - started
    read.close()
    write.close()
    return taken


if __name__ == "__main__":
    main("ingest", lambda _: run())
