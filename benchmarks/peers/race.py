"""The race that every script here runs: many callers at once, each under the same cap.

A script says "ready" before each round, waits for a line, calls, and says as JSON what came of
its calls. What was spent says the provider.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import openai

MODEL = "own"
USD_PER_MILLION_TOKENS = 1
OUTPUT_LIMIT = 1_000


@dataclass(frozen=True)
class Race:
    """One round, as one process runs it.

    provider: Base URL of the provider.
    who: Whom the cap is for; a new one each round, so that the cap is unused. The provider
        counts by it.
    threads: Whether callers are threads; tasks otherwise.
    callers: How many callers call at once.
    calls: How many calls each of them makes, one after the other.
    cap: What may be spent, in USD.
    folder: Where files may be kept. Processes of the same round are given the same one.
    postgres: URL of a Postgres that these processes share; None when there is one process.
    rounds: How many rounds there are.
    """

    provider: str
    who: str
    threads: bool
    callers: int
    calls: int
    cap: str
    folder: str
    postgres: str | None = None
    rounds: int = 1

    def client(self) -> Any:
        """The SDK's own client, which neither retries nor knows of any cap."""
        kind = openai.OpenAI if self.threads else openai.AsyncOpenAI
        return kind(base_url=self.provider, api_key="k", max_retries=0, timeout=60)

    def command(self) -> str:
        """As the one argument of a script."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Capped:
    """A way to call that a library guards.

    create: Takes a request's arguments; a coroutine function unless callers are threads.
    refusal: What it raises when the cap is reached.
    close: Called after the round.
    """

    create: Callable[..., Any]
    refusal: type[Exception]
    close: Callable[[], object] = lambda: None


def run(prepare: Callable[[Race], Capped]) -> None:
    """Run all rounds; `prepare` sets up one of them, before it begins."""
    race = Race(**json.loads(sys.argv[1]))
    for number in range(race.rounds):
        named = replace(race, who=f"{race.who}-{number}")
        capped = prepare(named)
        print("ready", flush=True)
        sys.stdin.readline()
        outcomes = _Outcomes(capped)
        if race.threads:
            _by_threads(named, outcomes)
        else:
            asyncio.run(_by_tasks(named, outcomes))
        capped.close()
        print(json.dumps({**outcomes.counts, "errors": outcomes.errors}), flush=True)


class _Outcomes:
    """What came of calls: served, refused, failed."""

    def __init__(self, capped: Capped) -> None:
        self._capped = capped
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []

    def request(self, who: str) -> dict[str, Any]:
        """No two are the same: one library takes repeated ones for a loop."""
        prompt = f"Hello {next(self._numbers)}"
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "user": who,
            "max_completion_tokens": OUTPUT_LIMIT,
        }

    def served(self) -> None:
        with self._lock:
            self.counts["served"] += 1

    def raised(self, error: Exception) -> None:
        with self._lock:
            if isinstance(error, self._capped.refusal):
                self.counts["refused"] += 1
            else:
                self.counts["failed"] += 1
                self.errors.append(repr(error))

    def call(self, who: str) -> None:
        try:
            self._capped.create(**self.request(who))
        except Exception as error:  # noqa: BLE001 - reported, whatever it is
            self.raised(error)
        else:
            self.served()

    async def acall(self, who: str) -> None:
        try:
            await self._capped.create(**self.request(who))
        except Exception as error:  # noqa: BLE001 - reported, whatever it is
            self.raised(error)
        else:
            self.served()


def _by_threads(race: Race, outcomes: _Outcomes) -> None:
    start = threading.Barrier(race.callers)

    def caller() -> None:
        start.wait()
        for _ in range(race.calls):
            outcomes.call(race.who)

    with ThreadPoolExecutor(race.callers) as pool:
        for done in [pool.submit(caller) for _ in range(race.callers)]:
            done.result()


async def _by_tasks(race: Race, outcomes: _Outcomes) -> None:
    async def caller() -> None:
        for _ in range(race.calls):
            await outcomes.acall(race.who)

    await asyncio.gather(*(caller() for _ in range(race.callers)))
