"""Callers under blocking budgets, in a process of their own, and the provider that counts.

    python -m tests.faults.callers OPTIONS

Options are those of `Callers`, as JSON. It says "ready", waits for a line, calls, and says how
many of its calls were served, refused and failed. What was spent says the provider.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from costmw import Budget, BudgetExceeded, Config, Meter, PriceOverride, tag
from costmw.testing import FakeProvider, Reply

MODEL = "own"
PRICE = PriceOverride(MODEL, {"input": "1", "output": "1"})
"""A token costs a millionth of a USD, whichever way it goes."""

PROMPT_TOKENS, OUTPUT_TOKENS, OUTPUT_LIMIT = 100, 900, 1_000
COST = Decimal(PROMPT_TOKENS + OUTPUT_TOKENS) / 1_000_000
"""What a call costs, in USD."""

LONG_TOKENS = 200_000
"""What an answer has that nobody limits."""


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


class Spending:
    """What was spent at the provider, by who asked; a call counts when it arrives."""

    def __init__(self, delay: float) -> None:
        self._lock = threading.Lock()
        self._delay = delay
        self.calls: Counter[str] = Counter()
        self.usd: dict[str, Decimal] = {}

    def answer(self, record: Any) -> Reply:
        """Count a request, and answer it."""
        request = record.json
        limit = request.get("max_completion_tokens")
        tokens = LONG_TOKENS if limit is None else min(OUTPUT_TOKENS, limit)
        who = request.get("user", "")
        with self._lock:
            self.calls[who] += 1
            cost = Decimal(PROMPT_TOKENS + tokens) / 1_000_000
            self.usd[who] = self.usd.get(who, Decimal(0)) + cost
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": tokens,
            "total_tokens": PROMPT_TOKENS + tokens,
        }
        return Reply(usage=usage, delay=self._delay)

    def of(self, *scope: str) -> Decimal:
        """What callers spent whose tags begin like this."""
        return sum(
            (usd for who, usd in self.usd.items() if tuple(who.split("/"))[: len(scope)] == scope),
            Decimal(0),
        )


@contextmanager
def provider_that_counts(delay: float) -> Iterator[tuple[FakeProvider, Spending]]:
    """A provider, and what is spent there."""
    with FakeProvider(keep=10) as provider:
        spending = Spending(delay)
        provider.responder = spending.answer
        yield provider, spending


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
