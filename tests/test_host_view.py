"""The app sees the same with and without costmw: events, content, exceptions, timing."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from conftest import events_of
from costmw import Meter
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import HELLO, MESSAGE_REQUEST, drained, entered, settled

TOOL = Reply(tool_call=("look_up", {"city": "Lyon", "units": "metric"}))
TEXT = Reply(text="Bonjour tout le monde, ça va? 你好 👋")
VOLATILE = {
    "id",
    "completed_at",
    "call_id",
    "tool_use_id",
    "created",
    "created_at",
    "item_id",
    "system_fingerprint",
}


def stable(value: Any) -> Any:
    """A parsed object as plain data, without what differs from one answer to the next."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", warnings=False)
    if isinstance(value, dict):
        return {k: stable(v) for k, v in value.items() if k not in VOLATILE}
    if isinstance(value, list):
        return [stable(v) for v in value]
    return value


async def seen_in_chat_stream(client: Any, **options: Any) -> Any:
    stream = await settled(
        client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True, **options)
    )
    return [stable(chunk) for chunk in await drained(stream)]


async def seen_in_chat(client: Any) -> Any:
    return stable(await settled(client.chat.completions.create(model="gpt-5-mini", messages=HELLO)))


async def seen_in_chat_helper(client: Any) -> Any:
    async with entered(
        client.chat.completions.stream(model="gpt-5-mini", messages=HELLO)
    ) as stream:
        events = [event.type for event in await drained(stream)]
        return events, stable(await settled(stream.get_final_completion()))


async def seen_in_response_stream(client: Any) -> Any:
    stream = await settled(client.responses.create(model="gpt-5-mini", input="x", stream=True))
    return [stable(event) for event in await drained(stream)]


async def seen_in_embeddings(client: Any) -> Any:
    return stable(
        await settled(client.embeddings.create(model="text-embedding-3-small", input="x"))
    )


async def seen_in_message_stream(client: Any) -> Any:
    stream = await settled(client.messages.create(**MESSAGE_REQUEST, stream=True))
    return [stable(event) for event in await drained(stream)]


async def seen_in_message_helper(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE_REQUEST)) as stream:
        events = [event.type for event in await drained(stream)]
        return events, stable(await settled(stream.get_final_message()))


async def seen_in_message(client: Any) -> Any:
    return stable(await settled(client.messages.create(**MESSAGE_REQUEST)))


async def seen_error(client: Any) -> Any:
    try:
        await seen_in_chat(client) if hasattr(client, "chat") else await seen_in_message(client)
    except (openai.OpenAIError, anthropic.AnthropicError, ValueError) as error:
        message = re.sub(r"req_\w+", "req_...", str(error))
        return type(error).__name__, message, type(error.__cause__).__name__
    raise AssertionError("no error")


async def items_of(stream: Any) -> AsyncIterator[Any]:
    """The items of either kind of stream, one by one."""
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


async def seen_of_a_cut_stream(client: Any) -> Any:
    seen: list[Any] = []
    try:
        stream = await settled(
            client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True)
        )
        async for chunk in items_of(stream):
            seen.append(stable(chunk))  # noqa: PERF401 - what came before the cut counts
    except Exception as error:
        return seen, type(error).__name__, type(error.__cause__).__name__
    raise AssertionError("the stream was not cut")


CASES: list[tuple[str, Any, Reply]] = [
    ("openai", seen_in_chat, TEXT),
    ("openai", seen_in_chat, TOOL),
    ("openai", seen_in_chat_stream, TEXT),
    ("openai", seen_in_chat_stream, TOOL),
    ("openai", seen_in_chat_stream, Reply(text="split everywhere", chunk_bytes=7)),
    ("openai", seen_in_chat_stream, Reply(text="one byte", chunk_bytes=1)),
    ("openai", seen_in_chat_stream, Reply(text="compressed anyway", encoding="gzip")),
    ("openai", seen_in_chat_stream, Reply(text="compressed anyway", encoding="br")),
    ("openai", seen_in_chat_helper, TEXT),
    ("openai", seen_in_response_stream, TEXT),
    ("openai", seen_in_response_stream, TOOL),
    ("openai", seen_in_response_stream, Reply(text="zstd", encoding="zstd", chunk_bytes=5)),
    ("openai", seen_in_embeddings, Reply()),
    ("anthropic", seen_in_message, TEXT),
    ("anthropic", seen_in_message_stream, TEXT),
    ("anthropic", seen_in_message_stream, TOOL),
    ("anthropic", seen_in_message_stream, Reply(text="deflate", encoding="deflate")),
    ("anthropic", seen_in_message_helper, TOOL),
    ("openai", seen_error, Reply(status=400)),
    ("openai", seen_error, Reply(status=500)),
    ("openai", seen_error, Reply(body=b"not json", content_type="application/json")),
    ("anthropic", seen_error, Reply(status=529)),
    ("openai", seen_of_a_cut_stream, Reply(text="a b c d e f", abort_after=3)),
]


def client_of(sdk: str, kind: str, provider: FakeProvider) -> Any:
    if sdk == "openai":
        make: Any = openai.OpenAI if kind == "sync" else openai.AsyncOpenAI
        return make(base_url=provider.openai_url, api_key="k", max_retries=0)
    make = anthropic.Anthropic if kind == "sync" else anthropic.AsyncAnthropic
    return make(base_url=provider.anthropic_url, api_key="k", max_retries=0)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("sdk", "look", "reply"), CASES, ids=[f"{n}-{c[1].__name__}" for n, c in enumerate(CASES)]
)
def test_the_app_sees_the_same(
    sdk: str, look: Any, reply: Reply, kind: str, meter: Meter, provider: FakeProvider
) -> None:
    provider.default = reply

    async def see(*, metered: bool) -> Any:
        client = client_of(sdk, kind, provider)
        if metered:
            meter.instrument(client, provider=sdk)
        try:
            return await look(client)
        finally:
            await settled(client.close())

    bare = asyncio.run(see(metered=False))
    assert asyncio.run(see(metered=True)) == bare
    assert meter.status().faults == 0


def test_a_chat_stream_that_asked_for_usage_keeps_its_usage_chunk(
    meter: Meter, provider: FakeProvider
) -> None:
    options = {"stream_options": {"include_usage": True}}
    provider.default = TEXT

    async def see(*, metered: bool) -> Any:
        client = client_of("openai", "sync", provider)
        if metered:
            meter.instrument(client, provider="openai")
        return await seen_in_chat_stream(client, **options)

    bare = asyncio.run(see(metered=False))
    assert bare[-1]["choices"] == []
    assert bare[-1]["usage"]
    assert asyncio.run(see(metered=True)) == bare


def test_the_request_carries_usage_and_nothing_else_is_changed(
    meter: Meter, provider: FakeProvider
) -> None:
    def sent(client: openai.OpenAI) -> tuple[Any, dict[str, str]]:
        with client:
            list(
                client.chat.completions.create(
                    model="gpt-5-mini",
                    messages=[{"role": "user", "content": '{"stream_options": {"é": "\\u0000"}}'}],
                    stream=True,
                    temperature=0.1,
                )
            )
        request = provider.requests[-1]
        return request.json, request.headers

    bare_body, bare_headers = sent(client_of("openai", "sync", provider))
    body, headers = sent(meter.instrument(client_of("openai", "sync", provider), provider="openai"))

    assert body == {**bare_body, "stream_options": {"include_usage": True}}
    assert headers.pop("accept-encoding") == "identity"
    bare_headers.pop("accept-encoding")
    for changing in ("content-length", "x-stainless-idempotency-key", "idempotency-key"):
        headers.pop(changing, None)
        bare_headers.pop(changing, None)
    assert headers == bare_headers


def test_include_usage_false_leaves_the_request_alone(meter: Meter, provider: FakeProvider) -> None:
    client = meter.instrument(
        client_of("openai", "sync", provider), provider="openai", include_usage=False
    )
    list(client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True))
    client.close()

    assert "stream_options" not in provider.requests[-1].json
    (event,) = events_of(meter)
    assert (event.status, event.price.cost_pico_usd) == ("unmetered", None)
    assert "include_usage" in str(event.reason)


def test_an_old_azure_api_version_is_not_asked_for_usage(
    meter: Meter, provider: FakeProvider
) -> None:
    for version, asked in (("2024-06-01", False), ("2024-10-21", True)):
        client = openai.AzureOpenAI(
            azure_endpoint=provider.url, api_version=version, api_key="k", max_retries=0
        )
        meter.instrument(client, provider="azure.ai.openai")
        with client:
            list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))
        assert ("stream_options" in provider.requests[-1].json) is asked


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_first_event_comes_within_one_pacing_step_of_the_bare_one(
    kind: str, meter: Meter, provider: FakeProvider
) -> None:
    step = 0.02
    provider.default = Reply(text=" ".join("word" for _ in range(20)), pace=step)

    async def first_and_last(*, metered: bool) -> tuple[float, float]:
        client = client_of("openai", kind, provider)
        if metered:
            meter.instrument(client, provider="openai")
        await seen_in_chat(client)  # connections, imports
        started = time.perf_counter()
        stream = await settled(
            client.chat.completions.create(model="gpt-5-mini", messages=HELLO, stream=True)
        )
        times = [time.perf_counter() - started async for _ in items_of(stream)]
        await settled(client.close())
        return times[0], times[-1]

    async def best(*, metered: bool) -> tuple[float, float]:
        runs = [await first_and_last(metered=metered) for _ in range(5)]
        return min(run[0] for run in runs), min(run[1] for run in runs)

    bare_first, bare_last = asyncio.run(best(metered=False))
    first, last = asyncio.run(best(metered=True))
    assert first < bare_first + step
    assert first < last - 10 * step
    assert bare_first < bare_last - 10 * step


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_response_keeps_the_attributes_that_the_library_and_sdks_put_on_it(
    library: Any, meter: Meter, provider: FakeProvider
) -> None:
    with library.Client() as client:
        meter.instrument(client, api="openai", provider="openai")
        with client.stream(
            "POST",
            f"{provider.openai_url}/chat/completions",
            json={"model": "gpt-5-mini", "messages": HELLO, "stream": True},
        ) as response:
            assert b"".join(response.iter_raw()).endswith(b"data: [DONE]\n\n")
        assert response.elapsed.total_seconds() > 0
        assert response.is_closed
        assert response.num_bytes_downloaded > 0
