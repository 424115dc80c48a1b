"""kill -9 while a hundred calls are in flight: nothing that was acknowledged is lost.

Several processes on one ledger are killed one after another, while the others go on.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import Result
from .ledgers import Ledger, ledger_of
from .worker import JOURNALLED

WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Variant:
    """How the calls are made; `control` says that this one has to lose some."""

    kind: str
    durability: str
    control: bool = False
    processes: int = 1
    kills: int = 20
    store: str = "sqlite"

    @property
    def name(self) -> str:
        several = f"{self.processes} x " if self.processes > 1 else ""
        store = "" if self.store == "sqlite" else f"{self.store}, "
        control = " (control)" if self.control else ""
        return f"{store}{several}{self.kind}, {self.durability}{control}"


VARIANTS = (
    Variant("threads", "commit", processes=4, kills=100),
    Variant("threads", "commit", processes=4, kills=100, store="postgres"),
    Variant("asyncio", "commit", processes=4),
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
    duplicates: int = 0
    differences: int = 0
    integrity: set[str] = field(default_factory=set)


def run(rounds: int | None = None, seed: int = 0) -> Iterator[Result]:
    """Kill `rounds` workers in every variant, on one ledger each."""
    for variant in VARIANTS:
        yield killed("kill", variant, rounds or variant.kills, seed)


def killed(
    fault: str,
    variant: Variant,
    kills: int,
    seed: int,
    *options: str,
    at_once: bool = False,
    after_kill: Callable[[Path, random.Random], None] = lambda database, rng: None,
) -> Result:
    """Kill workers at random moments; `after_kill` may do worse to their file.

    `at_once` kills all that share the file at one moment.
    """
    rng = random.Random(f"{fault} {variant.name} {seed}")
    began = time.monotonic()
    count = Count()
    with (
        tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder,
        ledger_of(variant.store, Path(folder)) as ledger,
    ):
        journals = [Path(folder, f"acknowledged-{n}") for n in range(variant.processes)]
        known: set[bytes] = set()
        while count.kills < kills:
            for journal in journals:
                journal.unlink(missing_ok=True)
            with contextlib.ExitStack() as started:
                workers = [
                    started.enter_context(worker(ledger, journal, variant, *options))
                    for journal in journals
                ]
                for journal, process in zip(journals, workers, strict=True):
                    wait_until(lambda j=journal: j.exists() and j.stat().st_size > 0, process)
                for n, process in enumerate(rng.sample(workers, len(workers))):
                    if n == 0 or not at_once:
                        time.sleep(rng.uniform(0.0, 1.0))
                    process.send_signal(signal.SIGKILL)
                for process in workers:
                    process.wait()
            after_kill(ledger.path, rng)
            acknowledged = set().union(*map(ids_in, journals))
            rows, integrity = ledger.look_into()
            kept = set(rows)
            lost = acknowledged - kept
            count.kills += len(workers)
            count.acknowledged += len(acknowledged)
            count.lost += len(lost) + len(known - kept)
            count.most_lost = max(count.most_lost, len(lost))
            count.duplicates += len(rows) - len(kept)
            count.committed = len(kept)
            count.integrity.add(integrity)
            known = kept
        count.differences = ledger.differences()
    return Result(
        fault,
        variant.name,
        {
            "kills": count.kills,
            "acknowledged": count.acknowledged,
            "in the ledger": count.committed,
            "lost": count.lost,
            "at most in one": count.most_lost,
            "duplicates": count.duplicates,
            "integrity": ", ".join(sorted(count.integrity)),
            "rollups wrong": count.differences,
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
    if count.duplicates or count.differences:
        found.append("rows are there twice, or rollups do not follow")
    if variant.control and not count.lost:
        found.append("nothing was lost here, so that this run cannot tell")
    if not variant.control and count.lost:
        found.append(f"{count.lost} acknowledged events are lost")
    return found


@contextlib.contextmanager
def worker(
    ledger: Ledger, journal: Path, variant: Variant, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """A worker that has started; it does not outlive the block."""
    process = subprocess.Popen(
        [
            *(sys.executable, str(WORKER), ledger.url, str(journal)),
            *(variant.kind, variant.durability, *options),
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
    return {event_id for event_id, _ in timed_ids_in(journal)}


def timed_ids_in(journal: Path) -> list[tuple[bytes, float]]:
    """What was acknowledged, and in how many seconds."""
    written = journal.read_bytes()
    whole = len(written) - len(written) % JOURNALLED.size
    return [(event_id, us / 1e6) for event_id, us in JOURNALLED.iter_unpack(written[:whole])]
