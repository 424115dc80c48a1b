"""Real servers with two workers on one file: every call once, and nothing lost.

Not at the end, nor when workers are recycled, reloaded or end in the middle of it.
"""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest

from conftest import events_of
from costmw import Meter
from costmw.events import UsageEvent
from costmw.testing import FakeProvider, Reply
from faults import servers as turmoil

WORKERS = 2
CALLS = 60
DEADLINE = 30.0

FASTAPI_APP = """
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI
from openai import AsyncOpenAI

from costmw import Meter, bind, tag
from costmw.integrations.starlette import CostMiddleware

meter = Meter(tags={"environment": "test"})
llm = meter.instrument(
    AsyncOpenAI(base_url=os.environ["PROVIDER"], api_key="k"), provider="openai"
)
streams = []


@asynccontextmanager
async def lifespan(app):
    with tag(worker=os.getpid()):
        await llm.responses.create(model="gpt-5-mini", input="start")
    yield
    for stream in streams:
        await stream.close()
    await llm.close()


app = FastAPI(lifespan=lifespan)
app.add_middleware(
    CostMiddleware, meter=meter, tags=lambda conn: {"tenant": conn.headers["x-tenant"]}
)


@app.get("/chat/{user}")
async def chat(user: str) -> int:
    bind(user=user)
    await llm.responses.create(model="gpt-5-mini", input=user)
    return os.getpid()


@app.get("/open/{user}")
async def open_stream(user: str) -> int:
    stream = await llm.responses.create(model="gpt-5-mini", input="open", stream=True)
    await anext(aiter(stream))
    streams.append(stream)
    return os.getpid()
"""

FLASK_APP = """
import os

import openai
from flask import Flask, request

from costmw import Meter, bind, tag
from costmw.integrations.flask import LLMCost

meter = Meter(tags={"environment": "test"})
app = Flask(__name__)
LLMCost(
    app, meter=meter, tags=lambda request: {"tenant": request.headers["x-tenant"]}, url_prefix=None
)


def new_client():
    client = openai.OpenAI(base_url=os.environ["PROVIDER"], api_key="k")
    return meter.instrument(client, provider="openai")


with new_client() as once, tag(loader=os.getpid()):  # with --preload before there are workers
    once.responses.create(model="gpt-5-mini", input="load")
llm = new_client()
streams = []


def start():
    meter.start()  # before the test takes the turn to write
    with tag(worker=os.getpid()):
        llm.responses.create(model="gpt-5-mini", input="start")


@app.get("/chat/<user>")
def chat(user):
    bind(user=user)
    llm.responses.create(model="gpt-5-mini", input=user)
    return str(os.getpid())


@app.get("/open/<user>")
def open_stream(user):
    stream = llm.responses.create(model="gpt-5-mini", input="open", stream=True)
    next(iter(stream))
    streams.append(stream)
    return str(os.getpid())
"""

GUNICORN_CONF = """
def post_worker_init(worker):
    import serving

    if hasattr(serving, "start"):
        serving.start()
"""


@contextmanager
def serving(
    command: list[str], app: str, folder: Path, provider: FakeProvider
) -> Iterator[tuple[httpx2.Client, subprocess.Popen[str]]]:
    """A server whose workers have all started; it ends with the block, whatever happens."""
    started: queue.Queue[str] = queue.Queue()

    def answer(record: Any) -> Reply | None:
        asked = record.json["input"]
        if asked == "start":
            started.put(asked)
        return Reply(text="one two three", pace=DEADLINE) if asked == "open" else None

    provider.responder = answer
    (folder / "serving.py").write_text(app)
    (folder / "gunicorn.conf.py").write_text(GUNICORN_CONF)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        arguments = [part.format(fd=listener.fileno()) for part in command]
        server = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=os.environ
            | {
                "COSTMW_STORE": f"sqlite:///{folder}/llmcost.db",
                "COSTMW_DURABILITY": "async",
                "PROVIDER": provider.openai_url,
                "HOME": str(folder),  # where gunicorn puts its control socket
            },
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        for _ in range(WORKERS):
            started.get(timeout=DEADLINE)
        limits = httpx2.Limits(max_connections=CALLS, max_keepalive_connections=0)
        with httpx2.Client(base_url=address, timeout=DEADLINE, limits=limits) as http:
            yield http, server
    finally:
        if server.poll() is None:
            server.terminate()
        try:
            server.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()


@contextmanager
def nobody_writes(folder: Path) -> Iterator[None]:
    """Take the turn of everyone who wants to commit."""
    with (folder / "llmcost.db.lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def has_ended_well(server: subprocess.Popen[str]) -> None:
    said, _ = server.communicate(timeout=DEADLINE)
    assert server.returncode in (0, -signal.SIGTERM), said
    assert "Traceback" not in said
    assert "ERROR" not in said


def stored(folder: Path) -> list[UsageEvent]:
    meter = Meter(f"sqlite:///{folder}/llmcost.db")
    try:
        return events_of(meter)
    finally:
        meter.close()


def ask(http: httpx2.Client, path: str, tenant: str) -> str:
    response = http.get(path, headers={"x-tenant": tenant})
    assert response.status_code == 200, response.text
    return response.text


UVICORN = ["uvicorn", "serving:app", "--workers", "2", "--fd", "{fd}"]
GUNICORN = ["gunicorn", "serving:app", "--workers", "2", "--bind", "fd://{fd}"]
THREADS = [*GUNICORN, "--worker-class", "gthread", "--threads", "16"]
FASTAPI = (FASTAPI_APP, "/chat/{user}")
FLASK = (FLASK_APP, "/chat/<user>")

SERVERS = {
    "uvicorn": (UVICORN, *FASTAPI),
    "gunicorn threads, preloaded": ([*THREADS, "--preload"], *FLASK),
}
for module, name in (
    ("uvicorn_worker", "uvicorn_worker.UvicornWorker"),
    ("gunicorn.workers.gasgi", "asgi"),
):
    if find_spec(module):
        SERVERS[f"gunicorn {name}"] = ([*GUNICORN, "--worker-class", name], *FASTAPI)


@dataclass(frozen=True)
class Aftermath:
    """What a server served, and what is in the store when it has ended."""

    command: list[str]
    app: str
    route: str
    served: Counter[str]
    events: list[UsageEvent]

    def tagged(self, key: str) -> list[UsageEvent]:
        return [event for event in self.events if key in event.tags]


@pytest.fixture(scope="module", params=SERVERS.values(), ids=SERVERS)
def aftermath(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Aftermath:
    """Sixty calls at once, a stream left open, and SIGTERM while nothing is committed yet."""
    command, app, route = request.param
    folder = tmp_path_factory.mktemp("server")
    with FakeProvider() as provider, serving(command, app, folder, provider) as (http, server):
        with nobody_writes(folder):
            with ThreadPoolExecutor(CALLS) as pool:
                served = Counter(
                    pool.map(lambda n: ask(http, f"/chat/u{n}", f"t{n % 7}"), range(CALLS))
                )
            ask(http, "/open/ann", "acme")
            server.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(0.5)
        has_ended_well(server)
        return Aftermath(command, app, route, served, stored(folder))


def test_two_workers_record_every_call_once_and_lose_nothing_at_the_end(
    aftermath: Aftermath,
) -> None:
    assert sum(aftermath.served.values()) == CALLS
    chats = aftermath.tagged("user")
    assert sorted((dict(event.tags) for event in chats), key=lambda t: int(t["user"][1:])) == [
        {"environment": "test", "route": aftermath.route, "tenant": f"t{n % 7}", "user": f"u{n}"}
        for n in range(CALLS)
    ]
    assert all(event.status == "ok" and event.first_in_request for event in chats)
    assert len({event.request_id for event in chats}) == CALLS


def test_calls_outside_of_requests_are_there_once_for_each_process(aftermath: Aftermath) -> None:
    starts, loads = aftermath.tagged("worker"), aftermath.tagged("loader")
    assert len(starts) == len({event.tags["worker"] for event in starts}) == WORKERS
    assert {event.tags["worker"] for event in starts} >= set(aftermath.served)
    assert len(loads) == len({event.tags["loader"] for event in loads})
    by_loading = {FLASK_APP: 1 if "--preload" in aftermath.command else WORKERS, FASTAPI_APP: 0}
    assert len(loads) == by_loading[aftermath.app]
    assert {event.request_id for event in starts + loads} == {None}


def test_processes_on_one_file_agree_on_the_fingerprint_of_a_key(aftermath: Aftermath) -> None:
    fingerprints = {event.api_key_id for event in aftermath.events}
    assert len(fingerprints) == 1
    assert fingerprints != {None}


def test_a_stream_that_is_open_when_the_server_ends_is_recorded_as_incomplete(
    aftermath: Aftermath,
) -> None:
    left = [event for event in aftermath.tagged("tenant") if "user" not in event.tags]
    route = aftermath.route.replace("chat", "open")
    assert [(event.status, dict(event.tags)) for event in left] == [
        ("incomplete", {"environment": "test", "route": route, "tenant": "acme"})
    ]


@pytest.mark.parametrize(
    "server",
    ["gunicorn sync", "gunicorn threads", "gunicorn gevent", "gunicorn gevent, preloaded"],
)
def test_workers_that_are_recycled_reloaded_and_end_in_the_middle_lose_nothing(
    server: str, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")

    result = turmoil.served(server, turmoil.variants()[server], tmp_path, 1.0, seed)

    assert [] == result.violations, result


def test_job_workers_that_fork_record_each_job_once(tmp_path: Path) -> None:
    result = turmoil.worked(tmp_path, jobs=30)

    assert [] == result.violations, result
