"""Random schedules of writers, rollups and care, with faults at any statement, against a model.

    python -m tests.faults simulator --rounds 10000 --seed 1
    python -m tests.faults.simulator users 1 SEED

The second runs one schedule again. A schedule follows from its seed alone. Two stores
write one file and take turns as two processes would. Statements fail, or the process ends
there; batches come twice, and amendments before their events; clocks jump; keys get more
values than are rolled up; rows are pruned, users forgotten, and the file's first page is
wiped out. Whatever was committed, the store answers as the model does, before and after
everything is rolled up.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from . import Result

STEPS = 14


@dataclass(frozen=True)
class Variant:
    """What calls are like; `few` and `many` bound the values of a key that are rolled up.

    Both are small, so that schedules pass them; `kinds` says whether kinds of calls do too.
    """

    name: str
    few: int
    many: int
    users: int
    kinds: bool


VARIANTS = {
    "users": Variant("many users", few=8, many=14, users=24, kinds=False),
    "kinds": Variant("many kinds of calls", few=3, many=6, users=9, kinds=True),
}

START = datetime(2026, 3, 26, tzinfo=UTC)  # three days before the clocks change in Berlin
ZONE = "Europe/Berlin"
ALL = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))

Step = Callable[["Simulation"], None]
EXTRA: list[tuple[int, Step]] = []
"""Steps of other parts of a store, with how often they are taken among a hundred."""


def run(rounds: int = 10_000, seed: int = 0, workers: int = 2) -> Iterator[Result]:
    """Run `rounds` schedules, half of them of each variant."""
    for name in VARIANTS:
        yield simulated(name, rounds // len(VARIANTS), seed, workers)


def simulated(name: str, rounds: int, seed: int, workers: int = 2) -> Result:
    """Run schedules in processes in which the bounds of rollups are small."""
    began = time.monotonic()
    module = f"{__package__}.simulator"
    share = -(-rounds // workers)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, name, str(share), str(seed + n * share)],
            cwd=Path(__file__).parents[module.count(".")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(workers)
    ]
    said = [process.communicate()[0] for process in processes]
    found = [f"a process ended: {p.returncode}" for p in processes if p.returncode]
    counts: dict[str, int] = {}
    for text in said:
        done = json.loads(text) if text else {"counts": {}, "failed": []}
        found += done["failed"]
        for step, count in done["counts"].items():
            counts[step] = counts.get(step, 0) + count
    if found:
        found = [f"{len(found)} of {rounds} schedules fail", *found[:5]]
    figures = {**dict(sorted(counts.items())), "seconds": round(time.monotonic() - began)}
    return Result("simulator", VARIANTS[name].name, figures, found)


def main(name: str, schedules: int, seed: int) -> None:
    """Run schedules one after another; prints what they came to."""
    import costmw.store.rollups as bounds

    # Before anything else is imported, which takes them into its statements.
    variant = VARIANTS[name]
    bounds.PAIRED_VALUES, bounds.ROLLED_VALUES = variant.few, variant.many
    import logging

    from costmw.store import sqlite

    sqlite.SUBMISSIONS_KEPT_DAYS = 10_000  # whatever the day is
    logging.getLogger("costmw").setLevel(logging.CRITICAL)
    counts: dict[str, int] = {"schedules": 0}
    failed = []
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="costmw-faults-", dir=place) as folder:
        for number in range(seed, seed + schedules):
            home = Path(folder, str(number))
            home.mkdir()
            simulation = Simulation(home / "llmcost.db", number, variant)
            try:
                simulation.play()
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                traceback.print_exc()
                print(f"schedule {number} failed: {simulation.log}", file=sys.stderr)
                failed.append(
                    f"seed {number}: {type(error).__name__} in {last.name} {error!s:.200}"
                )
            finally:
                simulation.end()
                shutil.rmtree(home)
            counts["schedules"] += 1
            for name, count in simulation.counts.items():
                counts[name] = counts.get(name, 0) + count
    print(json.dumps({"counts": counts, "failed": failed}))


class Crash(BaseException):
    """The process ends here."""


class Faulty(sqlite3.Connection):
    """A connection on which a statement fails, or is the last one."""

    left: int | None = None
    crash = False
    dead = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return super().execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
        self._maybe(sql)
        return super().executemany(sql, *values)

    def _maybe(self, sql: str) -> None:
        if self.dead:
            raise Crash
        if self.left is None or sql == "ROLLBACK":
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            if self.crash:
                self.dead = True
                raise Crash
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error


@dataclass
class Simulation:
    """One schedule."""

    path: Path
    seed: int
    variant: Variant
    counts: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        from .simulator_model import Model

        self.rng = random.Random(self.seed)
        self.model = Model()
        self.stores = [self.new_store(), self.new_store()]
        self.sent: list[Any] = []
        self.future: list[Any] = []
        self.pruned_until = START - timedelta(days=99)
        self.clock = timedelta()
        self.forgotten = 0

    def new_store(self) -> Any:
        """A process that opens the file."""
        from costmw import Config
        from costmw.store.sqlite import SqliteStore

        store = SqliteStore(f"sqlite:///{self.path}", Config(durability="process", time_zone=ZONE))

        def connect(mode: str) -> sqlite3.Connection:
            connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode={mode}",
                uri=True,
                check_same_thread=False,
                isolation_level=None,
                factory=Faulty,
            )
            connection.execute("PRAGMA foreign_keys = ON")
            return connection

        store._place._connect = connect  # type: ignore[assignment]
        return store

    def play(self) -> None:
        """Take all steps, then compare everything."""
        weighted = [*STEPS_OF, *EXTRA]
        for _ in range(STEPS):
            (step,) = self.rng.choices([s for _, s in weighted], [w for w, _ in weighted])
            self.log.append(step.__name__)
            self.counts[step.__name__] = self.counts.get(step.__name__, 0) + 1
            step(self)
        self.compare()
        for store in self.stores:
            while store.roll_up(self.rng.randint(1, 9)):
                pass
        self.compare()
        assert [] == self.stores[0].verify()

    def end(self) -> None:
        """Close what is open."""
        for store in self.stores:
            store.close()

    # What is written.

    def attempt(self, store: Any, work: Callable[[], Any], *, fault: bool) -> bool:
        """Do something in which a statement may fail; gives whether it was committed."""
        from costmw.errors import StoreError

        connection = store._connected()
        crash = self.rng.random() < 0.4
        if fault:
            connection.left, connection.crash = self.rng.randint(0, 24), crash
        try:
            work()
        except StoreError:
            self.count("failed")
            return False
        except Crash:
            self.count("crashed")
            # What a process that ends leaves behind: its connection is closed by the system.
            connection.dead = False
            sqlite3.Connection.close(connection)
            store._place._open = None
            store._turns.close()
            self.stores[self.stores.index(store)] = self.new_store()
            return False
        finally:
            connection.left = None
        return True

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def moment(self) -> datetime:
        """Some moment in six days, by a clock that may be wrong."""
        if self.rng.random() < 0.1:
            self.clock = timedelta(hours=self.rng.choice([-1, 0, 1]))
        since = max(self.pruned_until, START)
        span = START + timedelta(days=6) - since
        return (
            since
            + timedelta(seconds=self.rng.randrange(int(span.total_seconds())))
            + abs(self.clock)
        )

    def tags(self) -> dict[str, str]:
        rng = self.rng
        tags = {"tenant": rng.choice("ab"), "user": f"u{rng.randrange(self.variant.users)}"}
        if rng.random() < 0.4:
            tags["$.\"x'"] = rng.choice(["", "\N{SNOWMAN}", "NULL"])
        return {key: value for key, value in tags.items() if rng.random() < 0.8}

    def amount(self) -> int:
        return self.rng.choice([0, 1, -1, 7, 10**6, 10**12, 2**60, self.rng.randrange(10**9)])

    def event(self) -> Any:
        from costmw.events import Price, Usage, UsageEvent

        rng, kinds = self.rng, self.variant.kinds
        cost = None if rng.random() < 0.2 else abs(self.amount())
        in_request = rng.random() < 0.5
        return UsageEvent(
            id=self.uuid(),
            created_at=self.moment(),
            operation=rng.choice(["chat", "embeddings"]) if kinds else "chat",
            provider=rng.choice(["openai", None]) if kinds else "openai",
            request_model="m1",
            response_model=rng.choice(["m1", "m2", None]),
            usage=Usage(rng.choice([None, 5, 10**7]), rng.choice([None, 3]), rng.randrange(3)),
            price=Price(cost, "none" if cost is None else self.source()),
            status=self.status(),
            tags=self.tags(),
            reason=rng.choice([None, "why"]),
            request_id=self.uuid() if in_request else None,
            first_in_request=in_request and rng.random() < 0.7,
            latency_ms=rng.choice([None, 0, 30, 9_000]),
            time_to_first_chunk_ms=rng.choice([None, 12]),
            api_key_id=rng.choice([None, "k1", "k2"]),
            submitted_as=self.submission() if rng.random() < 0.15 else None,
        )

    def submission(self) -> str | None:
        """An id that a result was asked for under, or nobody knows."""
        name = f"b{self.rng.randrange(4)}"
        known = [self.model.submissions.get((provider, name)) for provider in ("openai", "")]
        return None if any(s and s.created_at < self.pruned_until for s in known) else name

    def source(self) -> Any:
        return self.rng.choice(["list", "override", "provider"]) if self.variant.kinds else "list"

    def status(self) -> Any:
        others = ["estimated", "incomplete"] if self.variant.kinds else ["incomplete"]
        return self.rng.choice(["ok", "ok", *others])

    def uuid(self) -> UUID:
        return UUID(int=self.rng.getrandbits(128))

    def amendment(self, event: Any) -> Any:
        from costmw.events import Amendment, Price

        rng = self.rng
        unpriced = -1 if event.price.cost_pico_usd is None and rng.random() < 0.5 else 0
        return Amendment(
            event_id=event.id,
            id=self.uuid(),
            reason="later",
            at=self.moment(),
            status=rng.choice([None, self.status()]),
            price=rng.choice([None, Price(None, self.source(), rng.choice([None, "r"]))]),
            cost_pico_usd=self.amount(),
            estimated_cost_pico_usd=-self.amount(),
            unpriced=unpriced,
            input_tokens=rng.randrange(-3, 4),
            reasoning_output_tokens=rng.randrange(2),
        )

    def records(self) -> list[Any]:
        """A batch: new records, and some that were sent before."""
        from costmw.events import Outcome, Submission, UsageEvent

        rng, found = self.rng, []
        for _ in range(rng.randint(1, 8)):
            kind = rng.random()
            known = [r for r in self.sent if isinstance(r, UsageEvent)]
            if kind < 0.5 or not known:
                event = self.event()
                found.append(event)
            elif kind < 0.6:  # amended before it is written
                self.future.append(self.event())
                found.append(self.amendment(self.future[-1]))
            elif kind < 0.65 and self.future:
                found.append(self.future.pop(rng.randrange(len(self.future))))
            elif kind < 0.8:
                found.append(self.amendment(rng.choice(known)))
            elif kind < 0.85:
                alias = f"b{rng.randrange(4)}" if rng.random() < 0.3 else None
                found.append(
                    Submission(
                        provider=rng.choice(["openai", None]) if self.variant.kinds else "openai",
                        result_id=f"b{rng.randrange(4)}",
                        created_at=self.moment(),
                        tags=self.tags(),
                        request_id=self.uuid(),
                        first_in_request=rng.random() < 0.5,
                        api_key_id="k3",
                        alias_of=alias,
                    )
                )
            elif kind < 0.92:
                tags = {k: v for k, v in self.tags().items() if k == "tenant"}
                found.append(Outcome("error", self.moment(), "openai", "m1", tags))
            else:
                found.append(rng.choice(self.sent))
        return found

    # What is compared.

    def compare(self) -> None:
        """Ask both stores; gives nothing, and raises where they differ from the model."""
        store = self.rng.choice(self.stores)
        with store.snapshot() as snapshot:
            rows = {
                event.id: (event.price.cost_pico_usd, event.status, event.amendments)
                for _, event in snapshot.events(scope={}, limit=10**6)
            }
            same(self.model.rows(), rows)
            for query in (self.query(), self.query(), self.query()):
                found = snapshot.totals(query)
                wanted = self.model.totals(query, with_pruned=not found.from_rows)
                same(wanted, found.groups, query)
            counted: dict[tuple[str, str | None, str | None], int] = {}
            for (_, *what, _), count in self.model.outcomes.items():
                key = (what[0], what[1], what[2])
                counted[key] = counted.get(key, 0) + count
            told = {
                (o.kind, o.provider, o.model): o.count for o in snapshot.outcomes(*ALL, scope={})
            }
            same(counted, told)

    def query(self) -> Any:
        from zoneinfo import ZoneInfo

        from costmw.periods import spans
        from costmw.store.base import DIMENSIONS, Query

        rng, zone = self.rng, ZoneInfo(ZONE)
        names = [*DIMENSIONS, "tag:tenant", "tag:user", "tag:$.\"x'", "tag:none"]
        group_by = tuple(rng.sample(names, rng.choice([0, 0, 1, 1, 2, 3])))
        start, stop = ALL
        buckets: tuple[datetime, ...] = ()
        if rng.random() < 0.6:
            day = START + timedelta(days=rng.randrange(4), hours=-1)  # midnight in Berlin
            start, stop = day, START + timedelta(days=rng.randint(4, 7), hours=-2)
            if self.pruned_until < START and rng.random() < 0.4:
                start += timedelta(minutes=rng.randrange(3_000))
            elif rng.random() < 0.6:
                # Of pruned rows only sums by the day are left for each question.
                every = "hour" if self.pruned_until < START and rng.random() < 0.5 else "day"
                buckets = tuple(spans(start, stop, every, zone))
                buckets = (start, *(b for b in buckets if b > start))
        where = {}
        if rng.random() < 0.4:
            where = {rng.choice(["tenant", "user"]): rng.choice(["a", "b", "u0", "u1", "u2"])}
        return Query(start, stop, group_by=group_by, buckets=buckets, where=where)


def same(wanted: Any, found: Any, what: object = "") -> None:
    """Raise an error that says where two answers differ."""
    if wanted != found:
        keys = [*wanted, *(key for key in found if key not in wanted)]
        differing = [
            f"{key}: wanted {wanted.get(key)}, found {found.get(key)}"
            for key in keys
            if wanted.get(key) != found.get(key)
        ]
        raise AssertionError(f"{'; '.join(differing[:2])} {what}")


# The steps.


def write(sim: Simulation) -> None:
    """A batch is committed, or not; then it is tried again, or lost with the process."""
    store, records = sim.rng.choice(sim.stores), sim.records()
    fault = sim.rng.random() < 0.25
    while True:
        known = dict(sim.model.events)
        committed = sim.attempt(store, lambda: store.write(records), fault=fault)
        assert known.keys() == sim.model.events.keys()
        if committed:
            sim.model.write(records)
            sim.sent += [r for r in records if type(r).__name__ != "Outcome"]
            return
        if store not in sim.stores:  # it ended; what was committed before that is there
            return
        fault = sim.rng.random() < 0.3


def roll_up(sim: Simulation) -> None:
    """A slice is rolled up."""
    store = sim.rng.choice(sim.stores)
    limit = sim.rng.randint(1, 12)
    sim.attempt(store, lambda: store.roll_up(limit), fault=sim.rng.random() < 0.25)


def compare(sim: Simulation) -> None:
    """Somebody asks."""
    sim.compare()


def prune(sim: Simulation) -> None:
    """Old rows are dropped."""
    from zoneinfo import ZoneInfo

    from costmw.periods import day_start

    before = day_start(START + timedelta(days=sim.rng.randrange(3)), ZoneInfo(ZONE))
    store = sim.rng.choice(sim.stores)
    assert sim.model.prune(before) == store.prune(before)
    if before > sim.pruned_until:
        sim.pruned_until = before
    gone = {event_id for event_id, kept in sim.model.events.items() if kept.pruned}
    sim.sent = [r for r in sim.sent if getattr(r, "id", None) not in gone]
    # Nothing older comes later: its rows would be dropped with the next rebuild.
    sim.future = [e for e in sim.future if e.created_at >= before and not e.submitted_as]


def rebuild(sim: Simulation) -> None:
    """The rollups are made anew."""
    store = sim.rng.choice(sim.stores)
    sim.attempt(store, store.rebuild, fault=sim.rng.random() < 0.3)


def forget(sim: Simulation) -> None:
    """A user is forgotten."""
    sim.forgotten += 1
    value, name = f"u{sim.rng.randrange(4)}", f"gone{sim.forgotten}"
    sim.rng.choice(sim.stores).forget("user", value, substitute=name)
    sim.model.forget("user", value, name)


def restart(sim: Simulation) -> None:
    """A process ends, and another begins."""
    n = sim.rng.randrange(2)
    sim.stores[n].close()
    sim.stores[n] = sim.new_store()


def damage(sim: Simulation) -> None:
    """The first page is wiped out while nobody has the file open."""
    for store in sim.stores:
        store.close()
    if not sim.path.exists():
        return
    with sim.path.open("r+b") as file:
        file.write(bytes(4096))
    sim.stores = [sim.new_store(), sim.new_store()]
    store = sim.stores[0]
    store.open()
    while (thread := store._rescuer._thread) is not None and thread.is_alive():
        thread.join()


STEPS_OF: list[tuple[int, Step]] = [
    (50, write),
    (25, roll_up),
    (8, compare),
    (3, prune),
    (3, rebuild),
    (3, forget),
    (5, restart),
    (1, damage),
]

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
