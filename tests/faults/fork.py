"""Forks under load: no child hangs or dies, nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import Result

VARIANT = "6 threads write, 2 ask"
PATIENCE = 30.0
"""Seconds after which a child that has not ended hangs."""


def run(rounds: int = 200, seed: int = 0) -> Iterator[Result]:
    """Fork `rounds` times while six threads record and two ask."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        yield forked(Path(folder), rounds, seed)


def forked(folder: Path, rounds: int, seed: int) -> Result:
    """Run `load()` in a process of its own and look at what it left."""
    database, journal = folder / "llmcost.db", folder / "acknowledged"
    began = time.monotonic()
    module = f"{__package__}.fork"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", module),
            *(f"sqlite:///{database}", str(journal), str(rounds), str(seed)),
        ],
        cwd=Path(__file__).parents[module.count(".")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60 + rounds * PATIENCE,
    )
    if ran.returncode:
        return Result("fork", VARIANT, {"forks": rounds}, [f"the parent ended: {ran.returncode}"])
    figures = json.loads(ran.stdout)
    written = journal.read_bytes()
    acknowledged = [written[n : n + 16] for n in range(0, len(written), 16)]
    with contextlib.closing(sqlite3.connect(database)) as connection:
        kept = [row[0] for row in connection.execute("SELECT id FROM usage_events")]
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    lost = set(acknowledged) - set(kept)
    found = [f"{name}: {figures.get(name)}" for name in ("hangs", "deaths") if figures.get(name)]
    if lost:
        found.append(f"{len(lost)} acknowledged events are lost")
    if len(acknowledged) < 3 * rounds or set(kept) - set(acknowledged):
        found.append("not all that recorded said so")
    if integrity != "ok":
        found.append(f"integrity: {integrity}")
    return Result(
        "fork",
        VARIANT,
        {
            "forks": rounds,
            **figures,
            "acknowledged": len(acknowledged),
            "lost": len(lost),
            "integrity": integrity,
            "seconds": round(time.monotonic() - began),
        },
        found,
    )


def load(store: str, journal: str, rounds: int, seed: int) -> dict[str, int]:
    """Record and ask in threads, and fork children that record as well."""
    from costmw import Config, Meter

    rng = random.Random(seed)
    meter = Meter(store, config=Config(ack_timeout=PATIENCE))
    meter.start()
    meter.reports.overview()  # pydantic has a lock for the first use of its models
    stop = threading.Event()

    def record() -> None:
        event = meter.record(provider="openai", model="m", cost="0.01", tags={"n": rng.random()})
        if meter.status().late:
            raise RuntimeError("the commit is late")
        file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, event.id.bytes)
        os.close(file)

    def write() -> None:
        while not stop.is_set():
            record()

    def ask() -> None:
        while not stop.is_set():
            meter.reports.by("tag:n", days=2)

    def child() -> bool:
        for _ in range(3):
            record()
        return meter.flush(PATIENCE)

    threads = [threading.Thread(target=work) for work in (*[write] * 6, *[ask] * 2)]
    for thread in threads:
        thread.start()
    ended = []
    for _ in range(rounds):
        time.sleep(rng.uniform(0, 0.005))
        ended.append(status_of(child))
    stop.set()
    for thread in threads:
        thread.join()
    meter.close()
    return {"hangs": ended.count(None), "deaths": sum(bool(status) for status in ended)}


def status_of(work: Any) -> int | None:
    """Fork a child that does some work; gives how it ended, None when it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        faulthandler.dump_traceback_later(PATIENCE - 5)  # where it hangs
        try:
            code = 0 if work() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
