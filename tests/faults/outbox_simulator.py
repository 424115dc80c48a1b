"""Random schedules of writers, an outbox and its drainers, with faults at any statement.

    python -m tests.faults outbox_simulator --rounds 4000 --seed 1
    python -m tests.faults.outbox_simulator SEED

The second runs one schedule again: it follows from its seed alone. Two processes of one
host record through one outbox into one database, which is away now and then. Statements
fail, or the process ends there; the connection breaks before the database's commit or
after it; batches come twice; some records are poison. Whatever was acknowledged is in the
ledger once, or in the outbox, or a dead letter; in the end nothing waits any more.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from costmw import Config
from costmw.errors import StoreError, StoreUnreachable
from costmw.events import Amendment, Outcome, Price, Record, Usage, UsageEvent
from costmw.store.outbox import OutboxStore
from costmw.store.outbox_file import DeadLetter
from costmw.store.record_json import decode
from costmw.store.sqlite import SqliteStore

from . import Result
from .simulator import Crash, Faulty

STEPS = 16
START = datetime(2026, 3, 26, tzinfo=UTC)
ALL = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


def run(rounds: int = 4_000, seed: int = 0, workers: int = 2) -> Iterator[Result]:
    """Run `rounds` schedules, whose seeds follow `seed`."""
    began = time.monotonic()
    share = -(-rounds // workers)
    counts: Counter[str] = Counter()
    failed: list[str] = []
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        parts = [range(seed + n * share, seed + (n + 1) * share) for n in range(workers)]
        for found, failures in pool.map(played, parts):
            counts += found
            failed += failures
    if failed:
        failed = [f"{len(failed)} of {rounds} schedules fail", *failed[:5]]
    figures = {**dict(sorted(counts.items())), "seconds": round(time.monotonic() - began)}
    yield Result("outbox_simulator", "two processes, one outbox", figures, failed)


def played(seeds: Sequence[int]) -> tuple[Counter[str], list[str]]:
    """Run schedules one after another; gives what happened in them, and which failed."""
    logger = logging.getLogger("costmw")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return _played(seeds)
    finally:
        logger.setLevel(level)


def _played(seeds: Sequence[int]) -> tuple[Counter[str], list[str]]:
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    counts: Counter[str] = Counter()
    failed = []
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(prefix="costmw-faults-", dir=place))
        schedule = Schedule(folder, seed)
        try:
            schedule.play()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            failed.append(f"seed {seed}: {type(error).__name__} in {where.name}: {error!s:.300}")
        finally:
            schedule.end()
            shutil.rmtree(folder)
        counts += schedule.counts
    return counts, failed


@dataclass
class Database:
    """What the database is like, whoever connects to it; `broken` is how often that fails."""

    path: Path
    away: bool = False
    broken: list[str] = field(default_factory=list)
    counted: set[UUID | None] = field(default_factory=set)
    letters: dict[str, DeadLetter] = field(default_factory=dict)


class Remote(SqliteStore):
    """A connection to it that breaks before a commit, or once it has taken place."""

    def __init__(self, database: Database) -> None:
        super().__init__(f"sqlite:///{database.path}", Config(durability="process"))
        self._database = database
        self._place._connect = lambda mode: connect(database.path, mode)  # type: ignore[assignment]

    def open(self) -> None:
        self._reach()
        super().open()

    def write(self, records: Sequence[Record], *, patience: float | None = None) -> None:
        self._reach()
        fault = self._database.broken.pop() if self._database.broken else ""
        self._fail(fault, "before the commit")
        outcomes = {r.id: r for r in records if isinstance(r, Outcome)}
        new = [r for i, r in outcomes.items() if i not in self._database.counted]
        super().write([*(r for r in records if not isinstance(r, Outcome)), *new])
        self._database.counted.update(outcomes)
        self._fail(fault, "after the commit")

    def bury(self, letter: DeadLetter) -> None:
        self._reach()
        self._database.letters[letter.id] = letter

    def _reach(self) -> None:
        if self._database.away:
            raise StoreUnreachable("the database is away")

    def _fail(self, fault: str, moment: str) -> None:
        if fault == f"breaks {moment}":
            raise StoreUnreachable(f"the connection broke {moment}")
        if fault == f"ends {moment}":
            raise Crash


FAULTS = tuple(
    f"{what} {moment}"
    for what in ("breaks", "ends")
    for moment in ("before the commit", "after the commit")
)


def connect(path: Path, mode: str = "rwc") -> Faulty:
    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
        factory=Faulty,
    )


class Schedule:
    """One schedule."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.outbox = folder / "outbox.db"
        self.database = Database(folder / "remote.db")
        self.counts: Counter[str] = Counter({"schedules": 1})
        self.processes = [self.new_process(), self.new_process()]
        self.tried: list[Record] = []
        self.acknowledged: set[UUID] = set()
        self.poison: set[UUID] = set()
        self.armed = False

    def new_process(self) -> OutboxStore:
        store = OutboxStore(Remote(self.database), self.outbox, Config())
        store.file._connect = lambda: connect(self.outbox)  # type: ignore[method-assign]
        # Nothing happens by itself: whoever drains does so in a step.
        store._drainer.start = lambda: None  # type: ignore[method-assign]
        return store

    def play(self) -> None:
        steps = {self.write: 9, self.drain: 6, self.move: 2, self.restart: 1, self.check: 1}
        for _ in range(STEPS):
            (step,) = self.rng.choices([*steps], [*steps.values()])
            self.counts[step.__name__] += 1
            step()
        self.check()
        self.settle()
        self.check()
        self.check_settled()

    def end(self) -> None:
        for process in self.processes:
            self.give_up(process)

    # What happens.

    def write(self) -> None:
        """A batch is acknowledged, or tried again, or lost with its process."""
        process = self.rng.choice(self.processes)
        batch = [self.record() for _ in range(self.rng.randint(1, 6))]
        self.tried += batch
        for _ in range(3):
            if self.attempt(process, lambda: self.write_all(process, batch)):
                return
            if process not in self.processes:
                return

    def write_all(self, process: OutboxStore, batch: Sequence[Record]) -> None:
        """What a writer does: when a batch is refused for what is in it, each record alone."""
        try:
            process.write(batch)
        except StoreError:
            raise
        except Exception:
            for record in batch if len(batch) > 1 else []:
                self.write_all(process, [record])
            if len(batch) == 1 and not self.armed:
                assert record_id(batch[0]) in self.dead()
        else:
            self.acknowledged.update(map(record_id, batch))

    def drain(self) -> None:
        """A process sends some, if it is its turn; it may end and leave the rest to another."""
        process = self.rng.choice(self.processes)
        if not process._drainer._is_mine():
            self.counts["not its turn"] += 1
            return
        self.attempt(process, process._drainer.send_some)
        if process in self.processes and self.rng.random() < 0.5:
            process._drainer._give_up_turn()

    def move(self) -> None:
        """The database goes away, or comes back."""
        self.database.away = not self.database.away

    def restart(self) -> None:
        """A process ends in an orderly way, and another begins."""
        n = self.rng.randrange(2)
        self.processes[n].close()
        self.processes[n]._drainer._give_up_turn()
        self.processes[n] = self.new_process()

    def settle(self) -> None:
        """The database is there again for good, and all is sent."""
        self.database.away = False
        self.database.broken.clear()
        for process in self.processes:
            if process._drainer._is_mine():
                while process.waiting() or process.file.dead_letters(untold=True):
                    process._drainer.send_some()
                return
        raise AssertionError("nobody may drain")

    def attempt(self, process: OutboxStore, work: Callable[[], object]) -> bool:
        """Do something in which a statement or the connection may fail; gives whether it did."""
        self.armed = False
        if self.rng.random() < 0.3:
            self.database.broken = [self.rng.choice(FAULTS)]
        if self.rng.random() < 0.3:
            self.make_faulty(process)
        try:
            work()
        except StoreError:
            self.counts["failed"] += 1
            return False
        except Crash:
            self.counts["crashed"] += 1
            self.give_up(process)
            self.processes[self.processes.index(process)] = self.new_process()
            return False
        finally:
            self.database.broken.clear()
            for connection in connections_of(process):
                connection.left = None
        return True

    def make_faulty(self, process: OutboxStore) -> None:
        if self.rng.random() < 0.5:
            connection: Any = process.file._opened()
            connection.left = self.rng.randint(0, 8)
        elif not self.database.away:
            connection = process.remote._connected()  # type: ignore[attr-defined]
            connection.left = self.rng.randint(0, 24)
        else:
            return
        connection.crash, self.armed = self.rng.random() < 0.4, True

    def give_up(self, process: OutboxStore) -> None:
        """What the system does when a process ends: everything is closed as it is."""
        for connection in connections_of(process):
            sqlite3.Connection.close(connection)
        process.file._connection = None
        process.file._turns.close()
        remote: Any = process.remote
        remote._place._open = None
        remote._turns.close()
        if (lock := process._drainer._lock_file) is not None:
            process._drainer._lock_file = None
            os.close(lock)

    # What is written.

    def record(self) -> Record:
        """Something new, or what was tried before."""
        rng, at = self.rng, START + timedelta(minutes=self.rng.randrange(9_000))
        known = [record for record in self.tried if isinstance(record, UsageEvent)]
        kind = rng.random()
        if kind < 0.15 and self.tried:
            return rng.choice(self.tried)
        if kind < 0.3 and known:
            event = rng.choice(known)
            return Amendment(event.id, "later", id=self.uuid(), at=at, cost_pico_usd=1)
        if kind < 0.4:
            return Outcome("error", at, "openai", "m", {"tenant": "a"}, id=self.uuid())
        event = UsageEvent(
            id=self.uuid(),
            created_at=at,
            operation="chat",
            provider="openai",
            request_model="m",
            response_model=None,
            usage=Usage(5, 3),
            price=Price(rng.randrange(1, 10**9), "list"),
            status="ok",
            tags={"user": f"u{rng.randrange(5)}", "x": rng.choice(["", "\0", "\N{SNOWMAN}"])},
        )
        if rng.random() < 0.1:
            self.poison.add(event.id)
            return replace(event, latency_ms="fast")  # type: ignore[arg-type]
        return event

    def uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128))

    # What is compared.

    def check(self) -> None:
        """All that was acknowledged is somewhere, and in the ledger no more than once."""
        ledger = self.in_ledger()
        process = self.processes[0]
        waiting = {record_id(decode(w.kind, w.record)) for w in process.file.head(10**6)}
        letters = self.dead()
        lost = self.acknowledged - ledger.keys() - waiting - letters
        assert not lost, f"lost: {lost}"
        assert not {i: n for i, n in ledger.items() if n > 1}, "there more than once"
        unknown = ledger.keys() - {record_id(record) for record in self.tried}
        assert not unknown, f"nobody wrote {unknown}"
        assert letters <= self.poison, f"no poison: {letters - self.poison}"
        assert not self.poison & ledger.keys(), "poison is in the ledger"

    def check_settled(self) -> None:
        """Nothing waits, and the ledger's sums are those of its rows."""
        process = self.processes[0]
        assert 0 == process.waiting()
        assert {d.id for d in process.file.dead_letters()} == self.database.letters.keys()
        assert self.poison & self.acknowledged <= self.dead()
        remote = Remote(self.database)
        try:
            while remote.roll_up(1_000):
                pass
            assert [] == remote.verify()
            with remote.snapshot() as snapshot:
                counted = sum(row.count for row in snapshot.outcomes(*ALL, scope={}))
            assert len(self.database.counted) == counted
        finally:
            remote.close()

    def dead(self) -> set[UUID]:
        """The records that became dead letters."""
        letters = self.processes[0].file.dead_letters()
        return {record_id(decode(letter.kind, letter.record)) for letter in letters}

    def in_ledger(self) -> Counter[UUID]:
        if not self.database.path.exists():
            return Counter()
        connection = sqlite3.connect(self.database.path)
        try:
            found = Counter(
                UUID(bytes=row[0])
                for table in ("usage_events NOT INDEXED", "amendments NOT INDEXED")
                for row in connection.execute(f"SELECT id FROM {table}")
            )
        finally:
            connection.close()
        return found + Counter(i for i in self.database.counted if i is not None)


def connections_of(process: OutboxStore) -> list[Faulty]:
    remote: Any = process.remote
    opened = remote._place._open
    found = [process.file._connection, opened and opened.connection]
    return [connection for connection in found if isinstance(connection, Faulty)]


def record_id(record: Record) -> UUID:
    found = getattr(record, "id", None)
    assert isinstance(found, UUID)
    return found


if __name__ == "__main__":
    counts_, failed_ = played([int(sys.argv[1])])
    print(json.dumps(counts_), *failed_, sep="\n")
    sys.exit(bool(failed_))
