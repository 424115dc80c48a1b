"""What a request's calls cost, in headers of its response, where the app asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from openai import OpenAI
from werkzeug.test import Client

from conftest import events_of
from costmw import Meter
from costmw.integrations.flask import LLMCost
from costmw.integrations.starlette import CostMiddleware
from costmw.integrations.wsgi import CostMiddleware as WsgiCostMiddleware
from costmw.money import format_usd
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import RESPONSE_USAGE

Work = Callable[[], object]
Visit = Callable[..., Any]


@pytest.fixture
def llm(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    provider.default = Reply(usage=RESPONSE_USAGE)
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        yield meter.instrument(client, provider="openai")


def ask(llm: OpenAI, model: str = "gpt-5-mini") -> None:
    llm.responses.create(model=model, input="hello")


def in_starlette(meter: Meter, work: Work, **options: Any) -> Any:
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter, **options)

    @app.get("/")
    def endpoint() -> str:
        work()
        return "done"

    with TestClient(app) as client:
        return client.get("/").headers


def in_wsgi(meter: Meter, work: Work, **options: Any) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        work()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]

    return Client(WsgiCostMiddleware(app, meter, **options)).get("/").headers


def in_flask(meter: Meter, work: Work, **options: Any) -> Any:
    app = Flask(__name__)
    LLMCost(app, meter=meter, url_prefix=None, **options)

    @app.get("/")
    def view() -> str:
        work()
        return "done"

    return app.test_client().get("/").headers


@pytest.mark.parametrize(
    "visit", [in_starlette, in_wsgi, in_flask], ids=lambda visit: visit.__name__
)
class TestEachHost:
    def test_the_cost_of_all_calls_and_how_long_they_took(
        self, visit: Visit, meter: Meter, llm: OpenAI
    ) -> None:
        headers = visit(meter, lambda: (ask(llm), ask(llm)), response_headers=True)
        events = events_of(meter)
        cost = sum(event.price.cost_pico_usd or 0 for event in events)
        took = sum(event.latency_ms or 0 for event in events)
        assert 2 == len(events)
        assert format_usd(cost) == headers["X-LLM-Cost"]
        assert f'llm;dur={took};desc="2 calls"' == headers["Server-Timing"]
        assert headers["Content-Type"]

    def test_a_cost_that_is_not_known_leaves_the_sum_out(
        self, visit: Visit, meter: Meter, llm: OpenAI
    ) -> None:
        headers = visit(meter, lambda: (ask(llm), ask(llm, "no-such-model")), response_headers=True)
        assert "X-LLM-Cost" not in headers
        assert 'desc="2 calls, 1 of unknown cost"' in headers["Server-Timing"]

    def test_a_call_that_was_recorded_by_hand_counts(self, visit: Visit, meter: Meter) -> None:
        def work() -> None:
            meter.record(provider="own", model="m", cost="0.25", latency_ms=7)

        headers = visit(meter, work, response_headers=True)
        assert ("0.25", 'llm;dur=7;desc="1 call"') == (
            headers["X-LLM-Cost"],
            headers["Server-Timing"],
        )

    def test_a_request_without_calls_has_none(self, visit: Visit, meter: Meter) -> None:
        headers = visit(meter, lambda: None, response_headers=True)
        assert not {"x-llm-cost", "server-timing"} & {name.lower() for name, _ in headers.items()}

    def test_nothing_is_told_unless_asked(self, visit: Visit, meter: Meter, llm: OpenAI) -> None:
        headers = visit(meter, lambda: ask(llm))
        assert not {"x-llm-cost", "server-timing"} & {name.lower() for name, _ in headers.items()}
