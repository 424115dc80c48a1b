"""Callers under blocking budgets, in a process of their own.

    python -m tests.faults.callers OPTIONS

Options are those of `Callers`, as JSON. It says "ready", waits for a line, calls, and says how
many of its calls were served, refused and failed. What was spent says the
provider, `benchmarks.counting_provider`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from costmw import Budget, BudgetExceeded, Config, Meter, PriceOverride, tag

MODEL = "own"
PRICE = PriceOverride(MODEL, {"input": "1", "output": "1"})
"""A token costs a millionth of a USD, whichever way it goes: what the provider counts by."""

OUTPUT_LIMIT = 1_000


@dataclass(frozen=True)
class Callers:
    """What one process does: `calls` of each of its `callers`, 0 for as long as it lives.

    `who` are the tags of each caller, in turn. `limited` says whether calls limit their answers.
    """

    url: str
    provider: str
    mode: str
    callers: int
    calls: int
    budgets: list[dict[str, Any]]
    who: list[dict[str, str]] = field(default_factory=lambda: [{}])
    limited: bool = True
    hold_ttl: float = 60.0
    outbox: str | None = None

    def meter(self) -> Meter:
        """The meter of the process."""
        return Meter(
            self.url,
            budgets=[Budget(**{"action": "block", **budget}) for budget in self.budgets],
            config=Config(
                prices=(PRICE,), ack_timeout=30, hold_ttl=self.hold_ttl, outbox=self.outbox
            ),
        )


def begin(options: Callers) -> subprocess.Popen[str]:
    """Start a process, which waits for the word to go."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.callers", json.dumps(asdict(options))],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def let_go(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until all are ready, and let them go at one moment."""
    for process in processes:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"a process did not start: {process.wait()}")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def called(options: Sequence[Callers]) -> Counter[str]:
    """Run processes to their end; gives what came of all their calls."""
    processes = [begin(one) for one in options]
    try:
        let_go(processes)
        outcomes: Counter[str] = Counter()
        for process in processes:
            outcomes.update(json.loads(process.communicate(timeout=300)[0]))
        return outcomes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _main(options: Callers) -> None:
    import openai

    meter = options.meter()
    meter.start()
    kind = openai.OpenAI if options.mode == "threads" else openai.AsyncOpenAI
    client = meter.instrument(
        kind(base_url=options.provider, api_key="k", max_retries=0, timeout=120), provider="openai"
    )
    meter.allowances()  # prices are loaded, and the ledger is open
    meter.affordable_tokens(MODEL, provider="openai")
    print("ready", flush=True)
    sys.stdin.readline()
    outcomes: Counter[str] = Counter()
    if options.mode == "threads":
        with ThreadPoolExecutor(options.callers) as callers:
            for found in callers.map(lambda n: _call(client, options, n), range(options.callers)):
                outcomes.update(found)
    else:
        asyncio.run(_call_all(client, options, outcomes))
    meter.close(30)
    print(json.dumps(outcomes))


def _request(options: Callers, who: dict[str, str]) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "user": "/".join(who.values()),
    }
    if options.limited:
        request["max_completion_tokens"] = OUTPUT_LIMIT
    return request


def _call(client: Any, options: Callers, n: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    who = options.who[n % len(options.who)]
    with tag(**who):
        while not options.calls or outcomes.total() < options.calls:
            try:
                client.chat.completions.create(**_request(options, who))
            except BudgetExceeded:
                outcomes["refused"] += 1
            else:
                outcomes["served"] += 1
    return outcomes


async def _call_all(client: Any, options: Callers, outcomes: Counter[str]) -> None:
    async def call(n: int) -> None:
        who = options.who[n % len(options.who)]
        made = 0
        with tag(**who):
            while not options.calls or made < options.calls:
                made += 1
                try:
                    await client.chat.completions.create(**_request(options, who))
                except BudgetExceeded:
                    outcomes["refused"] += 1
                else:
                    outcomes["served"] += 1

    await asyncio.gather(*(call(n) for n in range(options.callers)))


if __name__ == "__main__":
    _main(Callers(**json.loads(sys.argv[1])))
