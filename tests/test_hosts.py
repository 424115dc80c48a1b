"""The page wherever it is shown: in each framework, below prefixes, and behind nginx."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
import uvicorn
from werkzeug.serving import make_server

from costmw import Meter
from costmw.dashboard.auth import token
from costmw.listening import listen
from hosts import asgi, nginx

ROOT = Path(__file__).parents[1]
SECRET = "0123456789abcdef"
DEADLINE = 60.0

ASGI = {
    # The app, the page's place in it, and what uvicorn is told of the path in front of it.
    "FastAPI, mount": (asgi.fastapi_mount, "/_llmcost", ""),
    "FastAPI, uvicorn --root-path": (asgi.fastapi_mount, "/_llmcost", "/pre"),
    "Starlette, nested mounts": (asgi.starlette_nested, "/admin/_llmcost", ""),
    "Starlette, nested, --root-path": (asgi.starlette_nested, "/admin/_llmcost", "/pre"),
    "plain ASGI": (asgi.plain, "/_llmcost", ""),
    "plain ASGI, --root-path": (asgi.plain, "/_llmcost", "/pre"),
    "Litestar": (asgi.litestar, "/_llmcost", ""),
    "Quart": (asgi.quart_app, "/_llmcost", ""),
    "the page alone, ASGI": (asgi.alone, "", ""),
}
WSGI = {"Flask, dispatcher": "dispatched", "plain WSGI": "plain"}
FLASK = ["gunicorn", "--bind", "fd://{fd}", "--threads", "4", "tests.hosts.wsgi:blueprint"]
DJANGO = [*FLASK[:-1], "tests.hosts.django_project:wsgi"]
UVICORN = ["uvicorn", "--fd", "{fd}", "--lifespan", "off", "tests.hosts.django_project:asgi"]
SERVE = ["costmw.cli", "serve", "--port", "{port}", "--root-path", "/kept/serve"]
COMMANDS = {
    # The command, the page's place, and the path in front of it that stays in requests.
    "Flask, gunicorn --preload": ([*FLASK, "--preload"], "/_llmcost", ""),
    "Flask, SCRIPT_NAME": (FLASK, "/_llmcost", "/kept/flask"),
    "Django, WSGI": (DJANGO, "/_llmcost", ""),
    "Django, WSGI, SCRIPT_NAME": (DJANGO, "/_llmcost", "/kept/django"),
    "Django, ASGI": (UVICORN, "/_llmcost", ""),
    "Django, ASGI, --root-path": ([*UVICORN, "--root-path", "/pre"], "/_llmcost", ""),
    "costmw serve --root-path": (SERVE, "", "/kept/serve"),
}
HOSTS = [*ASGI, *WSGI, *COMMANDS]
KEPT = [name for name, (*_, kept) in COMMANDS.items() if kept]
CUT = [name for name in HOSTS if name not in KEPT or "serve" in name]
"""gunicorn refuses a path without its SCRIPT_NAME."""


@dataclass(frozen=True)
class Host:
    """A server that runs: its address, the page's place, and the path in front that it keeps."""

    address: str
    place: str
    kept: str = ""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    meter = Meter(f"sqlite:///{tmp_path_factory.mktemp('hosts')}/llmcost.db")
    meter.record(provider="openai", model="gpt-5-mini", cost="7")
    yield meter
    meter.close()


@pytest.fixture(scope="module")
def hosts(store: Meter) -> Iterator[dict[str, Host]]:
    """All servers at once; they start and end side by side."""
    with contextlib.ExitStack() as running, contextlib.ExitStack() as told:
        found = {}
        for name, (command, place, kept) in COMMANDS.items():
            address = running.enter_context(process(command, kept, store.store.url, told))
            found[name] = Host(address, place, kept)
        for name, (make, place, root_path) in ASGI.items():
            app = make(store, token(SECRET))
            found[name] = Host(running.enter_context(asgi_server(app, root_path, told)), place)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("COSTMW_STORE", store.store.url)
            environment.setenv("LLMCOST_TOKEN", SECRET)
            from hosts import wsgi

            for name, attribute in WSGI.items():
                app = getattr(wsgi, attribute)
                found[name] = Host(running.enter_context(wsgi_server(app)), "/_llmcost")
        for host in found.values():
            wait_for(host.address)
        yield found


@contextlib.contextmanager
def asgi_server(app: Any, root_path: str, told: contextlib.ExitStack) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, lifespan="off", ws="none", log_level="error", root_path=root_path)
        )
        running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        running.start()
        told.callback(setattr, server, "should_exit", True)
        yield address_of(listener)
        running.join(DEADLINE)


@contextlib.contextmanager
def wsgi_server(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    running.join(DEADLINE)
    server.server_close()


@contextlib.contextmanager
def process(
    command: list[str], kept: str, store_url: str, told: contextlib.ExitStack
) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    address = address_of(listener)
    if "{port}" in command:
        listener.close()  # it takes a port, and no socket
    fd = listener.fileno()
    words = [part.format(fd=fd, port=address.rpartition(":")[2]) for part in command]
    server = subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={
            **os.environ,
            "COSTMW_STORE": store_url,
            "LLMCOST_TOKEN": SECRET,
            "SCRIPT_NAME": kept,  # of gunicorn
            "HOME": str(Path(store_url.removeprefix("sqlite:///")).parent),
        },
        pass_fds=[fd] if fd >= 0 else [],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    listener.close()
    told.callback(server.terminate)
    yield address
    said, _ = server.communicate(timeout=DEADLINE)
    assert "Traceback" not in said, said


def address_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def wait_for(address: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            httpx2.get(f"{address}/nothing", timeout=DEADLINE)
            return
        except httpx2.TransportError:
            assert time.monotonic() < deadline, address
            time.sleep(0.05)


@pytest.fixture(scope="module")
def front(hosts: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx before all of them: it cuts /cut/<n>/ off, and leaves /kept/... in the path."""
    if nginx.NGINX is None:
        assert not os.environ.get("CI"), "these tests need nginx: apt-get install nginx"
        pytest.skip("there is no nginx: apt-get install nginx")
    routes = {f"/cut/{n}/": f"{hosts[name].address}/" for n, name in enumerate(HOSTS)}
    routes |= {f"{host.kept}/": host.address for host in hosts.values() if host.kept}
    with nginx.in_front(tmp_path_factory.mktemp("nginx"), routes) as address:
        yield address


def missing(page: str) -> list[str]:
    """What a browser lacks that is given the page's address without its slash."""
    with httpx2.Client(auth=("me", SECRET), timeout=DEADLINE) as http:
        html = http.get(f"{page}/")
        found = re.findall(r'(?:src|href)="([^"#]+)"', html.text)
        assets = [http.get(urljoin(f"{page}/", asset)) for asset in found]
        status = http.get(f"{page}/api/v1/status")
        overview = http.get(f"{page}/api/v1/overview")
        wrong = http.put(
            f"{page}/api/v1/budgets/cap",
            json={"limit_usd": "much"},
            headers={"Origin": urljoin(page, "/").rstrip("/")},
        )
        bare = http.get(f"{page}?range=7d")
        led_to = urljoin(f"{page}?range=7d", bare.headers.get("location", ""))
        has_path = page.count("/") > 2
        sees = {
            "a closed door": httpx2.get(f"{page}/", timeout=DEADLINE).status_code == 401,
            "page": html.status_code == 200 and "<title>LLM cost</title>" in html.text,
            "assets": len(assets) > 1 and all(asset.status_code == 200 for asset in assets),
            "API": status.is_success and status.json()["scope"] == {},
            "numbers": overview.is_success
            and overview.json()["month"]["sums"]["total_usd"] == "7.00",
            # Its body has arrived, if the problem is in it; `costmw serve` changes nothing.
            "writes": wrong.json().get("field") == "limit_usd"
            or (wrong.status_code == 403 and not status.json()["can_edit"]),
            "slash": not has_path or (bare.is_redirect and led_to == f"{page}/?range=7d"),
        }
    return [what for what, is_there in sees.items() if not is_there]


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_shows_the_page(name: str, hosts: dict[str, Host], table: list[str]) -> None:
    host = hosts[name]
    lacks = missing(host.address + host.kept + host.place)
    table.append(f"{name:32} direct               {'lacks ' + str(lacks) if lacks else 'all'}")
    assert [] == lacks


@pytest.mark.parametrize("name", CUT)
def test_a_host_shows_the_page_behind_nginx_that_cuts_its_prefix_off(
    name: str, hosts: dict[str, Host], front: str, table: list[str]
) -> None:
    host = hosts[name]
    lacks = missing(f"{front}/cut/{HOSTS.index(name)}{host.place}")
    table.append(f"{name:32} nginx, prefix cut    {'lacks ' + str(lacks) if lacks else 'all'}")
    assert [] == lacks


@pytest.mark.parametrize("name", KEPT)
def test_a_host_shows_the_page_behind_nginx_that_leaves_its_prefix(
    name: str, hosts: dict[str, Host], front: str, table: list[str]
) -> None:
    host = hosts[name]
    lacks = missing(front + host.kept + host.place)
    table.append(f"{name:32} nginx, prefix kept   {'lacks ' + str(lacks) if lacks else 'all'}")
    assert [] == lacks
