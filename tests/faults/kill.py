"""kill -9 while a hundred calls are in flight: nothing that was acknowledged is lost."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import Result

WORKER = Path(__file__).with_name("worker.py")
CALLERS = 100


@dataclass(frozen=True)
class Variant:
    """How the calls are made; `control` says that this one has to lose some."""

    kind: str
    durability: str
    control: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.durability}" + (" (control)" if self.control else "")


VARIANTS = (
    Variant("threads", "commit"),
    Variant("asyncio", "commit"),
    Variant("threads", "process"),
    Variant("threads", "async", control=True),
)


@dataclass
class Count:
    """What all rounds of a variant came to."""

    kills: int = 0
    acknowledged: int = 0
    committed: int = 0
    lost: int = 0
    most_lost: int = 0
    integrity: set[str] = field(default_factory=set)


def run(rounds: int = 20, seed: int = 0) -> Iterator[Result]:
    """Kill a worker `rounds` times in every variant, on one file each."""
    for variant in VARIANTS:
        yield killed("kill", variant, rounds, seed)


def killed(
    fault: str,
    variant: Variant,
    rounds: int,
    seed: int,
    *options: str,
    after_kill: Callable[[Path, random.Random], None] = lambda database, rng: None,
) -> Result:
    """Kill a worker at random moments; `after_kill` may do worse to its file."""
    rng = random.Random(f"{fault} {variant.name} {seed}")
    began = time.monotonic()
    count = Count()
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        database, journal = Path(folder, "llmcost.db"), Path(folder, "acknowledged")
        known: set[bytes] = set()
        for _ in range(rounds):
            journal.unlink(missing_ok=True)
            with worker(database, journal, variant, *options) as process:
                wait_until(lambda: journal.exists() and journal.stat().st_size > 0, process)
                time.sleep(rng.uniform(0.0, 1.0))
                process.send_signal(signal.SIGKILL)
                process.wait()
            after_kill(database, rng)
            acknowledged = ids_in(journal)
            kept, integrity = look_into(database)
            lost = acknowledged - kept
            count.kills += 1
            count.acknowledged += len(acknowledged)
            count.lost += len(lost) + len(known - kept)
            count.most_lost = max(count.most_lost, len(lost))
            count.committed = len(kept)
            count.integrity.add(integrity)
            known = kept
    return Result(
        fault,
        variant.name,
        {
            "kills": count.kills,
            "acknowledged": count.acknowledged,
            "in the file": count.committed,
            "lost": count.lost,
            "at most in one": count.most_lost,
            "integrity": ", ".join(sorted(count.integrity)),
            "seconds": round(time.monotonic() - began),
        },
        violations(count, variant),
    )


def violations(count: Count, variant: Variant) -> list[str]:
    found = []
    if count.integrity != {"ok"}:
        found.append(f"integrity: {count.integrity}")
    if count.acknowledged < count.kills:
        found.append("too little was acknowledged to tell anything")
    if variant.control and not count.lost:
        found.append("nothing was lost here, so that this run cannot tell")
    if not variant.control and count.lost:
        found.append(f"{count.lost} acknowledged events are lost")
    return found


@contextlib.contextmanager
def worker(
    database: Path, journal: Path, variant: Variant, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """A worker that has started; it does not outlive the block."""
    process = subprocess.Popen(
        [
            *(sys.executable, str(WORKER), f"sqlite:///{database}", str(journal)),
            *(variant.kind, str(CALLERS), variant.durability, *options),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the worker did not start: exit status {process.wait()}")
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 60.0
) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the worker does not record: exit status {process.poll()}")
        time.sleep(0.001)


def ids_in(journal: Path) -> set[bytes]:
    written = journal.read_bytes()
    return {written[n : n + 16] for n in range(0, len(written), 16)}


def look_into(database: Path) -> tuple[set[bytes], str]:
    """The ids in a copy of the file, and what its integrity check says; it stays as it is."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        copy = Path(folder, database.name)
        shutil.copyfile(database, copy)
        if (log := Path(f"{database}-wal")).exists():
            shutil.copyfile(log, f"{copy}-wal")
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            try:
                integrity = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
                if not connection.execute("PRAGMA table_info(usage_events)").fetchall():
                    return set(), integrity  # even the tables were not on disk yet
                return {
                    row[0] for row in connection.execute("SELECT id FROM usage_events")
                }, integrity
            except sqlite3.DatabaseError as error:
                return set(), str(error)
