"""Results that come later, estimates where usage is missing, and prices that come later."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from conftest import events_of
from costmw import Config, Meter, PriceOverride, tag
from costmw.capture.estimate import TokenRatios
from costmw.events import Usage, UsageEvent
from costmw.store.base import Query

USAGE = {"input_tokens": 1000, "output_tokens": 100}
COST = 1000 * 250_000 + 100 * 2_000_000  # gpt-5-mini, pico-USD
HALF = COST // 2


class Answers(httpx2.BaseTransport):
    """Serves what the test says, by method and path."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = self.answers[request.method, request.url.path]
        if isinstance(answer, httpx2.Response):
            return answer
        return httpx2.Response(200, json=answer)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def client(answers: Answers, meter: Meter) -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=answers) as client:
        yield meter.instrument(client)


OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"


def response(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "model": "gpt-5-mini",
        "status": status,
        "background": True,
        "usage": None,
        **more,
    }


def facts(event: UsageEvent) -> tuple[str, int | None, dict[str, str]]:
    return event.status, event.price.cost_pico_usd, dict(event.tags)


def test_a_background_response_is_one_row_with_who_submitted_it_however_often_it_is_polled(
    answers: Answers, client: httpx2.Client, meter: Meter, make_meter: Callable[..., Meter]
) -> None:
    answers.answers["POST", "/v1/responses"] = response("queued")
    with tag(tenant="acme", feature="report"):
        client.post(f"{OPENAI}/responses", json={"model": "gpt-5-mini", "background": True})
    assert events_of(meter) == []

    # Polled by another process, which knows nothing of who asked.
    elsewhere = make_meter()
    with httpx2.Client(transport=answers) as other:
        elsewhere.instrument(other)
        for status, usage in (("in_progress", None), ("completed", USAGE), ("completed", USAGE)):
            answers.answers["GET", "/v1/responses/resp_1"] = response(status, usage=usage)
            with tag(feature="poller"):
                other.get(f"{OPENAI}/responses/resp_1")
    assert [facts(e) for e in events_of(elsewhere)] == [
        ("ok", COST, {"tenant": "acme", "feature": "report"})
    ]


def test_a_response_that_was_seen_when_it_was_made_is_not_charged_when_it_is_retrieved(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    done = response("completed", usage=USAGE, background=False)
    answers.answers["POST", "/v1/responses"] = done
    answers.answers["GET", "/v1/responses/resp_1"] = done
    client.post(f"{OPENAI}/responses", json={"model": "gpt-5-mini"})
    client.get(f"{OPENAI}/responses/resp_1")
    assert [facts(e) for e in events_of(meter)] == [("ok", COST, {})]


def test_gateways_that_repeat_response_ids_do_not_hide_a_call(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    answers.answers["POST", "/v1/responses"] = response("completed", usage=USAGE, background=False)
    for _ in range(3):
        client.post(f"{OPENAI}/responses", json={"model": "gpt-5-mini"})
    assert len(events_of(meter)) == 3


def test_an_openai_batch_is_a_row_a_line_at_half_price_with_who_submitted_it(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    batch = {"id": "batch_1", "object": "batch", "status": "validating"}
    answers.answers["POST", "/v1/batches"] = batch
    answers.answers["GET", "/v1/batches/batch_1"] = {**batch, "output_file_id": "file_9"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    lines = [
        {
            "id": f"batch_req_{n}",
            "custom_id": f"mine-{n}",
            "response": {
                "status_code": status,
                "request_id": f"req_{n}",
                "body": {"id": f"c{n}", "model": "gpt-5-mini", "usage": usage},
            },
        }
        for n, status in enumerate((200, 200, 500))
    ]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()

    with tag(tenant="acme"):
        client.post(f"{OPENAI}/batches", json={"input_file_id": "file_1"})
    client.get(f"{OPENAI}/batches/batch_1")
    for _ in range(2):
        answers.answers["GET", "/v1/files/file_9/content"] = httpx2.Response(
            200, content=body, headers={"content-type": "application/octet-stream"}
        )
        client.get(f"{OPENAI}/files/file_9/content")
    assert [facts(e) for e in events_of(meter)] == [("ok", HALF, {"tenant": "acme"})] * 2


def test_a_file_that_is_no_batch_makes_no_row(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    for body in (b'{"a": 1}\n[2]\n', b"\x89PNG\r\n" + bytes(range(256)), b"", b"text\n"):
        answers.answers["GET", "/v1/files/f/content"] = httpx2.Response(200, content=body)
        assert client.get(f"{OPENAI}/files/f/content").content == body
    assert events_of(meter) == []


def test_an_anthropic_batch_is_a_row_a_message_at_half_price(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    answers.answers["POST", "/v1/messages/batches"] = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "in_progress",
    }
    message = {"id": "msg_1", "model": "claude-haiku-4-5", "usage": USAGE}
    lines = [
        {"custom_id": "a", "result": {"type": "succeeded", "message": message}},
        {"custom_id": "b", "result": {"type": "errored", "error": {}}},
    ]
    answers.answers["GET", "/v1/messages/batches/msgbatch_1/results"] = httpx2.Response(
        200,
        content="\n".join(map(json.dumps, lines)),
        headers={"content-type": "application/x-jsonl"},
    )
    with tag(tenant="acme"):
        client.post(f"{ANTHROPIC}/messages/batches", json={"requests": []})
    client.get(f"{ANTHROPIC}/messages/batches/msgbatch_1/results")
    (event,) = events_of(meter)
    # $1 and $5 for a million, halved
    assert facts(event) == ("ok", (1000 * 10**6 + 100 * 5 * 10**6) // 2, {"tenant": "acme"})


def test_compaction_and_advisors_are_counted_and_priced_by_their_own_models(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    answers.answers["POST", "/v1/messages"] = {
        "id": "msg_1",
        "model": "claude-haiku-4-5",
        "usage": {
            "input_tokens": 200,
            "output_tokens": 20,
            "iterations": [
                {"type": "compaction", "input_tokens": 50_000, "output_tokens": 3000},
                {"type": "message", "input_tokens": 200, "output_tokens": 20},
                {
                    "type": "advisor_message",
                    "model": "claude-sonnet-4-6",
                    "input_tokens": 1000,
                    "output_tokens": 10,
                },
            ],
        },
    }
    client.post(f"{ANTHROPIC}/messages", json={"model": "claude-haiku-4-5"})
    (event,) = events_of(meter)
    assert (event.usage.input_tokens, event.usage.output_tokens) == (51_200, 3030)
    own = 50_200 * 10**6 + 3020 * 5 * 10**6
    advisor = 1000 * 3 * 10**6 + 10 * 15 * 10**6
    assert event.price.cost_pico_usd == own + advisor
    assert str(event.price.ref).endswith("claude-sonnet-4-6")


def test_the_providers_own_cost_is_believed_where_it_is_documented(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.00014}
    body = {"id": "gen-1", "model": "openai/gpt-5-mini", "usage": usage}
    answers.answers["POST", "/api/v1/chat/completions"] = body
    answers.answers["POST", "/v1/chat/completions"] = {**body, "model": "gpt-5-mini"}
    client.post("https://openrouter.ai/api/v1/chat/completions", json={"model": "x"})
    client.post(f"{OPENAI}/chat/completions", json={"model": "x"})
    own, listed = events_of(meter)
    assert (own.price.source, own.price.cost_pico_usd) == ("provider", 140_000_000)
    assert (listed.price.source, listed.price.cost_pico_usd) == ("list", 12_500_000)


def stream_of(*chunks: Any) -> httpx2.Response:
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return httpx2.Response(
        200,
        stream=Served(body + b"data: [DONE]\n\n"),
        headers={"content-type": "text/event-stream"},
    )


class Served(httpx2.SyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for event in self._body.split(b"\n\n")[:-1]:
            yield event + b"\n\n"


def chunks(words: int, **last: Any) -> list[Any]:
    said = [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]
    chunk = {"id": "c1", "model": "gpt-5-mini", "usage": None}
    found: list[Any] = [{**chunk, "choices": said} for _ in range(words)]
    return [*found, {**chunk, "choices": [], **last}] if last else found


def test_a_stream_without_usage_is_estimated_from_this_models_own_exact_calls(
    answers: Answers, client: httpx2.Client, meter: Meter
) -> None:
    request = {"model": "gpt-5-mini", "stream": True, "stream_options": {"include_usage": True}}
    messages = [{"role": "user", "content": "x" * 4000}]

    def send(*served: Any) -> UsageEvent:
        answers.answers["POST", "/v1/chat/completions"] = stream_of(*served)
        client.post(f"{OPENAI}/chat/completions", json={**request, "messages": messages})
        return events_of(meter)[-1]

    unknown = send(*chunks(100))
    assert (unknown.status, unknown.usage, unknown.price.cost_pico_usd) == (
        "unmetered",
        Usage(),
        None,
    )
    exact = send(*chunks(100, usage={"prompt_tokens": 1000, "completion_tokens": 100}))
    assert exact.status == "ok"
    guessed = send(*chunks(200))
    assert guessed.status == "estimated"
    assert guessed.usage.input_tokens == 1000
    assert abs((guessed.usage.output_tokens or 0) - 200) <= 2
    assert "estimated from bytes" in str(guessed.reason)
    now = datetime.now(UTC)
    with meter.store.snapshot() as snapshot:
        span = Query(now - timedelta(hours=1), now + timedelta(hours=1))
        (totals,) = snapshot.totals(span).groups.values()
    assert totals.cost_pico_usd == exact.price.cost_pico_usd
    assert totals.estimated_cost_pico_usd == guessed.price.cost_pico_usd
    assert totals.unpriced == 1


def test_ratios_follow_what_a_model_does_now() -> None:
    ratios = TokenRatios()
    for tokens in (100, 50):
        for _ in range(3000):
            ratios.learn("p", "m", Usage(tokens, tokens), input_bytes=400, output_bytes=400)
    found = ratios.estimate("p", "m", Usage(7, None), input_bytes=400, output_bytes=400)
    assert found is not None
    assert found.input_tokens == 7
    assert 50 <= (found.output_tokens or 0) < 65
    assert ratios.estimate("p", "other", None, input_bytes=1, output_bytes=1) is None


def test_a_stream_that_nobody_reads_on_is_settled_and_one_that_is_read_is_left_alone(
    answers: Answers, make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(config=Config(idle_timeout=0.05, ack_timeout=30))
    with httpx2.Client(transport=answers) as client:
        meter.instrument(client)

        def opened() -> httpx2.Response:
            answers.answers["POST", "/v1/chat/completions"] = stream_of(*chunks(1000))
            request = client.build_request(
                "POST", f"{OPENAI}/chat/completions", json={"model": "gpt-5-mini"}
            )
            return client.send(request, stream=True)

        idle, read = opened(), opened()
        others = []
        steps = read.iter_raw()
        deadline = time.monotonic() + 20
        while not events_of(meter):
            next(steps)
            others.append(opened())  # a call is the occasion to look after the others
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert idle.stream._settled  # type: ignore[attr-defined]
        assert not read.stream._settled  # type: ignore[attr-defined]
        assert {e.status for e in events_of(meter)} == {"incomplete"}
        for response in (idle, read, *others):
            response.close()
    assert len(events_of(meter)) == 2 + len(others)


def test_repricing_fills_rows_without_a_price_as_amendments(
    make_meter: Callable[..., Meter], store_url: str
) -> None:
    meter = make_meter()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    call: Any = {"provider": "openai", "input_tokens": 1_000_000, "output_tokens": 0}
    meter.record(**call, model="acme-1", created_at=yesterday)
    meter.record(**call, model="gpt-5-mini", created_at=yesterday)
    meter.record(**call, model="acme-1", created_at=yesterday - timedelta(days=30))
    meter.close()

    prices = (PriceOverride("acme-1", {"input": "0.5"}), PriceOverride("gpt-5-mini", {"input": 1}))
    later = make_meter(config=Config(prices=prices, ack_timeout=30))
    since = yesterday - timedelta(days=1)
    for dry_run in (True, False):
        done = later.reprice(since=since, dry_run=dry_run)
        assert (done.changed, done.difference_pico_usd) == (1, 5 * 10**11)
    assert later.reprice(since=since).changed == 0

    old, listed, filled = sorted(
        events_of(later), key=lambda e: (e.created_at, e.price.cost_pico_usd or 0)
    )
    assert old.price.cost_pico_usd is None
    assert listed.price.cost_pico_usd == 25 * 10**10
    assert (filled.price.cost_pico_usd, filled.price.source) == (5 * 10**11, "override")
    assert filled.reason == "repriced by override acme-1"
    total = later.reports.by("model", days=60).total.sums
    assert (total.total_usd, total.unpriced_calls) == (Decimal("0.75"), 1)

    assert later.reprice(since=since, everything=True).difference_pico_usd == 75 * 10**10
    assert later.reports.by("model", days=60).total.sums.total_usd == Decimal("1.50")


def test_the_reprice_command_says_what_it_does(store_url: str, tmp_path: Any) -> None:
    meter = Meter(store_url)
    meter.record(provider="openai", model="acme-1", input_tokens=1_000_000, output_tokens=0)
    meter.close()
    (tmp_path / "prices.toml").write_text("[[price]]\nmodel = 'acme-1'\ninput = 0.5\n")
    command = [sys.executable, "-m", "costmw.cli", "reprice", "--since", "2026-01-01"]
    done = subprocess.run(
        [*command, "--store", store_url],
        env={"COSTMW_PRICES": str(tmp_path / "prices.toml"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1 calls looked at, 1 are repriced, 0.50 USD in all\n", done.stderr
    wrong = subprocess.run([*command, "--store", "mysql://x"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
