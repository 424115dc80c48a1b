"""Budgets against a plain model, step by step, on every store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from caps_machine import CapsMachine
from postgres_server import postgres
from stores import KINDS, Place, place_of

__all__ = ["place_of", "postgres"]

EXAMPLES = {"sqlite": 20, "postgres": 6}


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_agrees_with_the_model(kind: str, place_of: Callable[[str], Place]) -> None:
    machine: Any = type("Machine", (CapsMachine,), {"new_place": partial(place_of, kind)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[kind],
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
