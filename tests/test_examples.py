"""The examples, run as their first lines say, by servers with two workers; and the demo."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from conftest import events_of
from costmw import Meter

ROOT = Path(__file__).parents[1]
TOKEN = "0123456789abcdef"
KEYS = {"key-ann": ("ann", "acme"), "key-cho": ("cho", "globex"), "key-dee": ("dee", "initech")}
CALLS = {
    "/chat": ("chat", "gpt-5-mini"),
    "/tickets/7/summary": ("summary", "claude-haiku-4-5"),
    "/search": ("search", "text-embedding-3-small"),
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(command: list[str], folder: Path, env: dict[str, str], port: int) -> Iterator[str]:
    """Run a server until the block ends; it has to end by itself when asked."""
    address = f"http://127.0.0.1:{port}"
    keep = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**keep, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            assert server.poll() is None, server.communicate()[0]
            try:
                httpx.get(f"{address}/nothing")
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=30)
    assert "Traceback" not in output, output


@pytest.mark.parametrize(
    ("example", "command", "route"),
    [
        ("fastapi_app", "uvicorn app:app --workers 2 --port {}", "/tickets/{ticket_id}/summary"),
        (
            "flask_app",
            "gunicorn app:app --workers 2 --threads 8 --bind 127.0.0.1:{}",
            "/tickets/<int:ticket_id>/summary",
        ),
        (
            "django_app",
            "gunicorn help_desk.wsgi --workers 2 --threads 8 --bind 127.0.0.1:{}",
            "/tickets/<int:ticket_id>/summary",
        ),
    ],
)
def test_an_example_records_every_call_with_who_asked(
    example: str, command: str, route: str, store_url: str
) -> None:
    port = free_port()
    env = {"COSTMW_STORE": store_url, "LLMCOST_TOKEN": TOKEN, "APP_ENV": "test"}
    folder = ROOT / "examples" / example

    with serving(command.format(port).split(), folder, env, port) as address:

        def ask(key: str, path: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key}"}
            return httpx.post(address + path, json={"text": "Why?"}, headers=headers, timeout=30)

        asked = [(key, path) for key in KEYS for path in CALLS] * 4
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda pair: ask(*pair), asked))
        assert [answer.status_code for answer in answers] == [200] * 36
        assert all(answer.content for answer in answers)
        assert ask("key-nobody", "/chat").status_code == 401
        assert httpx.get(f"{address}/_llmcost/").status_code == 401
        page = httpx.get(f"{address}/_llmcost/", auth=("me", TOKEN), follow_redirects=True)
        assert page.status_code == 200

    meter = Meter(store_url)
    events = events_of(meter)
    expected = sorted(
        (KEYS[key], CALLS[path][0], CALLS[path][1], route if "tickets" in path else path)
        for key, path in asked
    )
    assert expected == sorted(
        (
            (e.tags["user"], e.tags["tenant"]),
            e.tags["feature"],
            str(e.request_model),
            e.tags["route"],
        )
        for e in events
    )
    assert {e.status for e in events} == {"ok"}
    assert all(e.price.cost_pico_usd for e in events)
    assert {e.tags["environment"] for e in events} == {"test"}
    assert all(e.first_in_request for e in events)


def test_the_demo_serves_a_page_that_grows_and_stops_by_itself(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/demo.db"
    demo = subprocess.Popen(
        [sys.executable, "-m", "costmw.cli", "demo", "--seconds", "8", "--store", store],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    lines: list[str] = []
    for line in demo.stdout:
        lines.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/_llmcost/", line):
            break
    else:
        pytest.fail("".join(lines))
    address = found[0]
    assert httpx.get(address).status_code == 200

    def spent() -> str:
        return str(httpx.get(f"{address}api/v1/overview").json()["month"]["sums"]["total_usd"])

    before, deadline = spent(), time.monotonic() + 7
    while spent() == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 0, output
    assert "Traceback" not in output

    events = events_of(Meter(store))
    made_up = [event for event in events if event.tags.get("made_up") == "history"]
    assert 1000 < len(made_up) < len(events)
    assert sorted(path.name for path in tmp_path.iterdir() if "demo.db" not in path.name) == []
