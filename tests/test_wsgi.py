"""Plain WSGI apps: one context from the call through every step of the body to its close."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import pytest
from openai import OpenAI

from conftest import events_of
from costmw import Config, Meter, bind, carry, tag
from costmw.context import current_block, current_scope
from costmw.errors import ConfigError, StoreError
from costmw.integrations.wsgi import CostMiddleware, with_page
from costmw.testing import FakeProvider, Reply


@pytest.fixture
def client(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield meter.instrument(client, provider="openai")


def ask(client: OpenAI, text: str = "hello") -> bytes:
    return client.responses.create(model="gpt-5-mini", input=text).output_text.encode()


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


def environ_of(path: str = "/", **more: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", **more}
    setup_testing_defaults(environ)
    return environ


def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
    return lambda data: None


def visit(app: Any, path: str = "/", **more: Any) -> bytes:
    """What a server does: call, take every step, close; checked against the specification."""
    body = validator(app)(environ_of(path, **more), start_response)
    try:
        return b"".join(body)
    finally:
        body.close()


def plain(start: Any) -> None:
    start("200 OK", [("Content-Type", "text/plain")])


def by_path(environ: dict[str, Any]) -> dict[str, str]:
    return {"path": environ["PATH_INFO"]}


# One context.

seen = ContextVar("seen", default="nothing")


class Body:
    """A body that makes a call in each of its steps, and in its close."""

    def __init__(self, client: OpenAI, chunks: int = 2) -> None:
        self.client = client
        self.left = chunks
        self.closed = 0
        self.seen: list[str] = []

    def __iter__(self) -> Body:
        self.step("iter")
        return self

    def __next__(self) -> bytes:
        if not self.left:
            self.step("end")
            raise StopIteration
        self.left -= 1
        self.step("next")
        return b"chunk"

    def close(self) -> None:
        self.closed += 1
        self.step("close")

    def step(self, name: str) -> None:
        self.seen.append(seen.get())
        seen.set(name)
        with tag(step=name):
            ask(self.client)


def test_the_call_every_step_and_the_close_run_in_one_context(meter: Meter, client: OpenAI) -> None:
    bodies: list[Body] = []

    def app(environ: Any, start: Any) -> Body:
        plain(start)
        seen.set("call")
        bind(user="ann")
        with tag(step="call"):
            ask(client)
        bodies.append(Body(client))
        return bodies[0]

    metered = CostMiddleware(app, meter, tags=by_path, route=lambda environ: "/route")
    body = metered(environ_of("/x"), start_response)
    assert b"".join(body) == b"chunkchunk"
    body.close()  # type: ignore[attr-defined]

    assert bodies[0].seen == ["call", "iter", "next", "next", "end"]
    assert bodies[0].closed == 1
    steps = ["call", "iter", "next", "next", "end", "close"]
    assert tags_of(meter) == [
        {"route": "/route", "path": "/x", "user": "ann", "step": step} for step in steps
    ]
    assert len({event.request_id for event in events_of(meter)}) == 1
    assert seen.get() == "nothing"
    assert current_scope() is None


def test_what_is_around_the_middleware_is_seen_inside_of_it(meter: Meter) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        yield seen.get().encode()

    def around() -> bytes:
        seen.set("from outside")
        return visit(CostMiddleware(app, meter))

    assert copy_context().run(around) == b"from outside"


def test_a_generators_steps_and_cleanup_are_tagged(meter: Meter, client: OpenAI) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        try:
            with tag(feature="stream"):
                yield ask(client)
                yield ask(client)
        finally:
            ask(client)

    assert visit(CostMiddleware(app, meter, tags=by_path), "/x").count(b"Hello") == 2

    tags = {"path": "/x"}
    assert tags_of(meter) == [tags | {"feature": "stream"}] * 2 + [tags]


def test_a_block_left_open_in_a_body_does_not_reach_the_next_request_or_the_server(
    meter: Meter, client: OpenAI
) -> None:
    kept: list[Any] = []

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        with tag(left="open"):
            yield ask(client)
            yield b"never asked for"

    metered = CostMiddleware(app, meter)
    body = metered(environ_of(), start_response)
    kept.append(body)
    next(iter(body))

    assert current_block() is None
    ask(client)
    assert tags_of(meter) == [{"left": "open"}, {}]


def test_a_stream_of_a_client_that_goes_away_is_closed_and_recorded_as_incomplete(
    meter: Meter, client: OpenAI, provider: FakeProvider
) -> None:
    provider.reply(Reply(text="one two three", pace=30.0))

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        with client.responses.create(model="gpt-5-mini", input="x", stream=True) as stream:
            for event in stream:
                yield event.type.encode()

    body: Any = CostMiddleware(app, meter, tags=by_path)(environ_of("/gone"), start_response)
    assert next(iter(body)) == b"response.created"
    body.close()

    assert [(event.status, event.tags) for event in events_of(meter)] == [
        ("incomplete", {"path": "/gone"})
    ]


def test_an_app_inside_of_an_app_has_a_request_of_its_own(meter: Meter, client: OpenAI) -> None:
    def inner(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        return [ask(client)]

    metered_inner = CostMiddleware(inner, meter, tags=lambda environ: {"app": "inner"})

    def outer(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        bind(user="ann")
        first = ask(client)
        return [first, visit(metered_inner), ask(client)]

    visit(CostMiddleware(outer, meter, tags=lambda environ: {"app": "outer"}))

    around = {"app": "outer", "user": "ann"}
    assert tags_of(meter) == [around, {"app": "inner"}, around]


def test_fifty_requests_in_threads_never_mix(
    meter: Meter, client: OpenAI, provider: FakeProvider
) -> None:
    count = 50
    together = threading.Barrier(count)
    provider.responder = lambda record: Reply(text=record.json["input"])

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        user = environ["PATH_INFO"]
        bind(user=user)
        together.wait(30)
        yield ask(client, user)
        together.wait(30)
        with tag(feature=f"feature of {user}"):
            yield ask(client, user)

    metered = CostMiddleware(app, meter, tags=lambda environ: {"tenant": environ["PATH_INFO"]})
    paths = [f"/{n}" for n in range(count)]
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda path: visit(metered, path), paths))

    assert answers == [(path + path).encode() for path in paths]
    tags = sorted(tags_of(meter), key=lambda tags: (int(tags["user"][1:]), len(tags)))
    assert tags == [
        {"user": path, "tenant": path} | more
        for path in paths
        for more in ({}, {"feature": f"feature of {path}"})
    ]
    assert len({event.request_id for event in events_of(meter)}) == count


def test_carry_takes_the_request_into_a_thread(meter: Meter, client: OpenAI) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        with ThreadPoolExecutor(2) as pool:
            carried = carry(ask)
            work = [pool.submit(carried, client), pool.submit(carried, client)]
            pool.submit(ask, client).result(10)
            return [done.result(10) for done in work]

    visit(CostMiddleware(app, meter, tags=by_path), "/x")

    assert sorted(tags_of(meter), key=len) == [{}, {"path": "/x"}, {"path": "/x"}]


# The app's own behaviour.


def test_the_close_of_a_body_is_called_once_when_the_server_does_and_in_the_request(
    meter: Meter,
) -> None:
    closed: list[tuple[str, bool]] = []

    class Closing(list[bytes]):
        def close(self) -> None:
            closed.append(("list", current_scope() is not None))

    def generator() -> Iterator[bytes]:
        try:
            yield b"x"
        finally:
            closed.append(("generator", current_scope() is not None))

    def app(environ: Any, start: Any) -> Iterable[bytes]:
        plain(start)
        return Closing([b"x"]) if environ["PATH_INFO"] == "/list" else generator()

    for path, name in (("/list", "list"), ("/generator", "generator")):
        body: Any = CostMiddleware(app, meter)(environ_of(path), start_response)
        assert next(iter(body)) == b"x"
        assert closed == []
        body.close()
        assert closed == [(name, True)]
        closed.clear()


def test_a_body_without_close_gets_none_and_a_closed_one_was_never_started(meter: Meter) -> None:
    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        return map(bytes, [[1], [2]])

    body: Any = CostMiddleware(app, meter)(environ_of(), start_response)
    assert not hasattr(body, "close")
    assert list(body) == [b"\1", b"\2"]


def test_closing_a_body_that_was_never_read_closes_it(meter: Meter) -> None:
    closed: list[bool] = []

    class Unread:
        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("it was read")

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start: Any) -> Any:
        plain(start)
        return Unread()

    body: Any = CostMiddleware(app, meter)(environ_of(), start_response)
    body.close()
    assert closed == [True]


@pytest.mark.parametrize("complete", [[b"x"], [], (b"x", b"y")])
def test_a_complete_body_is_handed_on_as_it_is(complete: Any, meter: Meter) -> None:
    def app(environ: Any, start: Any) -> Any:
        plain(start)
        return complete

    assert CostMiddleware(app, meter)(environ_of(), start_response) is complete


def test_a_file_wrapper_is_handed_on_so_that_the_server_can_send_the_file(meter: Meter) -> None:
    def app(environ: Any, start: Any) -> Any:
        plain(start)
        return environ["wsgi.file_wrapper"](io.BytesIO(b"content"))

    environ = environ_of(**{"wsgi.file_wrapper": FileWrapper})
    body = CostMiddleware(app, meter)(environ, start_response)
    assert isinstance(body, FileWrapper)
    assert b"".join(body) == b"content"

    # Some servers give a function, which tells nothing about what it returns.
    environ = environ_of(**{"wsgi.file_wrapper": lambda file: iter([file.read()])})
    assert b"".join(CostMiddleware(app, meter)(environ, start_response)) == b"content"


def test_a_server_that_looks_at_the_length_of_a_body_still_finds_it(meter: Meter) -> None:
    class One:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            return iter([b"seven.."])

    def served(app: Any) -> bytes:
        out = io.BytesIO()
        handler = SimpleHandler(io.BytesIO(), out, sys.stderr, environ_of())
        handler.run(app)
        return out.getvalue()

    def app(environ: Any, start: Any) -> Any:
        plain(start)
        return One()

    assert b"Content-Length: 7" in served(app)
    assert served(CostMiddleware(app, meter)) == served(app)


def test_what_start_response_and_write_do_is_untouched(meter: Meter, client: OpenAI) -> None:
    written: list[bytes] = []
    started: list[Any] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        started.append((status, headers, exc_info))
        return written.append

    def app(environ: Any, given: Any) -> list[bytes]:
        write = given("200 OK", [("X-Own", "yes")])
        write(ask(client))
        write(b" and the end")
        return []

    assert list(CostMiddleware(app, meter, tags=by_path)(environ_of("/w"), start)) == []

    assert started == [("200 OK", [("X-Own", "yes")], None)]
    assert written[0].startswith(b"Hello")
    assert written[1:] == [b" and the end"]
    assert tags_of(meter) == [{"path": "/w"}]


def test_the_apps_exceptions_pass_through_unchanged(meter: Meter) -> None:
    error = LookupError("the host's own")

    def failing(environ: Any, start: Any) -> Iterable[bytes]:
        raise error

    def failing_later(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        yield b"x"
        raise error

    class FailingClose:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            raise error

    def failing_close(environ: Any, start: Any) -> Any:
        plain(start)
        return FailingClose()

    for app in (failing, failing_later, failing_close):
        with pytest.raises(LookupError) as raised:
            visit_unchecked(CostMiddleware(app, meter))
        assert raised.value is error
        assert current_scope() is None


def visit_unchecked(app: Any) -> None:
    body = app(environ_of(), start_response)
    for _ in body:
        pass
    body.close()


def test_tags_and_route_are_asked_when_a_call_starts_and_not_without_one(
    meter: Meter, client: OpenAI
) -> None:
    asked: list[str] = []

    def app(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        environ["found.later"] = "/found"
        return [ask(client) for _ in range(int(environ["PATH_INFO"][1:]))]

    def route(environ: Any) -> str | None:
        asked.append("route")
        found: str | None = environ.get("found.later")
        return found

    def tags(environ: Any) -> dict[str, int]:
        asked.append("tags")
        return {"count": asked.count("tags")}

    metered = CostMiddleware(app, meter, tags=tags, route=route)
    visit(metered, "/0")
    assert asked == []
    visit(metered, "/2")
    assert asked == ["route", "tags"] * 2
    assert tags_of(meter) == [{"route": "/found", "count": str(n)} for n in (1, 2)]


def test_a_callable_that_raises_is_counted_and_the_call_keeps_the_other_tags(
    meter: Meter, client: OpenAI
) -> None:
    def app(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        bind(user="ann")
        return [ask(client)]

    def fail(environ: Any) -> Any:
        return environ["no.such.key"]

    for tags, route in ((fail, lambda environ: "/r"), (by_path, fail)):
        assert visit(CostMiddleware(app, meter, tags=tags, route=route)).startswith(b"Hello")

    assert tags_of(meter) == [{"route": "/r", "user": "ann"}, {"path": "/", "user": "ann"}]
    status = meter.status()
    assert status.faults == 2
    assert "no.such.key" in (status.last_error or "")


def test_a_meter_that_is_off_passes_everything_through_and_makes_no_file(
    make_meter: Callable[..., Meter], provider: FakeProvider, tmp_path: Path
) -> None:
    meter = make_meter(enabled=False)
    body = iter([b"x"])

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        plain(start)
        assert current_scope() is None
        with meter.instrument(
            OpenAI(base_url=provider.openai_url, api_key="k"), provider="openai"
        ) as client:
            ask(client)
        return body

    assert CostMiddleware(app, meter)(environ_of(), start_response) is body
    assert list(tmp_path.iterdir()) == []
    assert not meter.started


def test_a_store_that_cannot_be_opened_fails_one_request_and_the_app_goes_on(
    tmp_path: Path, provider: FakeProvider
) -> None:
    directory = tmp_path / "missing"
    meter = Meter(f"sqlite:///{directory}/llmcost.db", config=Config(ack_timeout=0.01))

    def app(environ: Any, start: Any) -> list[bytes]:
        plain(start)
        return [ask(client)]

    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        metered = CostMiddleware(app, meter, tags=by_path)
        with pytest.raises(StoreError, match="missing does not exist"):
            visit(metered)
        for _ in range(2):
            assert visit(metered, "/x").startswith(b"Hello")

    assert meter.status().waiting == 2
    directory.mkdir()
    assert tags_of(meter) == [{"path": "/x"}] * 2
    meter.close()


# The page beside an app.


@pytest.mark.parametrize("front", ["", "/pre", "/kösten"])
def test_the_page_is_at_its_place_and_everything_else_is_the_app_s(
    front: str, meter: Meter
) -> None:
    seen: list[tuple[str, str]] = []

    def app(environ: Any, start: Any) -> list[bytes]:
        seen.append((environ["SCRIPT_NAME"], environ["PATH_INFO"]))
        plain(start)
        return [b"the app"]

    script = front.encode().decode("latin-1")
    roots: set[str] = set()

    def auth(request: Any) -> bool:
        roots.add(request.root)
        return True

    both = with_page(app, meter, auth, "/admin/costs/")
    told: list[Any] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        told.append((status, dict(headers)))
        return lambda data: None

    for path in ("/admin/costs/", "/admin/costs/api/v1/status", "/admin/costs"):
        b"".join(both(environ_of(path, SCRIPT_NAME=script), start))
    assert ["200 OK", "200 OK", "307 Temporary Redirect"] == [status for status, _ in told]
    assert "costs/" == told[-1][1]["Location"]
    assert {f"{front}/admin/costs"} == roots
    assert [] == seen
    others = ["/", "/admin", "/admin/costsx", "/x/admin/costs/"]
    assert [b"the app"] * 4 == [visit(both, path, SCRIPT_NAME=script) for path in others]
    assert [(script, path) for path in others] == seen


def test_the_page_beside_an_app_is_closed_by_default_and_needs_a_place(meter: Meter) -> None:
    told: list[str] = []

    def start(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        told.append(status)
        return lambda data: None

    with_page(lambda environ, start: [], meter)(environ_of("/_llmcost/"), start)
    assert ["403 Forbidden"] == told
    with pytest.raises(ConfigError, match="name a path, as /_llmcost"):
        with_page(lambda environ, start: [], meter, path="/")
