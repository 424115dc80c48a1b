"""What waiting for the commit adds to a call: 100 callers whose calls take 300 ms.

In turn with the same calls unmetered, which say how late a sleep of 300 ms is anyway. The
lag of the event loop is how late a sleep of 5 ms is.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.ledger_events import a_call
from benchmarks.measure import main
from costmw import Config, Meter

CALLERS = 100
CALL_SECONDS = 0.3
ROUND_SECONDS = 10.0
ROUNDS = 3
LAG_STEP = 0.005


@dataclass
class Times:
    """Seconds: how long each call took beyond its 300 ms, and how late the event loop was."""

    added: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


def run() -> dict[str, Any]:
    """Measure both ways of calling, and print milliseconds."""
    figures: dict[str, Any] = {}
    for kind, one_round in (("asyncio", _asyncio_round), ("threads", _threads_round)):
        bare, metered = Times(), Times()
        with tempfile.TemporaryDirectory() as directory:
            meter = Meter(f"sqlite:///{Path(directory, 'ledger.db')}", config=Config())
            meter.start()
            meter.record(**a_call(0))
            for _ in range(ROUNDS):
                one_round(None, bare)
                one_round(meter, metered)
            meter.close()
            status = meter.status()
        figures[kind] = _figures(bare, metered)
        _show(kind, figures[kind], len(metered.added), status.committed)
    return figures


def _asyncio_round(meter: Meter | None, times: Times) -> None:
    asyncio.run(_call_for_a_while(meter, times))


async def _call_for_a_while(meter: Meter | None, times: Times) -> None:
    until = time.perf_counter() + ROUND_SECONDS
    watch = asyncio.create_task(_watch_lag(until, times.lags))
    await asyncio.gather(*(_caller(meter, n, until, times.added) for n in range(CALLERS)))
    await watch


async def _caller(meter: Meter | None, n: int, until: float, added: list[float]) -> None:
    await asyncio.sleep(CALL_SECONDS * n / CALLERS)
    while (started := time.perf_counter()) < until:
        await asyncio.sleep(CALL_SECONDS)
        if meter is not None:
            await meter.arecord(**a_call(n))
        added.append(time.perf_counter() - started - CALL_SECONDS)
        n += CALLERS


async def _watch_lag(until: float, lags: list[float]) -> None:
    while (started := time.perf_counter()) < until:
        await asyncio.sleep(LAG_STEP)
        lags.append(time.perf_counter() - started - LAG_STEP)


def _threads_round(meter: Meter | None, times: Times) -> None:
    until = time.perf_counter() + ROUND_SECONDS
    threads = [
        threading.Thread(target=_call_in_a_thread, args=(meter, n, until, times.added))
        for n in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _call_in_a_thread(meter: Meter | None, n: int, until: float, added: list[float]) -> None:
    time.sleep(CALL_SECONDS * n / CALLERS)
    while (started := time.perf_counter()) < until:
        time.sleep(CALL_SECONDS)
        if meter is not None:
            meter.record(**a_call(n))
        added.append(time.perf_counter() - started - CALL_SECONDS)
        n += CALLERS


def _figures(bare: Times, metered: Times) -> dict[str, float]:
    found = {
        "bare p50": _quantile(bare.added, 0.5),
        "bare p99": _quantile(bare.added, 0.99),
        "p50": _quantile(metered.added, 0.5),
        "p99": _quantile(metered.added, 0.99),
    }
    found["added p50"] = found["p50"] - found["bare p50"]
    found["added p99"] = found["p99"] - found["bare p99"]
    if bare.lags:
        found["bare lag p99.9"] = _quantile(bare.lags, 0.999)
        found["lag p99.9"] = _quantile(metered.lags, 0.999)
    return found


def _quantile(seconds: Sequence[float], share: float) -> float:
    return statistics.quantiles(seconds, n=1000)[round(share * 1000) - 1] * 1e3


def _show(kind: str, figures: dict[str, float], calls: int, committed: int) -> None:
    print(f"\n{kind}: {calls:,} calls, {committed:,} committed; milliseconds")
    for name, milliseconds in figures.items():
        print(f"  {name:<18}{milliseconds:>8.2f}")


if __name__ == "__main__":
    main("ack", lambda _: run())
