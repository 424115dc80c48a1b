"""`costmw doctor main:app`: what real apps look like from inside of their process."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from openai import OpenAI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from costmw import Config, Meter
from costmw.dashboard import DashboardASGI
from costmw.dashboard.auth import Principal, anonymous, basic, token
from costmw.doctor import Finding, examine
from costmw.doctor.app import lets_everyone_in
from costmw.errors import StoreError
from costmw.integrations import wsgi
from costmw.integrations.flask import LLMCost
from costmw.integrations.starlette import CostMiddleware, dashboard_app
from costmw.testing import FakeProvider
from doctoring import codes, doctor, run_python, the, write_app

HEALTHY_FASTAPI = """
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from openai import OpenAI
    import os

    from costmw import Meter, bind
    from costmw.dashboard.auth import token
    from costmw.integrations.starlette import CostMiddleware, dashboard_app

    meter = Meter(os.environ["STORE"])
    client = meter.instrument(
        OpenAI(base_url=os.environ["PROVIDER"], api_key="k"), provider="openai"
    )
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter)
    app.mount("/_llmcost", dashboard_app(meter, auth=token("0123456789abcdef")))

    @app.get("/chat")
    def chat():
        bind(user="ann")
        client.responses.create(model="gpt-5-mini", input="hello")

    if os.environ.get("TRAFFIC"):
        with TestClient(app) as browser:
            browser.get("/chat")
        meter.close()
"""

HEALTHY_FLASK = """
    import os
    from anthropic import Anthropic
    from flask import Flask

    from costmw import Meter
    from costmw.dashboard.auth import token
    from costmw.integrations.flask import LLMCost

    def create_app():
        meter = Meter(os.environ["STORE"])
        app = Flask(__name__)
        LLMCost(app, meter=meter, tags=lambda _: {"user": "ann"}, auth=token("0123456789abcdef"))
        client = meter.instrument(
            Anthropic(base_url=os.environ["PROVIDER"], api_key="k"), provider="anthropic"
        )

        @app.get("/chat")
        def chat():
            hello = [{"role": "user", "content": "hello"}]
            client.messages.create(model="claude-haiku-4-5", max_tokens=9, messages=hello)
            return "done"

        if os.environ.get("TRAFFIC"):
            app.test_client().get("/chat")
            meter.close()
        return app
"""


@pytest.mark.parametrize(
    ("source", "target", "url"),
    [
        (HEALTHY_FASTAPI, "main:app", "openai_url"),
        (HEALTHY_FLASK, "main:create_app()", "anthropic_url"),
    ],
    ids=["fastapi", "flask"],
)
def test_an_app_that_is_set_up_as_the_readme_says_has_nothing_above_info(
    tmp_path: Path, provider: FakeProvider, source: str, target: str, url: str
) -> None:
    write_app(tmp_path, source)
    store = f"sqlite:///{tmp_path}/llmcost.db"
    findings = doctor(tmp_path, target, STORE=store, PROVIDER=getattr(provider, url), TRAFFIC="1")
    assert codes(findings, above_info=True) == set()
    assert codes(findings) <= {"sqlite-old"}
    assert len(provider.requests) == 1


# Clients, each app in a process of its own.

MANY_CLIENTS = """
    import httpx2, requests, aiohttp, boto3
    import anthropic, cohere, groq, mistralai.client, ollama, openai
    from google import genai
    from google.genai.types import HttpOptions
    from fastapi import FastAPI
    from costmw import Meter
    from costmw.integrations.starlette import CostMiddleware

    meter = Meter("sqlite:////var/lib/none/llmcost.db")

    class Service:
        def __init__(self, client):
            self.client = client

    alone = openai.AsyncOpenAI(api_key="secret-key")
    copy = alone.with_options(timeout=3)
    service = Service(anthropic.Anthropic(api_key="k"))
    vars(service)["a dictionary"] = "that Python makes only when it is asked for"
    clients = {"mistral": mistralai.client.Mistral(api_key="k")}
    co = cohere.ClientV2(api_key="k")
    gr = groq.Groq(api_key="k")
    bedrock = boto3.client("bedrock-runtime", region_name="us-east-1")
    s3 = boto3.client("s3", region_name="us-east-1")
    azure = openai.AzureOpenAI(
        azure_endpoint="https://me.openai.azure.com", api_key="k", api_version="2025-01-01"
    )
    _hooked = httpx2.Client(event_hooks=meter.event_hooks())

    followed = meter.instrument(openai.OpenAI(api_key="k"))
    hooked = anthropic.Anthropic(api_key="k", http_client=_hooked)
    half = mistralai.client.Mistral(api_key="k")
    meter.instrument(half.sdk_configuration.client, api="mistral")

    both = meter.instrument(genai.Client(api_key="k"))
    by_aiohttp = genai.Client(
        api_key="k",
        http_options=HttpOptions(httpx_client=httpx2.Client(event_hooks=meter.event_hooks())),
    )
    by_httpx = genai.Client(
        api_key="k",
        http_options=HttpOptions(
            httpx_client=httpx2.Client(event_hooks=meter.event_hooks()),
            httpx_async_client=httpx2.AsyncClient(event_hooks=meter.event_hooks()),
        ),
    )

    import gc
    gc.disable()
    dropped = openai.OpenAI(api_key="k")
    dropped.me = dropped
    del dropped
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter)
"""


LOOK_TWICE = """
    import json
    from dataclasses import asdict

    from costmw.doctor import examine
    from main import app, meter

    looks = [examine(meter, app)]
    meter.instrument_all()
    looks.append(examine(meter, app))
    print(json.dumps([[asdict(one) for one in look] for look in looks]))
"""


@pytest.fixture(scope="module")
def many_clients(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Finding], ...]:
    """What is found among many clients, and when one line follows them all, in one process."""
    folder = tmp_path_factory.mktemp("many")
    write_app(folder, MANY_CLIENTS)
    write_app(folder, LOOK_TWICE, "look_twice")
    done = run_python(folder, "look_twice.py")
    assert done.returncode == 0, done.stderr
    return tuple([Finding(**one) for one in look] for look in json.loads(done.stdout))


def test_every_client_that_no_meter_follows_is_found_by_its_name(
    many_clients: tuple[list[Finding], ...],
) -> None:
    findings, _ = many_clients
    lost = [one for one in findings if one.code == "client-not-instrumented"]
    assert {one.problem.partition(" is followed")[0] for one in lost} == {
        "openai.AsyncOpenAI at main.alone",
        "anthropic.Anthropic inside of main.service",
        "mistralai.Mistral inside of main.clients",
        "mistralai.Mistral at main.half",
        "cohere.ClientV2 at main.co",
        "groq.Groq at main.gr",
        "boto3 client of bedrock-runtime at main.bedrock",
        "openai.AzureOpenAI at main.azure",
    }
    assert {one.level for one in lost} == {"error"}
    (named,) = [one for one in lost if "main.alone" in one.problem]
    assert named.mend.startswith("meter.instrument(alone)")
    (half,) = [one for one in lost if "main.half" in one.problem]
    assert "other half" in half.problem

    aiohttp = the(findings, "aiohttp-under-google-genai")
    assert aiohttp.level == "error"
    assert "google.genai.Client at main.by_aiohttp" in aiohttp.problem
    assert "meter.instrument(by_aiohttp)" in aiohttp.mend

    own = the(findings, "client-of-the-sdk")
    assert (own.level, "ollama._client" in own.problem) == ("info", True)
    libraries = [one for one in findings if one.code == "library-not-followed"]
    assert [one.problem.partition(",")[0] for one in libraries] == [
        "main imports requests",
        "main imports aiohttp",
    ]
    assert "secret-key" not in repr(findings)


def test_one_line_follows_every_client_there_is(
    many_clients: tuple[list[Finding], ...],
) -> None:
    _, findings = many_clients
    assert (
        codes(findings)
        & {
            "client-not-instrumented",
            "aiohttp-under-google-genai",
            "client-of-the-sdk",
            "library-not-followed",
        }
        == set()
    )


def test_boto3_without_a_client_of_bedrock_is_good_to_know(tmp_path: Path) -> None:
    write_app(
        tmp_path,
        """
        import boto3, requests
        from costmw import Meter
        meter = Meter("sqlite:////var/lib/none/llmcost.db")
        session = meter.instrument(requests.Session())
        def app(environ, start_response): ...
        """,
    )
    findings = doctor(tmp_path, "main:app")
    assert the(findings, "no-clients").level == "info"
    finding = the(findings, "library-not-followed")
    assert finding.level == "info"
    assert finding.problem.startswith("main imports boto3")


TWO_METERS = """
    import openai, httpx2
    from flask import Flask
    from costmw import Config, Meter, PriceOverride
    from costmw.integrations.flask import LLMCost

    first = Meter("sqlite:////var/lib/none/first.db")
    second = Meter("sqlite:////var/lib/none/second.db")
    client = first.instrument(openai.OpenAI(api_key="k"))
    same = second.instrument(openai.OpenAI(api_key="k"))
    second.instrument_all()
    gateway = openai.OpenAI(api_key="k", base_url="http://ann:secret@llm.internal:8080/v1")
    unpriced = first.instrument(openai.OpenAI(api_key="k", base_url="http://other.internal/v1"))
    hooks = httpx2.Client(event_hooks=first.event_hooks(), base_url="http://third.internal")
    hooked = openai.OpenAI(api_key="k", http_client=hooks, base_url="http://third.internal")
    proxied = second.instrument(
        openai.OpenAI(api_key="k", base_url="http://127.0.0.1:4000/openai/v1"), provider="openai"
    )
    by_proxy = openai.OpenAI(api_key="k", base_url="http://127.0.0.1:4000/groq/v1")
    app = Flask(__name__)
    LLMCost(app, meter=first)
"""


def test_two_meters_and_hosts_that_nobody_knows_are_found(tmp_path: Path) -> None:
    write_app(tmp_path, TWO_METERS)
    findings = doctor(tmp_path, "main:app")
    twice = the(findings, "instrumented-twice")
    assert twice.level == "warning"
    assert "openai.OpenAI at main.client" in twice.problem
    assert "one row, of the client's own meter (sqlite:////var/lib/none/first.db)" in twice.problem

    hosts = {
        one.problem.partition(" sends to ")[0]: one
        for one in findings
        if one.code == "host-unknown"
    }
    assert {name: one.level for name, one in hosts.items()} == {
        "openai.OpenAI at main.gateway": "error",
        "openai.OpenAI at main.hooked": "error",
        "openai.OpenAI at main.unpriced": "warning",
    }
    gateway = hosts["openai.OpenAI at main.gateway"]
    assert gateway.mend.startswith("COSTMW_HOSTS=llm.internal:8080=PROVIDER")
    assert "secret" not in repr(findings)

    other = the(findings, "page-of-other-store")
    assert other.level == "warning"
    assert "recorded to sqlite:////var/lib/none/second.db, which no page shows" in other.problem
    proxied = [one for one in findings if one.code == "through-a-proxy"]
    assert {(one.level, one.problem.partition(",")[0]) for one in proxied} == {
        ("info", "openai.OpenAI at main.proxied sends to 127.0.0.1:4000/openai"),
        ("info", "openai.OpenAI at main.by_proxy is followed by no meter here"),
    }
    assert "client-not-instrumented" not in codes(findings)


def test_a_host_in_the_settings_is_known(tmp_path: Path) -> None:
    write_app(tmp_path, TWO_METERS)
    hosts = "llm.internal:8080=openai,other.internal=openai,third.internal=openai"
    assert "host-unknown" not in codes(doctor(tmp_path, "main:app", COSTMW_HOSTS=hosts))


def test_an_app_without_a_meter_is_a_warning(tmp_path: Path) -> None:
    write_app(tmp_path, "from fastapi import FastAPI\napp = FastAPI()\n")
    findings = doctor(tmp_path, "main:app")
    assert the(findings, "no-meter").level == "warning"
    assert codes(findings) == {"no-meter"}


def test_metering_that_is_switched_off_is_a_warning_and_nothing_else(tmp_path: Path) -> None:
    write_app(
        tmp_path,
        """
        import openai
        from costmw import Meter
        meter = Meter("sqlite:////var/lib/none/llmcost.db")
        client = openai.OpenAI(api_key="k")
        def app(environ, start_response): ...
        """,
    )
    assert {"client-not-instrumented", "context-not-bound"} <= codes(doctor(tmp_path, "main:app"))
    findings = doctor(tmp_path, "main:app", COSTMW_ENABLED="0")
    assert the(findings, "metering-off").level == "warning"
    assert codes(findings) & {"client-not-instrumented", "context-not-bound"} == set()


# The middleware, in this process: apps are known by their meter.


def look(meter: Meter, app: object, **environ: str) -> list[Finding]:
    return examine(meter, app, environ=environ)


def a_page(_: Any) -> PlainTextResponse:
    return PlainTextResponse("done")


def bound_fastapi(meter: Meter) -> Any:
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter)
    return app


def bound_starlette(meter: Meter) -> Any:
    return Starlette(routes=[Route("/", a_page)], middleware=[Middleware(CostMiddleware, meter)])


def wrapped_asgi(meter: Meter) -> Any:
    return CostMiddleware(Starlette(routes=[Route("/", a_page)]), meter)


def bound_mount(meter: Meter) -> Any:
    return Starlette(routes=[Mount("/api", bound_fastapi(meter))])


def bound_flask(meter: Meter) -> Any:
    app = Flask("bound")
    LLMCost(app, meter=meter)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    return app


def wrapped_wsgi(meter: Meter) -> Any:
    return wsgi.CostMiddleware(lambda environ, start: [], meter)


def behind_a_closure(meter: Meter) -> Any:
    inner = wrapped_wsgi(meter)

    def outer(environ: Any, start: Any) -> Any:
        return inner(environ, start)

    return outer


def dispatched(meter: Meter) -> Any:
    return ProxyFix(DispatcherMiddleware(bound_flask(meter), {"/x": Flask("other")}))


@pytest.mark.parametrize(
    "make",
    [
        bound_fastapi,
        bound_starlette,
        wrapped_asgi,
        bound_mount,
        bound_flask,
        wrapped_wsgi,
        behind_a_closure,
        dispatched,
    ],
)
def test_the_middleware_is_found_wherever_it_is(meter: Meter, make: Callable[[Meter], Any]) -> None:
    assert codes(look(meter, make(meter))) & {"context-not-bound", "middleware-twice"} == set()


@pytest.mark.parametrize(
    "app",
    [
        FastAPI(),
        Starlette(routes=[Mount("/api", FastAPI())]),
        Flask("bare"),
        ProxyFix(Flask("bare")),
        lambda environ, start: [],
    ],
)
def test_an_app_without_the_middleware_is_an_error(meter: Meter, app: Any) -> None:
    finding = the(look(meter, app), "context-not-bound")
    assert finding.level == "error"
    assert "app.add_middleware(CostMiddleware, meter=meter)" in finding.mend


def test_a_middleware_around_a_part_of_the_app_is_a_warning(meter: Meter) -> None:
    app = FastAPI()
    app.mount("/api", bound_fastapi(meter))
    assert "context-not-bound" not in codes(look(meter, app))
    app.add_route("/chat", a_page)
    finding = the(look(meter, app), "context-not-bound")
    assert finding.level == "warning"
    assert "mounted apps only" in finding.problem


def test_a_middleware_in_one_of_the_apps_of_a_dispatcher_is_a_warning(meter: Meter) -> None:
    app = DispatcherMiddleware(Flask("bare"), {"/api": bound_flask(meter)})
    assert the(look(meter, app), "context-not-bound").level == "warning"


def twice_declared(meter: Meter) -> Any:
    app = bound_fastapi(meter)
    app.add_middleware(CostMiddleware, meter=meter)
    return app


def twice_by_a_mount(meter: Meter) -> Any:
    app = bound_fastapi(meter)
    app.mount("/api", bound_fastapi(meter))
    return app


def twice_flask(meter: Meter) -> Any:
    return wsgi.CostMiddleware(bound_flask(meter), meter)


@pytest.mark.parametrize("make", [twice_declared, twice_by_a_mount, twice_flask])
def test_two_middlewares_around_one_request_are_a_warning(
    meter: Meter, make: Callable[[Meter], Any]
) -> None:
    assert the(look(meter, make(meter)), "middleware-twice").level == "warning"


def test_two_mounts_with_a_middleware_each_are_well(meter: Meter) -> None:
    app = Starlette(routes=[Mount("/a", bound_fastapi(meter)), Mount("/b", bound_fastapi(meter))])
    assert codes(look(meter, app)) & {"context-not-bound", "middleware-twice"} == set()


def test_an_app_whose_attributes_raise_is_only_an_app(meter: Meter) -> None:
    class Odd:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("not here")

        def __call__(self) -> None: ...

    findings = look(meter, Odd())
    assert "context-not-bound" in codes(findings)
    assert [] == [found for found in findings if found.code == "check-failed"]


# The page.


def test_a_page_that_is_open_to_the_world_is_an_error(meter: Meter) -> None:
    app = bound_fastapi(meter)
    app.mount("/_llmcost", dashboard_app(meter, auth=anonymous()))
    finding = the(look(meter, app), "page-open")
    assert finding.level == "error"
    assert "token(os.environ" in finding.mend


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({"UVICORN_HOST": "127.0.0.1"}, "warning"),
        ({"UVICORN_HOST": "0.0.0.0"}, "error"),
        ({"FLASK_RUN_HOST": "localhost"}, "warning"),
        ({"GUNICORN_CMD_ARGS": "-w 4 --bind=127.0.0.1:80"}, "warning"),
        ({"GUNICORN_CMD_ARGS": "-b 0.0.0.0:80"}, "error"),
    ],
)
def test_a_page_that_is_open_on_this_machine_is_a_warning(
    meter: Meter, environ: dict[str, str], level: str
) -> None:
    app = Flask("open")
    LLMCost(app, meter=meter, auth=lambda request: True)
    assert the(look(meter, app, **environ), "page-open").level == level


def test_a_page_without_auth_is_good_to_know(meter: Meter) -> None:
    app = bound_flask(meter)
    assert the(look(meter, app), "page-closed").level == "info"


def test_a_page_that_asks_is_well(meter: Meter) -> None:
    app = bound_fastapi(meter)
    app.mount("/_llmcost", DashboardASGI(meter, token("0123456789abcdef")))
    assert codes(look(meter, app)) & {"page-open", "page-closed"} == set()


def test_the_page_of_another_meter_is_not_looked_at(make_meter: Callable[..., Meter]) -> None:
    asked, other = make_meter(), make_meter()
    app = bound_fastapi(asked)
    app.mount("/_llmcost", dashboard_app(other, auth=anonymous()))
    assert "page-open" not in codes(look(asked, app))
    assert "page-open" in codes(look(other, app))


SECRET = "x"


def known(request: Any) -> Any:
    return request is SECRET


async def later(request: Any) -> bool:
    return True


def raising(request: Any) -> bool:
    raise RuntimeError


@pytest.mark.parametrize(
    ("auth", "is_open"),
    [
        (lambda request: True, True),
        (lambda request: Principal(), True),
        (lambda request: Principal(can_edit=True), True),
        (lambda request: None, False),
        (lambda request: False, False),
        (lambda request: request.user.is_admin, False),
        (lambda request: bool(SECRET), False),
        (lambda request: not request, False),
        (known, False),
        (later, False),
        (raising, False),
        (partial(known), False),
        (token("0123456789abcdef"), False),
        (basic("ann", "password"), False),
        (anonymous(), True),
    ],
)
def test_an_auth_that_looks_at_nothing_lets_everyone_in(auth: Any, is_open: bool) -> None:
    assert lets_everyone_in(auth) == is_open


def test_no_auth_is_asked_that_might_do_something(meter: Meter) -> None:
    asked = []
    app = bound_fastapi(meter)
    app.mount("/_llmcost", dashboard_app(meter, auth=lambda request: asked.append(1) or True))
    look(meter, app)
    assert asked == []


# How recording goes in a process.


def test_what_went_wrong_in_the_process_is_told(meter: Meter) -> None:
    meter.fault(RuntimeError("odd"), "a response")
    finding = the(examine(meter, environ={}), "faults")
    assert (finding.level, "a response: RuntimeError: odd" in finding.problem) == ("warning", True)


def test_calls_that_went_on_without_their_row_are_told(
    make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = make_meter(config=Config(ack_timeout=0.05, queue_size=2))
    held = threading.Event()

    def failing(records: Any) -> None:
        held.wait(30)
        raise StoreError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(meter.store, "write", failing)
        for _ in range(40):
            meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
        findings = examine(meter, environ={})
        held.set()
    assert the(findings, "store-slow").level == "warning"
    lost = the(findings, "calls-lost")
    assert lost.level == "error"
    assert "since the queue was full" in lost.problem


def test_a_global_that_stands_for_something_else_is_not_asked(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lazy:
        @property
        def __class__(self) -> Any:
            raise RuntimeError("not set up")

    module = ModuleType("settings_of_another")
    module.storage = Lazy()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    client = OpenAI(api_key="x", base_url="https://api.openai.com/v1")
    findings = look(meter, Starlette())
    assert [] == [found for found in findings if found.code == "check-failed"]
    client.close()
