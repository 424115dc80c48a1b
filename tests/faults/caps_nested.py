"""Three budgets on every call, four processes, and one of them killed again and again.

One limit for all, one for each tenant, one for each user of each tenant; all of them are
reached. The provider's own count says what was spent under each; a process that lives on
looks at the holds all the time: none may be there for longer than a second after its end.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.counting_provider import COST, Spending, provider_that_counts
from benchmarks.postgres_server import running

from costmw.store.layers import ledger_of
from costmw.store.micros import micros

from . import Result
from .callers import Callers, begin, let_go

PROCESSES, CALLERS = 4, 50
TENANTS, USERS = 5, 4
TTL = 3.0
LATEST = 1.0
MET = Decimal("0.9")
"""The share of a limit that has to be spent: killed processes take some of it with them."""
LIMITS = {"all": COST * 3_000, "tenant": COST * 800, "user": COST * 250}


def run(rounds: int = 60, seed: int = 0) -> Iterator[Result]:
    """Call for `rounds` seconds on each kind of ledger."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(running())
        for variant, url in (("SQLite", f"sqlite:///{folder}/x.db"), ("Postgres", server.url())):
            with provider_that_counts(0.1) as (provider, spending):
                callers = Callers(
                    url=url,
                    provider=provider.openai_url,
                    mode="asyncio",
                    callers=CALLERS,
                    calls=0,
                    hold_ttl=TTL,
                    budgets=[
                        {"name": "all", "limit": str(LIMITS["all"]), "period": "total"},
                        {
                            "name": "tenant",
                            "limit": str(LIMITS["tenant"]),
                            "per": "tenant",
                            "period": "total",
                        },
                        {
                            "name": "user",
                            "limit": str(LIMITS["user"]),
                            "per": ["tenant", "user"],
                            "period": "total",
                        },
                    ],
                    who=_who(),
                )
                yield _called(variant, callers, spending, folder, float(rounds), seed)


def _who() -> list[dict[str, str]]:
    """One tenant asks more than others, and one user of it more still: every limit is met."""
    callers = []
    for t in range(TENANTS):
        for u in range(USERS):
            times = 1 if t else 3 if u else 6
            callers += [{"tenant": f"t{t}", "user": f"u{u}"}] * times
    return callers


@dataclass
class _Watch:
    """Looks at the holds of a ledger: how long they are there after their end."""

    store: Any
    longest: float = 0.0
    _end: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._end.wait(0.05):
            self.look()

    def look(self) -> int:
        with self.store.snapshot() as snapshot:
            rows = snapshot.ask("SELECT expires_at FROM holds")
        now = micros(datetime.now(UTC))
        over = [(now - int(row[0])) / 1e6 for row in rows]
        self.longest = max(self.longest, *over, 0.0)
        return len(rows)

    def end(self) -> None:
        self._end.set()


def _called(
    variant: str, callers: Callers, spending: Spending, folder: Path, seconds: float, seed: int
) -> Result:
    rng = random.Random(seed)
    meter = replace(callers, outbox=f"{folder}/{variant}-watch.db").meter()
    meter.start()
    watch = _Watch(ledger_of(meter.store))
    watching = threading.Thread(target=watch.run)
    watching.start()
    numbers = iter(range(10**6))

    def start() -> Any:
        return begin(replace(callers, outbox=f"{folder}/{variant}-{next(numbers)}.db"))

    processes = [start() for _ in range(PROCESSES)]
    kills = 0
    try:
        let_go(processes)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(rng.uniform(1, 4))
            victim = rng.randrange(PROCESSES)
            processes[victim].kill()
            processes[victim].wait()
            kills += 1
            processes[victim] = start()
            let_go([processes[victim]])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ended = time.monotonic()
    while watch.look() and time.monotonic() < ended + TTL + 10:
        time.sleep(0.05)
    last = time.monotonic() - ended
    watch.end()
    watching.join()
    return Result(
        "caps_nested",
        variant,
        _figures(spending, kills, watch, last),
        _violations(meter, spending, watch, last),
    )


def _figures(spending: Spending, kills: int, watch: _Watch, last: float) -> dict[str, object]:
    tenants = [spending.of(f"t{t}") for t in range(TENANTS)]
    users = [spending.of(f"t{t}", f"u{u}") for t in range(TENANTS) for u in range(USERS)]
    return {
        "calls": spending.calls.total(),
        "kills": kills,
        "of all": f"{spending.of() / LIMITS['all']:.1%}",
        "of a tenant": f"{max(tenants) / LIMITS['tenant']:.1%}",
        "of a user": f"{max(users) / LIMITS['user']:.1%}",
        "hold over its end, s": round(watch.longest, 2),
        "holds gone after, s": round(last, 2),
    }


def _violations(meter: Any, spending: Spending, watch: _Watch, last: float) -> list[str]:
    found = []
    met = {"all": spending.of(), "tenant": spending.of("t0"), "user": spending.of("t0", "u0")}
    found += [f"the limit of {name} was not met" for name in met if met[name] < LIMITS[name] * MET]
    for name, limit, scopes in (
        ("all", LIMITS["all"], [()]),
        ("tenant", LIMITS["tenant"], [(f"t{t}",) for t in range(TENANTS)]),
        (
            "user",
            LIMITS["user"],
            [(f"t{t}", f"u{u}") for t in range(TENANTS) for u in range(USERS)],
        ),
    ):
        for scope in scopes:
            spent: Decimal = spending.of(*scope)
            if spent > limit:
                found.append(f"{name} {'/'.join(scope)}: {spent} of {limit} USD")
    if watch.longest > LATEST or last > TTL + LATEST:
        found.append("holds outlive their end")
    assert meter.flush(30)
    store = ledger_of(meter.store)
    if differences := list(store.verify_balances()):
        told = json.dumps([repr(one) for one in differences[:3]])
        found.append(f"{len(differences)} balances differ from the ledger: {told}")
    while store.roll_up(5_000):
        pass
    if store.verify():
        found.append("rollups differ from the rows")
    meter.close()
    return found
