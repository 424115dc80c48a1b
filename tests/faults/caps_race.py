"""Many callers and one cap: it is never overshot, and what fits is served.

The judge is the provider, which counts a call when it arrives. Of fifty calls at once ten
would fit by what they cost; each is held for more, so that nine or ten are served.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from benchmarks.counting_provider import COST, Spending, provider_that_counts
from benchmarks.postgres_server import running

from . import Result
from .callers import Callers, called

FITS = 10
AT_LEAST = 9
MANY = 1_000
SHARE = Decimal("0.99")


def run(rounds: int = 20, seed: int = 0) -> Iterator[Result]:
    """Race `rounds` times in each way; `seed` decides nothing."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        provider, spending = stack.enter_context(provider_that_counts(0.1))
        postgres = stack.enter_context(running()).url()
        sqlite = Callers(
            url="",
            provider=provider.openai_url,
            mode="threads",
            callers=50,
            calls=1,
            budgets=[{"name": "cap", "limit": str(COST * FITS), "period": "total"}],
        )
        variants = {
            "threads": [sqlite],
            "asyncio": [replace(sqlite, mode="asyncio")],
            "5 processes of 10": [replace(sqlite, callers=10)] * 5,
            "2 meters on Postgres": [
                replace(sqlite, callers=25, outbox=f"{folder}/outbox-{n}.db") for n in range(2)
            ],
        }
        for variant, processes in variants.items():
            yield _raced(
                variant,
                [
                    [
                        replace(p, url=postgres if p.outbox else f"sqlite:///{folder}/{n}.db")
                        for p in processes
                    ]
                    for n in _numbers(variant, rounds)
                ],
                spending,
            )
        wide = replace(
            sqlite,
            url=f"sqlite:///{folder}/wide.db",
            mode="asyncio",
            callers=100,
            calls=13,
            budgets=[{"name": "cap", "limit": str(COST * MANY), "period": "total"}],
        )
        yield _used_up(wide, spending)
        unlimited = replace(
            sqlite,
            url=f"sqlite:///{folder}/unlimited.db",
            limited=False,
            budgets=[{"name": "cap", "limit": "5", "period": "total"}],
        )
        yield _unlimited(unlimited, spending)


def _numbers(variant: str, rounds: int) -> list[str]:
    return [f"{variant.replace(' ', '-')}-{n}" for n in range(rounds)]


def _raced(variant: str, rounds: Sequence[list[Callers]], spending: Spending) -> Result:
    cap = COST * FITS
    served: list[int] = []
    shares: list[Decimal] = []
    violations: list[str] = []
    for n, processes in enumerate(rounds):
        name = f"{variant}-{n}"  # a budget of its own: Postgres' ledger is one
        budgets = [{**processes[0].budgets[0], "name": name, "where": {"round": name}}]
        named = [replace(p, budgets=budgets, who=[{"round": name}]) for p in processes]
        outcomes = called(named)
        served.append(outcomes["served"])
        shares.append(spending.of(name) / cap)
        if spending.of(name) > cap:
            violations.append(f"round {n}: {spending.of(name)} of {cap} USD spent")
        if outcomes["served"] < AT_LEAST:
            violations.append(f"round {n}: {outcomes['served']} served")
        if spending.calls[name] != outcomes["served"]:
            violations.append(f"round {n}: {spending.calls[name]} calls at the provider")
        violations += _disagreeing(processes[0])
    figures = {
        "rounds": len(rounds),
        "served, least": min(served),
        "most": max(served),
        "of the cap": f"{max(shares):.0%}",
    }
    return Result("caps_race", variant, figures, violations)


def _used_up(callers: Callers, spending: Spending) -> Result:
    who = "wide"
    outcomes = called([replace(callers, who=[{"round": who}])])
    share = spending.of(who) / (COST * MANY)
    violations = _disagreeing(callers)
    if not SHARE <= share <= 1:
        violations.append(f"{share:.1%} of the cap is used")
    figures = {
        "rounds": 1,
        "served, least": outcomes["served"],
        "most": outcomes["served"],
        "of the cap": f"{share:.1%}",
    }
    return Result("caps_race", f"a cap of {MANY} calls, 100 callers", figures, violations)


def _unlimited(callers: Callers, spending: Spending) -> Result:
    """Nobody limits the answers: each call is held for the longest that the model gives."""
    who = "unlimited"
    outcomes = called([replace(callers, who=[{"round": who}])])
    cap = Decimal(callers.budgets[0]["limit"])
    share = spending.of(who) / cap
    violations = _disagreeing(callers)
    if share > 1 or not outcomes["served"]:
        violations.append(f"{outcomes['served']} served, {share:.1%} of the cap is used")
    figures = {
        "rounds": 1,
        "served, least": outcomes["served"],
        "most": outcomes["served"],
        "of the cap": f"{share:.1%}",
    }
    return Result("caps_race", "no limit on answers", figures, violations)


def _disagreeing(callers: Callers) -> list[str]:
    meter = replace(callers, budgets=[]).meter()
    found = list(meter.store.verify_balances())  # type: ignore[attr-defined]
    meter.close()
    return [f"{len(found)} balances differ from the ledger"] if found else []
