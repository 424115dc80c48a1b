"""What blocking budgets add to a call, and how many calls a ledger can hold for in a second.

Three budgets count every call: one of all, one of its tenant, one of its user.

- Added: 100 callers whose calls take 300 ms on average (200 to 400: callers that wait for the
  same commit would go on in step otherwise, and wait for each other's turn of the event loop
  ever after), in turn with the same calls of a client that is
  not instrumented, and of one that is instrumented and has no budget.
- Without a budget: CPU time of what is asked of each call all the same.
- Reserves: four processes that reserve as fast as they can, 100 callers each, every one of
  them waiting for its own; alone, and with a row after each that settles it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.measure import main
from benchmarks.postgres_server import running
from costmw import Budget, Config, Meter, tag
from costmw.caps.rules import Rule
from costmw.events import Price, Reservation, Usage, UsageEvent, new_id
from costmw.store.layers import open_store
from costmw.store.writer import Writer

CALLERS = 100
CALL_SECONDS, SPREAD = 0.3, 0.1
ROUND_SECONDS = 8.0
ROUNDS = 3
PROCESSES = 4
SECONDS = 6.0
URL = "https://api.openai.com/v1/chat/completions"
REQUEST = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": "word " * 100}],
    "max_completion_tokens": 500,
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 100}}],
    "usage": {"prompt_tokens": 110, "completion_tokens": 120, "total_tokens": 230},
}


def budgets(action: str = "block") -> list[Budget]:
    """Wide enough for all calls of a run."""
    return [
        Budget(name, limit="100000", per=per, action=action)  # type: ignore[arg-type]
        for name, per in (("all", None), ("tenant", "tenant"), ("user", ("tenant", "user")))
    ]


def run(options: argparse.Namespace | None = None) -> dict[str, Any]:
    """Measure all three, and print them."""
    figures: dict[str, Any] = {"added": _added(), "without": _without_budget()}
    with tempfile.TemporaryDirectory() as folder, running() as server:
        figures["reserves"] = {
            f"{kind}, {'settled' if settle else 'alone'}": _reserves(url, settle=settle)
            for settle in (False, True)
            for kind, url in (
                ("sqlite", f"sqlite:///{Path(folder, f'{settle}.db')}"),
                ("postgres", server.url()),
            )
        }
    print("\nreserves a second, four processes")
    for name, rate in figures["reserves"].items():
        print(f"  {name:<20}{rate:>10,.0f}")
    return figures


# What is added to a call.


class _Provider(httpx2.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(float(request.headers["x-seconds"]))
        return httpx2.Response(200, json=ANSWER)


def _added() -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {"bare": [], "no budget": [], "three budgets": []}
    with tempfile.TemporaryDirectory() as folder:
        meters = {
            "no budget": Meter(f"sqlite:///{Path(folder, 'a.db')}", config=Config()),
            "three budgets": Meter(
                f"sqlite:///{Path(folder, 'b.db')}", budgets=budgets(), config=Config()
            ),
        }
        for meter in meters.values():
            meter.start()
            asyncio.run(_call_for_a_while(meter, [], 1.0))
        for _ in range(ROUNDS):
            for name, found in times.items():
                asyncio.run(_call_for_a_while(meters.get(name), found, ROUND_SECONDS))
        for meter in meters.values():
            meter.close()
    figures = {
        name: {"p50": _quantile(found, 0.5), "p99": _quantile(found, 0.99)}
        for name, found in times.items()
    }
    print(f"\n{CALLERS} callers, calls of 300 ms: milliseconds beyond that, and beyond bare")
    for name, quantiles in figures.items():
        shown = "".join(
            f"{milliseconds:>10.2f}{milliseconds - figures['bare'][q]:>8.2f}"
            for q, milliseconds in quantiles.items()
        )
        print(f"  {name:<16}{shown}   ({len(times[name]):,} calls)")
    return figures


async def _call_for_a_while(meter: Meter | None, added: list[float], seconds: float) -> None:
    async with httpx2.AsyncClient(transport=_Provider()) as client:
        if meter is not None:
            meter.instrument(client)
        until = time.perf_counter() + seconds
        await asyncio.gather(*(_caller(client, n, until, added) for n in range(CALLERS)))


async def _caller(client: httpx2.AsyncClient, n: int, until: float, added: list[float]) -> None:
    rng = random.Random(n)
    await asyncio.sleep(CALL_SECONDS * n / CALLERS)
    with tag(tenant=f"t{n % 10}", user=f"u{n}"):
        while (started := time.perf_counter()) < until:
            seconds = rng.uniform(CALL_SECONDS - SPREAD, CALL_SECONDS + SPREAD)
            await client.post(URL, json=REQUEST, headers={"x-seconds": str(seconds)})
            added.append(time.perf_counter() - started - seconds)


def _quantile(seconds: Sequence[float], share: float) -> float:
    return statistics.quantiles(seconds, n=1000)[round(share * 1000) - 1] * 1e3


# What is asked of calls that no budget bars.


def _without_budget(calls: int = 20_000) -> float:
    """Microseconds of CPU time."""
    tags = {"tenant": "acme", "user": "ann", "route": "/chat", "feature": "chat"}
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(f"sqlite:///{Path(folder, 'ledger.db')}", config=Config())
        meter.start()
        reserver = meter._reserver
        rounds = []
        for _ in range(9):
            started = time.process_time()
            for _ in range(calls):
                reserver.rules_for(tags)
            rounds.append((time.process_time() - started) / calls * 1e6)
        meter.close()
    median = statistics.median(rounds)
    print(f"\nwithout a blocking budget: {median:.2f} us of CPU time a call")
    return median


# How many a ledger takes.


def _reserves(url: str, *, settle: bool) -> float:
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reserve", "--worker", url, str(int(settle))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        counts: list[int] = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    store: Any = open_store(url, Config())
    assert list(store.verify_balances()) == []
    store.close()
    return sum(counts) / SECONDS


def _work(url: str, *, settle: bool) -> None:
    """Reserve in one process, and say how often."""
    config = Config()
    store = open_store(url, config)
    store.open()
    store.declare([Rule.of(budget) for budget in budgets()])
    writer = Writer(store, config)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(_reserve_for_a_while(writer, settle=settle))))
    writer.close(10)


async def _reserve_for_a_while(writer: Writer, *, settle: bool) -> int:
    until = time.perf_counter() + SECONDS
    callers = (_reserve(writer, n, until, settle=settle) for n in range(CALLERS))
    return sum(await asyncio.gather(*callers))


async def _reserve(writer: Writer, n: int, until: float, *, settle: bool) -> int:
    count = 0
    asked = _reservations(n)
    while time.perf_counter() < until:
        one, row = next(asked)
        held = writer.submit(one)
        await held.wait_async(30)
        assert held.committed
        assert held.refusal is None
        if settle:
            await writer.submit(row).wait_async(30)
        count += 1
    return count


def _reservations(n: int) -> Iterator[tuple[Reservation, UsageEvent]]:
    tags = {"tenant": f"t{n % 10}", "user": f"u{n}", "route": "/chat", "feature": "chat"}
    price = Price(500, "list", "gpt-5-mini")
    while True:
        now = datetime.now(UTC)
        event_id = new_id()

        def row(status: Any, price: Price, usage: Usage) -> UsageEvent:
            return UsageEvent(
                id=event_id,  # noqa: B023 - called at once
                created_at=now,  # noqa: B023
                operation="chat",
                provider="openai",
                request_model="gpt-5-mini",
                response_model="gpt-5-mini",
                usage=usage,
                price=price,
                status=status,
                tags=tags,
            )

        held = Reservation(
            event=row("incomplete", Price(None, "none"), Usage()),
            pico_usd=1_000,
            expires_at=now + timedelta(minutes=1),
            checked=("all", "tenant", "user"),
        )
        yield held, row("ok", price, Usage(100, 100))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _work(sys.argv[2], settle=sys.argv[3] == "1")
    else:
        main("reserve", run)
