"""Whether calls reach the store is on the page, and in what it asks for."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costmw import Config, Meter
from costmw.dashboard import Principal
from costmw.dashboard.core import Dashboard, Request
from test_dashboard_browser import Visit, browser, mounted, serving_asgi, visit

__all__ = ["browser", "visit"]

EAGER = Config(ack_timeout=0.05, queue_size=3)
SEEN = 2.5
"""Seconds after which the page says that records wait."""


def status(meter: Meter, principal: Principal) -> Any:
    request = Request("GET", "/api/v1/status", "", {}, "/_llmcost")
    return json.loads(Dashboard(meter).handle(request, principal).body)


def record(meter: Meter, count: int) -> None:
    for _ in range(count):
        meter.record(provider="openai", model="m", cost="1")


@contextmanager
def nobody_writes(folder: Path) -> Iterator[None]:
    with (folder / "llmcost.db.lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_records_that_wait_or_are_lost_are_told_to_those_who_see_all(
    make_meter: Callable[..., Meter], tmp_path: Path
) -> None:
    meter = make_meter(config=EAGER)
    meter.start()
    assert 0 == status(meter, Principal())["meter"]["waiting_seconds"]
    with nobody_writes(tmp_path):
        record(meter, 5)
        time.sleep(0.2)
        told = status(meter, Principal())["meter"]
        assert None is status(meter, Principal(scope={"tenant": "acme"}))["meter"]
    assert {"waiting": 3, "dropped": 2, "rejected": 0, "late": 5, "committed": 0} == {
        name: told[name] for name in ("waiting", "dropped", "rejected", "late", "committed")
    }
    assert 0.3 < told["waiting_seconds"] < 5
    assert meter.flush(30)
    told = status(meter, Principal())["meter"]
    assert (0, 0, 3) == (told["waiting"], told["waiting_seconds"], told["committed"])


def test_the_page_says_so_as_long_as_records_wait(
    make_meter: Callable[..., Meter], tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    meter = make_meter(config=EAGER)
    record(meter, 1)
    assert meter.flush(30)
    meter._last_fault = "<img src=x onerror=alert(1)>"
    with serving_asgi(mounted(meter)) as address:
        seen = visit().open(f"{address}/_llmcost/")
        banner = seen.page.locator("#recording")
        assert not banner.is_visible()
        with nobody_writes(tmp_path):
            record(meter, 4)
            time.sleep(SEEN)
            seen.open(f"{address}/_llmcost/", "#recording")
            text = seen.text("#recording")
            assert "3 records cannot be stored now and wait in the memory" in text
            assert "Lost so far: 1 record." in text
            assert "The last error: <img src=x onerror=alert(1)>" in text
            assert "status" == banner.get_attribute("role")
        assert meter.flush(30)
        seen.open(f"{address}/_llmcost/")
        assert not banner.is_visible()
        assert [] == seen.complaints + seen.violations()


def test_the_page_says_so_when_it_cannot_read_the_store_either(
    make_meter: Callable[..., Meter], tmp_path: Path, visit: Callable[..., Visit]
) -> None:
    (tmp_path / "llmcost.db").write_bytes(b"this is no database" * 100)
    meter = make_meter(config=EAGER)
    record(meter, 2)
    time.sleep(SEEN)
    with serving_asgi(mounted(meter)) as address:
        seen = visit().open(f"{address}/_llmcost/", "#recording")
        seen.page.locator("#problem").wait_for(state="visible")
        assert "2 records cannot be stored now" in seen.text("#recording")
        assert "is not an SQLite database" in seen.text("#recording")
    (tmp_path / "llmcost.db").unlink()
