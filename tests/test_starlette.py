"""Starlette apps: who asks, through everything that an app does within a request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, OpenAI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from conftest import events_of
from costmw import Config, Meter, bind, carry, tag
from costmw.context import current_scope
from costmw.errors import StoreError
from costmw.integrations.starlette import CostMiddleware, dashboard_app
from costmw.testing import FakeProvider, Reply


@pytest.fixture
def sync_llm(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        yield meter.instrument(client, provider="openai")


@pytest.fixture
def llm(meter: Meter, provider: FakeProvider) -> AsyncOpenAI:
    # No connection outlives its call: every test has event loops of its own.
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
    return meter.instrument(client, provider="openai")


async def ask(llm: AsyncOpenAI) -> str:
    return (await llm.responses.create(model="gpt-5-mini", input="hello")).output_text


def ask_sync(llm: OpenAI) -> str:
    return llm.responses.create(model="gpt-5-mini", input="hello").output_text


def metered_app(meter: Meter, *routes: Any, tags: Any = None, **options: Any) -> Starlette:
    """An app whose outermost middleware is ours."""
    middleware = [Middleware(CostMiddleware, meter=meter, tags=tags), *options.pop("inside", [])]
    return Starlette(routes=list(routes), middleware=middleware, **options)


def visit(app: ASGIApp, path: str, root_path: str = "", **request: Any) -> httpx2.Response:
    """Send one request to an app, without its lifespan."""

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app, root_path=root_path)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(request.pop("method", "GET"), path, **request)

    return asyncio.run(send())


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


def routes_of(meter: Meter) -> list[str | None]:
    return [event.tags.get("route") for event in events_of(meter)]


# What an app does within a request.

Llms = tuple[AsyncOpenAI, OpenAI]
Endpoint = Callable[[Llms], Any]


def in_an_async_endpoint(llms: Llms) -> Any:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llms[0]))

    return endpoint


def in_a_def_endpoint(llms: Llms) -> Any:
    def endpoint(request: Request) -> Response:
        return PlainTextResponse(ask_sync(llms[1]))

    return endpoint


def in_a_class_endpoint(llms: Llms) -> Any:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse(await ask(llms[0]))

    return Endpoint


def in_an_async_stream(llms: Llms) -> Any:
    async def body() -> AsyncIterator[str]:
        yield "Hello"
        yield await ask(llms[0])

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body())

    return endpoint


def in_a_sync_stream(llms: Llms) -> Any:
    def body() -> Iterator[str]:
        yield "Hello"
        yield ask_sync(llms[1])

    def endpoint(request: Request) -> Response:
        return StreamingResponse(body())

    return endpoint


def in_a_streamed_answer(llms: Llms) -> Any:
    async def body() -> AsyncIterator[str]:
        stream = await llms[0].responses.create(model="gpt-5-mini", input="hello", stream=True)
        async for event in stream:
            if event.type == "response.output_text.delta":
                yield event.delta

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(body())

    return endpoint


def in_an_async_background_task(llms: Llms) -> Any:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("Hello", background=BackgroundTask(ask, llms[0]))

    return endpoint


def in_a_sync_background_task(llms: Llms) -> Any:
    def endpoint(request: Request) -> Response:
        tasks = BackgroundTasks()
        tasks.add_task(ask_sync, llms[1])
        return PlainTextResponse("Hello", background=tasks)

    return endpoint


def in_a_thread(llms: Llms) -> Any:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await asyncio.to_thread(ask_sync, llms[1]))

    return endpoint


def in_an_executor(llms: Llms) -> Any:
    async def endpoint(request: Request) -> Response:
        with ThreadPoolExecutor(1) as pool:
            work = asyncio.get_running_loop().run_in_executor(pool, carry(ask_sync), llms[1])
            return PlainTextResponse(await work)

    return endpoint


def in_a_task(llms: Llms) -> Any:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await asyncio.create_task(ask(llms[0])))

    return endpoint


WAYS = [
    in_an_async_endpoint,
    in_a_def_endpoint,
    in_a_class_endpoint,
    in_an_async_stream,
    in_a_sync_stream,
    in_a_streamed_answer,
    in_an_async_background_task,
    in_a_sync_background_task,
    in_a_thread,
    in_an_executor,
    in_a_task,
]


@pytest.mark.parametrize("between", [False, True], ids=["bare", "BaseHTTPMiddleware"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_call_is_tagged_with_route_and_tags(
    way: Endpoint, between: bool, meter: Meter, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            return await call_next(request)

    app = metered_app(
        meter,
        Route("/items/{item}", way((llm, sync_llm))),
        tags=lambda conn: {"tenant": conn.headers["x-tenant"]},
        inside=[Middleware(Passing)] if between else [],
    )

    response = visit(app, "/items/7", headers={"x-tenant": "acme"})

    assert response.status_code == 200
    assert response.text.startswith("Hello")
    (event,) = events_of(meter)
    assert event.tags == {"route": "/items/{item}", "tenant": "acme"}
    assert event.first_in_request
    assert event.status == "ok"
    assert meter.status().faults == 0


def test_gathered_tasks_of_one_request_keep_their_own_tags_and_share_its_id(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def work(n: int, together: asyncio.Barrier) -> None:
        with tag(part=n):
            await together.wait()
            await ask(llm)

    async def endpoint(request: Request) -> Response:
        bind(user="ann")
        together = asyncio.Barrier(5)
        await asyncio.gather(*(work(n, together) for n in range(5)))
        with tag(part="last"):
            await asyncio.create_task(ask(llm))
        await ask(llm)
        return Response()

    visit(metered_app(meter, Route("/gather", endpoint)), "/gather")

    whole = {"route": "/gather", "user": "ann"}
    parts = [*(str(n) for n in range(5)), "last"]
    tags = tags_of(meter)
    assert sorted(tags[:6], key=lambda t: t["part"]) == [whole | {"part": part} for part in parts]
    assert tags[6] == whole
    assert len({event.request_id for event in events_of(meter)}) == 1
    assert sum(event.first_in_request for event in events_of(meter)) == 1


def test_a_task_that_outlives_its_request_still_belongs_to_it(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def main() -> None:
        go = asyncio.Event()
        tasks: list[asyncio.Task[str]] = []

        async def later() -> str:
            await go.wait()
            return await ask(llm)

        async def endpoint(request: Request) -> Response:
            tasks.append(asyncio.create_task(later()))
            return Response()

        app = metered_app(meter, Route("/start/{job}", endpoint))
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            await http.get("/start/7")
        assert current_scope() is None
        go.set()
        await tasks[0]

    asyncio.run(main())
    assert routes_of(meter) == ["/start/{job}"]


def test_one_carried_function_serves_many_threads_of_many_requests(
    meter: Meter, sync_llm: OpenAI
) -> None:
    per_request, requests = 4, 3
    pool = ThreadPoolExecutor(per_request * requests)
    together = threading.Barrier(per_request * requests)

    def work(n: int) -> str:
        together.wait(10)
        with tag(n=n):
            return ask_sync(sync_llm)

    async def endpoint(request: Request) -> Response:
        bind(user=request.path_params["user"])
        loop, carried = asyncio.get_running_loop(), carry(work)
        work_all = (loop.run_in_executor(pool, carried, n) for n in range(per_request))
        await asyncio.gather(*work_all)
        return Response()

    async def main() -> None:
        transport = httpx2.ASGITransport(metered_app(meter, Route("/u/{user}", endpoint)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            await asyncio.gather(*(http.get(f"/u/{user}") for user in "abc"))

    with pool:
        asyncio.run(main())

    assert sorted((tags["user"], tags["n"]) for tags in tags_of(meter)) == [
        (user, str(n)) for user in "abc" for n in range(per_request)
    ]
    assert set(routes_of(meter)) == {"/u/{user}"}


def test_a_carried_coroutine_function_belongs_to_its_request(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    def in_a_loop_of_its_own(work: Callable[[AsyncOpenAI], Awaitable[str]]) -> str:
        async def main() -> str:
            return await work(llm)

        return asyncio.run(main())

    async def endpoint(request: Request) -> Response:
        with ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, in_a_loop_of_its_own, carry(ask))
        return Response()

    visit(metered_app(meter, Route("/carried", endpoint)), "/carried")
    assert routes_of(meter) == ["/carried"]


def test_a_websockets_calls_are_tagged_for_as_long_as_it_is_open(
    meter: Meter, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        for _ in range(2):
            with tag(feature=await websocket.receive_text()):
                await websocket.send_text(await ask(llm))
        await websocket.send_text(await asyncio.to_thread(ask_sync, sync_llm))
        await websocket.close()

    app = metered_app(
        meter,
        WebSocketRoute("/chat/{room}", endpoint),
        tags=lambda conn: {"tenant": conn.path_params["room"]},
    )
    with TestClient(app) as client, client.websocket_connect("/chat/blue") as websocket:
        for feature in ("one", "two"):
            websocket.send_text(feature)
            assert websocket.receive_text().startswith("Hello")
        assert websocket.receive_text().startswith("Hello")

    whole = {"route": "/chat/{room}", "tenant": "blue"}
    assert tags_of(meter) == [whole | {"feature": "one"}, whole | {"feature": "two"}, whole]
    assert len({event.request_id for event in events_of(meter)}) == 1


def test_fifty_requests_at_once_never_mix(
    meter: Meter, llm: AsyncOpenAI, sync_llm: OpenAI, provider: FakeProvider
) -> None:
    count = 50
    provider.responder = lambda record: Reply(text=record.json["input"])

    async def endpoint(request: Request) -> Response:
        user, way = request.path_params["user"], request.path_params["way"]
        bind(user=user)
        started.append(user)
        if len(started) == count:
            everyone.set()
        await everyone.wait()
        with tag(feature=f"feature-{user}"):
            if way == "async":
                answer = await llm.responses.create(model="gpt-5-mini", input=user)
            else:
                answer = await asyncio.to_thread(
                    sync_llm.responses.create, model="gpt-5-mini", input=user
                )
        return PlainTextResponse(answer.output_text)

    def tags(conn: HTTPConnection) -> dict[str, str]:
        return {"tenant": conn.headers["x-tenant"]}

    app = metered_app(meter, Route("/{way}/{user}", endpoint), tags=tags)
    started: list[str] = []
    everyone = asyncio.Event()

    async def main() -> list[str]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            responses = await asyncio.gather(
                *(
                    http.get(f"/{'async' if n % 2 else 'sync'}/u{n}", headers={"x-tenant": f"t{n}"})
                    for n in range(count)
                )
            )
        return [response.text for response in responses]

    assert asyncio.run(main()) == [f"u{n}" for n in range(count)]
    tags_seen = sorted(tags_of(meter), key=lambda tags: int(tags["user"][1:]))
    assert tags_seen == [
        {
            "route": "/{way}/{user}",
            "tenant": f"t{n}",
            "user": f"u{n}",
            "feature": f"feature-u{n}",
        }
        for n in range(count)
    ]
    assert len({event.request_id for event in events_of(meter)}) == count
    assert all(event.first_in_request for event in events_of(meter))


def test_calls_outside_any_request_have_the_meters_own_tags(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(tags={"environment": "test"})
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    llm = meter.instrument(
        AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http), provider="openai"
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await ask(llm)
        yield
        await ask(llm)

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    app = metered_app(meter, Route("/chat", endpoint), lifespan=lifespan)
    with TestClient(app) as client:
        client.get("/chat")
    asyncio.run(ask(llm))

    own = {"environment": "test"}
    assert tags_of(meter) == [own, own | {"route": "/chat"}, own, own]
    assert [event.request_id is None for event in events_of(meter)] == [True, False, True, True]


def test_calls_made_by_middlewares_belong_to_the_request(meter: Meter, llm: AsyncOpenAI) -> None:
    class Asking(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            with tag(feature="before"):
                await ask(llm)
            response: Response = await call_next(request)
            with tag(feature="after"):
                await ask(llm)
            return response

    def endpoint(request: Request) -> Response:
        return Response()

    app = metered_app(meter, Route("/items/{item}", endpoint), inside=[Middleware(Asking)])
    visit(app, "/items/7")

    # The first one comes before the router has found a route.
    assert tags_of(meter) == [
        {"feature": "before"},
        {"feature": "after", "route": "/items/{item}"},
    ]


def test_an_app_that_runs_on_trio_is_metered_too(meter: Meter, llm: AsyncOpenAI) -> None:
    pytest.importorskip("trio")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    app = metered_app(meter, Route("/chat", endpoint))
    assert TestClient(app, backend="trio").get("/chat").text.startswith("Hello")
    with TestClient(app, backend="trio") as client:
        client.get("/chat")

    assert routes_of(meter) == ["/chat", "/chat"]


# The tags callable.


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["known"]), SimpleUser(name)) if name else None


def test_the_tags_callable_sees_the_user_that_an_inner_middleware_found(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    async def socket_endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await ask(llm))
        await websocket.close()

    app = metered_app(
        meter,
        Route("/chat", endpoint),
        WebSocketRoute("/socket", socket_endpoint),
        tags=lambda conn: {"user": conn.user.display_name or None},
        inside=[Middleware(AuthenticationMiddleware, backend=ByHeader())],
    )

    visit(app, "/chat", headers={"x-user": "ann"})
    visit(app, "/chat")
    with (
        TestClient(app) as client,
        client.websocket_connect("/socket", headers={"x-user": "bob"}) as websocket,
    ):
        assert websocket.receive_text().startswith("Hello")

    assert tags_of(meter) == [
        {"route": "/chat", "user": "ann"},
        {"route": "/chat"},
        {"route": "/socket", "user": "bob"},
    ]


def test_the_tags_callable_is_asked_once_a_call_and_not_without_one(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    asked: list[str] = []

    def tags(conn: HTTPConnection) -> dict[str, int]:
        asked.append(conn.url.path)
        return {"count": len(asked)}

    async def endpoint(request: Request) -> Response:
        for _ in range(request.path_params["calls"]):
            await ask(llm)
        return Response()

    app = metered_app(meter, Route("/{calls:int}", endpoint), tags=tags)
    visit(app, "/0")
    assert asked == []
    visit(app, "/2")
    assert asked == ["/2", "/2"]
    assert [tags["count"] for tags in tags_of(meter)] == ["1", "2"]


def test_a_tags_callable_that_raises_is_counted_and_the_call_keeps_the_other_tags(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def endpoint(request: Request) -> Response:
        bind(user="ann")
        return PlainTextResponse(await ask(llm))

    app = metered_app(meter, Route("/chat", endpoint), tags=lambda conn: {"t": conn.user.tenant})
    response = visit(app, "/chat")

    assert response.text.startswith("Hello")
    assert tags_of(meter) == [{"route": "/chat", "user": "ann"}]
    status = meter.status()
    assert status.faults == 1
    assert "AuthenticationMiddleware" in (status.last_error or "")


# The route.

UUID = "B3B0B0E4-9F1C-4D7A-8E5B-0123456789AB"


def every_route(endpoint: Any, raw: ASGIApp) -> list[Any]:
    """Routes of many kinds; what they lead to is said by the table below."""
    chat = Route("/chat/{id}", endpoint)
    return [
        Route("/", endpoint),
        Route("/items/{id:int}", endpoint, methods=["GET"]),
        Route("/files/{name:path}", endpoint),
        Mount("/v1", routes=[chat, Mount("/inner", routes=[chat])]),
        Mount("/orgs/{org}", routes=[Mount("/teams/{team}", routes=[chat])]),
        Mount("/same/{id}", routes=[chat]),
        Mount("/numbers/{number:int}", routes=[chat]),
        Mount("/uuids/{uuid:uuid}", routes=[chat]),
        Mount("/deep/{where:path}", routes=[Route("/summary", endpoint)]),
        Mount("/wrapped/{x}", app=GZipMiddleware(Starlette(routes=[chat]))),
        Mount("/gzip", app=GZipMiddleware(Starlette(routes=[Mount("/in/{x}", routes=[chat])]))),
        Mount("/raw/{x}", app=raw),
        Host("api.{domain}", app=Starlette(routes=[Mount("/by/{x}", routes=[chat])])),
    ]


ROUTES = [
    ("/", "/"),
    ("/items/7", "/items/{id}"),
    ("/files/a/b/c.txt", "/files/{name}"),
    ("/v1/chat/7", "/v1/chat/{id}"),
    ("/v1/chat/v1", "/v1/chat/{id}"),
    ("/v1/inner/chat/7", "/v1/inner/chat/{id}"),
    ("/orgs/acme/teams/blue/chat/7", "/orgs/{org}/teams/{team}/chat/{id}"),
    # Values that equal a fixed part of the path, or one another.
    ("/orgs/orgs/teams/teams/chat/teams", "/orgs/{org}/teams/{team}/chat/{id}"),
    ("/orgs/x/teams/x/chat/x", "/orgs/{org}/teams/{team}/chat/{id}"),
    ("/orgs/a%20b/teams/%C3%A9/chat/7", "/orgs/{org}/teams/{team}/chat/{id}"),
    ("/same/1/chat/2", "/same/{id}/chat/{id}"),
    # Values whose text is not that of the parameter.
    ("/numbers/007/chat/1", "/numbers/{number}/chat/{id}"),
    (f"/uuids/{UUID}/chat/1", "/uuids/{uuid}/chat/{id}"),
    ("/deep/a/b/c/summary", "/deep/{where}/summary"),
    # Mounts behind a middleware of their own, and of apps without routes.
    ("/wrapped/7/chat/1", "/wrapped/{x}/chat/{id}"),
    ("/gzip/in/7/chat/1", "/gzip/in/{x}/chat/{id}"),
    ("/raw/7/any/thing", "/raw/{x}"),
    # No route has these.
    ("/nowhere", None),
    ("/v1/nowhere", None),
    ("/orgs/acme/nowhere", None),
    ("/orgs/acme/teams/blue/nowhere", None),
]


@pytest.fixture
def routed(meter: Meter, llm: AsyncOpenAI) -> Starlette:
    """An app that makes one call for every request, found or not."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    async def not_found(request: Request, error: Exception) -> Response:
        return PlainTextResponse(await ask(llm), status_code=404)

    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(await ask(llm))(scope, receive, send)

    return metered_app(meter, *every_route(endpoint, raw), exception_handlers={404: not_found})


@pytest.mark.parametrize(("path", "template"), ROUTES)
def test_the_route_is_the_template_with_mounts_and_without_root_path(
    path: str, template: str | None, meter: Meter, routed: Starlette
) -> None:
    root_paths = ["", "/proxy", "/v1", "/orgs/acme"]

    # Servers put the root path in front of the path, as the specification says.
    statuses = [visit(routed, root + path, root_path=root).status_code for root in root_paths]

    assert statuses == [200 if template else 404] * 4
    assert routes_of(meter) == [template] * 4
    assert meter.status().faults == 0


def test_a_proxy_that_has_taken_the_root_path_off_changes_nothing(
    meter: Meter, routed: Starlette
) -> None:
    # Below a mount Starlette finds no route then.
    assert visit(routed, "/items/7", root_path="/proxy").status_code == 200
    assert routes_of(meter) == ["/items/{id}"]


def test_mounts_inside_of_a_host_are_part_of_the_route(meter: Meter, routed: Starlette) -> None:
    visit(routed, "/by/7/chat/1", headers={"host": "api.example.org"})
    assert routes_of(meter) == ["/by/{x}/chat/{id}"]


def test_a_mount_that_cannot_be_looked_into_gives_no_route_rather_than_a_raw_path(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    inner = Starlette(routes=[Mount("/orgs/{org}", routes=[Route("/chat", endpoint)])])

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    app = metered_app(meter, Mount("/opaque", app=opaque))
    assert visit(app, "/opaque/orgs/acme/chat").status_code == 200
    assert routes_of(meter) == [None]


def test_a_method_that_the_route_does_not_take_still_names_the_route(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def not_allowed(request: Request, error: Exception) -> Response:
        return PlainTextResponse(await ask(llm), status_code=405)

    app = metered_app(
        meter,
        Route("/items/{id}", lambda request: Response(), methods=["GET"]),
        exception_handlers={405: not_allowed},
    )
    assert visit(app, "/items/7", method="DELETE").status_code == 405
    assert routes_of(meter) == ["/items/{id}"]


def test_websockets_below_mounts_have_the_whole_route(meter: Meter, llm: AsyncOpenAI) -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await ask(llm))
        await websocket.close()

    app = metered_app(meter, Mount("/rooms/{room}", routes=[WebSocketRoute("/chat", endpoint)]))
    with TestClient(app) as client, client.websocket_connect("/rooms/chat/chat") as websocket:
        websocket.receive_text()

    assert routes_of(meter) == ["/rooms/{room}/chat"]


def test_the_middleware_around_a_mounted_app_names_the_whole_route(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    inner = metered_app(meter, Route("/chat/{id}", endpoint))
    visit(Starlette(routes=[Mount("/orgs/{org}", app=inner)]), "/orgs/acme/chat/7")

    assert routes_of(meter) == ["/orgs/{org}/chat/{id}"]


# The app's own behaviour.


def test_an_endpoints_exception_passes_through_unchanged(meter: Meter) -> None:
    error = LookupError("the host's own")

    async def endpoint(request: Request) -> Response:
        raise error

    app = metered_app(meter, Route("/", endpoint))

    async def main() -> None:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            with pytest.raises(LookupError) as raised:
                await http.get("/")
            assert raised.value is error
        assert current_scope() is None

    asyncio.run(main())


def test_other_kinds_of_scope_reach_the_app_untouched(meter: Meter) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send, current_scope()))

    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    scope = {"type": "something.new"}
    asyncio.run(CostMiddleware(app, meter)(scope, receive, send))
    assert seen == [(scope, receive, send, None)]
    assert not meter.started


def test_a_meter_that_is_off_passes_everything_through_and_makes_no_file(
    make_meter: Callable[..., Meter], provider: FakeProvider, tmp_path: Path
) -> None:
    meter = make_meter(enabled=False)
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    llm = meter.instrument(
        AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http), provider="openai"
    )
    asked: list[object] = []

    async def endpoint(request: Request) -> Response:
        assert current_scope() is None
        stream = await llm.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        async for _ in stream:
            pass
        return PlainTextResponse(await ask(llm))

    app = metered_app(meter, Route("/chat", endpoint), tags=asked.append)
    with TestClient(app) as client:
        assert client.get("/chat").text.startswith("Hello")

    assert asked == []
    assert "stream_options" not in provider.requests[0].json
    assert list(tmp_path.iterdir()) == []
    assert meter.status().committed == 0
    assert not meter.started


# Start and end.


def test_a_store_that_cannot_be_opened_fails_the_start_of_the_app(tmp_path: Path) -> None:
    meter = Meter(f"sqlite:///{tmp_path}/missing/llmcost.db")
    app = metered_app(meter, Route("/", lambda request: Response()))

    with pytest.raises(StoreError, match="missing does not exist"), TestClient(app):
        raise AssertionError("the app started")


APP = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from costmw import Meter
from costmw.integrations.starlette import CostMiddleware

app = Starlette(middleware=[Middleware(CostMiddleware, meter=Meter())])
"""


def test_uvicorn_ends_with_the_message_when_the_store_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(APP)
    url = f"sqlite:///{tmp_path}/missing/llmcost.db"
    command = ["-m", "uvicorn", "failing:app", "--port", "0", "--app-dir", str(tmp_path)]

    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"COSTMW_STORE": url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode != 0
    message = (
        f"cannot open {url}: the directory {tmp_path}/missing does not exist; "
        "make it, or name another place"
    )
    assert message in done.stderr
    assert "Uvicorn running" not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_lifespan_a_bad_store_fails_one_request_and_the_app_goes_on(
    tmp_path: Path, provider: FakeProvider
) -> None:
    directory = tmp_path / "missing"
    url = f"sqlite:///{directory}/llmcost.db"
    meter = Meter(url, config=Config(ack_timeout=0.01))
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    llm = meter.instrument(
        AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http), provider="openai"
    )

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(await ask(llm))

    app = metered_app(meter, Route("/chat", endpoint))
    with pytest.raises(StoreError, match="missing does not exist"):
        visit(app, "/chat")
    for _ in range(2):
        assert visit(app, "/chat").text.startswith("Hello")
    assert str(directory) in (meter.status().last_error or "")
    assert meter.status().waiting == 2

    directory.mkdir()
    assert routes_of(meter) == ["/chat", "/chat"]
    meter.close()


@pytest.mark.parametrize("fails", [False, True], ids=["shutdown", "failing shutdown"])
def test_the_end_of_the_app_commits_all_and_settles_open_streams_as_incomplete(
    fails: bool, make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(config=Config(durability="async"))
    llm = meter.instrument(
        AsyncOpenAI(base_url=provider.openai_url, api_key="k"), provider="openai"
    )
    provider.reply(Reply(), Reply(text="one two three four", pace=30.0))
    kept: list[Any] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if fails:
            raise LookupError("the host's own")

    async def endpoint(request: Request) -> Response:
        await ask(llm)
        stream = await llm.responses.create(model="gpt-5-mini", input="hello", stream=True)
        await anext(aiter(stream))
        kept.append(stream)
        return Response()

    async def main() -> list[str]:
        app = metered_app(meter, Route("/chat", endpoint), lifespan=lifespan)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            await http.get("/chat")
        sent: list[str] = []
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            return {"type": next(messages)}

        async def send(message: Any) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                committed.append(meter.status().committed)
            sent.append(message["type"])

        with contextlib.suppress(LookupError):
            await app({"type": "lifespan", "state": {}}, receive, send)
        for stream in kept:
            await stream.close()
        await llm.close()
        return sent

    committed: list[int] = []
    end = "lifespan.shutdown.failed" if fails else "lifespan.shutdown.complete"
    assert asyncio.run(main()) == ["lifespan.startup.complete", end]
    assert committed == [2]
    assert [(event.status, event.tags) for event in events_of(meter)] == [
        ("ok", {"route": "/chat"}),
        ("incomplete", {"route": "/chat"}),
    ]


# The page.


@pytest.mark.parametrize(
    ("path", "root_path", "location"),
    [
        ("/_llmcost", "", "_llmcost/"),
        ("/_llmcost?range=7d", "", "_llmcost/?range=7d"),
        ("/_llmcost", "/pre", "_llmcost/"),
        ("/pre/_llmcost", "/pre", "_llmcost/"),
        ("/admin/_llmcost", "", "_llmcost/"),
        ("/other", "", "http://test/other/"),  # not ours: as it was
        ("/item/", "", "http://test/item"),
    ],
)
@pytest.mark.parametrize("kind", [Starlette, FastAPI])
def test_the_redirect_to_the_page_s_slash_is_relative(
    path: str, root_path: str, location: str, kind: type[Any], meter: Meter
) -> None:
    """Starlette's own has a path that lacks what a proxy has cut off."""
    page = dashboard_app(meter, auth=lambda request: True)
    app = kind()
    app.add_middleware(CostMiddleware, meter=meter)
    app.mount("/_llmcost", page)
    app.mount("/admin", Starlette(routes=[Mount("/_llmcost", app=page)]))
    app.mount("/other", Starlette())
    app.router.routes.append(Route("/item", lambda request: Response()))
    answer = visit(app, path, root_path)
    assert (307, location) == (answer.status_code, answer.headers["location"])
