"""What `docs/hosts.md` shows is run, and does what it says."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import pytest
from werkzeug.test import Client

from conftest import events_of
from costmw import Meter
from costmw.dashboard.auth import Principal
from costmw.dashboard.messages import Request

DOCS = (Path(__file__).parents[1] / "docs" / "hosts.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
SECRET = "0123456789abcdef"
SIGNED_IN = {"Authorization": f"Bearer {SECRET}"}


def block(text: str) -> str:
    """The block that has a text in it, of which there is one."""
    (found,) = [one for one in PYTHON if text in one]
    return str(found)


@pytest.fixture
def run_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs a block in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCOST_TOKEN", SECRET)
    monkeypatch.setenv("COSTMW_ACK_TIMEOUT", "30")
    module = ModuleType("block")  # Litestar reads types by the module's name
    monkeypatch.setitem(sys.modules, "block", module)
    names = vars(module)

    def run_it(text: str) -> dict[str, Any]:
        exec(compile(block(text), "hosts.md", "exec", dont_inherit=True), names)
        return names

    handlers, level = logging.root.handlers[:], logging.root.level
    yield run_it
    logging.root.handlers[:] = handlers  # Litestar puts its own there
    logging.root.setLevel(level)
    if "meter" in names:
        names["meter"].close()


def get(app: Any, path: str, **headers: str) -> httpx2.Response:
    async def go() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as http:
            return await http.get(path, headers=headers)

    return asyncio.run(go())


def get_wsgi(app: Any, path: str, **headers: str) -> Any:
    return Client(app).get(path, headers=headers)


def is_open_to_the_token_alone(ask: Callable[..., Any], app: Any) -> bool:
    statuses = [ask(app, "/_llmcost/", **headers).status_code for headers in ({}, SIGNED_IN)]
    return statuses == [401, 200]


def test_fastapi(run_block: Any) -> None:
    names = run_block("FastAPI()")
    app, meter = names["app"], names["meter"]
    app.get("/call/{n}")(lambda n: str(meter.record(provider="x", model="m", cost="1").id))
    assert is_open_to_the_token_alone(get, app)
    assert 200 == get(app, "/call/7", **{"x-tenant": "acme"}).status_code
    (event,) = events_of(meter)
    assert {"route": "/call/{n}", "tenant": "acme"} == dict(event.tags)


def test_dependencies_do_not_protect_mounted_apps(run_block: Any) -> None:
    """Which is why the page has its own auth: this says so should it ever change."""
    from fastapi import Depends, FastAPI, HTTPException
    from starlette.responses import PlainTextResponse

    def nobody() -> None:
        raise HTTPException(401)

    app = FastAPI(dependencies=[Depends(nobody)])
    app.get("/own")(lambda: "")
    app.mount("/mounted", PlainTextResponse("open"))
    assert [401, 200] == [get(app, path).status_code for path in ("/own", "/mounted/")]


def test_flask(run_block: Any) -> None:
    names = run_block("LLMCost(")
    app, meter = names["app"], names["meter"]
    app.get("/call/<n>")(lambda n: str(meter.record(provider="x", model="m", cost="1").id))
    assert is_open_to_the_token_alone(get_wsgi, app)
    assert 200 == get_wsgi(app, "/call/7", **{"x-tenant": "acme"}).status_code
    (event,) = events_of(meter)
    assert {"route": "/call/<n>", "tenant": "acme"} == dict(event.tags)
    (named,) = re.findall(r'app\.blueprints\["(.*?)"\]', DOCS)
    assert named in app.blueprints


DJANGO = """
import json, os, sys
import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from werkzeug.test import Client

django.setup()
call_command("check", "--fail-level", "WARNING")
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
from costmw.integrations.django import get_meter
from costmw.integrations.django.settings import _KEYS

app = Client(WSGIHandler())
statuses = [app.get(path).status_code for path in ("/_llmcost/", "/_llmcost/api/v1/status")]
root = User.objects.create_superuser("root", password="a long password")
app.post("/in")
statuses += [app.get("/_llmcost/").status_code, app.get("/chat?q=why").status_code]
meter = get_meter()
meter.flush(30)
with meter.store.snapshot() as snapshot:
    ((_, event),) = snapshot.events(scope={}, limit=5)
print(json.dumps([statuses, dict(event.tags), [one.name for one in meter.budgets], list(_KEYS)]))
"""

MORE_SETTINGS = """
SECRET_KEY = "for tests"
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
ALLOWED_HOSTS = ["*"]
"""

MORE_URLS = """
from chat import chat
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def sign_in(request):
    login(request, User.objects.get())
    return HttpResponse()


urlpatterns += [path("chat", chat), path("in", sign_in)]
"""


def test_django(tmp_path: Path, provider: Any) -> None:
    (tmp_path / "settings.py").write_text(block("# settings.py") + MORE_SETTINGS)
    (tmp_path / "urls.py").write_text(block("# urls.py") + MORE_URLS)
    (tmp_path / "chat.py").write_text(block("# chat.py"))
    environment = {
        "DJANGO_SETTINGS_MODULE": "settings",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": provider.openai_url,
        "COSTMW_HOSTS": "127.0.0.1=openai",
        "COSTMW_ACK_TIMEOUT": "30",
    }
    done = subprocess.run(
        [sys.executable, "-c", DJANGO],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stderr
    statuses, tags, budgets, keys = json.loads(done.stdout.splitlines()[-1])
    assert [403, 403, 200, 200] == statuses
    assert {"route": "/chat", "user": "1"} == tags
    assert ["each user"] == budgets
    table = DOCS.split("| `COSTMW[...]` |")[1].split("\n\n")[0]
    assert keys == re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "route"), [("Litestar(", "/tickets/{ticket}"), ("Quart(", "/tickets/<int:ticket>")]
)
def test_asgi_frameworks(text: str, route: str, run_block: Any) -> None:
    names = run_block(text)
    app, meter = names["app"], names["meter"]
    assert is_open_to_the_token_alone(get, app)
    assert 200 == get(app, "/tickets/7").status_code
    assert [route] == [event.tags["route"] for event in events_of(meter)]


def test_a_wsgi_app(run_block: Any) -> None:
    names = run_block("def application")
    app, meter = names["application"], names["meter"]
    assert is_open_to_the_token_alone(get_wsgi, app)
    assert 200 == get_wsgi(app, "/tickets/7").status_code
    assert ["/tickets/{ticket}"] == [event.tags["route"] for event in events_of(meter)]


def test_the_command_takes_what_is_shown(store_url: str, tmp_path: Path) -> None:
    meter = Meter("sqlite:///" + str(tmp_path / "llmcost.db"))
    meter.record(provider="x", model="m", cost="1")
    meter.close()
    (shown,) = re.findall(r"```sh\ncostmw (serve .*?)\n```", DOCS)
    words = shlex.split(shown.replace("--port 4001", "--port 0"))
    assert shown.endswith("--port 4001")
    process = subprocess.Popen(
        [sys.executable, "-m", "costmw.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "LLMCOST_TOKEN": SECRET},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[3].rstrip("/,")
        status = httpx2.get(f"{address}/api/v1/status", headers=SIGNED_IN).status_code
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert (200, 0) == (status, process.returncode)


def test_an_auth_of_one_s_own(run_block: Any) -> None:
    auth = run_block("def auth(request)")["auth"]

    def ask(**user: Any) -> Principal | None:
        given = {"is_admin": False, "tenant": None, **user}
        found: Principal | None = auth(SimpleNamespace(user=SimpleNamespace(**given)))
        return found

    assert Principal(can_edit=True) == ask(is_admin=True)
    assert Principal(scope={"tenant": "acme"}) == ask(tenant="acme")
    assert ask() is None


def test_users_of_a_session(run_block: Any) -> None:
    auth = run_block("import signed_in")["auth"]
    assert Principal(scope={"tenant": "acme"}) == auth(SimpleNamespace(session={"user": "7"}))
    assert auth(SimpleNamespace(session={})) is None


def test_a_proxy_s_word(run_block: Any) -> None:
    auth = run_block("import proxy_headers")["auth"]

    def ask(peer: str, name: str, groups: str) -> Principal | None:
        headers = {"x-auth-request-email": name, "x-auth-request-groups": groups}
        found: Principal | None = auth(Request("GET", "/", headers=headers, peer=peer))
        return found

    assert Principal() == ask("10.0.0.1", "ann@acme.test", "staff,finance")
    assert Principal(can_edit=True) == ask("10.0.0.1", "root@acme.test", "finance")
    assert ask("10.0.0.1", "ann@acme.test", "staff") is None
    assert ask("203.0.113.9", "root@acme.test", "finance") is None


def test_the_table_of_helpers_is_complete() -> None:
    from costmw.dashboard import auth

    table = DOCS.split("| ready-made |")[1].split("\n\n")[0]
    told = set(re.findall(r"^\| `(\w+)\(", table, re.MULTILINE))
    made = {name for name in auth.__all__ if name.islower() and not name.startswith("is_")}
    assert made == told


def test_every_block_is_run_here() -> None:
    assert 11 == len(PYTHON)
    assert 2 == len(re.findall(r"```(?:sh|nginx)\n", DOCS))
