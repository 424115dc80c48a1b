"""Alerts, while the webhook is away and those who send them are killed.

Four workers record calls that move a budget over its thresholds; the webhook goes away for a
minute, and meanwhile and afterwards workers are started again: by a kill -9, by their own end,
and by a kill -9 of whichever has the task. Each threshold arrives, in order, under one id.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import Result

AWAY = 60.0
"""Seconds that the webhook is away."""

WORKERS = 4
RESTARTS = 3

CENTS = 100
"""Thresholds of the budget: one at every hundredth."""

SECONDS = 10.0
"""Of calls, before the webhook goes and after it is back."""

ARRIVED_WITHIN = 120.0
"""Seconds after the last call: a claim, and the longest wait for another try."""


def run(rounds: int = 1, seed: int = 0, away: float = AWAY) -> Iterator[Result]:
    """Break each store `rounds` times."""
    for store in ("sqlite", "postgres"):
        for number in range(rounds):
            rng = random.Random(f"alerts {store} {number} {seed}")
            with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
                with _url(store, Path(folder)) as url:
                    yield _broken(store, url, Path(folder), rng, away)


@contextlib.contextmanager
def _url(store: str, folder: Path) -> Iterator[str]:
    if store == "sqlite":
        yield f"sqlite:///{folder}/llmcost.db"
        return
    from benchmarks.postgres_server import running

    with running("fsync=off", "full_page_writes=off") as server:
        yield server.url("alerts")


@dataclass
class Workers:
    """Four processes that record; one that is ended is started again."""

    url: str
    webhook: str
    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    killed: int = 0
    ended: int = 0

    def start(self) -> None:
        options = (self.url, self.webhook, str(self.folder / "outbox.db"))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.alerts", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        self.processes.append(process)
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a worker has ended")

    def record(self, position: int) -> None:
        """One worker records one call of a hundredth."""
        process = self.processes[position]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("0.01\n")
        process.stdin.flush()
        if process.stdout.readline() != "recorded\n":
            raise RuntimeError("a worker has ended")

    def restart(self, position: int, *, kill: bool) -> None:
        process = self.processes.pop(position)
        if kill:
            process.send_signal(signal.SIGKILL)
            self.killed += 1
        else:
            self.ended += 1
        process.communicate()
        self.start()

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def _broken(store: str, url: str, folder: Path, rng: random.Random, away: float) -> Result:
    from ..webhook_receiver import Receiver

    receiver = Receiver()
    receiver.start()
    workers = Workers(url, receiver.url, folder)
    try:
        for _ in range(WORKERS):
            workers.start()
        calls = 0

        def spend(seconds: float, until: int) -> None:
            nonlocal calls
            pause = seconds / max(until - calls, 1)
            while calls < until:
                workers.record(rng.randrange(WORKERS))
                calls += 1
                time.sleep(pause)

        spend(SECONDS, 30)
        receiver.stop()
        for number in range(RESTARTS):
            spend(away / RESTARTS, 30 + (number + 1) * 40 // RESTARTS)
            # The task is one worker's: with all of them killed in turn it is hit as well.
            position = 0 if number == 0 else rng.randrange(WORKERS)
            workers.restart(position, kill=number != 1)
        before = len(set(receiver.ids()))
        receiver.start_again()
        back = time.monotonic()
        spend(SECONDS / 2, 85)
        for _ in range(WORKERS):  # whoever sends at this moment is among them
            workers.restart(0, kill=True)
        spend(SECONDS / 2, CENTS)
        while len(set(receiver.ids())) < CENTS and time.monotonic() - back < ARRIVED_WITHIN:
            time.sleep(0.1)
        took = time.monotonic() - back
    finally:
        workers.stop()
        receiver.stop()
    return _result(store, away, receiver.accepted, workers, before, took)


def _result(
    store: str,
    away: float,
    accepted: list[dict[str, Any]],
    workers: Workers,
    before: int,
    took: float,
) -> Result:
    told = [(body["data"]["id"], body["data"]["threshold"]) for body in accepted]
    first = list(dict.fromkeys(told))
    expected = [f"{share / CENTS:g}" for share in range(1, CENTS + 1)]
    ids = {identifier for identifier, _ in told}
    missing = len(set(expected) - {threshold for _, threshold in told})
    violations = []
    if missing:
        violations.append("thresholds have not arrived")
    if expected != [threshold for _, threshold in first if threshold in set(expected)]:
        violations.append("thresholds have arrived out of order")
    if not len(ids) == len(first) == len({threshold for _, threshold in first}):
        violations.append("a threshold has more than one id")
    figures = {
        "workers killed": workers.killed,
        "ended": workers.ended,
        "thresholds": CENTS,
        "arrived": len({threshold for _, threshold in told}),
        "missing": missing,
        "ids": len(ids),
        "before the outage": before,
        "sent again": len(told) - len(first),
        "all there after s": round(took, 1),
    }
    return Result("alerts", f"{store}, {away:.0f} s away", figures, violations)


def work(options: argparse.Namespace) -> None:
    """A worker: records what it is told to."""
    from costmw import Budget, Config, Meter
    from costmw.alerts import Alerts, Webhook

    thresholds = [share / CENTS for share in range(1, CENTS + 1)]
    budget = Budget("all", "1", period="total", alert_at=thresholds)
    channel = Webhook(options.webhook, timeout=5)
    alerts = Alerts([channel], every=1.0, velocity=False, models=False, on_course=False)
    config = Config(ack_timeout=30.0, outbox=Path(options.outbox))
    meter = Meter(options.store, budgets=[budget], alerts=alerts, config=config)
    meter.start()
    print("ready", flush=True)
    for line in sys.stdin:
        meter.record(provider="openai", model="m", cost=line.strip())
        print("recorded", flush=True)
    meter.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("webhook")
    parser.add_argument("outbox")
    work(parser.parse_args())
