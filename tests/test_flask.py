"""Flask apps: the rule as the route, and a request that reaches into streamed bodies."""

from __future__ import annotations

import io
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import flask
import httpx2
import pytest
from flask import Blueprint, Flask, Response, g, session, stream_with_context
from flask.views import MethodView
from openai import OpenAI
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

from conftest import events_of
from costmw import Config, Meter, bind, carry, metered, tag
from costmw.context import current_scope
from costmw.errors import StoreError
from costmw.integrations.flask import LLMCost
from costmw.testing import FakeProvider, Reply


@pytest.fixture
def client(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield meter.instrument(client, provider="openai")


def ask(client: OpenAI, text: str = "hello") -> str:
    return client.responses.create(model="gpt-5-mini", input=text).output_text


def new_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "for sessions"
    app.testing = True
    return app


@pytest.fixture
def app(meter: Meter) -> Flask:
    app = new_app()
    LLMCost(app, meter=meter, url_prefix=None)
    return app


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


def routes_of(meter: Meter) -> list[str | None]:
    return [event.tags.get("route") for event in events_of(meter)]


# The route.


def add_routes(app: Flask, client: OpenAI) -> None:
    def endpoint(**arguments: object) -> str:
        return ask(client)

    class View(MethodView):
        def get(self, id: int) -> str:  # noqa: A002 - as in the rule
            return ask(client)

    app.add_url_rule("/", view_func=endpoint, endpoint="index")
    app.add_url_rule("/items/<int:id>", view_func=endpoint, endpoint="item", methods=["GET"])
    app.add_url_rule("/files/<path:name>", view_func=endpoint, endpoint="file")
    app.add_url_rule("/uuids/<uuid:id>", view_func=endpoint, endpoint="uuid")
    app.add_url_rule("/kinds/<any(a, b):kind>/", view_func=endpoint, endpoint="kind")
    app.add_url_rule("/views/<int:id>", view_func=View.as_view("view"))
    outer = Blueprint("outer", __name__, url_prefix="/orgs/<org>")
    inner = Blueprint("inner", __name__, url_prefix="/teams/<team>")
    outer.add_url_rule("/chat/<id>", view_func=endpoint, endpoint="chat")
    inner.add_url_rule("/chat/<id>", view_func=endpoint, endpoint="chat")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.register_blueprint(outer, name="again", url_prefix="/v2/<org>")

    @app.errorhandler(404)
    @app.errorhandler(405)
    def failed(error: Any) -> tuple[str, int]:
        return ask(client), error.code


ROUTES = [
    ("/", "/"),
    ("/items/007", "/items/<int:id>"),
    ("/files/a/b/c.txt", "/files/<path:name>"),
    (f"/uuids/{uuid.UUID(int=7)}", "/uuids/<uuid:id>"),
    ("/kinds/a/", "/kinds/<any(a, b):kind>/"),
    ("/views/7", "/views/<int:id>"),
    ("/orgs/acme/chat/7", "/orgs/<org>/chat/<id>"),
    ("/orgs/acme/teams/blue/chat/7", "/orgs/<org>/teams/<team>/chat/<id>"),
    ("/v2/acme/chat/7", "/v2/<org>/chat/<id>"),
    ("/v2/acme/teams/blue/chat/7", "/v2/<org>/teams/<team>/chat/<id>"),
    ("/nowhere", None),
    ("/items/seven", None),
]


@pytest.mark.parametrize(("path", "rule"), ROUTES)
def test_the_route_is_the_rule_with_blueprints_and_without_what_is_in_front_of_the_app(
    path: str, rule: str | None, meter: Meter, app: Flask, client: OpenAI
) -> None:
    add_routes(app, client)
    dispatcher = DispatcherMiddleware(Flask("root"), {"/orgs": app, "/in/front": app})

    statuses = [app.test_client().get(path).status_code]
    statuses += [
        Client(dispatcher).get(front + path).status_code for front in ("/orgs", "/in/front")
    ]

    assert statuses == [200 if rule else 404] * 3
    assert routes_of(meter) == [rule] * 3
    assert meter.status().faults == 0


def test_a_method_that_no_rule_takes_has_no_route(meter: Meter, app: Flask, client: OpenAI) -> None:
    add_routes(app, client)
    assert app.test_client().delete("/items/7").status_code == 405
    assert routes_of(meter) == [None]


# What runs in a request.


def test_everything_around_a_view_belongs_to_the_request(
    meter: Meter, provider: FakeProvider
) -> None:
    app = new_app()
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")

        def asking(where: str) -> Callable[..., Any]:
            def hook(given: Any = None) -> Any:
                with tag(where=where):
                    ask(client)
                return given

            return hook

        app.before_request(asking("before, added first"))
        LLMCost(app, meter=meter, tags=lambda request: {"q": request.args["q"]}, url_prefix=None)
        app.before_request(asking("before"))
        app.teardown_request(asking("teardown"))

        @app.get("/items/<id>")
        @metered(where="view")
        def view(id: str) -> Response:  # noqa: A002 - as in the rule
            bind(user="ann")
            ask(client)
            response = Response("x")
            response.call_on_close(asking("close"))
            return response

        @app.after_request
        def after(response: Response) -> Response:
            asking("after")()
            return response

        app.test_client().get("/items/7?q=1", buffered=True)

    whole = {"route": "/items/<id>", "q": "1"}
    bound = whole | {"user": "ann"}
    assert tags_of(meter) == [
        whole | {"where": "before, added first"},
        whole | {"where": "before"},
        bound | {"where": "view"},
        bound | {"where": "after"},
        bound | {"where": "teardown"},
        bound | {"where": "close"},
    ]
    assert len({event.request_id for event in events_of(meter)}) == 1
    assert meter.status().faults == 0


def from_everywhere(request: flask.Request) -> dict[str, object]:
    """Tags from all that Flask knows of a request only while its context is there."""
    return {
        "user": session["user"],
        "tenant": g.tenant,
        "team": flask.request.headers["x-team"],
        "same": flask.request.path == request.path,
        "endpoint": flask.current_app.name and flask.request.endpoint,
    }


@pytest.mark.parametrize("kept", [True, False], ids=["stream_with_context", "plain generator"])
def test_a_streamed_body_has_the_tags_of_session_g_and_request(
    kept: bool, meter: Meter, client: OpenAI
) -> None:
    app = new_app()
    LLMCost(app, meter=meter, tags=from_everywhere, url_prefix=None)

    @app.get("/stream/<int:parts>")
    def stream(parts: int) -> Response:
        session["user"] = flask.request.args["user"]
        g.tenant = "acme"

        @metered(feature="stream")
        def body() -> Iterator[str]:
            for part in range(parts):
                assert flask.has_request_context() is kept
                with tag(part=part):
                    answer = ask(client)
                yield answer

        return Response(stream_with_context(body()) if kept else body())

    for user in ("ann", "bob"):
        response = app.test_client().get(f"/stream/2?user={user}", headers={"x-team": "blue"})
        assert response.text.count("Hello") == 2

    assert tags_of(meter) == [
        {
            "route": "/stream/<int:parts>",
            "user": user,
            "tenant": "acme",
            "team": "blue",
            "same": "True",
            "endpoint": "stream",
            "feature": "stream",
            "part": part,
        }
        for user in ("ann", "bob")
        for part in ("0", "1")
    ]
    assert meter.status().faults == 0


def test_teardown_of_a_stream_with_context_runs_in_its_request(
    meter: Meter, app: Flask, client: OpenAI
) -> None:
    order: list[str] = []

    @app.teardown_request
    def teardown(error: BaseException | None) -> None:
        order.append("teardown")
        ask(client)

    @app.get("/stream")
    def stream() -> Response:
        bind(user="ann")

        def body() -> Iterator[str]:
            order.append("body")
            yield ask(client)

        return Response(stream_with_context(body()))

    app.test_client().get("/stream", buffered=True)

    # Flask 3.1 also tears down once before the body runs.
    assert order[-2:] == ["body", "teardown"]
    assert tags_of(meter) == [{"route": "/stream", "user": "ann"}] * len(order)


def test_metered_above_stream_with_context_reaches_into_the_body(
    meter: Meter, app: Flask, client: OpenAI
) -> None:
    @app.get("/stream")
    def stream() -> Response:
        @metered(feature="stream")
        @stream_with_context
        def body() -> Iterator[str]:
            yield ask(client)

        return Response(body())

    app.test_client().get("/stream", buffered=True)
    assert tags_of(meter) == [{"route": "/stream", "feature": "stream"}]


def test_a_request_made_inside_of_a_streamed_body_keeps_the_two_apart(
    meter: Meter, client: OpenAI
) -> None:
    app = new_app()
    LLMCost(app, meter=meter, tags=lambda request: {"path": flask.request.path}, url_prefix=None)

    @app.get("/inner")
    def inner() -> Response:
        def body() -> Iterator[str]:
            yield ask(client)

        return Response(body())

    @app.get("/outer")
    def outer() -> Response:
        def body() -> Iterator[str]:
            yield ask(client)
            with app.test_client() as test_client:
                yield test_client.get("/inner").text
            yield ask(client)

        return Response(stream_with_context(body()))

    app.test_client().get("/outer", buffered=True)

    assert tags_of(meter) == [
        {"route": "/outer", "path": "/outer"},
        {"route": "/inner", "path": "/inner"},
        {"route": "/outer", "path": "/outer"},
    ]


def test_carry_takes_request_and_flask_context_into_a_thread(meter: Meter, client: OpenAI) -> None:
    app = new_app()
    LLMCost(app, meter=meter, tags=lambda request: {"g": g.name}, url_prefix=None)

    @app.get("/threads")
    def threads() -> str:
        g.name = "here"
        with ThreadPoolExecutor(2) as pool:
            return "".join(pool.map(carry(lambda n: ask(client)), range(2)))

    assert app.test_client().get("/threads").text.count("Hello") == 2
    assert tags_of(meter) == [{"route": "/threads", "g": "here"}] * 2


def test_an_errors_handler_and_a_failing_view_stay_as_they_are(
    meter: Meter, app: Flask, client: OpenAI
) -> None:
    error = LookupError("the host's own")

    @app.errorhandler(500)
    def handle(problem: Any) -> tuple[str, int]:
        return ask(client), 500

    @app.get("/fail")
    def fail() -> str:
        raise error

    @app.get("/fail-later")
    def fail_later() -> Response:
        def body() -> Iterator[str]:
            yield "x"
            raise error

        return Response(body())

    for path in ("/fail", "/fail-later"):
        with pytest.raises(LookupError) as raised:
            app.test_client().get(path, buffered=True)
        assert raised.value is error

    app.testing = False
    assert app.test_client().get("/fail").status_code == 500
    assert routes_of(meter) == ["/fail"]


# The tags callable.


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
def test_a_tags_callable_that_raises_is_counted_and_the_call_keeps_the_other_tags(
    streamed: bool, meter: Meter, client: OpenAI
) -> None:
    app = new_app()
    LLMCost(app, meter=meter, tags=lambda request: {"t": session["tenant"]}, url_prefix=None)

    @app.get("/chat")
    def chat() -> Any:
        bind(user="ann")

        def body() -> Iterator[str]:
            yield ask(client)

        return Response(body()) if streamed else ask(client)

    assert app.test_client().get("/chat").text.startswith("Hello")

    assert tags_of(meter) == [{"route": "/chat", "user": "ann"}]
    status = meter.status()
    assert status.faults == 1
    assert "tenant" in (status.last_error or "")


def test_a_tags_callable_that_raises_is_no_fault_where_no_call_is_made(meter: Meter) -> None:
    app = new_app()
    asked: list[str] = []

    def tags(request: flask.Request) -> dict[str, object]:
        asked.append(request.path)
        raise LookupError("nobody is logged in")

    LLMCost(app, meter=meter, tags=tags, url_prefix=None)

    @app.get("/plain")
    def plain() -> str:
        return "x"

    @app.get("/file")
    def file() -> Response:
        return flask.send_file(io.BytesIO(b"x" * 100), mimetype="text/plain")

    @app.get("/stream")
    def stream() -> Response:
        return Response(iter(["x", "y"]))

    for path in ("/plain", "/file", "/stream"):
        app.test_client().get(path, buffered=True)

    # A stream's tags are asked before it runs: whether it calls is not known then.
    assert asked == ["/stream"]
    assert meter.status().faults == 0


# The app's own behaviour.


def test_responses_are_the_same_with_and_without(meter: Meter) -> None:
    def build(*, metered: bool) -> Flask:
        app = new_app()
        if metered:
            LLMCost(app, meter=meter, tags=lambda request: {"a": 1}, url_prefix=None)

        @app.get("/plain")
        def plain() -> str:
            return "hello"

        @app.get("/json")
        def as_json() -> dict[str, int]:
            return {"n": 1}

        @app.get("/stream")
        def stream() -> Response:
            return Response(iter(["a", "b"]), headers={"X-Own": "yes"})

        @app.get("/file")
        def file() -> Response:
            return flask.send_file(io.BytesIO(b"x" * 100), mimetype="text/plain", etag=False)

        @app.get("/cookie")
        def cookie() -> str:
            session["user"] = "ann"
            return "set"

        return app

    def look(app: Flask) -> list[Any]:
        seen = []
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            for path in ("/plain", "/json", "/stream", "/file", "/cookie", "/nowhere"):
                response = app.test_client().open(path, method=method)
                headers = [item for item in response.headers if item[0] != "Set-Cookie"]
                seen.append((method, path, response.status, headers, response.data))
        return seen

    bare = look(build(metered=False))
    assert look(build(metered=True)) == bare
    by_request = {(method, path): (headers, data) for method, path, _, headers, data in bare}
    assert ("Content-Length", "5") in by_request["GET", "/plain"][0]
    assert ("Content-Length", "5") in by_request["HEAD", "/plain"][0]
    assert by_request["HEAD", "/plain"][1] == b""


def test_a_file_reaches_the_server_as_a_file(app: Flask) -> None:
    @app.get("/file")
    def file() -> Response:
        return flask.send_file(io.BytesIO(b"content"), mimetype="text/plain")

    environ = flask.testing.EnvironBuilder(app, "/file").get_environ()
    environ["wsgi.file_wrapper"] = FileWrapper
    body = app.wsgi_app(environ, lambda status, headers, exc_info=None: lambda data: None)

    assert isinstance(body, FileWrapper)


def test_a_test_client_can_still_look_into_the_request_afterwards(
    meter: Meter, app: Flask, client: OpenAI
) -> None:
    @app.get("/chat")
    def chat() -> str:
        session["user"] = "ann"
        g.seen = True
        return ask(client)

    with app.test_client() as test_client:
        test_client.get("/chat")
        assert flask.request.path == "/chat"
        assert session["user"] == "ann"
        assert g.seen is True
    assert not flask.has_request_context()
    assert routes_of(meter) == ["/chat"]


def test_an_app_factory_may_make_many_apps_with_one_extension(meter: Meter, client: OpenAI) -> None:
    cost = LLMCost(
        meter=meter, tags=lambda request: {"app": flask.current_app.name}, url_prefix=None
    )

    def create_app(name: str) -> Flask:
        app = Flask(name)

        @app.get(f"/{name}/<id>")
        def chat(id: str) -> str:  # noqa: A002 - as in the rule
            return ask(client)

        cost.init_app(app)
        return app

    for name in ("one", "two"):
        app = create_app(name)
        assert app.extensions["llmcost"] is cost
        app.test_client().get(f"/{name}/7")

    assert tags_of(meter) == [
        {"route": "/one/<id>", "app": "one"},
        {"route": "/two/<id>", "app": "two"},
    ]


def test_calls_outside_any_request_have_the_meters_own_tags(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(tags={"environment": "test"})
    app = new_app()
    LLMCost(app, meter=meter, tags=lambda request: {"tenant": "acme"}, url_prefix=None)
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        with app.app_context():
            ask(client)

    assert tags_of(meter) == [{"environment": "test"}]
    assert [event.request_id for event in events_of(meter)] == [None]


def test_a_meter_that_is_off_passes_everything_through_and_makes_no_file(
    make_meter: Callable[..., Meter], provider: FakeProvider, tmp_path: Path
) -> None:
    meter = make_meter(enabled=False)
    app = new_app()
    asked: list[object] = []
    LLMCost(app, meter=meter, tags=asked.append, url_prefix=None)  # type: ignore[arg-type]

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            assert current_scope() is None
            with OpenAI(base_url=provider.openai_url, api_key="k") as client:
                yield ask(meter.instrument(client, provider="openai"))

        return Response(body())

    assert app.test_client().get("/stream").text.startswith("Hello")
    assert asked == []
    assert list(tmp_path.iterdir()) == []
    assert not meter.started
    assert meter.status().faults == 0


def test_a_store_that_cannot_be_opened_fails_one_request_and_the_app_goes_on(
    tmp_path: Path, provider: FakeProvider
) -> None:
    directory = tmp_path / "missing"
    meter = Meter(f"sqlite:///{directory}/llmcost.db", config=Config(ack_timeout=0.01))
    app = new_app()
    LLMCost(app, meter=meter, url_prefix=None)

    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        app.add_url_rule("/chat", view_func=lambda: ask(client))
        with pytest.raises(StoreError, match="missing does not exist"):
            app.test_client().get("/chat")
        for _ in range(2):
            assert app.test_client().get("/chat").text.startswith("Hello")

    assert meter.status().waiting == 2
    directory.mkdir()
    assert routes_of(meter) == ["/chat", "/chat"]
    meter.close()


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None: ...  # noqa: A002


def test_fifty_requests_to_a_threaded_server_never_mix(
    meter: Meter, client: OpenAI, provider: FakeProvider
) -> None:
    count = 50
    together = threading.Barrier(count)
    provider.responder = lambda record: Reply(text=record.json["input"])
    app = new_app()
    LLMCost(app, meter=meter, tags=lambda request: {"tenant": g.tenant}, url_prefix=None)

    @app.get("/chat/<user>")
    def chat(user: str) -> Response:
        g.tenant = flask.request.headers["x-tenant"]
        bind(user=user)
        together.wait(30)

        @metered(feature=f"feature of {user}")
        def body() -> Iterator[str]:
            yield ask(client, user)
            together.wait(30)
            yield ask(client, user)

        kept = int(user[1:]) % 2
        return Response(stream_with_context(body()) if kept else body())

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        limits = httpx2.Limits(max_connections=count)
        with (
            httpx2.Client(
                base_url=f"http://127.0.0.1:{server.port}", timeout=30, limits=limits
            ) as http,
            ThreadPoolExecutor(count) as pool,
        ):
            answers = list(
                pool.map(
                    lambda n: http.get(f"/chat/u{n}", headers={"x-tenant": f"t{n}"}).text,
                    range(count),
                )
            )
    finally:
        server.shutdown()
        serving.join(10)
        server.server_close()

    assert answers == [f"u{n}u{n}" for n in range(count)]
    assert sorted(tags_of(meter), key=lambda tags: int(tags["user"][1:])) == [
        {
            "route": "/chat/<user>",
            "user": f"u{n}",
            "tenant": f"t{n}",
            "feature": f"feature of u{n}",
        }
        for n in range(count)
        for _ in range(2)
    ]
    assert len({event.request_id for event in events_of(meter)}) == count
    assert meter.status().faults == 0
