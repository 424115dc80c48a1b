"""Four processes write one file as fast as they can: all get the same, nobody waits long.

Each has callers that wait for their commits, rolls up as it goes, and says how many calls
it recorded in the time that all of them were running, and how long the slowest took.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from . import Result

PROCESSES = 4
CALLERS = 20
EVEN = 0.8
LONGEST = 0.5


def run(rounds: int = 20, seed: int = 0) -> Iterator[Result]:
    """Write for `rounds` seconds."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        yield written(Path(folder), float(rounds))


def written(folder: Path, seconds: float) -> Result:
    """Run the processes, which begin and end at one moment."""
    database = folder / "llmcost.db"
    module = f"{__package__}.fairness"
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", module, f"sqlite:///{database}", str(seconds)],
            cwd=Path(__file__).parents[module.count(".")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"a worker did not start: {worker.wait()}")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        figures = [json.loads(worker.communicate(timeout=seconds + 120)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    counts = [figure["calls"] for figure in figures]
    longest = max(figure["longest"] for figure in figures)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM usage_events").fetchone()
        rolled_up = dict(connection.execute("SELECT source, seq FROM rollup_watermarks"))
    found = []
    if min(counts) / max(counts) < EVEN:
        found.append("not even")
    if longest > LONGEST:
        found.append(f"a call waited {longest:.2f} s")
    if rows < sum(counts):
        found.append("rows are missing")
    if not rolled_up.get("usage_events"):
        found.append("nothing was rolled up")
    return Result(
        "fairness",
        f"{PROCESSES} processes, {CALLERS} callers each",
        {
            "seconds": round(seconds),
            "calls": sum(counts),
            "a second": round(sum(counts) / seconds),
            "least": min(counts),
            "most": max(counts),
            "least/most": round(min(counts) / max(counts), 2),
            "longest wait ms": round(1000 * longest),
            "rolled up": rolled_up.get("usage_events", 0),
        },
        found,
    )


def write(store: str, seconds: float) -> dict[str, float]:
    """Record as fast as the store takes it, for some seconds from a signal on."""
    from costmw import Config, Meter

    meter = Meter(store, config=Config(ack_timeout=60))
    meter.start()
    meter.record(provider="openai", model="m", cost="1")
    counts = [0] * CALLERS
    longest = [0.0] * CALLERS
    ends = 0.0

    def call(caller: int) -> None:
        while (began := time.monotonic()) < ends:
            meter.record(provider="openai", model="m", cost="0.1", tags={"caller": caller})
            counts[caller] += 1
            longest[caller] = max(longest[caller], time.monotonic() - began)

    print("ready", flush=True)
    sys.stdin.readline()
    ends = time.monotonic() + seconds
    threads = [threading.Thread(target=call, args=(n,)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meter.close()
    return {"calls": sum(counts), "longest": max(longest)}


if __name__ == "__main__":
    print(json.dumps(write(sys.argv[1], float(sys.argv[2]))))
