"""Plain HTTP clients, hooks, and what happens at the edges of a call."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import openai
import pytest

from conftest import events_of, outcomes_of
from costmw import Config, Meter
from costmw.errors import ConfigError
from costmw.events import UsageEvent
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import CHAT, CHAT_USAGE, HELLO, MESSAGE, MESSAGE_USAGE, drained, settled

LIBRARIES = [httpx, httpx2]
KINDS = ["Client", "AsyncClient"]
ENCODINGS = [None, "gzip", "deflate", "br", "zstd"]


def row(event: UsageEvent) -> tuple[int | None, int | None, int | None]:
    return event.usage.input_tokens, event.usage.output_tokens, event.price.cost_pico_usd


async def closed(client: Any) -> None:
    await settled(client.aclose() if hasattr(client, "aclose") else client.close())


async def read(client: Any, url: str, body: Any) -> bytes:
    """The whole body, read as a stream."""
    request = client.build_request("POST", url, json=body)
    response = await settled(client.send(request, stream=True))
    if hasattr(client, "aclose"):
        return b"".join([chunk async for chunk in response.aiter_bytes()])
    return b"".join(response.iter_bytes())


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_kind_and_encoding_is_read_exactly(
    library: Any,
    kind: str,
    streamed: bool,
    encoding: Any,
    meter: Meter,
    provider: FakeProvider,
) -> None:
    provider.default = Reply(usage=MESSAGE_USAGE, encoding=encoding, chunk_bytes=11)
    url = f"{provider.anthropic_url}/v1/messages"
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 9,
        "messages": HELLO,
        "stream": streamed,
    }

    async def run() -> tuple[bytes, bytes]:
        client = getattr(library, kind)()
        bare = await read(client, url, body)
        meter.instrument(client, provider="anthropic")
        metered = await read(client, url, body)
        if not streamed:
            await settled(client.post(url, json=body))
        await closed(client)
        return bare, metered

    bare, metered = asyncio.run(run())
    assert len(metered) == len(bare) > 100
    assert [row(event) for event in events_of(meter)] == [MESSAGE] * (1 if streamed else 2)
    assert {event.provider for event in events_of(meter)} == {"anthropic"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_event_hooks_record_plain_streamed_and_retried_calls(
    library: Any, kind: str, meter: Meter, provider: FakeProvider
) -> None:
    hooks = meter.event_hooks(api="openai", provider="openai")
    url = f"{provider.openai_url}/chat/completions"
    body = {"model": "gpt-5-mini", "messages": HELLO}
    stream = {**body, "stream": True, "stream_options": {"include_usage": True}}
    provider.reply(Reply(usage=CHAT_USAGE), Reply(usage=CHAT_USAGE), Reply(status=429))

    async def run() -> None:
        client = getattr(library, kind)(event_hooks=hooks)
        await settled(client.post(url, json=body))
        await read(client, url, stream)
        await settled(client.post(url, json=body))
        await closed(client)

    asyncio.run(run())
    assert [row(event) for event in events_of(meter)] == [CHAT, CHAT]
    assert outcomes_of(meter) == {"error": 1}


def test_two_ways_in_at_once_still_make_one_row(
    meter: Meter, make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    other = make_meter()
    hooks = meter.event_hooks(api="openai", provider="openai")
    with httpx2.Client(event_hooks=hooks) as http_client:
        client = openai.OpenAI(base_url=provider.openai_url, api_key="k", http_client=http_client)
        for again in (meter, meter, other):
            again.instrument(client, provider="openai")
        client.with_options(max_retries=1).embeddings.create(
            model="text-embedding-3-small", input="x"
        )
    assert len(events_of(meter)) == 1
    assert (meter.status().committed, other.status().committed) == (0, 1)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_redirect_is_one_call(library: Any, meter: Meter, provider: FakeProvider) -> None:
    url = f"{provider.openai_url}/chat/completions"
    hooks = meter.event_hooks(api="openai", provider="openai")
    for client in (
        meter.instrument(library.Client(follow_redirects=True), api="openai", provider="openai"),
        library.Client(follow_redirects=True, event_hooks=hooks),
    ):
        provider.reply(Reply(redirect=url), Reply(usage=CHAT_USAGE))
        with client:
            client.post(url, json={"model": "gpt-5-mini", "messages": HELLO})
    assert [row(event) for event in events_of(meter)] == [CHAT, CHAT]
    assert outcomes_of(meter) == {}


def test_an_unknown_host_has_exact_tokens_and_no_cost_and_says_what_to_pass(
    meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=CHAT_USAGE)
    with meter.instrument(openai.OpenAI(base_url=provider.openai_url, api_key="k")) as client:
        client.chat.completions.create(model="gpt-5-mini", messages=HELLO)  # type: ignore[arg-type]
    (event,) = events_of(meter)
    assert row(event) == (1210, 345, None)
    assert event.status == "ok"
    assert "pass provider=" in str(event.reason)


def test_a_host_of_the_config_is_known(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(config=Config(hosts={"127.0.0.1": "openai"}, ack_timeout=30))
    provider.default = Reply(usage=CHAT_USAGE)
    with meter.instrument(httpx.Client()) as client:
        url = f"{provider.openai_url}/chat/completions"
        client.post(url, json={"model": "gpt-5-mini", "messages": HELLO})
    assert [row(event) for event in events_of(meter)] == [CHAT]


def test_requests_that_are_no_llm_calls_make_no_row(meter: Meter, provider: FakeProvider) -> None:
    with meter.instrument(httpx.Client(), api="openai", provider="openai") as client:
        assert client.get(f"{provider.openai_url}/models").status_code == 200
        assert client.post(f"{provider.url}/nothing", json={}).status_code == 404
    assert events_of(meter) == []
    assert outcomes_of(meter) == {}


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (object(), {}, "cannot instrument a builtins.object"),
        (httpx.Client(), {"api": "opemai"}, "api='opemai' is not known; use one of anthropic"),
        (httpx.Client(), {"provider": "internal"}, "provider='internal' is not known: pass api="),
    ],
)
def test_what_cannot_be_instrumented_is_a_clear_error(
    target: Any, options: Any, words: str, meter: Meter
) -> None:
    with pytest.raises(ConfigError, match=words):
        meter.instrument(target, **options)


def test_a_disabled_meter_touches_nothing(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(enabled=False)
    with meter.instrument(
        openai.OpenAI(base_url=provider.openai_url, api_key="k"), provider="openai"
    ) as client:
        list(client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True))  # type: ignore[arg-type]
    meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
    assert "stream_options" not in provider.requests[0].json
    assert meter.status().committed == 0


def test_one_key_has_one_fingerprint_that_is_not_the_key(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    ids = []
    for key in ("sk-secret-1", "sk-secret-2", "sk-secret-1"):
        meter = make_meter()
        with meter.instrument(
            openai.OpenAI(base_url=provider.openai_url, api_key=key), provider="openai"
        ) as client:
            client.embeddings.create(model="text-embedding-3-small", input="x")
        ids.append(events_of(meter)[-1].api_key_id)
    assert ids[0] == ids[2] != ids[1]
    assert all(i and "secret" not in i for i in ids)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"prompt_tokens": -1, "completion_tokens": 1}, "prompt_tokens is '-1'"),
        ({"prompt_tokens": "9", "completion_tokens": 1}, "prompt_tokens is '9'"),
        ({"prompt_tokens": 10**30, "completion_tokens": 1}, "prompt_tokens is '1000"),
        ({"prompt_tokens": True, "completion_tokens": 1}, "prompt_tokens is 'True'"),
        ({"prompt_tokens": 1.5, "completion_tokens": 1}, "prompt_tokens is '1.5'"),
        ({"completion_tokens": 1}, "usage has no prompt_tokens"),
        (
            {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}},
            "5 cached input tokens exceed the 1 input tokens",
        ),
        ({"prompt_tokens": 1, "prompt_tokens_details": [5]}, "prompt_tokens_details is list"),
    ],
)
def test_usage_that_cannot_be_is_unmetered_with_the_reason_and_never_zero(
    usage: Any, words: str, meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=usage)
    with meter.instrument(httpx.Client(), api="openai", provider="openai") as client:
        url = f"{provider.openai_url}/chat/completions"
        client.post(url, json={"model": "gpt-5-mini", "messages": HELLO})
    (event,) = events_of(meter)
    assert (event.status, row(event)) == ("unmetered", (None, None, None))
    assert words in str(event.reason)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"<html>", "text/html"),
        (b'{"usage": []}', "application/json"),
        (b"data: {broken\n\ndata: [DONE]\n\n", "text/event-stream"),
        (b'data: {"usage": {"prompt_tokens": 5\n\n', "text/event-stream"),
    ],
)
def test_a_body_that_makes_no_sense_reaches_the_app_and_is_not_exact(
    body: bytes, content_type: str, meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(body=body, content_type=content_type)
    with meter.instrument(httpx.Client(), api="openai", provider="openai") as client:
        response = client.post(
            f"{provider.openai_url}/chat/completions", json={"model": "gpt-5-mini"}
        )
    assert response.content == body
    (event,) = events_of(meter)
    assert event.status in ("unmetered", "incomplete")
    assert event.price.cost_pico_usd is None
    assert event.reason


def test_a_body_over_the_limit_is_passed_on_whole_and_said_to_be_too_long(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = make_meter(config=Config(max_body_bytes=1000, ack_timeout=30))
    provider.default = Reply(text="long " * 1000)
    with meter.instrument(httpx.Client(), api="openai", provider="openai") as client:
        with client.stream(
            "POST", f"{provider.openai_url}/chat/completions", json={"messages": HELLO}
        ) as response:
            assert len(response.read()) > 5000
    (event,) = events_of(meter)
    assert (event.status, event.price.cost_pico_usd) == ("unmetered", None)
    assert "max_body_bytes" in str(event.reason)


def test_a_response_that_is_never_read_is_settled_when_it_is_dropped(
    meter: Meter, provider: FakeProvider
) -> None:
    with meter.instrument(httpx.Client(), api="openai", provider="openai") as client:
        request = client.build_request(
            "POST", f"{provider.openai_url}/chat/completions", json={"messages": HELLO}
        )
        response = client.send(request, stream=True)
        assert events_of(meter) == []
        del response
        gc.collect()
        (event,) = events_of(meter)
    assert (event.status, event.price.cost_pico_usd) == ("incomplete", None)


def test_closing_the_meter_settles_streams_that_are_still_open_once(
    meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(text="a b c d", usage=CHAT_USAGE)
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        stream: Any = client.chat.completions.create(
            model="gpt-5-mini",
            messages=HELLO,  # type: ignore[arg-type]
            stream=True,
        )
        next(stream)
        meter.close()
        (event,) = events_of(meter)
        assert event.status == "incomplete"
        list(stream)
    assert len(events_of(meter)) == 1


def test_tags_are_those_of_the_moment_when_the_call_started(
    meter: Meter, provider: FakeProvider
) -> None:
    from costmw import tag

    provider.default = Reply(text="a b c d", usage=CHAT_USAGE)
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        with tag(feature="first"):
            stream: Any = client.chat.completions.create(
                model="gpt-5-mini",
                messages=HELLO,  # type: ignore[arg-type]
                stream=True,
            )
        with tag(feature="second"):
            list(stream)
    assert [dict(event.tags) for event in events_of(meter)] == [{"feature": "first"}]


def test_cancelled_streams_are_all_recorded(meter: Meter, provider: FakeProvider) -> None:
    provider.default = Reply(text=" ".join("word" for _ in range(50)), pace=0.05)
    calls = 200

    async def run() -> None:
        client = meter.instrument(
            openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k"), provider="openai"
        )
        started = asyncio.Semaphore(0)

        async def call() -> None:
            stream: Any = await client.chat.completions.create(
                model="gpt-5-mini",
                messages=HELLO,  # type: ignore[arg-type]
                stream=True,
            )
            async for _ in stream:
                started.release()

        tasks = [asyncio.create_task(call()) for _ in range(calls)]
        for _ in range(calls):
            await started.acquire()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.close()

    asyncio.run(run())
    gc.collect()
    events = events_of(meter)
    assert len(events) == calls
    assert {event.status for event in events} <= {"incomplete", "ok"}


def test_many_threads_and_tasks_share_clients_without_losing_or_doubling(
    meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=CHAT_USAGE)
    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")

        def work() -> None:
            for streamed in (False, True) * 5:
                result: Any = client.chat.completions.create(
                    model="gpt-5-mini",
                    messages=HELLO,  # type: ignore[arg-type]
                    stream=streamed,
                )
                if streamed:
                    list(result)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [row(event) for event in events_of(meter)] == [CHAT] * 160


def test_an_error_of_ours_is_counted_and_never_reaches_the_call(
    meter: Meter,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug of ours")

    with openai.OpenAI(base_url=provider.openai_url, api_key="k") as client:
        meter.instrument(client, provider="openai")
        for name in ("start_call", "commit_call"):
            with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
                patch.setattr(meter, name, broken)
                for streamed in (False, True):
                    result: Any = client.chat.completions.create(
                        model="gpt-5-mini",
                        messages=HELLO,  # type: ignore[arg-type]
                        stream=streamed,
                    )
                    if streamed:
                        assert asyncio.run(drained(result))
    assert meter.status().faults == 4
    assert "a bug of ours" in str(meter.status().last_error)
    # Rate limited: the first, second and fourth are logged.
    assert sum("could not record" in r.message for r in caplog.records) == 3


def test_a_price_that_fails_leaves_a_row_without_cost(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a bug in the price list")

    monkeypatch.setattr(meter._pricing, "_price", broken)
    event = meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
    assert event.price.cost_pico_usd is None
    assert "a bug in the price list" in str(event.reason)


def test_instrumenting_keeps_no_client_alive(meter: Meter) -> None:
    import weakref

    client = meter.instrument(openai.OpenAI(api_key="k"))
    inner = weakref.ref(client._client)
    client.close()
    gc.disable()
    try:
        del client
        assert inner() is None
    finally:
        gc.enable()
