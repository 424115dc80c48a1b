"""The database's server is killed, and comes back a minute later; calls go on meanwhile.

Two processes of one host record a hundred calls a second each. While the server is away,
and still when it is back, whichever process drains their outbox is killed, and another
started in its place. Nothing that was acknowledged is lost or there twice.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import Result
from .kill import Variant, timed_ids_in, worker
from .ledgers import PostgresLedger

AWAY = 60.0
"""Seconds that the server is away."""

BEFORE, AFTER = 5.0, 20.0
"""Seconds of load before it goes, and after it is back."""

KILLS = 20
KILLS_ONCE_BACK = 2
"""How many of them come while the outbox is being drained."""

PROCESSES = 2
CALLERS = 10
PAUSE = 0.1
"""Seconds between two calls of one caller: together they make 200 a second."""

DRAINED_WITHIN = 10.0
ACK_TIMEOUT = 1.0
LATE = 0.5
"""Seconds that a busy machine may take beyond `ack_timeout`."""

VARIANT = Variant("threads", "commit", store="postgres")


def run(rounds: int = KILLS, seed: int = 0) -> Iterator[Result]:
    """Kill the drainer `rounds` times during one outage."""
    from benchmarks.postgres_server import running

    rng = random.Random(f"outage {seed}")
    with (
        tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder,
        running("fsync=off", "full_page_writes=off") as server,
        contextlib.ExitStack() as started,
    ):
        ledger = PostgresLedger(server.url("faults"), Path(folder, "llmcost.db"))
        host = Host(ledger, Path(folder), started)
        host.work(BEFORE)
        server.kill()
        away_until = time.monotonic() + AWAY
        while (left := away_until - time.monotonic()) > 0:
            until_next = left / max(rounds - KILLS_ONCE_BACK - host.kills, 1)
            host.work(min(left, rng.uniform(0.5, 1.0) * until_next))
            if host.kills < rounds - KILLS_ONCE_BACK:
                host.kill_drainer()
        most_waiting = host.waiting()
        server.start()
        back = time.monotonic()
        drained_after = None
        while time.monotonic() < back + AFTER:
            host.work(0.2)
            if drained_after is None and not host.waiting():
                drained_after = time.monotonic() - back
            elif drained_after is None and host.kills < rounds:
                host.kill_drainer()
        yield host.result(most_waiting, drained_after)


@dataclass
class Host:
    """The processes of one host, each started again when it ends."""

    ledger: PostgresLedger
    folder: Path
    started: contextlib.ExitStack
    kills: int = 0
    journals: list[Path] = field(default_factory=list)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for _ in range(PROCESSES):
            self.start_one()

    def start_one(self) -> None:
        journal = self.folder / f"acknowledged-{len(self.journals)}"
        self.journals.append(journal)
        options = ("--callers", str(CALLERS), "--pause", str(PAUSE), "--timeout", str(ACK_TIMEOUT))
        self.processes.append(
            self.started.enter_context(worker(self.ledger, journal, VARIANT, *options))
        )

    def work(self, seconds: float) -> None:
        """Let them record for a while."""
        time.sleep(seconds)
        if any(process.poll() is not None for process in self.processes):
            raise RuntimeError("a worker has ended")

    def waiting(self) -> int:
        """How many records wait in the outbox."""
        from costmw.store.outbox_file import OutboxFile

        with contextlib.closing(OutboxFile(self.ledger.outbox, "")) as file:
            return file.count()

    def kill_drainer(self) -> None:
        """Kill the process that has the right to drain, if one has, and start another."""
        drains = drainer_of(self.ledger.outbox)
        for process in self.processes:
            if process.pid == drains:
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.processes.remove(process)
                self.kills += 1
                self.start_one()
                return

    def result(self, most_waiting: int, drained_after: float | None) -> Result:
        """Stop, and count."""
        for process in self.processes:
            process.kill()
            process.wait()
        assert self.ledger.drained()
        timed = [call for journal in self.journals for call in timed_ids_in(journal)]
        acknowledged = {event_id for event_id, _ in timed}
        rows, soundness = self.ledger.look_into()
        lost, twice = len(acknowledged - set(rows)), len(rows) - len(set(rows))
        differences = self.ledger.differences()
        longest = max(seconds for _, seconds in timed)
        violations = []
        if soundness != "ok":
            violations.append(soundness)
        if lost or twice or differences:
            violations.append("rows are lost or there twice, or rollups do not follow")
        if drained_after is None or drained_after > DRAINED_WITHIN:
            violations.append(f"not drained within {DRAINED_WITHIN:.0f} s")
        if longest > ACK_TIMEOUT + LATE:
            violations.append("a call waited beyond ack_timeout")
        figures = {
            "drainers killed": self.kills,
            "acknowledged": len(acknowledged),
            "in the ledger": len(rows),
            "lost": lost,
            "duplicates": twice,
            "rollups wrong": differences,
            "waited at most": most_waiting,
            "drained after s": None if drained_after is None else round(drained_after, 1),
            "longest call ms": round(longest * 1000),
        }
        return Result("outage", f"{AWAY:.0f} s away, 200 calls/s", figures, violations)


def drainer_of(outbox: Path) -> int | None:
    """The process that holds the drainer's lock, as Linux tells it."""
    lock = Path(f"{outbox}.drainer")
    if not lock.exists():
        return None
    inode = str(lock.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        parts = line.split()
        if parts[1] == "FLOCK" and parts[5].rpartition(":")[2] == inode:
            return int(parts[4])
    return None
