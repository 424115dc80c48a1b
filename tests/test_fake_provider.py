"""The fake provider against the real SDKs, and against plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from costmw.testing import FakeProvider, Reply, RequestRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ASK = [{"role": "user", "content": "abcd" * 10}]
WEATHER = ("get_weather", {"city": "Kraków", "days": 3})
TOOL = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
LONG = "one two three four five six seven eight"

CHAT = {"model": "gpt-5-mini", "messages": ASK}
RESPONSE = {"model": "gpt-5-mini", "input": "abcd" * 10}
MESSAGE = {"model": "claude-haiku-4-5-20251001", "messages": ASK, "max_tokens": 100}
ENDPOINTS = [
    pytest.param("/v1/chat/completions", CHAT, id="chat"),
    pytest.param("/v1/responses", RESPONSE, id="responses"),
    pytest.param("/v1/messages", MESSAGE, id="messages"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def provider(running: FakeProvider) -> FakeProvider:
    running.clear()
    running.default = Reply()
    running.responder = None
    return running


@pytest.fixture(scope="module")
def oai(running: FakeProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=running.openai_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(running: FakeProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.anthropic_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(running: FakeProvider) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=5) as client:
        yield client


def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def events(raw: str) -> list[tuple[str | None, Any]]:
    found = []
    for block in raw.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event"), data if data == "[DONE]" else json.loads(data)))
    return found


# --- OpenAI chat completions ---


def test_chat_completion_parses_and_counts_tokens(
    provider: FakeProvider, oai: openai.OpenAI
) -> None:
    provider.reply(Reply(text="x" * 20))
    first = oai.chat.completions.create(**CHAT)
    second = oai.chat.completions.create(**CHAT)
    assert first.choices[0].message.content == "x" * 20
    assert first.choices[0].finish_reason == "stop"
    assert first.model == "gpt-5-mini"
    assert first.service_tier == "default"
    assert first.usage is not None
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (10, 5)
    assert first.usage.total_tokens == 15
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert first.usage.prompt_tokens_details.audio_tokens == 0
    assert first.usage.completion_tokens_details.reasoning_tokens == 0
    assert first.id.startswith("chatcmpl-")
    assert first.id != second.id
    assert first._request_id.startswith("req_")


def test_output_tokens_stay_within_every_limit_of_the_request(
    provider: FakeProvider, oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    provider.default = Reply(text="x" * 400)
    assert oai.chat.completions.create(**CHAT, max_tokens=7).usage.completion_tokens == 7
    limited = oai.chat.completions.create(**CHAT, max_completion_tokens=8)
    assert limited.usage.completion_tokens == 8
    assert oai.responses.create(**RESPONSE, max_output_tokens=16).usage.output_tokens == 16
    assert claude.messages.create(**MESSAGE | {"max_tokens": 9}).usage.output_tokens == 9


def test_chat_stream_has_the_whole_sequence_with_usage_when_asked(http: httpx.Client) -> None:
    asked = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    response = http.post("/v1/chat/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, (_, done) = events(response.text)
    bodies = [body for _, body in chunks]
    assert done == "[DONE]"
    assert {body["object"] for body in bodies} == {"chat.completion.chunk"}
    assert len({body["id"] for body in bodies}) == 1
    assert bodies[0]["choices"][0]["delta"] == {
        "role": "assistant",
        "refusal": None,
        "content": "",
    }
    assert bodies[-2]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert bodies[-1]["choices"] == []
    assert bodies[-1]["usage"]["prompt_tokens"] == 10
    assert all(body["usage"] is None for body in bodies[:-1])


@pytest.mark.parametrize("reply", [Reply(), Reply(omit_usage=True)])
def test_chat_stream_has_no_usage_when_not_asked_or_left_out(
    provider: FakeProvider, http: httpx.Client, reply: Reply
) -> None:
    provider.reply(reply)
    options = {"stream_options": {"include_usage": True}} if reply.omit_usage else {}
    response = http.post("/v1/chat/completions", json=CHAT | {"stream": True} | options)
    assert all("usage" not in body for _, body in events(response.text)[:-1])


def test_chat_stream_helper_assembles_text_and_usage(
    provider: FakeProvider, oai: openai.OpenAI
) -> None:
    provider.reply(Reply(text=" two  words\n", model="gpt-5-mini-2025-08-07"))
    with oai.chat.completions.stream(**CHAT, stream_options={"include_usage": True}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert final.choices[0].message.content == " two  words\n"
    assert final.model == "gpt-5-mini-2025-08-07"
    assert final.usage.completion_tokens == 3
    assert "content.done" in kinds


@pytest.mark.parametrize("text", [None, "Let me look."])
def test_chat_tool_call_plain_and_streamed(
    provider: FakeProvider, oai: openai.OpenAI, text: str | None
) -> None:
    provider.default = Reply(text=text, tool_call=WEATHER)
    tools = [{"type": "function", "function": TOOL}]
    plain = oai.chat.completions.create(**CHAT, tools=tools)
    with oai.chat.completions.stream(**CHAT, tools=tools) as stream:
        streamed = stream.get_final_completion()
    for answer in (plain, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        assert answer.choices[0].message.content == text
        (call,) = answer.choices[0].message.tool_calls
        assert call.id.startswith("call_")
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == WEATHER[1]


def test_chat_through_the_async_client(provider: FakeProvider) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
            plain = await client.chat.completions.create(**CHAT)
            async with client.chat.completions.stream(**CHAT) as stream:
                streamed = await stream.get_final_completion()
            async with client.responses.stream(**RESPONSE) as stream:
                response = await stream.get_final_response()
        assert plain.choices[0].message.content == streamed.choices[0].message.content
        assert response.output_text == plain.choices[0].message.content

    asyncio.run(main())
    assert provider.served == 3


# --- Azure ---


def test_azure_chat_plain_and_streamed(provider: FakeProvider) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=provider.url, api_key="k", api_version="2024-10-21"
    ) as client:
        plain = client.chat.completions.create(model="my-deployment", messages=ASK)
        with client.chat.completions.stream(
            model="my-deployment", messages=ASK, stream_options={"include_usage": True}
        ) as stream:
            streamed = stream.get_final_completion()
        vectors = client.embeddings.create(model="my-vectors", input="abcd")
    assert plain.model == "my-deployment"
    assert plain.choices[0].message.content == streamed.choices[0].message.content
    assert streamed.usage == plain.usage
    assert vectors.usage.prompt_tokens == 1
    first = provider.requests[0]
    assert first.path == "/openai/deployments/my-deployment/chat/completions"
    assert first.query == {"api-version": "2024-10-21"}


def test_azure_stream_opens_with_a_chunk_of_no_choices(http: httpx.Client) -> None:
    path = "/openai/deployments/mine/chat/completions"
    response = http.post(path, json={"messages": ASK, "stream": True})
    bodies = [body for _, body in events(response.text)[:-1]]
    assert bodies[0]["choices"] == []
    assert bodies[0]["model"] == ""
    assert bodies[1]["model"] == "mine"


# --- OpenAI responses ---


def test_response_parses(provider: FakeProvider, oai: openai.OpenAI) -> None:
    provider.reply(Reply(text="x" * 20, service_tier="priority"))
    answer = oai.responses.create(**RESPONSE, instructions="y" * 8)
    assert answer.output_text == "x" * 20
    assert answer.status == "completed"
    assert answer.service_tier == "priority"
    assert answer.instructions == "y" * 8
    assert answer.id.startswith("resp_")
    assert answer.output[0].id.startswith("msg_")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 5)
    assert answer.usage.input_tokens_details.cached_tokens == 0
    assert answer.usage.output_tokens_details.reasoning_tokens == 0


def test_response_stream_has_the_whole_sequence(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(Reply(text="one two"))
    found = events(http.post("/v1/responses", json=RESPONSE | {"stream": True}).text)
    assert [name for name, _ in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [body["type"] for _, body in found] == [name for name, _ in found]
    assert [body["sequence_number"] for _, body in found] == list(range(10))
    assert found[0][1]["response"]["usage"] is None
    assert found[-1][1]["response"]["usage"]["output_tokens"] == 2


@pytest.mark.parametrize("text", [None, "Let me look."])
def test_response_tool_call_plain_and_streamed(
    provider: FakeProvider, oai: openai.OpenAI, text: str | None
) -> None:
    provider.default = Reply(text=text, tool_call=WEATHER)
    tools = [{"type": "function", **TOOL}]
    plain = oai.responses.create(**RESPONSE, tools=tools)
    with oai.responses.stream(**RESPONSE, tools=tools) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert "response.function_call_arguments.done" in kinds
    for answer in (plain, streamed):
        call = answer.output[-1]
        assert answer.output_text == (text or "")
        assert call.type == "function_call"
        assert call.name == "get_weather"
        assert json.loads(call.arguments) == WEATHER[1]


# --- OpenAI embeddings and models ---


def test_embeddings_in_base64_and_float_are_the_same_unit_vectors(
    provider: FakeProvider, oai: openai.OpenAI
) -> None:
    model = "text-embedding-3-small"
    packed = oai.embeddings.create(model=model, input=["abcd" * 3, "other"], dimensions=64)
    floats = oai.embeddings.create(
        model=model, input="abcd" * 3, dimensions=64, encoding_format="float"
    )
    assert provider.requests[0].json["encoding_format"] == "base64"
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 5
    assert [item.index for item in packed.data] == [0, 1]
    assert packed.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert packed.data[0].embedding != pytest.approx(packed.data[1].embedding, abs=1e-3)
    assert sum(x * x for x in floats.data[0].embedding) == pytest.approx(1)


def test_embeddings_of_token_ids_and_their_usual_size(http: httpx.Client) -> None:
    one = http.post("/v1/embeddings", json={"model": "m", "input": [1, 2, 3]}).json()
    assert len(one["data"]) == 1
    assert len(one["data"][0]["embedding"]) == 1536
    assert one["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    asked = {"model": "m", "input": [[1, 2], [3]], "encoding_format": "base64", "dimensions": 2}
    two = http.post("/v1/embeddings", json=asked).json()
    assert [len(struct.unpack("<2f", base64.b64decode(v["embedding"]))) for v in two["data"]] == [
        2,
        2,
    ]
    assert two["usage"]["prompt_tokens"] == 3


def test_models_are_listed_for_both_sdks(
    provider: FakeProvider, oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    provider.reply(Reply(status=500))
    assert "gpt-5-mini" in [model.id for model in oai.models.list()]
    assert any(model.id.startswith("claude-") for model in claude.models.list())
    assert provider.requests[0].reply is None, "a list must not use up a queued reply"


# --- Anthropic messages ---


def test_message_parses(provider: FakeProvider, claude: anthropic.Anthropic) -> None:
    provider.reply(Reply(text="x" * 20))
    answer = claude.messages.create(**MESSAGE)
    assert answer.content[0].text == "x" * 20
    assert answer.stop_reason == "end_turn"
    assert answer.id.startswith("msg_")
    assert answer.usage.to_dict() == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 5,
        "service_tier": "standard",
    }


def test_message_stream_has_the_whole_sequence(provider: FakeProvider, http: httpx.Client) -> None:
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 1000,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15},
        "output_tokens": 77,
        "server_tool_use": {"web_search_requests": 2},
    }
    provider.reply(Reply(text="one two", usage=usage))
    found = events(http.post("/v1/messages", json=MESSAGE | {"stream": True}).text)
    assert [name for name, _ in found] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    start = found[0][1]["message"]
    assert start["content"] == []
    assert start["stop_reason"] is None
    assert start["usage"]["cache_creation"] == usage["cache_creation"]
    assert start["usage"]["output_tokens"] == 1
    assert found[-2][1]["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 1000,
        "output_tokens": 77,
        "server_tool_use": {"web_search_requests": 2},
    }


@pytest.mark.parametrize("text", [None, "Let me look."])
def test_message_tool_call_plain_and_streamed(
    provider: FakeProvider, claude: anthropic.Anthropic, text: str | None
) -> None:
    provider.default = Reply(text=text, tool_call=WEATHER)
    plain = claude.messages.create(**MESSAGE)
    with claude.messages.stream(**MESSAGE) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
    assert "input_json" in kinds
    for answer in (plain, streamed):
        assert answer.stop_reason == "tool_use"
        assert [block.type for block in answer.content] == ["text"] * bool(text) + ["tool_use"]
        assert answer.content[-1].name == "get_weather"
        assert answer.content[-1].input == WEATHER[1]
    assert streamed.usage == plain.usage


def test_messages_through_the_async_client(provider: FakeProvider) -> None:
    async def main() -> None:
        async with anthropic.AsyncAnthropic(base_url=provider.anthropic_url, api_key="k") as client:
            plain = await client.messages.create(**MESSAGE)
            async with client.messages.stream(**MESSAGE) as stream:
                text = await stream.get_final_text()
        assert text == plain.content[0].text

    asyncio.run(main())
    assert provider.served == 2


# --- usage, errors, redirects, raw bodies ---


@pytest.mark.parametrize(("path", "payload"), ENDPOINTS)
def test_given_usage_is_put_in_verbatim_and_can_be_left_out(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    provider.reply(Reply(usage={"input_tokens": 1, "novel": [2]}), Reply(omit_usage=True))
    assert http.post(path, json=payload).json()["usage"] == {"input_tokens": 1, "novel": [2]}
    assert "usage" not in http.post(path, json=payload).json()
    provider.reply(Reply(omit_usage=True))
    assert '"usage"' not in http.post(path, json=payload | {"stream": True}).text


def test_rate_limit_is_retried_by_the_sdks(provider: FakeProvider) -> None:
    limited = Reply(status=429, headers={"retry-after-ms": "5"})
    provider.reply(limited, Reply(text="made it"), limited, Reply(text="made it"))
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", max_retries=1) as client:
        answer = client.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "made it"
    with anthropic.Anthropic(base_url=provider.anthropic_url, api_key="k", max_retries=1) as client:
        assert client.messages.create(**MESSAGE).content[0].text == "made it"
    assert [record.reply.status for record in provider.requests] == [429, 200, 429, 200]
    assert [record.completed for record in provider.requests] == [True] * 4
    assert provider.served == 2


def test_errors_have_the_shape_of_the_provider(
    provider: FakeProvider, oai: openai.OpenAI, claude: anthropic.Anthropic, http: httpx.Client
) -> None:
    provider.reply(Reply(status=429), Reply(status=500), Reply(status=529), Reply(status=401))
    with pytest.raises(openai.RateLimitError) as limited:
        oai.chat.completions.create(**CHAT, stream=True)
    assert limited.value.code == "rate_limit_exceeded"
    with pytest.raises(openai.InternalServerError) as failed:
        oai.responses.create(**RESPONSE)
    assert failed.value.type == "server_error"
    with pytest.raises(anthropic.APIStatusError) as overloaded:
        claude.messages.create(**MESSAGE)
    assert overloaded.value.body["error"]["type"] == "overloaded_error"
    with pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(**MESSAGE)
    provider.reply(Reply(status=429))
    azure = http.post("/openai/deployments/d/chat/completions", json={"messages": ASK})
    assert azure.json()["error"]["code"] == "429"


def test_unknown_paths_and_malformed_requests_use_no_reply(
    provider: FakeProvider, http: httpx.Client
) -> None:
    provider.reply(Reply(text="still here"))
    unknown = http.post("/v1/nothing", json={})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "Invalid URL (POST /v1/nothing)"
    unknown = http.post("/nothing", json={}, headers={"anthropic-version": "2023-06-01"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "not_found_error"
    for content in (b'{"model": ', b"[]", b"\xff\xfe"):
        broken = http.post("/v1/chat/completions", content=content)
        assert broken.status_code == 400
        assert broken.json()["error"]["type"] == "invalid_request_error"
    broken = http.post("/v1/messages", content=b"{")
    assert broken.status_code == 400
    assert broken.json()["type"] == "error"
    assert http.get("/v1/chat/completions").status_code == 405
    answer = http.post("/v1/chat/completions", json=CHAT).json()
    assert answer["choices"][0]["message"]["content"] == "still here"
    assert provider.served == 1


@pytest.mark.parametrize(("path", "payload"), ENDPOINTS)
def test_odd_types_in_a_request_are_survived(
    http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    odd = dict.fromkeys([*payload, "max_tokens", "tools", "stream_options", "service_tier"], 1.5)
    assert http.post(path, json=odd | {"stream": True}).status_code == 200
    assert http.post(path, json={}).status_code == 200


def test_redirect_is_followed_by_the_sdk(provider: FakeProvider, oai: openai.OpenAI) -> None:
    provider.reply(Reply(redirect="/openai/v1/chat/completions"), Reply(text="moved"))
    answer = oai.chat.completions.create(**CHAT)
    assert answer.choices[0].message.content == "moved"
    assert provider.served == 1
    assert len(provider.requests) == 2


def test_raw_body_is_sent_verbatim(provider: FakeProvider, http: httpx.Client) -> None:
    stream = b"data: {broken\r\n\r\ndata: 2\n\n: rest"
    provider.reply(
        Reply(body=b"<html>busy", content_type="text/html", status=502),
        Reply(body=stream, pace=0.001),
        Reply(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
    )
    html = http.post("/v1/chat/completions", json=CHAT)
    assert (html.status_code, html.content) == (502, b"<html>busy")
    assert html.headers["content-type"] == "text/html"
    raw = http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert raw.content == stream
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert provider.requests[1].sent_events == 3
    assert http.post("/v1/chat/completions", json=CHAT).json() == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoding": "lzma"},
        {"status": 204},
        {"status": 99},
        {"delay": -1},
        {"chunk_bytes": 0},
        {"abort_after": -1},
        {"usage": {}, "omit_usage": True},
    ],
)
def test_replies_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|seconds|not both"):
        Reply(**wrong)


# --- delivery ---


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("client_class", [httpx.Client, httpx2.Client])
def test_each_encoding_decodes_plain_and_streamed(
    provider: FakeProvider, encoding: str, client_class: type[httpx.Client]
) -> None:
    url = f"{provider.openai_url}/chat/completions"
    with client_class() as client:
        for reply in (
            Reply(text="świat " * 200, encoding=encoding),
            Reply(text="świat " * 200, encoding=encoding, chunk_bytes=7),
        ):
            provider.reply(reply, reply)
            headers = {"accept-encoding": "identity"}
            plain = client.post(url, json=CHAT, headers=headers)
            assert plain.headers["content-encoding"] == encoding
            assert plain.json()["choices"][0]["message"]["content"] == "świat " * 200
            streamed = client.post(url, json=CHAT | {"stream": True}, headers=headers)
            found = events(streamed.text)
            assert len(found) == 203
            assert found[-1] == (None, "[DONE]")


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate", "br", "zstd"])
def test_pacing_survives_encoding(
    provider: FakeProvider, oai: openai.OpenAI, encoding: str | None
) -> None:
    provider.reply(Reply(text=LONG, pace=0.02, encoding=encoding))
    started = time.monotonic()
    arrivals = []
    with oai.chat.completions.create(**CHAT, stream=True) as stream:
        arrivals.extend(time.monotonic() - started for _ in stream)
    assert len(arrivals) == 10
    assert arrivals[-1] >= 0.02 * 9
    assert arrivals[-1] - arrivals[0] >= 0.02 * 9 / 2, "events came in a bunch"


def test_delay_comes_before_the_first_byte(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(Reply(delay=0.1))
    started = time.monotonic()
    with http.stream("POST", "/v1/chat/completions", json=CHAT):
        assert time.monotonic() - started >= 0.1


def test_chunks_cut_events_apart_or_join_them(provider: FakeProvider, http: httpx.Client) -> None:
    provider.reply(*(Reply(text=LONG, chunk_bytes=size) for size in (1, 64, 100_000)), Reply())
    bodies = []
    for size in (1, 64, 100_000):
        with http.stream("POST", "/v1/messages", json=MESSAGE | {"stream": True}) as response:
            chunks = list(response.iter_raw())
        assert max(map(len, chunks)) <= size
        bodies.append(b"".join(chunks).decode())
    assert len(chunks) == 1, "the last size takes all events in one chunk"
    assert [len(events(body)) for body in bodies] == [14] * 3
    assert [record.sent_events for record in provider.requests] == [14] * 3
    assert [record.completed for record in provider.requests] == [True] * 3


def test_chunks_leave_nothing_waiting_over_a_pause(
    provider: FakeProvider, http: httpx.Client
) -> None:
    provider.reply(Reply(text=LONG, chunk_bytes=100_000, pace=0.01))
    with http.stream("POST", "/v1/messages", json=MESSAGE | {"stream": True}) as response:
        assert len(list(response.iter_raw())) == 14


@pytest.mark.parametrize(("path", "payload"), ENDPOINTS)
@pytest.mark.parametrize("reply", [Reply(abort_after=3), Reply(abort_after=3, encoding="gzip")])
def test_abort_cuts_the_stream_after_so_many_events(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any], reply: Reply
) -> None:
    provider.reply(reply)
    got: list[bytes] = []
    with (
        http.stream("POST", path, json=payload | {"stream": True}) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        got.extend(response.iter_bytes())
    assert len(events(b"".join(got).decode())) == 3
    record = provider.requests[0]
    assert (record.sent_events, record.completed, record.disconnected) == (3, False, False)
    assert provider.served == 0


def test_abort_reaches_the_users_of_the_sdks(
    provider: FakeProvider, oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    provider.default = Reply(abort_after=4)
    with (
        pytest.raises((openai.APIError, httpx2.RemoteProtocolError)),
        oai.chat.completions.create(**CHAT, stream=True) as stream,
    ):
        list(stream)
    with (
        pytest.raises((anthropic.APIError, httpx2.RemoteProtocolError)),
        claude.messages.stream(**MESSAGE) as stream,
    ):
        stream.get_final_message()


def test_abort_of_a_plain_body_and_after_the_last_event(
    provider: FakeProvider, http: httpx.Client
) -> None:
    provider.reply(Reply(abort_after=0), Reply(abort_after=0, chunk_bytes=10))
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            http.post("/v1/chat/completions", json=CHAT)
    provider.reply(Reply(text="a", abort_after=4), Reply(text="a", abort_after=5), Reply())
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    whole = http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert len(events(whole.text)) == 4
    assert provider.served == 1


def test_aborts_are_not_reported_as_errors(
    provider: FakeProvider, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    provider.reply(Reply(abort_after=1))
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    http.get("/v1/models")
    assert [r.getMessage() for r in caplog.records if r.name.startswith(("uvicorn", "cost"))] == []


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(text=LONG * 20, pace=0.02), id="between events"),
        pytest.param(Reply(delay=30), id="before the first byte"),
        pytest.param(Reply(text=("x" * 400_000 + " ") * 20), id="while the socket is full"),
    ],
)
def test_leaving_client_is_noticed_promptly(provider: FakeProvider, reply: Reply) -> None:
    provider.reply(reply)
    body = json.dumps(CHAT | {"stream": True}).encode()
    host, port = provider.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        if not reply.delay:
            assert client.recv(100)
        until(lambda: bool(provider.requests))
    until(lambda: provider.requests[0].disconnected, seconds=5)
    assert not provider.requests[0].completed
    assert provider.served == 0


def test_client_that_closes_a_stream_early_is_noticed(
    provider: FakeProvider, oai: openai.OpenAI
) -> None:
    provider.reply(Reply(text=LONG * 50, pace=0.01))
    with oai.chat.completions.create(**CHAT, stream=True) as stream:
        next(iter(stream))
    until(lambda: provider.requests[0].disconnected)
    sent = provider.requests[0].sent_events
    assert 1 <= sent < 50
    time.sleep(0.05)
    assert provider.requests[0].sent_events == sent


# --- queue, responder, records ---


def test_replies_are_used_in_order_and_then_the_responder_and_the_default(
    provider: FakeProvider, http: httpx.Client
) -> None:
    def ask(headers: dict[str, str] | None = None) -> str:
        answer = http.post("/v1/chat/completions", json=CHAT, headers=headers)
        return str(answer.json()["choices"][0]["message"]["content"])

    def respond(record: RequestRecord) -> Reply | None:
        return Reply(text=record.headers["x-say"]) if "x-say" in record.headers else None

    provider.default = Reply(text="default")
    provider.responder = respond
    provider.reply(Reply(text="1"), Reply(text="2"))
    provider.reply(Reply(text="3"))
    assert [ask() for _ in range(4)] == ["1", "2", "3", "default"]
    assert ask({"x-say": "responder"}) == "responder"
    provider.responder = None
    assert ask() == "default"


def test_each_queued_reply_is_used_once_by_many_threads(provider: FakeProvider) -> None:
    provider.reply(*(Reply(text=str(number)) for number in range(40)))
    seen: list[str] = []

    def work() -> None:
        with httpx.Client() as client:
            for _ in range(5):
                answer = client.post(f"{provider.anthropic_url}/v1/messages", json=MESSAGE)
                seen.append(answer.json()["content"][0]["text"])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, seen)) == list(range(40))
    assert provider.served == len(provider.requests) == 40


def test_failing_responder_is_logged_and_becomes_an_error(
    provider: FakeProvider, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def respond(record: RequestRecord) -> Reply:
        raise LookupError("no such thing")

    provider.responder = respond
    assert http.post("/v1/chat/completions", json=CHAT).status_code == 500
    assert "no such thing" in caplog.text


def test_blocking_responder_does_not_hold_up_others(
    provider: FakeProvider, http: httpx.Client
) -> None:
    free = threading.Event()

    def respond(record: RequestRecord) -> Reply | None:
        assert free.wait(5) or record.json["model"] == "quick"
        return None

    provider.responder = respond
    slow = threading.Thread(
        target=httpx.post, args=[f"{provider.openai_url}/responses"], kwargs={"json": RESPONSE}
    )
    slow.start()
    until(lambda: len(provider.requests) == 1)
    provider.responder = None
    assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert not provider.requests[0].completed
    free.set()
    slow.join()
    assert provider.requests[0].completed


def test_requests_are_recorded_and_forgotten(provider: FakeProvider, http: httpx.Client) -> None:
    before = time.time()
    http.post("/v1/messages?beta=true", json=MESSAGE, headers={"X-Api-Key": "secret"})
    (record,) = provider.requests
    assert (record.method, record.path, record.query) == ("POST", "/v1/messages", {"beta": "true"})
    assert record.headers["x-api-key"] == "secret"
    assert json.loads(record.body_bytes) == record.json == MESSAGE
    assert before <= record.started_at <= time.time()
    assert (record.sent_events, record.completed, record.disconnected) == (1, True, False)
    assert record.reply == provider.default
    provider.clear()
    assert provider.requests == []
    assert provider.served == 0


def test_only_the_newest_requests_are_kept() -> None:
    with FakeProvider(keep=2) as provider:
        for _ in range(3):
            httpx.get(f"{provider.url}/v1/models")
        assert len(provider.requests) == 2
        assert provider.served == 3


# --- serving ---


def test_start_and_stop_are_quick_and_leave_no_thread_even_with_open_connections() -> None:
    before = set(threading.enumerate())
    started = time.monotonic()
    with ExitStack() as clients:
        with FakeProvider() as provider:
            url = f"{provider.openai_url}/chat/completions"
            # A responder uses the threads of the server's loop: those must end too.
            provider.responder = lambda _: None
            client = clients.enter_context(httpx.Client())
            idle = clients.enter_context(httpx.Client())
            idle.post(url, json=CHAT)
            provider.reply(Reply(pace=30))
            asked = CHAT | {"stream": True}
            stream = clients.enter_context(client.stream("POST", url, json=asked))
            address = ("127.0.0.1", int(provider.url.rsplit(":")[-1]))
            clients.enter_context(socket.create_connection(address))
        assert time.monotonic() - started < 1.5
        assert set(threading.enumerate()) == before
        with pytest.raises(httpx.HTTPError):
            stream.read()
        assert provider.requests[-1].disconnected
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{address[1]}/v1/models")


class Stalling(Mapping[str, Any]):
    """A usage that holds up the server's loop for a while as it is read."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        time.sleep(0.1)
        return iter(())


def test_stopping_amid_new_connections_leaves_no_socket_open() -> None:
    with ExitStack() as clients:
        with FakeProvider() as provider:
            provider.reply(Reply(usage=Stalling()))
            address = ("127.0.0.1", int(provider.url.rsplit(":")[-1]))
            first = clients.enter_context(socket.create_connection(address))
            body = json.dumps(CHAT).encode()
            first.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            until(lambda: bool(provider.requests))
            # The loop, held up, gets to see these together with the order to stop.
            for _ in range(5):
                clients.enter_context(socket.create_connection(address))
        assert provider.served == 1
    # Whatever was left open is reported as it is collected, and warnings are errors here.
    gc.collect()


def test_provider_can_be_started_again_and_from_another_thread() -> None:
    provider = FakeProvider()
    statuses = []

    def work() -> None:
        with provider:
            statuses.append(httpx.get(f"{provider.openai_url}/models").status_code)

    with pytest.raises(RuntimeError, match="not running"):
        _ = provider.url
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    work()
    assert statuses == [200, 200]
    with provider, pytest.raises(RuntimeError, match="already"):
        provider.start()
    provider.stop()


def test_taken_port_is_the_callers_exception() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = set(threading.enumerate())
        with pytest.raises(OSError, match="in use"):
            FakeProvider(port=taken.getsockname()[1]).start()
        assert set(threading.enumerate()) == before


def test_app_can_be_mounted_elsewhere() -> None:
    provider = FakeProvider()
    host = Starlette(routes=[Mount("/fake", provider.app)])

    async def main() -> None:
        transport = httpx.ASGITransport(app=host)
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            plain = await client.post("/fake/v1/messages", json=MESSAGE)
            stream = await client.post("/fake/v1/messages", json=MESSAGE | {"stream": True})
        assert plain.json()["type"] == "message"
        assert events(stream.text)[-1][0] == "message_stop"

    asyncio.run(main())
    assert provider.served == 2
    assert provider.requests[0].path == "/v1/messages"
    assert not any(record.disconnected for record in provider.requests)


def test_module_serves_in_the_foreground_until_told_to_stop() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "costmw.testing", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        printed = "".join(process.stdout.readline() for _ in range(4))
        found = re.search(r"http://127\.0\.0\.1:\d+", printed)
        assert found is not None
        assert httpx.get(f"{found[0]}/v1/models").status_code == 200
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=5)
    assert process.returncode == 0
    assert f"{found[0]}/v1" in printed
    assert err == ""


def test_missing_uvicorn_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "try:\n    import costmw.testing\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("MissingExtra uvicorn")
    assert "costmw[testing]" in ran.stdout
