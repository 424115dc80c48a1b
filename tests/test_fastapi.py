"""FastAPI apps: dependencies, generator endpoints, and routes through routers and sub-apps."""

import asyncio
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from fastapi.testclient import TestClient
from openai import AsyncOpenAI, OpenAI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from conftest import events_of
from costmw import Meter, bind, metered, tag
from costmw.integrations.starlette import CostMiddleware
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


@pytest.fixture
def app(meter: Meter) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter)
    return app


async def ask(llm: AsyncOpenAI, text: str = "hello") -> str:
    return (await llm.responses.create(model="gpt-5-mini", input=text)).output_text


def ask_sync(llm: OpenAI, text: str = "hello") -> str:
    return llm.responses.create(model="gpt-5-mini", input=text).output_text


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


# Endpoints and dependencies.


def bind_user(user: str) -> str:
    bind(user=user)
    return user


async def bind_user_async(user: str) -> str:
    bind(user=user)
    return user


def bind_user_and_yield(user: str) -> Iterator[str]:
    bind(user=user)
    yield user


async def bind_user_and_yield_async(user: str) -> AsyncIterator[str]:
    bind(user=user)
    yield user


@pytest.mark.parametrize("is_async", [True, False], ids=["async endpoint", "def endpoint"])
@pytest.mark.parametrize(
    "dependency",
    [bind_user, bind_user_async, bind_user_and_yield, bind_user_and_yield_async],
    ids=lambda dependency: dependency.__name__,
)
def test_what_a_dependency_binds_holds_for_the_endpoint_and_what_follows_it(
    dependency: Callable[..., Any],
    is_async: bool,
    meter: Meter,
    app: FastAPI,
    llm: AsyncOpenAI,
    sync_llm: OpenAI,
) -> None:
    if is_async:

        @app.get("/items/{item}")
        async def endpoint(
            user: Annotated[str, Depends(dependency)], tasks: BackgroundTasks
        ) -> str:
            tasks.add_task(ask, llm)
            return await ask(llm, user)

    else:

        @app.get("/items/{item}")
        def endpoint(user: Annotated[str, Depends(dependency)], tasks: BackgroundTasks) -> str:
            tasks.add_task(ask_sync, sync_llm)
            return ask_sync(sync_llm, user)

    response = visit(app, "/items/7?user=ann")

    assert response.status_code == 200
    assert tags_of(meter) == [{"route": "/items/{item}", "user": "ann"}] * 2
    assert meter.status().faults == 0


def test_calls_before_and_after_a_yield_dependency_belong_to_the_request(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    def sync_dependency() -> Iterator[None]:
        ask_sync(sync_llm)
        yield
        ask_sync(sync_llm)

    async def dependency() -> AsyncIterator[None]:
        await ask(llm)
        yield
        await ask(llm)

    @app.get("/items/{item}", dependencies=[Depends(sync_dependency), Depends(dependency)])
    def endpoint(item: int) -> int:
        bind(user="ann")
        return item

    assert visit(app, "/items/7").json() == 7

    route = {"route": "/items/{item}"}
    assert tags_of(meter) == [route, route, route | {"user": "ann"}, route | {"user": "ann"}]
    assert len({event.request_id for event in events_of(meter)}) == 1


def test_streams_of_both_kinds_are_tagged_while_they_run(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    async def body() -> AsyncIterator[str]:
        for part in ("one", "two"):
            with tag(part=part):
                answer = await ask(llm)
            yield answer

    def sync_body() -> Iterator[str]:
        for part in ("one", "two"):
            with tag(part=part):
                answer = ask_sync(sync_llm)
            yield answer

    @app.get("/async")
    async def stream() -> StreamingResponse:
        return StreamingResponse(body())

    @app.get("/sync")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(sync_body())

    for path in ("/async", "/sync"):
        assert visit(app, path).text.startswith("Hello")

    assert tags_of(meter) == [
        {"route": path, "part": part} for path in ("/async", "/sync") for part in ("one", "two")
    ]


def test_fifty_requests_with_sync_dependencies_never_mix(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, provider: FakeProvider
) -> None:
    count = 50
    provider.responder = lambda record: Reply(text=record.json["input"])
    bound: list[str] = []
    everyone = asyncio.Event()

    def bind_both(user: str) -> str:
        bind(user=user)
        bind(tenant=f"t-{user}")
        return user

    @app.get("/chat/{room}")
    async def chat(room: str, user: Annotated[str, Depends(bind_both)]) -> str:
        bound.append(user)
        if len(bound) == count:
            everyone.set()
        await everyone.wait()
        with tag(feature=room):
            return await ask(llm, user)

    async def main() -> list[Any]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            responses = await asyncio.gather(
                *(http.get(f"/chat/r{n}?user=u{n}") for n in range(count))
            )
        return [response.json() for response in responses]

    assert asyncio.run(main()) == [f"u{n}" for n in range(count)]
    assert sorted(tags_of(meter), key=lambda tags: int(tags["user"][1:])) == [
        {"route": "/chat/{room}", "user": f"u{n}", "tenant": f"t-u{n}", "feature": f"r{n}"}
        for n in range(count)
    ]


def test_websockets_with_dependencies_are_tagged(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI
) -> None:
    router = APIRouter(prefix="/rooms/{room}")

    @router.websocket("/chat")
    async def chat(websocket: WebSocket, user: Annotated[str, Depends(bind_user)]) -> None:
        await websocket.accept()
        await websocket.send_text(await ask(llm, user))
        await websocket.close()

    @app.websocket("/plain/{room}")
    async def plain(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(await ask(llm))
        await websocket.close()

    app.include_router(router, prefix="/v1")
    with TestClient(app) as client:
        for path in ("/v1/rooms/blue/chat?user=ann", "/plain/blue"):
            with client.websocket_connect(path) as websocket:
                assert websocket.receive_text().startswith("Hello")

    assert tags_of(meter) == [
        {"route": "/v1/rooms/{room}/chat", "user": "ann"},
        {"route": "/plain/{room}"},
    ]


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:
        return AuthCredentials(), SimpleUser(conn.headers["x-user"])


def test_the_tags_callable_reads_the_user_of_an_authentication_added_before(
    meter: Meter, llm: AsyncOpenAI
) -> None:
    app = FastAPI()
    app.add_middleware(AuthenticationMiddleware, backend=ByHeader())
    app.add_middleware(
        CostMiddleware, meter=meter, tags=lambda conn: {"user": conn.user.display_name}
    )

    @app.get("/chat")
    async def chat() -> str:
        return await ask(llm)

    visit(app, "/chat", headers={"x-user": "ann"})
    assert tags_of(meter) == [{"route": "/chat", "user": "ann"}]


# Metered endpoints and dependencies.


def test_metered_endpoints_keep_their_parameters_and_tag_their_calls(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    @app.post("/chat")
    @metered(feature="chat")
    async def chat(q: str, limit: Annotated[int, Depends(lambda: 3)]) -> str:
        bind(user="ann")
        return await ask(llm, q * limit)

    @app.post("/summary")
    @metered
    def summary(q: str) -> str:
        return ask_sync(sync_llm, q)

    assert visit(app, "/chat?q=x", method="POST").status_code == 200
    assert visit(app, "/summary?q=x", method="POST").status_code == 200
    assert visit(app, "/summary", method="POST").status_code == 422

    assert tags_of(meter) == [
        {"route": "/chat", "user": "ann", "feature": "chat"},
        {"route": "/summary", "feature": "summary"},
    ]


def test_metered_yield_dependencies_are_entered_left_and_tagged(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    steps: list[str] = []

    @metered(feature="dependency")
    async def dependency(q: str) -> AsyncIterator[str]:
        await ask(llm)
        try:
            yield f"async {q}"
        finally:
            steps.append("left async")
            await ask(llm)

    @metered(feature="sync dependency")
    def sync_dependency(q: str) -> Iterator[str]:
        ask_sync(sync_llm)
        try:
            yield f"sync {q}"
        finally:
            steps.append("left sync")
            ask_sync(sync_llm)

    @app.get("/both")
    async def both(
        one: Annotated[str, Depends(dependency)], two: Annotated[str, Depends(sync_dependency)]
    ) -> list[str]:
        steps.append("endpoint")
        await ask(llm)
        return [one, two]

    assert visit(app, "/both?q=x").json() == ["async x", "sync x"]
    assert steps == ["endpoint", "left sync", "left async"]
    assert [tags.get("feature") for tags in tags_of(meter)] == [
        "dependency",
        "sync dependency",
        None,
        "sync dependency",
        "dependency",
    ]


def test_an_endpoints_exception_reaches_a_metered_yield_dependency(
    meter: Meter, app: FastAPI
) -> None:
    caught: list[Exception] = []
    error = LookupError("the host's own")

    @metered(feature="dependency")
    async def dependency() -> AsyncIterator[None]:
        try:
            yield
        except LookupError as seen:
            caught.append(seen)
            raise

    @metered(feature="dependency")
    def sync_dependency() -> Iterator[None]:
        try:
            yield
        except LookupError as seen:
            caught.append(seen)
            raise

    @app.get("/fail", dependencies=[Depends(dependency), Depends(sync_dependency)])
    async def fail() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        visit(app, "/fail")
    assert raised.value is error
    assert caught == [error, error]


def test_metered_generator_endpoints_stream_and_are_tagged(
    meter: Meter, app: FastAPI, llm: AsyncOpenAI, sync_llm: OpenAI
) -> None:
    @app.get("/lines")
    @metered(feature="lines")
    async def lines() -> AsyncIterable[str]:
        yield await ask(llm)
        yield "end"

    @app.get("/sync-lines")
    @metered(feature="sync lines")
    def sync_lines() -> Iterable[str]:
        yield ask_sync(sync_llm)
        yield "end"

    @app.get("/raw", response_class=StreamingResponse)
    @metered(feature="raw")
    async def raw() -> AsyncIterable[str]:
        yield await ask(llm)

    @app.get("/sync-raw", response_class=StreamingResponse)
    @metered(feature="sync raw")
    def sync_raw() -> Iterable[str]:
        yield ask_sync(sync_llm)

    @app.get("/events", response_class=EventSourceResponse)
    @metered(feature="events")
    async def events() -> AsyncIterable[str]:
        yield await ask(llm)

    answers = {path: visit(app, path) for path in ("/lines", "/sync-lines", "/raw", "/sync-raw")}
    answers["/events"] = visit(app, "/events")

    kinds = {path: answer.headers.get("content-type") for path, answer in answers.items()}
    assert kinds["/lines"] == kinds["/sync-lines"] == "application/jsonl"
    assert str(kinds["/events"]).startswith("text/event-stream")
    assert answers["/lines"].text.splitlines()[1] == '"end"'
    assert answers["/lines"].text == answers["/sync-lines"].text
    assert answers["/raw"].text == answers["/sync-raw"].text
    assert answers["/raw"].text.startswith("Hello")
    assert answers["/events"].text.startswith('data: "Hello')
    assert tags_of(meter) == [
        {"route": "/lines", "feature": "lines"},
        {"route": "/sync-lines", "feature": "sync lines"},
        {"route": "/raw", "feature": "raw"},
        {"route": "/sync-raw", "feature": "sync raw"},
        {"route": "/events", "feature": "events"},
    ]


# The route.


@pytest.fixture
def routed(meter: Meter, app: FastAPI, llm: AsyncOpenAI) -> FastAPI:
    """An app of many routers and sub-apps that makes one call for every request."""

    async def endpoint() -> str:
        return await ask(llm)

    async def plain_endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await ask(llm))

    async def not_found(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(await ask(llm), status_code=getattr(error, "status_code", 500))

    async def raw(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(await ask(llm))(scope, receive, send)

    def sub_app() -> FastAPI:
        sub = FastAPI(exception_handlers={404: not_found, 405: not_found})
        sub.get("/chat/{id}")(endpoint)
        sub.add_route("/plain/{id}", plain_endpoint)
        inner = APIRouter(prefix="/inner/{inner}")
        inner.get("/chat/{id}")(endpoint)
        sub.include_router(inner)
        return sub

    for status in (404, 405):
        app.exception_handler(status)(not_found)
    app.get("/")(endpoint)
    app.get("/items/{id:int}")(endpoint)
    app.add_route("/plain/{id}", plain_endpoint)
    app.add_api_route("/api/{id}", endpoint)

    leaf = APIRouter(prefix="/teams/{team}")
    leaf.get("/chat/{id}")(endpoint)
    leaf.get("/other")(endpoint)
    leaf.add_route("/plain/{id}", plain_endpoint)
    leaf.mount("/mounted/{m}", Starlette(routes=[Route("/chat/{id}", plain_endpoint)]))
    branch = APIRouter(prefix="/orgs/{org}")
    branch.include_router(leaf)
    branch.get("/chat/{id}")(endpoint)
    app.include_router(branch)
    app.include_router(branch, prefix="/v2")

    app.mount("/sub", sub_app())
    outer = FastAPI()
    outer.mount("/inside/{place}", sub_app())
    app.mount("/tenants/{tenant}", outer)
    app.mount("/starlette/{x}", Starlette(routes=[Mount("/in/{y}", app=sub_app())]))
    app.mount("/raw/{x}", raw)
    return app


ROUTES = [
    ("/", "/"),
    ("/items/007", "/items/{id}"),
    ("/plain/7", "/plain/{id}"),
    ("/api/7", "/api/{id}"),
    ("/orgs/acme/chat/7", "/orgs/{org}/chat/{id}"),
    ("/orgs/acme/teams/blue/chat/7", "/orgs/{org}/teams/{team}/chat/{id}"),
    ("/orgs/acme/teams/blue/other", "/orgs/{org}/teams/{team}/other"),
    ("/orgs/acme/plain/7", "/orgs/{org}/plain/{id}"),
    ("/orgs/acme/mounted/1/chat/7", "/orgs/{org}/mounted/{m}/chat/{id}"),
    ("/v2/orgs/acme/chat/7", "/v2/orgs/{org}/chat/{id}"),
    ("/v2/orgs/acme/teams/blue/chat/7", "/v2/orgs/{org}/teams/{team}/chat/{id}"),
    ("/v2/orgs/v2/mounted/orgs/chat/v2", "/v2/orgs/{org}/mounted/{m}/chat/{id}"),
    ("/sub/chat/7", "/sub/chat/{id}"),
    ("/sub/plain/7", "/sub/plain/{id}"),
    ("/sub/inner/1/chat/7", "/sub/inner/{inner}/chat/{id}"),
    ("/tenants/acme/inside/here/chat/7", "/tenants/{tenant}/inside/{place}/chat/{id}"),
    ("/tenants/inside/inside/inside/plain/7", "/tenants/{tenant}/inside/{place}/plain/{id}"),
    (
        "/tenants/x/inside/x/inner/x/chat/x",
        "/tenants/{tenant}/inside/{place}/inner/{inner}/chat/{id}",
    ),
    ("/starlette/1/in/2/chat/3", "/starlette/{x}/in/{y}/chat/{id}"),
    ("/starlette/1/in/2/plain/3", "/starlette/{x}/in/{y}/plain/{id}"),
    ("/raw/7/any/thing", "/raw/{x}"),
    ("/nowhere", None),
    ("/orgs/acme/nowhere", None),
    ("/sub/nowhere", None),
    ("/tenants/acme/inside/here/nowhere", None),
    ("/starlette/1/in/2/nowhere", None),
]


@pytest.mark.parametrize(("path", "template"), ROUTES)
def test_the_route_is_the_template_through_routers_and_sub_apps_and_without_root_path(
    path: str, template: str | None, meter: Meter, routed: FastAPI
) -> None:
    root_paths = ["", "/proxy", "/orgs/acme"]

    statuses = [visit(routed, root + path, root_path=root).status_code for root in root_paths]

    assert statuses == [200 if template else 404] * 3
    assert routes_of(meter) == [template] * 3
    assert meter.status().faults == 0


def test_a_method_that_a_route_does_not_take_still_names_the_route(
    meter: Meter, routed: FastAPI
) -> None:
    paths = ["/items/7", "/orgs/acme/teams/blue/chat/7", "/sub/chat/7"]
    assert [visit(routed, path, method="DELETE").status_code for path in paths] == [405] * 3

    assert routes_of(meter) == [
        "/items/{id}",
        "/orgs/{org}/teams/{team}/chat/{id}",
        "/sub/chat/{id}",
    ]


def test_requests_from_many_threads_each_have_their_own_route(
    meter: Meter, app: FastAPI, sync_llm: OpenAI
) -> None:
    together = threading.Barrier(6)

    def endpoint(n: int) -> int:
        together.wait(10)
        ask_sync(sync_llm)
        return n

    for n in range(6):
        app.get(f"/r{n}/{{n}}")(endpoint)

    async def main() -> list[int]:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as http:
            answers = await asyncio.gather(*(http.get(f"/r{n}/{n}") for n in range(6)))
        return [answer.json() for answer in answers]

    assert asyncio.run(main()) == list(range(6))
    assert sorted(map(str, routes_of(meter))) == [f"/r{n}/{{n}}" for n in range(6)]
