"""A refusal that the app lets pass: 402 with problem+json, whatever the app is made with."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from wsgiref.handlers import SimpleHandler
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import fastapi
import pytest
from fastapi.testclient import TestClient
from flask import Flask, Response
from openai import AsyncOpenAI, OpenAI, OpenAIError
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, StreamingResponse

from conftest import outcomes_of
from costmw import Budget, BudgetExceeded, Meter
from costmw.integrations.flask import LLMCost
from costmw.integrations.payment_required import payment_required, refusal_in
from costmw.integrations.starlette import CostMiddleware
from costmw.integrations.wsgi import CostMiddleware as WsgiCostMiddleware
from costmw.testing import FakeProvider

CAP = Budget("tenant cap", limit="0", per="tenant", period="day", action="block")


@pytest.fixture
def capped(make_meter: Callable[..., Meter]) -> Meter:
    return make_meter(budgets=[CAP], tags={"tenant": "acme"})


@pytest.fixture
def llm(capped: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        yield capped.instrument(client, provider="openai")


@pytest.fixture
def asked(capped: Meter, provider: FakeProvider) -> Callable[[], Any]:
    """Makes a call of an async client, which is refused."""

    async def ask() -> Any:
        async with AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
            capped.instrument(client, provider="openai")
            await client.responses.create(model="gpt-5-mini", input="hello")

    return ask


def ask(llm: OpenAI) -> str:
    return llm.responses.create(model="gpt-5-mini", input="hello").output_text


def visited(app: Any, path: str = "/") -> Any:
    with TestClient(app) as client:
        return client.get(path)


def midnight() -> datetime:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + timedelta(days=1)


def check_brief(answer: Any) -> None:
    """That the answer is whole, and tells nothing of the budget but when it is renewed."""
    at = f"{midnight():%Y-%m-%dT%H:%M:%SZ}"
    assert (402, "application/problem+json", "no-store") == (
        answer.status_code,
        answer.headers["content-type"],
        answer.headers["cache-control"],
    )
    assert {
        "type": "urn:costmw:budget-exceeded",
        "title": "Budget exceeded",
        "status": 402,
        "detail": "This would cost more than what is left of a budget for language models. "
        f"It is renewed at {at}.",
        "resets_at": at,
    } == json.loads(answer.text)
    left = (midnight() - datetime.now(UTC)).total_seconds()
    assert left <= int(answer.headers["retry-after"]) <= left + 30


def check_explained(answer: Any) -> None:
    told = json.loads(answer.text)
    assert ("tenant cap", {"tenant": "acme"}, "0.00", "0.00", "0.00") == (
        told["budget"],
        told["scope"],
        told["limit_usd"],
        told["spent_usd"],
        told["held_usd"],
    )
    assert float(told["asked_usd"]) > 0
    assert "budget 'tenant cap' tenant=acme has 0.00 of 0.00 USD left" in told["detail"]


class TestStarlette:
    @pytest.mark.parametrize("explain", [False, True])
    def test_an_endpoint(
        self, explain: bool, capped: Meter, asked: Any, provider: FakeProvider
    ) -> None:
        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped, explain_refusals=explain)
        app.get("/")(asked)
        (check_explained if explain else check_brief)(visited(app))
        assert ([], {"refused": 1}) == (provider.requests, outcomes_of(capped))

    @pytest.mark.parametrize("kind", ["async", "sync", "yield"])
    def test_a_dependency(self, kind: str, capped: Meter, asked: Any, llm: OpenAI) -> None:
        async def in_steps() -> AsyncIterator[None]:
            await asked()
            yield

        needed = {"async": asked, "sync": lambda: ask(llm), "yield": in_steps}[kind]
        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.get("/", dependencies=[fastapi.Depends(needed)])(lambda: "never")
        check_brief(visited(app))

    def test_a_middleware_of_the_app_in_between(self, capped: Meter, asked: Any) -> None:
        async def pass_on(request: Any, call_next: Any) -> Any:
            return await call_next(request)

        between = [
            Middleware(CostMiddleware, meter=capped),
            Middleware(BaseHTTPMiddleware, dispatch=pass_on),
        ]
        app = fastapi.FastAPI(middleware=between)
        app.get("/")(asked)
        check_brief(visited(app))

    def test_tasks_that_are_all_refused(self, capped: Meter, asked: Any) -> None:
        async def endpoint() -> None:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(asked())
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(asked())

        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.get("/")(endpoint)
        check_brief(visited(app))

    def test_a_failure_of_another_kind_beside_a_refusal_is_not_hidden(
        self, capped: Meter, asked: Any
    ) -> None:
        async def fail() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise KeyError("bug") from None

        async def endpoint() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(asked())
                tasks.create_task(fail())

        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.get("/")(endpoint)
        with pytest.raises(ExceptionGroup) as caught:
            visited(app)
        assert (True, True) == (
            caught.value.subgroup(KeyError) is not None,
            caught.value.subgroup(BudgetExceeded) is not None,
        )

    def test_a_response_that_has_begun_fails_as_it_is(self, capped: Meter, asked: Any) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await asked()

        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.get("/")(lambda: StreamingResponse(pieces()))
        with pytest.raises(BudgetExceeded):
            visited(app)

    def test_a_websocket_fails_as_it_is(self, capped: Meter, asked: Any) -> None:
        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)

        @app.websocket("/")
        async def talk(socket: fastapi.WebSocket) -> None:
            await asked()

        with pytest.raises(BudgetExceeded), TestClient(app).websocket_connect("/"):
            pass

    @pytest.mark.parametrize("kind", [BudgetExceeded, OpenAIError])
    def test_the_apps_own_handler_comes_first(
        self, kind: type[Exception], capped: Meter, asked: Any
    ) -> None:
        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.add_exception_handler(kind, lambda request, error: JSONResponse("mine", 429))
        app.get("/")(asked)
        answer = visited(app)
        assert (429, "mine") == (answer.status_code, answer.json())

    def test_other_errors_pass(self, capped: Meter) -> None:
        async def endpoint() -> None:
            raise ExceptionGroup("bugs", [KeyError("bug")])

        app = fastapi.FastAPI()
        app.add_middleware(CostMiddleware, meter=capped)
        app.get("/")(endpoint)
        with pytest.raises(ExceptionGroup, match="bugs"):
            visited(app)


class Answer:
    """A response as a WSGI server sends it."""

    def __init__(self, app: Any) -> None:
        environ: dict[str, Any] = {"PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": ""}
        setup_testing_defaults(environ)
        out, errors = io.BytesIO(), io.StringIO()
        SimpleHandler(io.BytesIO(), out, errors, environ).run(validator(app))
        head, _, body = out.getvalue().partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status_code = int(status.split()[1])
        self.headers = {line.split(": ")[0].lower(): line.split(": ")[1] for line in lines}
        self.text = body.decode()
        self.errors = errors.getvalue()


class TestWsgi:
    @pytest.mark.parametrize("explain", [False, True])
    def test_an_app_that_raises(self, explain: bool, capped: Meter, llm: OpenAI) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", ask(llm))])

        answer = Answer(WsgiCostMiddleware(app, capped, explain_refusals=explain))
        (check_explained if explain else check_brief)(answer)

    def test_an_app_that_raises_when_it_has_started_its_response(
        self, capped: Meter, llm: OpenAI
    ) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            start_response("200 OK", [("Content-Type", "text/plain")])
            ask(llm)

        check_brief(Answer(WsgiCostMiddleware(app, capped)))

    def test_a_body_that_raises_before_its_first_piece(self, capped: Meter, llm: OpenAI) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield ask(llm).encode()

        check_brief(Answer(WsgiCostMiddleware(app, capped)))

    def test_a_body_that_raises_after_its_first_piece_fails_as_it_is(
        self, capped: Meter, llm: OpenAI
    ) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"one"
            yield ask(llm).encode()

        answer = Answer(WsgiCostMiddleware(app, capped))
        assert (200, "one") == (answer.status_code, answer.text)
        assert answer.errors.splitlines()[-1].startswith("costmw.errors.BudgetExceeded: ")

    def test_a_written_body_fails_as_it_is(self, capped: Meter, llm: OpenAI) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(b"one")
            ask(llm)

        answer = Answer(WsgiCostMiddleware(app, capped))
        assert (200, "one") == (answer.status_code, answer.text)
        assert answer.errors.splitlines()[-1].startswith("costmw.errors.BudgetExceeded: ")

    def test_a_body_without_pieces_has_its_head(self, capped: Meter) -> None:
        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("204 No Content", [])
            yield from ()

        assert 204 == Answer(WsgiCostMiddleware(app, capped)).status_code

    @pytest.mark.parametrize("pieces", [[], [b"one"]], ids=["before", "after the first piece"])
    def test_a_second_head_is_for_the_server_to_judge(
        self, pieces: list[bytes], capped: Meter
    ) -> None:
        heads: list[tuple[str, bool]] = []

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            heads.append((status, exc_info is not None))
            if len(heads) > 1:
                raise AssertionError("two heads")

        def app(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            yield from pieces
            try:
                raise KeyError("bug")
            except KeyError:
                start_response("500 Bug", [], sys.exc_info())
            yield b"said"

        def run(app: Any) -> list[bytes]:
            return list(WsgiCostMiddleware(app, capped)({}, start))

        if pieces:
            with pytest.raises(AssertionError, match="two heads"):
                run(app)
            assert [("200 OK", False), ("500 Bug", True)] == heads
        else:
            assert [b"said"] == run(app)
            assert [("500 Bug", True)] == heads

        def wrong(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [])
            start_response("201 Created", [])
            raise RuntimeError("not reached")

        heads.clear()
        with pytest.raises(AssertionError, match="two heads"):
            run(wrong)

    def test_other_errors_pass(self, capped: Meter) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            raise ExceptionGroup("bugs", [KeyError("bug")])

        with pytest.raises(ExceptionGroup, match="bugs"):
            WsgiCostMiddleware(app, capped)({}, lambda *_: None)  # type: ignore[arg-type]


class TestFlask:
    @pytest.mark.parametrize("explain", [False, True])
    def test_a_view(self, explain: bool, capped: Meter, llm: OpenAI) -> None:
        app = Flask(__name__)
        LLMCost(app, meter=capped, url_prefix=None, explain_refusals=explain)
        app.get("/")(lambda: ask(llm))
        (check_explained if explain else check_brief)(app.test_client().get("/"))

    @pytest.mark.parametrize("before", [False, True], ids=["after us", "before us"])
    def test_the_apps_own_handler_comes_first(
        self, before: bool, capped: Meter, llm: OpenAI
    ) -> None:
        app = Flask(__name__)
        extension = LLMCost(meter=capped, url_prefix=None)
        if not before:
            extension.init_app(app)
        app.errorhandler(BudgetExceeded)(lambda error: ("mine", 429))
        if before:
            extension.init_app(app)
        app.get("/")(lambda: ask(llm))
        answer = app.test_client().get("/")
        assert (429, "mine") == (answer.status_code, answer.text)

    def test_a_streamed_body_that_raises_at_once(self, capped: Meter, llm: OpenAI) -> None:
        def pieces() -> Iterator[str]:
            yield ask(llm)

        app = Flask(__name__)
        LLMCost(app, meter=capped, url_prefix=None)
        app.get("/")(lambda: Response(pieces()))
        check_brief(Answer(app))


def test_a_budget_that_is_never_renewed_gives_no_time_to_come_again() -> None:
    from test_refusal_errors import refusal

    error = refusal()
    error.resets_at = None
    error.asked = None
    answer = payment_required(error, explain=True)
    told = json.loads(answer.body)
    assert (None, False, False) == (
        told["asked_usd"],
        "resets_at" in told,
        "Retry-After" in answer.headers,
    )
    brief = json.loads(payment_required(error, explain=False).body)
    assert "renewed" not in brief["detail"]


def test_a_renewal_that_has_passed_is_now() -> None:
    from test_refusal_errors import refusal

    error = refusal()
    error.resets_at = datetime(2020, 1, 1, tzinfo=UTC)
    assert "0" == payment_required(error, explain=False).headers["Retry-After"]


def test_a_group_is_a_refusal_when_all_in_it_are() -> None:
    from test_refusal_errors import refusal

    error = refusal()
    assert error is refusal_in(ExceptionGroup("", [ExceptionGroup("", [error]), refusal()]))
    assert None is refusal_in(ExceptionGroup("", [error, ValueError()]))
    assert None is refusal_in(ExceptionGroup("", [ValueError(), error]))
    assert None is refusal_in(ValueError())
