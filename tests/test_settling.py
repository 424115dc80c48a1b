"""When and how a call becomes a row: forks, errors on the way, several results, odd bodies."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Context, Inexact, localcontext
from typing import Any

import httpx2
import openai
import pytest

from conftest import events_of, outcomes_of
from costmw import Config, Meter, PriceOverride
from costmw.events import Usage
from costmw.pricing import Pricing
from costmw.testing import FakeProvider, Reply
from test_later_results import ANTHROPIC, COST, OPENAI, USAGE, Answers, chunks, response, stream_of
from test_sdk_matrix import HELLO


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def client(answers: Answers, meter: Meter) -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=answers) as client:
        yield meter.instrument(client)


class Pieces(httpx2.SyncByteStream):
    def __init__(self, body: bytes, size: int = 1000) -> None:
        self._body, self._size = body, size

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), self._size):
            yield self._body[start : start + self._size]


@pytest.mark.parametrize("results", [20, 1700])
def test_every_line_of_a_streamed_batch_is_a_row(
    results: int, answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    lines = [
        {
            "custom_id": str(n),
            "result": {
                "type": "succeeded",
                "message": {"id": f"msg_{n}", "model": "claude-haiku-4-5", "usage": USAGE},
            },
        }
        for n in range(results)
    ]
    body = "\n".join(map(json.dumps, lines)).encode()
    url = f"{ANTHROPIC}/messages/batches/b/results"
    for _ in range(2):
        answers.answers["GET", "/v1/messages/batches/b/results"] = httpx2.Response(
            200, stream=Pieces(body), headers={"content-type": "application/x-jsonl"}
        )
        with client.stream("GET", url) as served:
            assert b"".join(served.iter_raw()) == body
    for thread in threading.enumerate():
        if thread.name == "costmw-batch":
            thread.join(60)
    assert len(events_of(meter)) == results
    assert meter.status().dropped == 0


def test_an_own_price_holds_for_the_dated_name_that_the_response_gives(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    own = PriceOverride("gpt-5-mini", {"input": 1, "output": 1}, provider="openai")
    azure = PriceOverride("gpt-5-mini", {"input": 2, "output": 2}, provider="azure")
    meter = make_meter(config=Config(prices=(own, azure), ack_timeout=30))
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    provider.default = Reply(usage=usage, model="gpt-5-mini-2025-08-07")
    for name in ("openai", "azure.ai.openai"):
        with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
            meter.instrument(client, provider=name)
            client.chat.completions.create(model="gpt-5-mini", messages=HELLO)
    assert [e.price.cost_pico_usd for e in events_of(meter)] == [15 * 10**6, 30 * 10**6]


def test_a_forked_child_leaves_the_parents_stream_to_the_parent(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    answers.answers["POST", "/v1/chat/completions"] = stream_of(*chunks(5, usage=usage))
    request = client.build_request(
        "POST", f"{OPENAI}/chat/completions", json={"model": "gpt-5-mini", "stream": True}
    )
    served = client.send(request, stream=True)
    steps = served.iter_raw()
    next(steps)
    child = os.fork()
    if child == 0:
        meter.end_streams()
        served.close()
        meter.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert events_of(meter) == []
    list(steps)
    assert [(e.status, e.price.cost_pico_usd) for e in events_of(meter)] == [("ok", COST)]


def test_an_estimate_counts_the_chunks_that_were_not_read(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    request = {"model": "gpt-5-mini", "stream": True, "stream_options": {"include_usage": True}}
    usage = {"prompt_tokens": 10, "completion_tokens": 1000}
    answers.answers["POST", "/v1/chat/completions"] = stream_of(*chunks(1000, usage=usage))
    client.post(f"{OPENAI}/chat/completions", json=request)
    answers.answers["POST", "/v1/chat/completions"] = stream_of(*chunks(1000))
    with client.stream("POST", f"{OPENAI}/chat/completions", json=request) as served:
        steps = served.iter_raw()
        for _ in range(900):
            next(steps)
    cut = events_of(meter)[-1]
    assert cut.status == "incomplete"
    assert abs((cut.usage.output_tokens or 0) - 900) <= 9


def test_the_apps_decimal_context_has_no_say_in_a_cost() -> None:
    usage = Usage(123_457, 12_347)
    facts: Any = {"provider": "openai", "model": "gpt-5-mini", "context": {}}
    at = datetime(2026, 11, 1, tzinfo=UTC)
    plain = Pricing().price(usage, at=at, **facts)
    with localcontext(Context(prec=3, traps=[Inexact])):
        assert Pricing().price(usage, at=at, **facts) == plain
    assert plain.cost_pico_usd == 123_457 * 250_000 + 12_347 * 2_000_000


def test_two_repricings_at_once_change_a_row_once(make_meter: Callable[..., Meter]) -> None:
    from costmw.reprice import _amendment

    meter = make_meter()
    meter.record(provider="openai", model="acme-1", input_tokens=1_000_000, output_tokens=0)
    (event,) = events_of(meter)
    pricing = Pricing([PriceOverride("acme-1", {"input": 1})])
    for _ in range(2):
        amendment = _amendment(event, pricing, everything=False)
        assert amendment is not None
        meter.store.write([amendment])
    (event,) = events_of(meter)
    assert (event.price.cost_pico_usd, event.amendments) == (10**12, 1)


def test_a_dropped_background_stream_makes_its_row_when_the_result_is_read(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    created = {"type": "response.created", "response": response("in_progress")}
    answers.answers["POST", "/v1/responses"] = stream_of(created, {"type": "response.x"})
    with client.stream("POST", f"{OPENAI}/responses", json={"background": True}) as served:
        next(served.iter_raw())
    assert events_of(meter) == []
    answers.answers["GET", "/v1/responses/resp_1"] = response("completed", usage=USAGE)
    client.get(f"{OPENAI}/responses/resp_1")
    assert [(e.status, e.price.cost_pico_usd) for e in events_of(meter)] == [("ok", COST)]


def test_the_model_of_an_upload_is_read_from_its_form(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    usage = {
        "type": "tokens",
        "input_tokens": 100,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 100},
        "output_tokens": 10,
    }
    answers.answers["POST", "/v1/audio/transcriptions"] = {"text": "hi", "usage": usage}
    client.post(
        f"{OPENAI}/audio/transcriptions",
        data={"model": "gpt-4o-transcribe"},
        files={"file": ("a.mp3", b"\x00\x01")},
    )
    (event,) = events_of(meter)
    assert (event.request_model, event.status) == ("gpt-4o-transcribe", "ok")
    assert event.price.cost_pico_usd


def test_a_request_that_may_have_been_worked_on_is_incomplete_and_one_that_was_not_is_none(
    meter: Meter,
) -> None:
    class Fails(httpx2.BaseTransport):
        error: Exception = httpx2.ReadTimeout("late")

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            raise self.error

    transport = Fails()
    with meter.instrument(httpx2.Client(transport=transport)) as client:
        for error in (httpx2.ReadTimeout("late"), httpx2.ConnectError("no"), ValueError("bug")):
            transport.error = error
            with pytest.raises(type(error)):
                client.post(f"{OPENAI}/chat/completions", json={"model": "gpt-5-mini"})
    (event,) = events_of(meter)
    assert (event.status, event.price.cost_pico_usd) == ("incomplete", None)
    assert outcomes_of(meter) == {"error": 2}


def test_two_choices_are_both_waited_for(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    def chunk(index: int, reason: str | None, output: int) -> dict[str, Any]:
        choice = {"index": index, "delta": {"content": "x"}, "finish_reason": reason}
        usage = {"prompt_tokens": 10, "completion_tokens": output}
        return {"id": "c", "model": "gpt-5-mini", "choices": [choice], "usage": usage}

    answers.answers["POST", "/v1/chat/completions"] = stream_of(
        chunk(0, None, 1), chunk(1, None, 2), chunk(0, "stop", 50), chunk(1, "stop", 100)
    )
    client.post(f"{OPENAI}/chat/completions", json={"model": "gpt-5-mini", "n": 2})
    assert [e.usage.output_tokens for e in events_of(meter)] == [100]


def test_a_stream_that_is_read_at_once_is_not_asked_for_usage(
    meter: Meter, provider: FakeProvider
) -> None:
    body = {"model": "gpt-5-mini", "messages": HELLO, "stream": True}
    with meter.instrument(httpx2.Client(), api="openai", provider="openai") as client:
        served = client.post(f"{provider.openai_url}/chat/completions", json=body)
    assert "stream_options" not in provider.requests[-1].json
    assert '"choices":[]' not in served.text


def test_half_a_surrogate_pair_hides_no_usage(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    body = json.dumps({"id": "\ud83d", "model": "gpt-5-mini", "usage": usage}).encode()
    answers.answers["POST", "/v1/chat/completions"] = httpx2.Response(200, content=body)
    client.post(f"{OPENAI}/chat/completions", json={"model": "gpt-5-mini"})
    assert [(e.status, e.price.cost_pico_usd) for e in events_of(meter)] == [("ok", COST)]


def test_an_own_cost_beyond_all_sense_leaves_a_row_without_cost(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    for cost in ("1e999", "1e30"):
        body = b'{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":1,"cost":%s}}'
        answers.answers["POST", "/api/v1/chat/completions"] = httpx2.Response(
            200, content=body % cost.encode()
        )
        client.post("https://openrouter.ai/api/v1/chat/completions", json={})
    assert [e.price.cost_pico_usd for e in events_of(meter)] == [None, None]


def test_the_stated_past_does_not_count_a_web_request(meter: Meter) -> None:
    from costmw.context import Scope, enter_scope

    before = enter_scope(Scope(meter))
    call: Any = {"provider": "openai", "model": "gpt-5-mini", "input_tokens": 1}
    meter.priced(**call, output_tokens=1)
    meter.record(**call, output_tokens=1, created_at=datetime.now(UTC) - timedelta(hours=1))
    enter_scope(before)
    assert [e.first_in_request for e in events_of(meter)] == [True]


def test_half_a_surrogate_pair_in_a_stated_call_loses_no_row(meter: Meter) -> None:
    half = "a\ud800"
    meter.record(
        provider=half,
        model=half,
        operation=half,
        response_id=half,
        detail={half: 1},
        input_tokens=1,
        output_tokens=1,
    )
    (event,) = events_of(meter)
    assert (event.provider, event.model, event.operation, event.response_id) == ("a?",) * 4
    assert meter.status().rejected == 0


def test_a_stated_time_beyond_utc_is_a_clear_error(meter: Meter) -> None:
    from datetime import timezone

    from costmw.errors import ConfigError

    late = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(timedelta(hours=-5)))
    call: Any = {"provider": "p", "model": "m", "created_at": late}
    with pytest.raises(ConfigError, match="which is no time in UTC"):
        meter.record(**call)
