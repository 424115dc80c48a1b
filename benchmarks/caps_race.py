"""Many callers and one cap, under costmw and under libraries that promise to hold caps too.

Every library runs in the newest version that pip finds, in an environment of its own, as its
README says, in the strictest mode that it offers. Calls go through the real OpenAI SDK to a
provider on this machine, which counts what is spent: it is the judge. In the table are the
least and the most calls of a round that callers got answers to, the most that were sent (the
provider bills them, whether or not its answer is handed on), and the most that was spent, as a
share of the cap.

Needs a network for pip alone. `--environments` keeps what pip installs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.counting_provider import COST, Spending, provider_that_counts
from benchmarks.environments import environment, reason
from benchmarks.measure import main
from benchmarks.peers.race import Race
from benchmarks.postgres_server import running

ROUNDS = 20
ANSWER_SECONDS = 0.1
RACE_SECONDS = 180.0
"""How long all rounds of a race may take."""


@dataclass(frozen=True)
class Library:
    """A library that holds caps; `packages` are what pip installs, itself first.

    None are installed for costmw, which is raced as it is here.
    """

    name: str
    script: str
    packages: tuple[str, ...]
    refuses: str


LIBRARIES = (
    Library(
        "costmw",
        "with_costmw",
        (),
        "before the call, by an upper bound of its cost; waits up to 2 s for calls in flight",
    ),
    Library(
        "budget-guard-llm",
        "with_budget_guard_llm",
        ("budget-guard-llm", "openai"),
        "before the call, by what is spent and estimated in flight; the call that crosses goes out",
    ),
    Library(
        "paygent",
        "with_paygent",
        ("paygent", "openai"),
        "before the call, by an estimate of it and 1.2 times those in flight (pre_call_estimate)",
    ),
    Library(
        "llm-toll",
        "with_llm_toll",
        ("llm-toll", "openai", "psycopg2-binary"),
        "before the call, by what is recorded; after it too, when it is billed",
    ),
)


@dataclass(frozen=True)
class Way:
    """A way to race: `fits` is the cap as a number of calls."""

    name: str
    processes: int
    callers: int
    calls: int
    fits: Decimal
    rounds: int
    threads: bool = False


def ways(rounds: int) -> list[Way]:
    """All of them."""
    return [
        Way("50 threads", 1, 50, 1, Decimal(10), rounds, threads=True),
        Way("50 tasks", 1, 50, 1, Decimal(10), rounds),
        Way("5 processes of 10 threads", 5, 10, 1, Decimal(10), rounds, threads=True),
        Way("100 tasks of 13 calls", 1, 100, 13, Decimal(1_000), 1),
        Way("50 calls in turn", 1, 1, 50, Decimal("10.5"), 1),
    ]


def run(options: argparse.Namespace | None = None) -> list[dict[str, Any]]:
    """Race all, and print a table."""
    rounds = options.rounds if options else ROUNDS
    kept = options.environments if options else None
    figures: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="costmw-race-") as name,
        provider_that_counts(ANSWER_SECONDS) as (provider, spending),
        running() as server,
    ):
        folder = Path(name)
        print(f"\n  {'race':<28}{'rounds':>6}{'served of what fits':>22}{'sent':>8}{'spent':>8}")
        for library in LIBRARIES:
            try:
                python, version = environment(library.name, library.packages, kept or folder)
            except (OSError, subprocess.SubprocessError) as error:
                found = {"library": library.name, "error": reason(error)}
                figures.append(found)
                print(f"{library.name} cannot be installed: {found['error']}")
                continue
            print(f"{library.name} {version} refuses {library.refuses}")
            for way in ways(rounds):
                race = _race(library, way, folder, provider.openai_url, server.address)
                found = {"library": library.name, "version": version, "race": way.name}
                try:
                    outcomes = _outcomes(python, library.script, race, way.processes)
                except (OSError, subprocess.SubprocessError) as error:
                    found["error"] = reason(error)
                else:
                    found |= _judged(way, race, outcomes, spending)
                figures.append({**found, "refuses": library.refuses})
                _show(found)
    return figures


def _race(library: Library, way: Way, folder: Path, provider: str, postgres: str) -> Race:
    place = folder / f"{library.script}-{way.name.replace(' ', '-')}"
    place.mkdir()
    return Race(
        provider=provider,
        who=place.name,
        threads=way.threads,
        callers=way.callers,
        calls=way.calls,
        cap=str(COST * way.fits),
        folder=str(place),
        postgres=postgres if way.processes > 1 else None,
        rounds=way.rounds,
    )


# Races.


def _outcomes(python: Path, script: str, race: Race, processes: int) -> list[Counter[str]]:
    """What came of each round's calls; raises SubprocessError when a process ends early."""
    rounds: list[Counter[str]] = []
    with _started(python, script, race, processes) as callers:
        for _ in range(race.rounds):
            for caller in callers:
                _expect_line(caller, script, race)
            for caller in callers:
                assert caller.stdin is not None
                caller.stdin.write("go\n")
                caller.stdin.flush()
            outcomes: Counter[str] = Counter()
            for caller in callers:
                said = json.loads(_expect_line(caller, script, race))
                if errors := said.pop("errors"):
                    raise subprocess.SubprocessError(f"calls fail: {errors[0]}")
                outcomes.update(said)
            rounds.append(outcomes)
    return rounds


@contextmanager
def _started(
    python: Path, script: str, race: Race, processes: int
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes, which are killed at the end, or when they take too long."""
    with _log(race).open("w") as log:
        callers = [
            subprocess.Popen(
                [python, "-m", f"benchmarks.peers.{script}", race.command()],
                cwd=Path(__file__).parents[1],
                env={**os.environ, "HOME": race.folder},  # where libraries keep files unasked
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            for _ in range(processes)
        ]

        def kill() -> None:
            for caller in callers:
                caller.kill()

        late = threading.Timer(RACE_SECONDS, kill)
        late.start()
        try:
            yield callers
        finally:
            late.cancel()
            kill()
            for caller in callers:
                caller.communicate()


def _log(race: Race) -> Path:
    return Path(race.folder, "stderr")


def _expect_line(caller: subprocess.Popen[str], script: str, race: Race) -> str:
    assert caller.stdout is not None
    if line := caller.stdout.readline():
        return line
    said = _log(race).read_text().strip().splitlines()
    raise subprocess.SubprocessError(
        f"{script} ended with {caller.wait()} (killed after {RACE_SECONDS:.0f} s if -9): "
        f"{said[-1] if said else 'it said nothing'}"
    )


def _judged(
    way: Way, race: Race, rounds: Sequence[Counter[str]], spending: Spending
) -> dict[str, Any]:
    whos = [f"{race.who}-{number}" for number in range(way.rounds)]
    served = [outcomes["served"] for outcomes in rounds]
    return {
        "rounds": way.rounds,
        "fits": str(way.fits),
        "served_least": min(served),
        "served_most": max(served),
        "sent_most": max(spending.calls[who] for who in whos),
        "most_spent_of_cap": float(max(spending.of(who) for who in whos) / (COST * way.fits)),
    }


def _show(found: dict[str, Any]) -> None:
    if "error" in found:
        print(f"  {found['race']:<28}{found['error']}")
        return
    served = f"{found['served_least']}-{found['served_most']} of {found['fits']}"
    print(
        f"  {found['race']:<28}{found['rounds']:>6}{served:>22}"
        f"{found['sent_most']:>8}{found['most_spent_of_cap']:>8.0%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--environments", type=Path, help="a folder to keep environments in")
    main("caps_race", lambda options: {"races": run(options)}, parser)
