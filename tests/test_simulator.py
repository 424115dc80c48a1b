"""Random schedules of writers, rollups and care with faults in them; more by `make faults`."""

from __future__ import annotations

import os

from faults import simulator


def test_a_hundred_schedules_agree_with_the_model() -> None:
    first = int.from_bytes(os.urandom(3))
    print(f"seeds from {first}")
    results = list(simulator.run(rounds=100, seed=first))

    assert [] == [violation for result in results for violation in result.violations]
    assert 100 == sum(int(result.figures["schedules"]) for result in results)
