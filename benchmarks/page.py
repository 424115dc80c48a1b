"""The page over a million calls: its first load, and a hundred viewers while calls come in.

Times are of the first answer after a start, with the file's pages dropped from the operating
system's cache, and of later ones; those of the server are seen from outside. Drawing is measured in
Chromium from the start of the navigation to the first frame with all views and charts, over
a network without delay, also with a processor four times slower. Viewers ask as the page does:
every 12 seconds, with the tag of what they have.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
from playwright.sync_api import Browser, sync_playwright

from benchmarks.ledger_events import DAYS, events
from benchmarks.measure import main
from benchmarks.page_server import BUDGETS
from costmw import Config, Meter
from costmw.dashboard.auth import Principal, anonymous
from costmw.dashboard.core import Dashboard
from costmw.dashboard.messages import Request
from costmw.store.sqlite import SqliteStore
from costmw.store.sqlite_read import SqliteSnapshot

EVENTS = 1_000_000
VIEWERS = 100
POLL_SECONDS = 12.0
EVENTS_A_SECOND = 50.0
MEASURED_SECONDS = 60.0
ROUNDS = 7
WRITTEN_AT_ONCE = 5_000

CHROMIUM = ["--no-sandbox", "--disable-dev-shm-usage"]


def run(count: int = EVENTS, folder: Path | None = None) -> dict[str, Any]:
    """Measure and print everything; `folder` keeps the ledger for another run of that day."""
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(exist_ok=True)
        ledger = made(folder, count)
        figures = {
            "queries of the first load": queries(ledger),
            "first load": first_load(ledger),
            "viewers": viewers(ledger),
        }
    show(figures)
    return figures


def made(folder: Path, count: int) -> Path:
    """A ledger of so many calls over the 30 days until now, rolled up."""
    now = datetime.now(UTC)
    path = folder / f"page-{count}-{now:%Y-%m-%d}.db"
    if path.exists():
        return path
    store = SqliteStore(f"sqlite:///{path}", Config(durability="process"))
    store.open()
    batch = []
    for event in events(count, start=now - timedelta(days=DAYS)):
        batch.append(event)
        if len(batch) == WRITTEN_AT_ONCE:
            store.write(batch)
            batch = []
            store.roll_up(WRITTEN_AT_ONCE)
    store.write(batch)
    while store.roll_up(WRITTEN_AT_ONCE):
        pass
    store.close()
    return path


@contextmanager
def server(ledger: Path, events_a_second: float = 0.0) -> Iterator[str]:
    """A server of its own process; gives its address."""
    command = [sys.executable, "-m", "benchmarks.page_server", f"sqlite:///{ledger}"]
    command += ["--events", str(events_a_second)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def queries(ledger: Path) -> dict[str, float]:
    """Milliseconds of all statements of the first screen, and of its whole answer.

    Cold: nothing of the file is in memory, neither the database's nor the system's.
    """
    spent: list[float] = []
    ask = SqliteSnapshot._rows

    def timed(self: SqliteSnapshot, sql: str, values: Sequence[Any] = ()) -> Any:
        began = time.perf_counter()
        try:
            return ask(self, sql, values)
        finally:
            spent.append(time.perf_counter() - began)

    figures: dict[str, list[float]] = {}
    with patch.object(SqliteSnapshot, "_rows", timed):
        for number in range(ROUNDS + 1):
            meter = Meter(f"sqlite:///{ledger}", budgets=BUDGETS)
            meter.start()
            dashboard = Dashboard(meter, anonymous())
            forget_pages(ledger)
            for state in ("cold", "warm"):
                spent.clear()
                question = Request("GET", "/api/v1/overview", f"top={7 + (state == 'warm')}")
                began = time.perf_counter()
                assert dashboard.handle(question, Principal()).status == 200
                whole = time.perf_counter() - began
                if number:  # the first of all loads the code and the price list
                    figures.setdefault(f"all queries, {state} (ms)", []).append(sum(spent) * 1000)
                    figures.setdefault(f"whole answer, {state} (ms)", []).append(whole * 1000)
            meter.close()
    return {name: statistics.median(found) for name, found in figures.items()}


def first_load(ledger: Path) -> dict[str, float]:
    """Milliseconds and bytes of a first load."""
    figures: dict[str, list[float]] = {}

    def note(name: str, figure: float) -> None:
        figures.setdefault(name, []).append(figure)

    with sync_playwright() as playwright:
        path = os.environ.get("COSTMW_CHROMIUM", "/usr/bin/chromium")
        with playwright.chromium.launch(executable_path=path, args=CHROMIUM) as browser:
            for _ in range(ROUNDS):
                forget_pages(ledger)
                with server(ledger) as address:
                    page = f"{address}/_llmcost"
                    httpx2.get(f"{page}/api/v1/status").raise_for_status()
                    note("server, cold (ms)", answered(f"{page}/api/v1/overview"))
                    # Another question of the same size each time: none is answered from memory.
                    for top in range(5, 9):
                        note("server, warm (ms)", answered(f"{page}/api/v1/overview?top={top}"))
                    for rate, name in ((1, "drawn (ms)"), (4, "drawn, 4x slower (ms)")):
                        drawn, size = load(browser, f"{page}/", rate)
                        note(name, drawn)
                        note("bytes on the wire (kB)", size / 1000)
    return {name: statistics.median(found) for name, found in figures.items()}


def forget_pages(ledger: Path) -> None:
    """Have the operating system drop what it has cached of the file."""
    for path in ledger.parent.glob(f"{ledger.name}*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def answered(url: str) -> float:
    """Milliseconds until an answer is there, over a connection that is open."""
    with httpx2.Client() as client:
        client.get(url.partition("/_llmcost")[0] + "/cpu")
        began = time.perf_counter()
        client.get(url).raise_for_status()
        return (time.perf_counter() - began) * 1000


def load(browser: Browser, url: str, slower: int) -> tuple[float, int]:
    """Load the page afresh; milliseconds until it is drawn, and bytes that were sent for it."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Emulation.setCPUThrottlingRate", {"rate": slower})
    sizes: list[int] = []
    session.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    page.goto(url, wait_until="commit")
    page.wait_for_function("() => performance.getEntriesByName('drawn').length > 0")
    drawn = page.evaluate("() => performance.getEntriesByName('drawn')[0].startTime")
    page.wait_for_load_state("networkidle")
    context.close()
    return float(drawn), sum(sizes)


def viewers(ledger: Path) -> dict[str, float]:
    """The share of a core that viewers take, beside calls that are recorded."""
    with server(ledger, EVENTS_A_SECOND) as address:
        alone = asyncio.run(watched(address, 0))
        beside = asyncio.run(watched(address, VIEWERS))
    return {
        "recording alone (share of a core)": alone[0],
        f"with {VIEWERS} viewers": beside[0],
        "viewers": beside[0] - alone[0],
        "answers that were new": beside[1],
        "answers (304 or new)": beside[2],
    }


async def watched(address: str, count: int) -> tuple[float, int, int]:
    """CPU of the server as a share of a core while so many look; answers new, and all."""
    answers: list[int] = []
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None)) as client:
        stop = time.monotonic() + POLL_SECONDS + MEASURED_SECONDS
        watching = [
            asyncio.create_task(
                view(client, address, n * POLL_SECONDS / max(count, 1), stop, answers)
            )
            for n in range(count)
        ]
        await asyncio.sleep(POLL_SECONDS)
        answers.clear()
        before, began = float((await client.get(f"{address}/cpu")).text), time.monotonic()
        await asyncio.sleep(MEASURED_SECONDS - 2)
        after, ended = float((await client.get(f"{address}/cpu")).text), time.monotonic()
        found = (after - before) / (ended - began), answers.count(200), len(answers)
        await asyncio.gather(*watching)
    return found


async def view(
    client: httpx2.AsyncClient, address: str, delay: float, stop: float, answers: list[int]
) -> None:
    """One open page."""
    await asyncio.sleep(delay)
    etag = ""
    while time.monotonic() < stop:
        headers = {"If-None-Match": etag, "Accept-Encoding": "gzip"}
        answer = await client.get(f"{address}/_llmcost/api/v1/overview", headers=headers)
        await client.get(f"{address}/_llmcost/api/v1/status")
        answers.append(answer.status_code)
        etag = answer.headers.get("etag", "")
        await asyncio.sleep(POLL_SECONDS)


def show(figures: dict[str, Any]) -> None:
    """Print what was found."""
    for part, found in figures.items():
        print(f"\n{part}")
        for name, figure in found.items():
            print(f"  {name:<40}{figure:>12.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--folder", type=Path)
    main("page", lambda options: run(options.events, options.folder), parser)
