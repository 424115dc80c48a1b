"""The long runs as tests, for `pytest -m faults`."""

from __future__ import annotations

import importlib
import random

import pytest

from .__main__ import names, table

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("name", names())
def test_fault(name: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    results = list(importlib.import_module(f".{name}", __package__).run(seed=seed))

    print(table(results))
    assert results
    assert [] == [violation for result in results for violation in result.violations]
