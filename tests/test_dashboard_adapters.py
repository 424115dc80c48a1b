"""The same dashboard under ASGI and WSGI: mounted, behind prefixes, and alone."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.routing import Mount, Route

from costmw import Meter
from costmw.dashboard import DashboardASGI, DashboardWSGI, Principal, token
from costmw.dashboard.asgi import AT_ONCE
from costmw.dashboard.core import Dashboard
from costmw.dashboard.messages import Request, Response
from costmw.errors import ConfigError

SECRET = "0123456789abcdef"
SIGNED_IN = {"Authorization": f"Bearer {SECRET}"}
OPEN = Principal()


def let_in(_: object) -> Principal:
    return OPEN


def fetch(app: Any, path: str, *, method: str = "GET", root_path: str = "", **headers: str) -> Any:
    """One request to an ASGI app, redirects not followed."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return await client.request(method, path, headers=headers)

    return anyio.run(go)


def call(app: Any, path: str, script: str = "", method: str = "GET", **headers: str) -> Any:
    """One request to a WSGI app, checked by wsgiref's validator."""
    environ: dict[str, Any] = {
        "PATH_INFO": path.partition("?")[0].encode().decode("latin-1"),
        "QUERY_STRING": path.partition("?")[2],
        "SCRIPT_NAME": script.encode().decode("latin-1"),
        "REQUEST_METHOD": method,
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO()
    answer: dict[str, Any] = {}

    def start_response(status: str, given: list[tuple[str, str]], _: Any = None) -> Any:
        answer.update(status=status, headers=httpx.Headers(given))
        return lambda data: None

    body = validator(app)(environ, start_response)
    answer["body"] = b"".join(body)
    body.close()  # type: ignore[attr-defined]
    return httpx.Response(
        int(answer["status"].split()[0]), headers=answer["headers"], content=answer["body"]
    )


def mounted(app: DashboardASGI) -> Starlette:
    return Starlette(routes=[Mount("/_llmcost", app=app)])


def test_closed_by_default(meter: Meter) -> None:
    for path in ("/", "/api/v1/overview", "/api/v1/calls", "/api/v1/status", "/static/x/main.js"):
        assert fetch(DashboardASGI(meter), path).status_code == 403
        assert call(DashboardWSGI(meter), path).status_code == 403
        assert fetch(DashboardASGI(meter), path, **{"X-Forwarded-For": "127.0.0.1"}).is_error


def test_a_token_opens_it(meter: Meter) -> None:
    asgi, wsgi = DashboardASGI(meter, token(SECRET)), DashboardWSGI(meter, token(SECRET))
    for path in ("/", "/api/v1/overview"):
        assert fetch(asgi, path).status_code == call(wsgi, path).status_code == 401
        assert fetch(asgi, path).headers["WWW-Authenticate"].startswith("Basic")
        assert fetch(asgi, path, **SIGNED_IN).status_code == 200
        assert call(wsgi, path, **SIGNED_IN).status_code == 200


def test_the_host_s_dependencies_and_cors_do_not_open_it(meter: Meter) -> None:
    app = FastAPI()
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_headers=["*"]
    )
    app.mount("/_llmcost", DashboardASGI(meter, token(SECRET)))
    evil = {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site", **SIGNED_IN}
    assert fetch(app, "/_llmcost/api/v1/overview", **evil).status_code == 403
    del evil["Sec-Fetch-Site"]
    assert fetch(app, "/_llmcost/api/v1/overview", **evil).status_code == 403
    assert fetch(app, "/_llmcost/api/v1/overview", **SIGNED_IN).status_code == 200


def test_answers_that_take_long_leave_the_host_its_threads(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event loop looks up names in its threads: without them no provider can be reached."""
    go_on = threading.Event()
    monkeypatch.setattr(Dashboard, "handle", lambda *_: go_on.wait(10) and Response(204))
    page = DashboardASGI(meter, token(SECRET))

    async def look() -> int:
        transport = httpx.ASGITransport(app=page)
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return (await client.get("/", headers=SIGNED_IN)).status_code

    async def go() -> tuple[str, list[int]]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        looks = [asyncio.create_task(look()) for _ in range(AT_ONCE + 2)]
        await asyncio.sleep(0.05)
        try:
            done = await asyncio.wait_for(asyncio.to_thread(lambda: "the host's work"), 2)
        finally:
            go_on.set()
        return done, await asyncio.gather(*looks)

    assert ("the host's work", [204] * (AT_ONCE + 2)) == asyncio.run(go())


PAGES = ("/", "/api/v1/overview", "/api/v1/status")


@pytest.mark.parametrize("path", PAGES)
def test_it_answers_wherever_it_is_mounted(meter: Meter, path: str) -> None:
    page = DashboardASGI(meter, let_in)
    fast = FastAPI()
    fast.mount("/_llmcost", page)
    nested = Starlette(routes=[Mount("/admin", app=mounted(page))])
    wanted = fetch(page, path).json() if path != "/" else None
    for app, prefix, root_path in (
        (page, "", ""),
        (mounted(page), "/_llmcost", ""),
        (fast, "/_llmcost", ""),
        (nested, "/admin/_llmcost", ""),
        # `uvicorn --root-path /pre`: the prefix is in both path and root path.
        (mounted(page), "/pre/_llmcost", "/pre"),
        (nested, "/pre/admin/_llmcost", "/pre"),
        # A proxy cut the prefix off, and the server was told of it.
        (mounted(page), "/_llmcost", "/pre"),
        (fast, "/_llmcost", "/pre"),
        (page, "/pre", "/pre"),
        (page, "/pre", "/pre/"),
    ):
        response = fetch(app, prefix + path, root_path=root_path)
        assert response.status_code == 200, (prefix, root_path)
        if wanted is None:
            assert "<title>LLM cost</title>" in response.text
        else:
            assert response.json().keys() == wanted.keys()


@pytest.mark.parametrize("path", PAGES)
def test_it_answers_under_any_script_name(meter: Meter, path: str) -> None:
    page = DashboardWSGI(meter, let_in)
    for script in ("", "/_llmcost", "/pre/_llmcost", "/kösten"):
        response = call(page, path, script)
        assert response.status_code == 200
        assert response.headers["Content-Length"] == str(len(response.content))


def test_the_redirect_to_the_slash_is_relative(meter: Meter) -> None:
    asgi, wsgi = DashboardASGI(meter, let_in), DashboardWSGI(meter, let_in)

    async def without_slash(scope: Any, receive: Any, send: Any) -> None:
        inside = {**scope, "root_path": scope.get("root_path", "") + "/_llmcost"}
        await asgi(inside, receive, send)

    for response in (
        fetch(without_slash, "/_llmcost"),
        fetch(without_slash, "/pre/_llmcost", root_path="/pre"),
        call(wsgi, "", "/_llmcost"),
        call(wsgi, "", "/pre/_llmcost"),
    ):
        assert (response.status_code, response.headers["Location"]) == (307, "_llmcost/")
    assert call(wsgi, "", "/kösten").headers["Location"] == "k%C3%B6sten/"


def test_a_mount_beside_its_route_catches_the_slash_before_the_host_redirects(
    meter: Meter,
) -> None:
    """Starlette's own redirect is absolute and loses the prefix of a proxy."""
    asgi = DashboardASGI(meter, let_in)

    class Bare:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await asgi({**scope, "root_path": scope["path"]}, receive, send)

    app = Starlette(routes=[Route("/_llmcost", Bare()), Mount("/_llmcost", app=asgi)])
    assert fetch(app, "/_llmcost").headers["Location"] == "_llmcost/"
    assert fetch(app, "/_llmcost/").status_code == 200


def test_head_has_the_headers_of_get_and_no_body(meter: Meter) -> None:
    asgi, wsgi = DashboardASGI(meter, let_in), DashboardWSGI(meter, let_in)
    for path in ("/", "/api/v1/status", "/nothing"):
        for got, head in (
            (fetch(asgi, path), fetch(asgi, path, method="HEAD")),
            (call(wsgi, path), call(wsgi, path, method="HEAD")),
        ):
            assert head.content == b""
            assert head.headers["Content-Length"] == got.headers["Content-Length"] != "0"


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_other_methods_are_405(meter: Meter, method: str) -> None:
    for response in (
        fetch(DashboardASGI(meter, let_in), "/", method=method),
        call(DashboardWSGI(meter, let_in), "/", method=method),
    ):
        assert (response.status_code, response.headers["Allow"]) == (405, "GET, HEAD")


def test_nothing_new_is_304(meter: Meter) -> None:
    meter.record(provider="openai", model="m", cost="1")
    asgi, wsgi = DashboardASGI(meter, let_in), DashboardWSGI(meter, let_in)
    path = "/api/v1/overview"
    for _ in range(2):  # an answer holds for its minute, which may turn just now
        etag = {"If-None-Match": fetch(asgi, path).headers["ETag"]}
        responses = fetch(asgi, path, **etag), call(wsgi, path, **etag)
        if {response.status_code for response in responses} == {304}:
            break
    for response in responses:
        assert (response.status_code, response.content) == (304, b"")
        assert "Content-Length" not in response.headers


def test_the_scope_of_whoever_asks_reaches_the_answers(meter: Meter) -> None:
    for tenant, cost in (("acme", "1"), ("globex", "20")):
        meter.record(provider="openai", model="m", cost=cost, tags={"tenant": tenant})

    def auth(request: Any) -> Principal | None:
        tenant = request.headers.get("x-tenant")
        return Principal(scope={"tenant": tenant}) if tenant else None

    for tenant, total in (("acme", "1.00"), ("globex", "20.00"), ("nobody", "0.00")):
        for response in (
            fetch(DashboardASGI(meter, auth), "/api/v1/overview", **{"X-Tenant": tenant}),
            call(DashboardWSGI(meter, auth), "/api/v1/overview", **{"X-Tenant": tenant}),
        ):
            assert response.json()["month"]["sums"]["total_usd"] == total
    assert fetch(DashboardASGI(meter, auth), "/api/v1/overview").status_code == 403


def test_auth_gets_the_host_s_own_request(meter: Meter) -> None:
    seen: list[object] = []

    async def auth(request: object) -> bool:
        seen.append(request)
        return True

    app = mounted(DashboardASGI(meter, auth, request_for_auth=StarletteRequest))
    assert fetch(app, "/_llmcost/").status_code == 200
    assert isinstance(seen[0], StarletteRequest)
    assert seen[0].url.path == "/_llmcost/"


def test_auth_gets_a_plain_request_when_there_is_no_framework(meter: Meter) -> None:
    seen: list[Request] = []

    def auth(request: Request) -> bool:
        seen.append(request)
        return True

    fetch(mounted(DashboardASGI(meter, auth)), "/_llmcost/x?a=1", **{"X-One": "1"})
    call(DashboardWSGI(meter, auth), "/x?a=1", "/_llmcost", **{"X-One": "1"})
    for request in seen:
        assert (request.method, request.path, request.query) == ("GET", "/x", "a=1")
        assert (request.root, request.headers["x-one"]) == ("/_llmcost", "1")
    assert len(seen) == 2


def test_an_error_in_auth_is_500_and_tells_the_outside_nothing(meter: Meter) -> None:
    def auth(_: object) -> bool:
        raise RuntimeError("password of the database")

    for response in (
        fetch(DashboardASGI(meter, auth), "/api/v1/overview"),
        call(DashboardWSGI(meter, auth), "/"),
    ):
        assert response.status_code == 500
        assert "password of the database" not in response.text


def test_an_async_auth_under_wsgi_is_refused_when_the_app_is_made(meter: Meter) -> None:
    async def auth(_: object) -> bool:
        return True

    with pytest.raises(ConfigError, match="ASGI only"):
        DashboardWSGI(meter, auth)


def test_a_blocking_auth_and_the_store_do_not_hold_up_the_event_loop(meter: Meter) -> None:
    import threading

    threads: set[str] = set()

    def auth(_: object) -> bool:
        threads.add(threading.current_thread().name)
        return True

    fetch(DashboardASGI(meter, auth), "/api/v1/overview")
    assert threading.main_thread().name not in threads


def run_alone(app: Any, scope: dict[str, Any], received: list[dict[str, Any]]) -> list[Any]:
    sent: list[Any] = []

    async def go() -> None:
        async def receive() -> dict[str, Any]:
            return received.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    anyio.run(go)
    return sent


def test_it_starts_and_stops_when_run_alone(meter: Meter) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = run_alone(DashboardASGI(meter), {"type": "lifespan"}, messages)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_a_websocket_is_closed(meter: Meter) -> None:
    sent = run_alone(DashboardASGI(meter, let_in), {"type": "websocket", "path": "/"}, [])
    assert sent == [{"type": "websocket.close", "code": 1000}]


def test_making_one_touches_nothing(make_meter: Callable[..., Meter], tmp_path: Any) -> None:
    DashboardASGI(make_meter(), let_in)
    DashboardWSGI(make_meter(), let_in)
    assert list(tmp_path.iterdir()) == []


def test_the_wsgi_body_is_a_list_with_a_known_length(meter: Meter) -> None:
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/api/v1/status"}
    sent: list[Any] = []
    body = DashboardWSGI(meter, let_in)(environ, lambda *given: sent.append(given))
    assert isinstance(body, list)
    assert dict(sent[0][1])["Content-Length"] == str(len(body[0]))
    assert json.loads(body[0])["scope"] == {}
