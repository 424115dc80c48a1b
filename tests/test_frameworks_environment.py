"""litellm and llama-index, followed by `instrument_all()`: every call is one exact row.

They keep older SDKs, and so run in an environment of their own, which `make test` sets up.
Prints a table of what was recorded.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import events_of
from costmw import Meter
from costmw.events import UsageEvent
from costmw.testing import FakeProvider
from frameworks_environment import FRAMEWORKS
from prices import CHAT, EMBEDDING, MESSAGE, counted, row, stated

TESTS = Path(__file__).parent
PYTHON = Path(
    os.environ.get("COSTMW_FRAMEWORKS_PYTHON") or TESTS.parent / ".venv-frameworks/bin/python"
)
DEADLINE = 120.0

EXACT = {
    **{name: CHAT if api == "openai" else MESSAGE for name, (api, _, _) in FRAMEWORKS.items()},
    "litellm embeddings": EMBEDDING,
}
CASES = [(name, way) for name, (_, _, ways) in FRAMEWORKS.items() for way in ways]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> list[UsageEvent]:
    """The rows of all calls, which one process has made."""
    if not PYTHON.exists():
        complain: Callable[[str], None] = pytest.fail if "CI" in os.environ else pytest.skip
        complain(f"there is no {PYTHON}: `make test` sets it up")
    store = f"sqlite:///{tmp_path_factory.mktemp('frameworks')}/llmcost.db"
    with FakeProvider() as openai, FakeProvider() as anthropic:
        openai.responder = anthropic.responder = stated
        done = subprocess.run(
            [PYTHON, TESTS / "frameworks_environment.py", store, openai.url, anthropic.url],
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # no network
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert openai.served + anthropic.served == 3 * len(CASES)
    status = json.loads(done.stdout.splitlines()[-1])
    assert status["faults"] == 0, done.stderr
    meter = Meter(store)
    meter.start()
    events = events_of(meter)
    meter.close()
    assert len(events) == 2 * len(CASES)
    return events


@pytest.mark.parametrize(("name", "way"), CASES)
def test_every_call_is_one_exact_row_with_the_tags_around_it(
    name: str, way: str, recorded: list[UsageEvent], table: list[str]
) -> None:
    events = [event for event in recorded if event.tags["call"] == f"{name}, {way}"]
    table.append(f"{name:<30}{way:<24}{counted(map(row, events))}")
    assert [event.tags["made"] for event in events] == ["before", "after"]
    for event in events:
        assert row(event) == EXACT[name]
        assert (event.status, event.reason) == ("ok", None)
        assert event.provider == FRAMEWORKS[name][0]
