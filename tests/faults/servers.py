"""Real servers under load, whose workers are recycled, reloaded, and end in mid-traffic.

Every request that was answered has its row, once; so has the call of a worker that ended
by `os._exit` as soon as that was acknowledged. Nobody waits for ever, and the servers end
when they are told to.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from . import Result

APPS = Path(__file__).parents[1] / "serving"
WORKERS = 2
CLIENTS = 6
RECYCLED_AFTER = 50
PATIENCE = 30.0
"""Seconds after which a request or a server that does not end hangs."""

GUNICORN = (
    *("gunicorn", "wsgi:app", "--workers", str(WORKERS), "--bind", "fd://{fd}"),
    *("--max-requests", str(RECYCLED_AFTER), "--max-requests-jitter", "20"),
    *("--graceful-timeout", "10", "--no-control-socket"),
)
UVICORN = (
    *("uvicorn", "asgi:app", "--workers", str(WORKERS), "--fd", "{fd}", "--log-level", "warning"),
    *("--limit-max-requests", str(RECYCLED_AFTER), "--timeout-graceful-shutdown", "10"),
)
CELERY = (
    *("celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", str(WORKERS)),
    *("--max-tasks-per-child", "8", "--loglevel", "warning", "--without-gossip"),
    *("--without-mingle", "--without-heartbeat"),
)


def variants() -> dict[str, tuple[str, ...]]:
    """The commands that start servers, as far as these are installed."""
    found = {"uvicorn": UVICORN}
    for name, kind in (("sync", "sync"), ("threads", "gthread"), ("gevent", "gevent")):
        worker = ("--worker-class", kind, *(("--threads", "8") if kind == "gthread" else ()))
        if kind != "gevent" or find_spec("gevent"):
            found[f"gunicorn {name}"] = (*GUNICORN, *worker)
    asgi = tuple("asgi:app" if part == "wsgi:app" else part for part in GUNICORN)
    for module, worker_class in (
        ("uvicorn_worker", "uvicorn_worker.UvicornWorker"),
        ("gunicorn.workers.gasgi", "asgi"),
    ):
        if find_spec(module):
            found[f"gunicorn {worker_class}"] = (*asgi, "--worker-class", worker_class)
    preloaded = {
        f"{name}, preloaded": (*command, "--preload")
        for name, command in found.items()
        if command[0] == "gunicorn"
    }
    return found | preloaded


@dataclass
class Load:
    """Clients that ask all the while, and what they were told."""

    port: int
    answered: set[str] = field(default_factory=set)
    pids: set[str] = field(default_factory=set)
    broken: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, client: int) -> None:
        """Ask one after another; a worker that ends may break a connection off."""
        for n in itertools.count():
            if self.stop.is_set():
                return
            name = f"{client}-{n}"
            ending = "?end" if client == 0 and n % 12 == 6 else ""
            began = time.monotonic()
            try:
                status, text = self.ask(f"/chat/{name}{ending}")
            except TimeoutError:
                self.failed.append(f"request {name} hangs")
            except (OSError, http.client.HTTPException):
                self.broken += 1
                time.sleep(0.01)
            else:
                if status == 200:
                    self.answered.add(name)
                    self.pids.add(text)
                else:
                    self.failed.append(f"request {name}: {status} {text[:200]}")
            self.slowest = max(self.slowest, time.monotonic() - began)

    def ask(self, path: str) -> tuple[int, str]:
        """One request on a connection of its own."""
        with contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        ) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Ask for as long as the block lasts."""
        threads = [threading.Thread(target=self.run, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()


def run(rounds: int = 12, seed: int = 0) -> Iterator[Result]:
    """Ask each kind of server for `rounds` seconds."""
    for name, command in variants().items():
        with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
            yield served(name, command, Path(folder), float(rounds), seed)
    if find_spec("celery"):
        with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
            yield worked(Path(folder), 10 * rounds)


def worked(folder: Path, jobs: int) -> Result:
    """Have Celery's workers, which are forked and recycled, do some jobs."""
    from costmw.testing import FakeProvider

    for queue in ("queue", "queue-control"):
        (folder / queue).mkdir()
    with FakeProvider() as provider:
        worker = started(CELERY, folder, provider.openai_url)
        try:
            started(("tasks", str(jobs)), folder, provider.openai_url).wait(PATIENCE)
            began = time.monotonic()
            wait_until(lambda: len(acknowledged_in(folder)) == jobs)
            took = time.monotonic() - began
            worker.terminate()
            ended = ends(worker)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    said, rows, done = (folder / "said").read_text(), rows_of(folder), acknowledged_in(folder)
    found = [] if ended else ["the worker hangs when it is to end"]
    found += complaints(said)
    if len(done) < jobs:
        found.append(f"only {len(done)} of {jobs} jobs were done: {said[-2000:]}")
    if dict.fromkeys(done, 1) != rows:
        found.append(f"rows: {rows}")
    return Result(
        "servers",
        "celery, prefork",
        {"seconds": round(took), "answered": len(done), "lost": len(done - rows.keys())},
        found,
    )


def served(
    name: str, command: tuple[str, ...], folder: Path, seconds: float, seed: int = 0
) -> Result:
    """Ask a server that is reloaded after a while, and ended while it is still asked."""
    from costmw.testing import FakeProvider

    rng = random.Random(f"{name} {seed}")
    with FakeProvider() as provider:
        with server(command, folder, provider.openai_url) as (port, process):
            load = Load(port)
            with load.running():
                wait_until(lambda: bool(load.answered))
                time.sleep(seconds * rng.uniform(0.3, 0.5))
                process.send_signal(signal.SIGHUP)
                time.sleep(seconds * rng.uniform(0.5, 0.7))
                wait_until(lambda: len(load.pids) > WORKERS and bool(acknowledged_in(folder)))
                began = time.monotonic()
                process.terminate()
                ended = ends(process)
                took = time.monotonic() - began
    said, found = (folder / "said").read_text(), load.failed[:3]
    if not ended:
        found.append("the server hangs when it is to end")
    found += complaints(said)
    rows = rows_of(folder)
    acknowledged = acknowledged_in(folder)
    missing = (load.answered | acknowledged) - rows.keys()
    twice = [n for n, count in rows.items() if count > 1]
    if missing:
        found.append(f"{len(missing)} calls have no row: {sorted(missing)[:3]}")
    if twice:
        found.append(f"{len(twice)} calls have several rows: {twice[:3]}")
    if len(load.pids) <= WORKERS:
        found.append(f"only {len(load.pids)} workers: nothing was recycled")
    if not acknowledged:
        found.append("no worker ended by os._exit")
    return Result(
        "servers",
        name,
        {
            "seconds": round(seconds),
            "answered": len(load.answered),
            "workers": len(load.pids),
            "ended by os._exit": len(acknowledged),
            "broken off": load.broken,
            "slowest ms": round(1000 * load.slowest),
            "lost": len(missing),
            "twice": len(twice),
            "ended after ms": round(1000 * took),
        },
        found,
    )


@contextlib.contextmanager
def server(
    command: tuple[str, ...], folder: Path, provider: str
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server that listens; it ends with the block, whatever happens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        arguments = tuple(part.format(fd=listener.fileno()) for part in command)
        port = listener.getsockname()[1]
        process = started(arguments, folder, provider, listener.fileno())
    try:
        yield port, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def started(
    arguments: tuple[str, ...], folder: Path, provider: str, *files: int
) -> subprocess.Popen[str]:
    """A program beside the apps, with a store in `folder`; what it says is in `folder/said`."""
    with (folder / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=APPS,
            env=os.environ
            | {
                "COSTMW_STORE": f"sqlite:///{folder}/llmcost.db",
                "COSTMW_ACK_TIMEOUT": "10",
                "PROVIDER": provider,
                "JOURNAL": str(folder / "acknowledged"),
                "QUEUE": str(folder / "queue"),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            pass_fds=files,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that has to happen; what did not is a violation later."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def ends(process: subprocess.Popen[str]) -> bool:
    """Whether a server ends in time."""
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    return True


def complaints(said: str) -> list[str]:
    """What a server had to say of costmw, or of errors in the app."""
    found = re.search(r"^(Traceback|costmw |a commit took longer)", said, re.MULTILINE)
    return [f"the server said: {said[found.start() :][:2000]}"] if found else []


def rows_of(folder: Path) -> dict[str, int]:
    """How many rows each request has."""
    with contextlib.closing(sqlite3.connect(folder / "llmcost.db")) as connection:
        return dict(
            connection.execute(
                "SELECT json_extract(tags, '$.n'), count(*) FROM llm_usage_events GROUP BY 1"
            )
        )


def acknowledged_in(folder: Path) -> set[str]:
    """What was acknowledged in time, and said so in the journal."""
    journal = folder / "acknowledged"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {name for name, late in map(str.split, lines) if late == "0"}
