"""Ten thousand random steps of budgets, holds, rows and edits, against a plain model.

    python -m tests.faults caps_model --rounds 10000 --seed 1

The same machine as in tests/test_caps_model.py, for longer; on a failure hypothesis prints the
steps that lead to it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.postgres_server import running
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from . import Result

sys.path.insert(0, str(Path(__file__).parents[1]))

STEPS_AT_ONCE = 40
EACH = 30
"""Steps that a machine of 40 makes at least, on average."""


def run(rounds: int = 10_000, seed: int = 0) -> Iterator[Result]:
    """Make `rounds` steps on each kind of ledger."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        names = iter(range(10**6))
        yield _stepped("SQLite", lambda: f"sqlite:///{folder}/{next(names)}.db", rounds, seed)
    with running() as server:
        yield _stepped("Postgres", server.url, rounds, seed)


def _stepped(variant: str, new_url: Callable[[], str], steps: int, number: int) -> Result:
    from caps_machine import CapsMachine
    from stores import Place

    machine: Any = type(
        "Machine",
        (CapsMachine,),
        {"new_place": staticmethod(lambda: Place(variant.lower(), new_url())), "steps": 0},
    )
    differences = []
    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            seed(number)(machine),
            settings=settings(
                max_examples=-(-steps // EACH),
                stateful_step_count=STEPS_AT_ONCE,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except Exception as error:
        differences.append(f"{type(error).__name__}: {error}")
    if machine.steps < steps and not differences:
        differences.append(f"only {machine.steps} steps")
    figures = {"steps": machine.steps, "differences": len(differences)}
    return Result("caps_model", variant, figures, differences)
