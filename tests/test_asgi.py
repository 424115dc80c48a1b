"""Any ASGI app, and those of Litestar and Quart: who asks, refusals, and the page beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import quart
from litestar import Litestar, Request, Response, get
from litestar.params import FromPath
from litestar.response import Stream
from openai import AsyncOpenAI

from conftest import events_of
from costmw import Budget, BudgetExceeded, Meter, bind
from costmw.context import current_scope
from costmw.dashboard.auth import token
from costmw.errors import ConfigError, StoreError
from costmw.integrations.asgi import CostMiddleware, with_page
from costmw.integrations.payment_required import payment_required
from costmw.testing import FakeProvider

SECRET = "0123456789abcdef"
SIGNED_IN = {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def llm(meter: Meter, provider: FakeProvider) -> AsyncOpenAI:
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
    return meter.instrument(client, provider="openai")


async def ask(llm: AsyncOpenAI) -> str:
    return (await llm.responses.create(model="gpt-5-mini", input="hello")).output_text


def visit(app: Any, path: str, root_path: str = "", **request: Any) -> httpx2.Response:
    """Send one request to an app, without its lifespan."""

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, root_path=root_path)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(request.pop("method", "GET"), path, **request)

    return asyncio.run(send())


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


def tenant_of(scope: Any) -> dict[str, str]:
    headers = dict(scope["headers"])
    return {"tenant": headers[b"x-tenant"].decode()} if b"x-tenant" in headers else {}


ACME = {"x-tenant": "acme"}


# Without a framework.


def plain(llm: AsyncOpenAI) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["found"] = "/tickets/{id}"
        bind(user="ann")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": (await ask(llm)).encode()})

    return app


def test_a_call_has_its_tags_and_the_route_that_the_app_tells(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    app = CostMiddleware(plain(llm), meter, tenant_of, lambda scope: scope.get("found"))
    assert 200 == visit(app, "/tickets/7", headers=ACME).status_code
    assert 200 == visit(CostMiddleware(plain(llm), meter), "/tickets/7").status_code
    assert [
        {"route": "/tickets/{id}", "tenant": "acme", "user": "ann"},
        {"user": "ann"},
    ] == tags_of(meter)
    assert current_scope() is None


def run(app: Any, scope: dict[str, Any], received: list[dict[str, Any]]) -> list[Any]:
    sent: list[Any] = []

    async def go() -> None:
        async def receive() -> dict[str, Any]:
            return received.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(go())
    return sent


async def living(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


def test_the_lifespan_starts_the_meter_and_says_what_is_wrong_with_its_store(
    meter: Meter, tmp_path: Any
) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = run(CostMiddleware(living, meter), {"type": "lifespan"}, list(messages))
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == [
        message["type"] for message in sent
    ]
    assert meter.started

    (tmp_path / "bad.db").write_text("no database" * 100)
    broken = Meter(f"sqlite:///{tmp_path}/bad.db")
    with pytest.raises(StoreError, match="not an SQLite database"):
        run(CostMiddleware(living, broken), {"type": "lifespan"}, list(messages))
    broken.close()


def test_a_websocket_is_a_request_and_a_meter_that_is_off_is_not_there(
    meter: Meter, make_meter: Callable[..., Meter]
) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_scope())

    run(CostMiddleware(app, meter), {"type": "websocket", "headers": []}, [])
    run(CostMiddleware(app, make_meter(enabled=False)), {"type": "http", "headers": []}, [])
    assert [True, False] == [scope is not None for scope in seen]


def test_a_refused_call_is_402_until_the_response_has_begun(
    make_meter: Callable[..., Meter],
) -> None:
    meter = make_meter(budgets=[Budget("cap", "0", action="block")])
    call = meter.metered(usage=lambda result: None)(lambda: "never")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        call()

    answer = visit(CostMiddleware(app, meter), "/")
    assert (402, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert "budget" not in answer.json()
    assert "cap" == visit(CostMiddleware(app, meter, explain_refusals=True), "/").json()["budget"]
    with pytest.raises(BudgetExceeded):
        visit(CostMiddleware(app, meter), "/begun")


# Litestar, as docs/hosts.md shows it.


def refused(request: Request[Any, Any, Any], refusal: BudgetExceeded) -> Response[bytes]:
    answer = payment_required(refusal, explain=False)
    return Response(answer.body, status_code=answer.status, headers=answer.headers)


def litestar_app(meter: Meter, call: Callable[[], Any]) -> Any:
    @get("/tickets/{id:int}/summary")
    async def summary(id: FromPath[int]) -> str:  # noqa: A002 - as in the path
        bind(user="ann")
        return str(await call())

    @get("/stream")
    async def stream() -> Stream:
        async def body() -> AsyncIterator[str]:
            yield "Hello"
            yield str(await call())

        return Stream(body())

    app = Litestar(
        [summary, stream],
        exception_handlers={BudgetExceeded: refused},  # type: ignore[dict-item]
        logging_config=None,
    )
    metered = CostMiddleware(
        app, meter, tags=tenant_of, route=lambda scope: scope.get("path_template")
    )
    return with_page(metered, meter, auth=token(SECRET))


def quart_route(scope: Any) -> str | None:
    if not quart.has_request_context() or quart.request.url_rule is None:
        return None
    return quart.request.url_rule.rule


def quart_app(meter: Meter, call: Callable[[], Any]) -> Any:
    app = quart.Quart(__name__)

    @app.get("/tickets/<int:id>/summary")
    async def summary(id: int) -> str:  # noqa: A002 - as in the rule
        bind(user="ann")
        return str(await call())

    @app.get("/stream")
    async def stream() -> Any:
        @quart.stream_with_context
        async def body() -> AsyncIterator[str]:
            yield "Hello"
            yield str(await call())

        return body()

    @app.errorhandler(BudgetExceeded)
    async def refused(refusal: BudgetExceeded) -> Any:
        answer = payment_required(refusal, explain=False)
        return answer.body, answer.status, answer.headers

    metered = CostMiddleware(app.asgi_app, meter, tags=tenant_of, route=quart_route)
    app.asgi_app = with_page(metered, meter, auth=token(SECRET))  # type: ignore[method-assign]
    return app


FRAMEWORKS = {
    litestar_app: "/tickets/{id}/summary",
    quart_app: "/tickets/<int:id>/summary",
}


@pytest.mark.parametrize(("make", "route"), FRAMEWORKS.items(), ids=["litestar", "quart"])
def test_a_framework_s_calls_have_route_and_tags(
    make: Callable[..., Any], route: str, meter: Meter, llm: AsyncOpenAI
) -> None:
    app = make(meter, lambda: ask(llm))
    assert 200 == visit(app, "/tickets/7/summary", headers=ACME).status_code
    assert visit(app, "/stream", headers=ACME).text.startswith("Hello")
    assert 404 == visit(app, "/nowhere").status_code
    assert [
        {"route": route, "tenant": "acme", "user": "ann"},
        {"route": "/stream", "tenant": "acme"},
    ] == tags_of(meter)


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_a_framework_s_refused_calls_are_402(
    make: Callable[..., Any], make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(budgets=[Budget("cap", "0", action="block")])

    @meter.metered(usage=lambda result: None)
    async def call() -> str:
        return "never"

    answer = visit(make(meter, call), "/tickets/7/summary")
    assert (402, "Budget exceeded") == (answer.status_code, answer.json()["title"])
    assert "application/problem+json" == answer.headers["content-type"]


@pytest.mark.parametrize("make", FRAMEWORKS)
def test_the_page_is_beside_a_framework(make: Callable[..., Any], meter: Meter) -> None:
    app = make(meter, lambda: None)
    assert 401 == visit(app, "/_llmcost/").status_code
    assert "<title>LLM cost</title>" in visit(app, "/_llmcost/", headers=SIGNED_IN).text
    assert 200 == visit(app, "/_llmcost/api/v1/status", headers=SIGNED_IN).status_code
    assert "_llmcost/" == visit(app, "/_llmcost", headers=SIGNED_IN).headers["location"]
    assert 404 == visit(app, "/_llmcostly", headers=SIGNED_IN).status_code


@pytest.mark.parametrize(
    ("path", "root_path", "place"),
    [
        ("/_llmcost/", "", "/_llmcost"),
        ("/pre/_llmcost/", "/pre", "/_llmcost/"),
        ("/_llmcost/", "/pre", "/_llmcost"),
        ("/admin/costs/", "", "/admin/costs"),
    ],
)
def test_the_page_is_at_its_place_whatever_a_server_says_of_the_root(
    path: str, root_path: str, place: str, meter: Meter
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    both = with_page(app, meter, lambda _: True, place)
    assert "<title>" in visit(both, path, root_path).text
    assert 200 == visit(both, f"{path}api/v1/status", root_path).status_code
    assert (
        place.strip("/").split("/")[-1] + "/"
        == (visit(both, path[:-1], root_path).headers["location"])
    )
    for other in ("/", "/else", f"{path[:-1]}x", f"/x{path}"):
        assert 204 == visit(both, other, root_path).status_code


@pytest.mark.parametrize("place", ["", "/", "_llmcost"])
def test_a_place_must_be_a_path(place: str, meter: Meter) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="name a path, as /_llmcost"):
        with_page(app, meter, path=place)
