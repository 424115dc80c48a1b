"""`costmw doctor`: what recorded calls say of the set-up that made them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from flask import Flask
from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from costmw import Config, Meter, bind, carry, tag
from costmw.capture import decoding
from costmw.doctor import Finding, examine
from costmw.integrations import wsgi
from costmw.integrations.flask import LLMCost
from costmw.integrations.starlette import CostMiddleware
from costmw.price_overrides import PriceOverride, load_overrides
from costmw.testing import FakeProvider, Reply
from costmw.testing.server import ThreadedServer
from doctoring import codes, the
from rows import an_event, an_outcome

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
def llm(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield meter.instrument(client, provider="openai")


def ask(llm: OpenAI, model: str = "gpt-5-mini") -> None:
    llm.chat.completions.create(model=model, messages=HELLO)


def stream(llm: OpenAI) -> Any:
    return llm.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True)


@pytest.fixture
def look(meter: Meter) -> Callable[..., list[Finding]]:
    """What is found in the ledger, by somebody who knows nothing but the store's URL."""

    def found(**environ: str) -> list[Finding]:
        assert meter.flush(30)
        return examine(store=meter.store.url, environ=environ)

    return found


Look = Callable[..., list[Finding]]


def serve(meter: Meter, work: Callable[[], object], times: int = 1) -> None:
    """Do something in web requests of a user."""

    def endpoint(_: Request) -> Response:
        bind(user="ann")
        work()
        return PlainTextResponse("done")

    app = Starlette(routes=[Route("/chat", endpoint)])
    app.add_middleware(CostMiddleware, meter=meter)
    with TestClient(app) as client:
        for _ in range(times):
            assert client.get("/chat").text == "done"


def test_calls_of_requests_that_know_their_user_are_well(
    meter: Meter, llm: OpenAI, look: Look
) -> None:
    serve(meter, lambda: ask(llm))
    assert codes(look(), above_info=True) == set()


# Who asks.


def test_threads_that_carry_no_context_are_found(meter: Meter, llm: OpenAI, look: Look) -> None:
    def in_threads() -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(ask, llm).result()
            pool.submit(carry(ask), llm).result()

    serve(meter, in_threads, 2)
    finding = the(look(), "context-not-bound")
    assert finding.level == "warning"
    assert finding.problem.startswith("Of 4 calls, 2 were made outside of any web request")
    assert "pool.submit(carry(work))" in finding.mend


def test_jobs_that_say_what_they_are_are_well(llm: OpenAI, look: Look) -> None:
    with tag(feature="nightly"):
        ask(llm)
    assert codes(look(), above_info=True) == set()


def test_requests_without_a_route_are_good_to_know(meter: Meter, llm: OpenAI, look: Look) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", "chat", lambda: (bind(user="ann"), ask(llm), "done")[-1])
    app.wsgi_app = wsgi.CostMiddleware(app.wsgi_app, meter)  # type: ignore[method-assign]
    app.test_client().get("/")
    assert the(look(), "route-unknown").level == "info"


def test_requests_that_do_not_say_who_asks_are_good_to_know(
    meter: Meter, llm: OpenAI, look: Look
) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", "chat", lambda: (ask(llm), "done")[-1])
    LLMCost(app, meter=meter)
    app.test_client().get("/")
    findings = look()
    assert the(findings, "no-tags").level == "info"
    assert "route-unknown" not in codes(findings)


# What was used.


def test_streams_without_usage_are_found(meter: Meter, provider: FakeProvider, look: Look) -> None:
    hooks = meter.event_hooks(api="openai", provider="openai")
    with httpx2.Client(event_hooks=hooks) as http:
        client = OpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
        for _ in range(3):
            list(stream(client))
    finding = the(look(), "streams-without-usage")
    assert finding.level == "warning"
    assert finding.problem.startswith("3 calls of openai/gpt-5-mini, streams most of them")
    assert "unknown, and have no cost" in finding.problem
    assert "stream_options={'include_usage': True}" in finding.mend


def test_streams_that_are_asked_for_their_usage_are_well(llm: OpenAI, look: Look) -> None:
    with tag(feature="chat"):
        list(stream(llm))
    assert codes(look(), above_info=True) == set()


def test_streams_whose_tokens_are_estimated_are_found_as_such(
    meter: Meter, provider: FakeProvider, llm: OpenAI, look: Look
) -> None:
    for _ in range(30):  # enough to estimate by
        ask(llm)
    meter.instrument(llm, provider="openai", include_usage=False)
    list(stream(llm))
    findings = look()
    assert "estimated from bytes" in the(findings, "streams-without-usage").problem
    assert "cost-incomplete" not in codes(findings)


def test_answers_without_usage_are_found_with_the_reason(
    provider: FakeProvider, llm: OpenAI, look: Look
) -> None:
    provider.reply(Reply(omit_usage=True))
    ask(llm)
    finding = the(look(), "usage-unknown")
    assert finding.level == "warning"
    assert "(the response carries no usage)" in finding.problem


def test_an_encoding_that_cannot_be_read_names_the_extra(
    provider: FakeProvider, llm: OpenAI, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_installed(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(decoding, "import_module", nothing_installed)
    provider.reply(Reply(encoding="br"))
    with llm.chat.completions.with_streaming_response.create(
        model="gpt-5-mini", messages=HELLO
    ) as response:
        list(response.http_response.iter_raw())
    assert the(look(), "extra-missing").mend == "pip install 'costmw[compression]'"


def test_streams_that_are_left_early_are_good_to_know(
    provider: FakeProvider, llm: OpenAI, look: Look
) -> None:
    provider.reply(Reply(text="word " * 50, pace=0.01))
    with stream(llm) as chunks:
        next(chunks)
    finding = the(look(), "calls-incomplete")
    assert finding.level == "info"
    assert "1 call of openai/gpt-5-mini" in finding.problem


# What it costs.


def test_a_model_without_a_price_is_found_with_the_price_to_paste(
    meter: Meter, llm: OpenAI, look: Look, tmp_path: Path
) -> None:
    ask(llm, 'acme "tuned" 1')
    ask(llm, 'acme "tuned" 1')
    finding = the(look(), "model-unpriced")
    assert finding.level == "warning"
    assert finding.problem.startswith('2 calls of openai/acme "tuned" 1 have no cost')
    pasted = finding.mend.partition("\n")[2]
    (price,) = tomllib.loads(pasted)["price"]
    assert (price["model"], price["provider"]) == ('acme "tuned" 1', "openai")

    prices = tmp_path / "prices.toml"
    prices.write_text(pasted)
    assert load_overrides(prices)
    today = datetime.now(UTC).date()
    finding = the(look(COSTMW_PRICES=str(prices)), "model-unpriced")
    assert finding.mend == f"costmw reprice --since {today}"

    priced = Meter(meter.store.url, config=Config(price_file=prices))
    priced.reprice(since=datetime(today.year, today.month, today.day, tzinfo=UTC))
    priced.close()
    assert "model-unpriced" not in codes(look())


def test_own_prices_of_a_meter_count_too(
    make_meter: Callable[..., Meter], llm: OpenAI, look: Look
) -> None:
    ask(llm, "acme-tuned-1")
    own = PriceOverride(model="acme-tuned-1", usd={"input": 1, "output": 2})
    priced = make_meter(config=Config(prices=(own,)))
    look()
    mend = the(examine(priced, environ={}), "model-unpriced").mend
    assert mend.startswith("meter.reprice(since=datetime(20")


def test_a_call_of_no_model_has_no_price_to_paste(meter: Meter, look: Look) -> None:
    meter.start()
    now = datetime.now(UTC)
    meter.store.write([an_event(None, created_at=now, request_model=None, response_model=None)])
    finding = the(look(), "model-unpriced")
    assert "neither the request nor the response names the model" in finding.problem
    assert "[[price]]" not in finding.mend


def test_a_host_that_nobody_bills_for_is_found(
    meter: Meter, provider: FakeProvider, look: Look
) -> None:
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        ask(meter.instrument(client))
    finding = the(look(), "provider-unknown")
    assert finding.level == "warning"
    assert "provider='openai'" in finding.mend


def test_a_cost_that_leaves_something_out_is_good_to_know(
    provider: FakeProvider, llm: OpenAI, look: Look
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    provider.reply(Reply(usage=usage, service_tier="made-up"))
    ask(llm)
    finding = the(look(), "cost-incomplete")
    assert finding.level == "info"
    assert "made-up" in finding.problem


# What is counted twice, or not at all.


def test_a_call_that_is_counted_by_the_app_and_by_a_proxy_is_found(
    make_meter: Callable[..., Meter], provider: FakeProvider, look: Look
) -> None:
    outside, inside = make_meter(), make_meter()
    upstream = outside.instrument(httpx.Client(base_url=provider.url), provider="openai")

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        answer = upstream.post(scope["path"], content=body)
        await Response(answer.content, media_type="application/json")(scope, receive, send)

    server = ThreadedServer(proxy, host="127.0.0.1", port=0)
    try:
        with OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="k") as client:
            inside.instrument(client, provider="openai")
            ask(client)
            ask(client)
    finally:
        server.stop()
        upstream.close()
    assert outside.flush(30)
    assert inside.flush(30)
    finding = the(look(), "counted-twice")
    assert finding.level == "warning"
    assert finding.problem.startswith("Of 4 calls, 2 are there twice")


def test_calls_that_costmw_failed_to_record_are_found(meter: Meter, look: Look) -> None:
    meter.start()
    meter.store.write([an_outcome("capture_fault", at=datetime.now(UTC)) for _ in range(3)])
    finding = the(look(), "faults")
    assert finding.level == "warning"
    assert "failed to record 3 calls" in finding.problem
