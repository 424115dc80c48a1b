"""What the fake provider sends in the names of Google, Mistral, Groq, Cohere, Ollama and AWS."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from botocore.eventstream import EventStreamBuffer

from costmw.testing import FakeProvider, Reply

PROMPT = "abcd" * 10
ASK = [{"role": "user", "content": PROMPT}]
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": ASK}
NOVA = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": PROMPT}]}]}
MODEL = "/google/v1beta/models/gemini-2.5-flash"
CHAT = {"model": "m", "messages": ASK}
STREAM = CHAT | {"stream": True}
PLAIN_PATHS = [
    (f"{MODEL}:generateContent", GEMINI),
    (f"{MODEL}:embedContent", {"content": {"parts": [{"text": PROMPT}]}}),
    (f"{MODEL}:batchEmbedContents", {"requests": []}),
    (f"{MODEL}:predict", {"instances": [{"content": PROMPT}]}),
    ("/mistral/v1/chat/completions", CHAT),
    ("/mistral/v1/embeddings", {"input": [PROMPT]}),
    ("/groq/openai/v1/chat/completions", CHAT),
    ("/cohere/v2/chat", CHAT),
    ("/cohere/v1/chat", {"message": PROMPT}),
    ("/cohere/v2/embed", {"texts": [PROMPT]}),
    ("/cohere/v2/rerank", {"documents": [PROMPT]}),
    ("/ollama/api/chat", CHAT | {"stream": False}),
    ("/ollama/api/embed", {"input": [PROMPT]}),
    ("/bedrock/model/m/converse", NOVA),
    ("/bedrock/model/m/invoke", NOVA),
    ("/bedrock/model/anthropic.claude/invoke", INVOKE),
    ("/bedrock/model/titan-embed/invoke", {"inputText": PROMPT}),
]
STREAM_PATHS = [
    (f"{MODEL}:streamGenerateContent?alt=sse", GEMINI),
    (f"{MODEL}:streamGenerateContent", GEMINI),
    ("/mistral/v1/chat/completions", STREAM),
    ("/groq/openai/v1/chat/completions", STREAM),
    ("/cohere/v2/chat", STREAM),
    ("/cohere/v1/chat", {"message": PROMPT, "stream": True}),
    ("/ollama/api/chat", CHAT),
    ("/ollama/api/generate", {"model": "m", "prompt": PROMPT}),
    ("/bedrock/model/m/converse-stream", NOVA),
    ("/bedrock/model/m/invoke-with-response-stream", NOVA),
    ("/bedrock/model/anthropic.claude/invoke-with-response-stream", INVOKE),
]
streams = pytest.mark.parametrize(("path", "payload"), STREAM_PATHS)


@pytest.fixture
def http(provider: FakeProvider) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=provider.url, timeout=5) as client:
        yield client


def events(response: httpx.Response, body: bytes | None = None) -> list[Any]:
    """What a stream holds, by its content type; a stream cut short as far as it goes."""
    body = response.content if body is None else body
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "application/vnd.amazon.eventstream":
        buffer = EventStreamBuffer()
        buffer.add_data(body)
        found = [json.loads(event.payload) for event in buffer]
        return [
            json.loads(base64.b64decode(event["bytes"])) if "bytes" in event else event
            for event in found
        ]
    text = body.decode()
    if kind == "text/event-stream":
        *blocks, rest = re.split("\r?\n\r?\n", text)
        assert rest == ""
        found = [block.splitlines()[-1].removeprefix("data: ") for block in blocks]
        return [event if event == "[DONE]" else json.loads(event) for event in found]
    if kind == "application/json":
        bodies = re.split(",\r\n|]$", text.removeprefix("["))
        return [json.loads(event) if event else "]" for event in bodies]
    assert text.endswith("\n")
    return [json.loads(event) for event in text.splitlines()]


@pytest.mark.parametrize(("path", "payload"), PLAIN_PATHS + STREAM_PATHS)
def test_given_usage_is_put_in_verbatim_and_can_be_left_out(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    provider.reply(Reply(usage={"inputTokens": 7, "novel": [2]}), Reply(omit_usage=True))
    given, omitted = (http.post(path, json=payload) for _ in range(2))
    if path.endswith("batchEmbedContents"):
        assert given.json()["usageMetadata"] == {"inputTokens": 7, "novel": [2]}
    read = events if (path, payload) in STREAM_PATHS else httpx.Response.json
    assert "'inputTokens': 7, 'novel': [2]" in str(read(given))
    assert re.findall("(?i)count|usage|units|tokens", str(read(omitted))) == []
    assert "token-count" not in str(omitted.headers)


@streams
def test_a_stream_can_be_cut_after_an_event(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    provider.reply(Reply(abort_after=2, chunk_bytes=50))
    got: list[bytes] = []
    with (
        http.stream("POST", path, json=payload) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        got.extend(response.iter_bytes())
    assert len(events(response, b"".join(got))) == 2
    assert provider.requests[0].sent_events == 2


@streams
def test_a_stream_is_paced_event_by_event(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    provider.reply(Reply(text="one two", pace=0.02))
    started = time.monotonic()
    with http.stream("POST", path, json=payload) as response:
        arrivals, chunks = zip(
            *((time.monotonic() - started, chunk) for chunk in response.iter_raw()), strict=True
        )
    count = len(events(response, b"".join(chunks)))
    assert count == provider.requests[0].sent_events >= 2
    assert arrivals[-1] >= 0.02 * (count - 1)
    assert arrivals[-1] - arrivals[0] >= 0.02 * (count - 1) / 2, "events came in a bunch"


@streams
def test_a_raw_body_is_a_stream_of_the_kind_asked_for(
    provider: FakeProvider, http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    first = http.post(path, json=payload)
    provider.reply(Reply(body=first.content))
    again = http.post(path, json=payload)
    assert again.content == first.content
    kind = again.headers["content-type"]
    assert kind == first.headers["content-type"]
    # An array of JSON is not taken apart.
    count = 1 if kind == "application/json" else provider.requests[0].sent_events
    assert provider.requests[1].sent_events == count


def test_events_of_an_aws_stream_are_cut_apart_even_when_broken(
    provider: FakeProvider, http: httpx.Client
) -> None:
    for body, count in ((b"", 1), (b"\0\0", 1), (b"\0\0\0\5x\0\0\0\0x", 2), (b"\0\0\0\1xxx", 2)):
        provider.reply(Reply(body=body))
        assert http.post("/bedrock/model/m/converse-stream", json={}).content == body
        assert provider.requests[-1].sent_events == count, body


def test_gemini_streams_lines_that_end_in_crlf_with_running_usage(
    provider: FakeProvider, http: httpx.Client
) -> None:
    usage = {
        "promptTokenCount": 100,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 1000,
        "totalTokenCount": 1120,
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
    }
    provider.reply(Reply(text="a b", usage=usage, model="gemini-x"))
    response = http.post(f"{MODEL}:streamGenerateContent?alt=sse", json=GEMINI)
    assert b"\n" not in response.content.replace(b"\r\n", b"")
    first, last = events(response)
    assert first["usageMetadata"] == {
        "promptTokenCount": 100,
        "candidatesTokenCount": 10,
        "thoughtsTokenCount": 1000,
        "totalTokenCount": 1110,
    }
    assert last["usageMetadata"] == usage
    assert "finishReason" not in first["candidates"][0]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert first["modelVersion"] == last["modelVersion"] == "gemini-x"


def test_gemini_counts_the_tokens_of_a_whole_request(http: httpx.Client) -> None:
    whole = {"generateContentRequest": GEMINI | {"model": "m"}}
    assert http.post(f"{MODEL}:countTokens", json=whole).json()["totalTokens"] == 10


def test_gemini_streams_an_array_without_alt_sse(http: httpx.Client) -> None:
    response = http.post(f"{MODEL}:streamGenerateContent", json=GEMINI)
    assert response.headers["content-type"] == "application/json"
    assert len(response.json()) == 12


def test_tiers_are_named_as_each_provider_does(provider: FakeProvider, http: httpx.Client) -> None:
    provider.default = Reply(service_tier="priority")
    for path, payload, tier in (
        (f"{MODEL}:generateContent", GEMINI, "'serviceTier': 'priority'"),
        ("/mistral/v1/chat/completions", CHAT, "'service_tier': 'priority'"),
        (
            "/google/v1/publishers/google/models/m:generateContent",
            GEMINI,
            "'trafficType': 'ON_DEMAND_PRIORITY'",
        ),
        ("/groq/openai/v1/chat/completions", CHAT, "'service_tier': 'priority'"),
        ("/bedrock/model/m/converse", NOVA, "'serviceTier': {'type': 'priority'}"),
    ):
        assert tier in str(http.post(path, json=payload).json())


def test_groq_repeats_usage_in_a_chunk_of_its_own_only_when_asked(http: httpx.Client) -> None:
    path = "/groq/openai/v1/chat/completions"
    *_, finish, done = events(http.post(path, json=STREAM))
    assert done == "[DONE]"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert finish["x_groq"]["usage"]["prompt_tokens"] == 10
    assert "usage" not in finish
    asked = STREAM | {"stream_options": {"include_usage": True}}
    *_, finish, usage, done = events(http.post(path, json=asked))
    assert usage["choices"] == []
    assert usage["usage"] == finish["x_groq"]["usage"]


def test_mistral_calls_tools_in_its_own_way(provider: FakeProvider, http: httpx.Client) -> None:
    provider.default = Reply(tool_call=("f", {"x": 1}))
    path = "/mistral/v1/chat/completions"
    message = http.post(path, json=CHAT).json()["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert (message["content"], len(call["id"]), call["index"]) == ("", 9, 0)
    *_, last, _ = events(http.post(path, json=STREAM))
    assert last["choices"][0]["delta"]["tool_calls"][0]["function"] == call["function"]
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_cohere_streams_have_the_whole_sequence(provider: FakeProvider, http: httpx.Client) -> None:
    provider.default = Reply(text="a", tool_call=("f", {}))
    kinds = [event["type"] for event in events(http.post("/cohere/v2/chat", json=STREAM))]
    assert kinds == [
        "message-start",
        *("content-start", "content-delta", "content-end"),
        *("tool-call-start", "tool-call-delta", "tool-call-end"),
        "message-end",
    ]
    lines = events(http.post("/cohere/v1/chat", json={"message": PROMPT, "stream": True}))
    assert [(line["event_type"], line["is_finished"]) for line in lines] == [
        ("stream-start", False),
        ("text-generation", False),
        ("tool-calls-generation", False),
        ("stream-end", True),
    ]


def test_bedrock_knows_claude_by_its_name_or_by_the_request(
    provider: FakeProvider, http: httpx.Client
) -> None:
    provider.reply(Reply(), Reply(), Reply(model="named"))
    for asked, body, model in (
        ("us.anthropic.claude-x-v1:0", CHAT, "claude-x"),
        ("opaque", INVOKE, "opaque"),
        ("anthropic.claude-x", INVOKE, "named"),
    ):
        message = http.post(f"/bedrock/model/{asked}/invoke", json=body).json()
        assert (message["type"], message["model"]) == ("message", model)


def test_counts_of_cached_tokens_are_in_headers_and_metrics(
    provider: FakeProvider, http: httpx.Client
) -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 4}
    provider.default = Reply(usage=usage | {"output_tokens": 2})
    path = "/bedrock/model/anthropic.claude/invoke"
    headers = http.post(path, json=INVOKE).headers
    counted = {
        name: headers[f"x-amzn-bedrock-{name}-token-count"]
        for name in ("input", "output", "cache-read-input", "cache-write-input")
    }
    assert list(counted.values()) == ["3", "2", "5", "4"]
    last = events(http.post(f"{path}-with-response-stream", json=INVOKE))[-1]
    metrics = last["amazon-bedrock-invocationMetrics"]
    assert metrics["cacheReadInputTokenCount"] == 5
    assert metrics["cacheWriteInputTokenCount"] == 4


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("google", lambda body: body["error"]["message"]),
        ("mistral", lambda body: body["message"]),
        ("groq", lambda body: body["error"]["message"]),
        ("cohere", lambda body: body["message"]),
        ("ollama", lambda body: body["error"]),
        ("bedrock", lambda body: body["message"]),
    ],
)
def test_unknown_paths_have_an_error_in_the_shape_of_the_provider(
    provider: FakeProvider, http: httpx.Client, prefix: str, message: Callable[[Any], str]
) -> None:
    provider.reply(Reply(text="waiting"))
    for path in (f"/{prefix}", f"/{prefix}/v1/nothing"):
        unknown = http.post(path, json={})
        assert unknown.status_code == 404
        assert message(unknown.json()) == f"Invalid URL (POST {path})"
    path = next(path for path, _ in STREAM_PATHS if path.startswith(f"/{prefix}"))
    assert http.get(path).status_code == 405
    assert http.post(path, content=b"[]").status_code == 400
    assert "waiting" in str(events(http.post(path, json={"stream": True})))


@pytest.mark.parametrize(("path", "payload"), PLAIN_PATHS + STREAM_PATHS)
def test_odd_types_in_a_request_are_survived(
    http: httpx.Client, path: str, payload: dict[str, Any]
) -> None:
    more = ("chat_history", "embedding_types", "generationConfig", "options", "parameters")
    for odd in (1.5, [None], {}, "x"):
        assert http.post(path, json=dict.fromkeys([*payload, *more], odd)).status_code == 200
    assert http.post(path, json={}).status_code == 200
