from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import certifi
import pytest

from costmw import Config, Meter
from costmw.events import UsageEvent
from costmw.testing import FakeProvider


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/llmcost.db"


@pytest.fixture
def make_meter(store_url: str) -> Iterator[Callable[..., Meter]]:
    """Makes meters on one store, with time enough for a busy machine, and closes them."""
    meters: list[Meter] = []

    def make(**options: object) -> Meter:
        options.setdefault("config", Config(ack_timeout=30.0))
        meters.append(Meter(store_url, **options))  # type: ignore[arg-type]
        return meters[-1]

    yield make
    for meter in meters:
        meter.close()


@pytest.fixture
def meter(make_meter: Callable[..., Meter]) -> Meter:
    return make_meter()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines to print once the module's tests have run, or by `make test` once all have."""
    lines: list[str] = []
    yield lines
    if (told := getattr(request.config, "workeroutput", None)) is not None:
        told.setdefault("tables", []).append(lines)
        return
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("", *lines, sep="\n")


def pytest_configure(config: pytest.Config) -> None:
    """Trust one authority, not all: each client reads them for 30 ms, and none leaves this machine.

    Processes that tests start do so too.
    """
    end = "-----END CERTIFICATE-----\n"
    with NamedTemporaryFile("w", prefix="costmw-", suffix=".pem", delete=False) as file:
        file.write(certifi.contents().partition(end)[0] + end)
    os.environ["SSL_CERT_FILE"] = file.name
    config.add_cleanup(Path(file.name).unlink)


def pytest_collection_finish() -> None:
    """Keep what was imported out of every garbage collection from here on, and of the doctor's."""
    import hypothesis  # noqa: F401 - as it starts, it asks the collector about other libraries

    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Print the tables of a process that ran a part of the tests."""
    for lines in getattr(node, "workeroutput", {}).get("tables", ()):
        print("", *lines, sep="\n")


def events_of(meter: Meter) -> list[UsageEvent]:
    """All events of a meter's store, in the order that they were committed in."""
    assert meter.flush(30)
    with meter.store.snapshot() as snapshot:
        found = dict(snapshot.events(scope={}, limit=100_000))
    return [found[position] for position in sorted(found)]


def outcomes_of(meter: Meter) -> dict[str, int]:
    """How often each kind of unbilled attempt happened."""
    from datetime import UTC, datetime, timedelta

    assert meter.flush(30)
    now = datetime.now(UTC)
    counts: dict[str, int] = {}
    with meter.store.snapshot() as snapshot:
        for row in snapshot.outcomes(now - timedelta(days=1), now + timedelta(1), scope={}):
            counts[row.kind] = counts.get(row.kind, 0) + row.count
    return counts
