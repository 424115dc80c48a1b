"""What Bedrock's answers say of usage, in payloads of the documented shapes."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any
from urllib.parse import unquote

import pytest

from costmw.capture.framing import AwsEventStream
from costmw.capture.reading import BodyReader, read_body, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading, answer_bytes
from costmw.providers.bedrock import FORMATS, GUARDED

BY_API = {wire.api: wire for wire in FORMATS}
FRAMES = {"content-type": "application/vnd.amazon.eventstream"}
METRICS = "amazon-bedrock-invocationMetrics"


def body(api: str, payload: Any) -> Reading:
    return read_json(BY_API[api], json.dumps(payload).encode())


def frame(event: str, payload: Any, kind: str = "event") -> bytes:
    """One message as AWS encodes it: prelude and its checksum, headers, payload, checksum."""
    headers = b""
    for name, value in (
        (f":{kind}-type", event),
        (":content-type", "application/json"),
        (":message-type", kind),
    ):
        headers += struct.pack(">B", len(name)) + name.encode()
        headers += struct.pack(">BH", 7, len(value)) + value.encode()
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return message + struct.pack(">I", zlib.crc32(message))


def chunks(*payloads: Any) -> bytes:
    return b"".join(
        frame("chunk", {"bytes": base64.b64encode(json.dumps(p).encode()).decode(), "p": "abc"})
        for p in payloads
    )


def stream(api: str, data: bytes) -> Reading:
    return read_body(BY_API[api], FRAMES, data, 10_000)


def test_frames_are_those_of_botocore() -> None:
    eventstream = pytest.importorskip("botocore.eventstream")
    data = frame("metadata", {"usage": {}}) + chunks({"generation": "é"})
    buffer = eventstream.EventStreamBuffer()
    buffer.add_data(data)
    theirs = [(event.headers[":event-type"], event.payload) for event in buffer]
    assert list(AwsEventStream().feed(data)) == theirs
    assert [name for name, _ in theirs] == ["metadata", "chunk"]


def converse(**usage: Any) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "Tea."}]}},
        "stopReason": "end_turn",
        "usage": usage,
        "metrics": {"latencyMs": 300},
    }


def test_converse_counts_cached_tokens_apart_from_its_input() -> None:
    reading = body(
        "bedrock.converse",
        converse(
            inputTokens=10,
            outputTokens=5,
            totalTokens=915,
            cacheReadInputTokens=600,
            cacheReadInputTokenCount=600,
            cacheWriteInputTokens=300,
            cacheDetails=[{"ttl": "1h", "inputTokens": 100}, {"ttl": "5m", "inputTokens": 200}],
        ),
    )
    assert reading.usage == Usage(
        910, 5, 600, 300, 0, {"cache_write_5m_tokens": 200, "cache_write_1h_tokens": 100}
    )
    assert reading.response_model is None
    assert judge(reading, "end") == ("ok", None)


@pytest.mark.parametrize(
    ("fresh", "total", "read"), [(1000, 1605, 1600), (1000, 1005, 1000), (10, 15, 610)]
)
def test_the_total_tells_whether_cached_tokens_are_in_the_input(
    fresh: int, total: int, read: int
) -> None:
    usage = {"inputTokens": fresh, "outputTokens": 5, "totalTokens": total}
    reading = body("bedrock.converse", converse(**usage, cacheReadInputTokens=600))
    assert reading.usage == Usage(read, 5, 600)


@pytest.mark.parametrize(
    "usage",
    [
        {"inputTokens": 10},
        {"outputTokens": 10},
        {"inputTokens": "ten", "outputTokens": 5},
        {"inputTokens": 10, "outputTokens": 5, "totalTokens": 16},
        {
            "inputTokens": 10,
            "outputTokens": 5,
            "cacheWriteInputTokens": 3,
            "cacheDetails": [{"ttl": "5m", "inputTokens": 4}],
        },
    ],
)
def test_malformed_usage_is_a_problem_and_no_usage(usage: dict[str, Any]) -> None:
    for reading in (
        body("bedrock.converse", converse(**usage)),
        body("bedrock.invoke", {"usage": usage} if "inputTokens" in usage else {}),
        stream("bedrock.converse", frame("metadata", {"usage": usage})),
    ):
        status, reason = judge(reading, "end")
        assert (reading.usage, status) == (None, "unmetered")
        assert reason


def test_what_is_not_an_object_is_a_problem() -> None:
    for payload in ({"usage": 5}, {"usage": {}, "trace": "no"}):
        reading = body("bedrock.converse", payload)
        assert (reading.usage, judge(reading, "end")[0]) == (None, "unmetered")


def test_tier_and_latency_choose_the_price() -> None:
    payload = converse(inputTokens=1, outputTokens=1)
    reading = body(
        "bedrock.converse",
        {
            **payload,
            "serviceTier": {"type": "flex"},
            "performanceConfig": {"latency": "optimized"},
        },
    )
    assert reading.price_context == {"service_tier": "flex", "latency": "optimized"}


def test_a_prompt_router_names_the_model_that_answered() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0"
    trace = {"promptRouter": {"invokedModelId": arn}}
    reading = body("bedrock.converse", {**converse(inputTokens=1, outputTokens=1), "trace": trace})
    assert reading.response_model == "us.anthropic.claude-3-haiku-20240307-v1:0"


def test_guardrails_and_server_tools_are_noted() -> None:
    usage = {"inputTokens": 1, "outputTokens": 1, "serverToolUsage": {"webSearch": 1}}
    trace = {"guardrail": {"inputAssessment": {}}}
    reading = body("bedrock.converse", {**converse(**usage), "trace": trace})
    assert reading.notes == [GUARDED, "billed beside the tokens: webSearch"]
    reading = body("bedrock.invoke", {"amazon-bedrock-guardrailAction": "NONE"})
    assert reading.notes == [GUARDED]


CONVERSED = (
    frame("messageStart", {"role": "assistant"}),
    frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Tea."}}),
    frame("contentBlockStop", {"contentBlockIndex": 0}),
    frame("messageStop", {"stopReason": "guardrail_intervened"}),
    frame(
        "metadata",
        {
            "usage": {
                "inputTokens": 4,
                "outputTokens": 50,
                "totalTokens": 1854,
                "cacheWriteInputTokens": 1800,
            },
            "metrics": {"latencyMs": 1},
            "serviceTier": {"type": "default"},
            "trace": {"guardrail": {"modelOutput": ["Tea."]}},
        },
    ),
)


def test_the_metadata_of_a_converse_stream_is_its_end() -> None:
    reading = stream("bedrock.converse", b"".join(CONVERSED))
    assert reading.usage == Usage(1804, 50, 0, 1800)
    assert (reading.output_bytes, reading.notes) == (4, [GUARDED])
    assert reading.price_context == {"service_tier": "default"}
    assert judge(reading, "closed") == ("ok", None)
    reading = stream("bedrock.converse", b"".join(CONVERSED[:-1]))
    assert (reading.usage, judge(reading, "end")[0]) == (None, "incomplete")


def test_metadata_without_usage_is_unmetered() -> None:
    reading = stream("bedrock.converse", frame("metadata", {"metrics": {}}))
    assert judge(reading, "end") == ("unmetered", "the response carries no usage")


def test_a_stream_that_ends_in_an_exception_is_incomplete() -> None:
    error = frame("throttlingException", {"message": "slow down"}, "exception")
    reading = stream("bedrock.converse", CONVERSED[0] + error)
    assert judge(reading, "end")[0] == "incomplete"
    reading = stream("bedrock.invoke", chunks({"generation": "T"}) + error)
    assert judge(reading, "end")[0] == "incomplete"


CLAUDE: tuple[dict[str, Any], ...] = (
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": "claude-haiku-4-5-20251001",
            "usage": {
                "input_tokens": 4,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 30,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 10,
                    "ephemeral_1h_input_tokens": 20,
                },
                "output_tokens": 1,
            },
        },
    },
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Tea."}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 90}},
)
BY_TTL = {"cache_write_5m_tokens": 10, "cache_write_1h_tokens": 20}


def metrics(**counts: int) -> dict[str, Any]:
    return {METRICS: {"inputTokenCount": 4, "outputTokenCount": 60, **counts}}


@pytest.mark.parametrize("cached", [{}, {"cacheReadInputTokenCount": 20}])
def test_the_metrics_count_and_claudes_own_events_add_what_they_lack(
    cached: dict[str, int],
) -> None:
    stop = {"type": "message_stop", **metrics(**cached)}
    reading = stream("bedrock.invoke", chunks(*CLAUDE, stop))
    assert reading.usage == Usage(54, 60, 20, 30, 0, BY_TTL)
    # The body's name lacks the region, on which the price depends.
    assert (reading.response_model, reading.response_id) == (None, "msg_1")
    assert answer_bytes(reading) == 4
    assert judge(reading, "closed") == ("ok", None)


def test_metrics_that_include_cached_tokens_are_told_by_claudes_own() -> None:
    stop = {"type": "message_stop", METRICS: {"inputTokenCount": 54, "outputTokenCount": 90}}
    assert stream("bedrock.invoke", chunks(*CLAUDE, stop)).usage == Usage(54, 90, 20, 30, 0, BY_TTL)


def test_cached_tokens_may_be_told_with_the_last_event_alone() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 4}}}
    usage = {"cache_read_input_tokens": 9821, "cache_creation_input_tokens": 100}
    stop = {"type": "message_stop", "usage": usage, **metrics()}
    reading = stream("bedrock.invoke", chunks(start, stop))
    assert reading.usage == Usage(9925, 60, 9821, 100)


def test_a_message_without_metrics_is_read_as_claude_counts_it() -> None:
    reading = stream("bedrock.invoke", chunks(*CLAUDE, {"type": "message_stop"}))
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(54, 90, 20, 30, 0, BY_TTL), "ok")


@pytest.mark.parametrize(
    "payloads",
    [
        # Llama, Mistral, Cohere
        ({"generation": "Te"}, {"generation": "a.", "stop_reason": "stop"}),
        ({"outputs": [{"text": "Te"}]}, {"outputs": [{"text": "a.", "stop_reason": "stop"}]}),
        ({"text": "Te", "is_finished": False}, {"text": "a.", "is_finished": True}),
        # Nova
        (
            {"contentBlockDelta": {"delta": {"text": "Tea."}, "contentBlockIndex": 0}},
            {"metadata": {"usage": {"inputTokens": 4, "outputTokens": 60}}},
        ),
        # DeepSeek
        ({"choices": [{"delta": {"content": "Tea."}}]}, {"choices": []}),
    ],
)
def test_the_last_chunk_of_any_model_has_the_metrics(payloads: tuple[dict[str, Any], ...]) -> None:
    last = {**payloads[-1], **metrics(cacheWriteInputTokenCount=7)}
    reading = stream("bedrock.invoke", chunks(*payloads[:-1], last))
    assert (reading.usage, reading.output_bytes) == (Usage(11, 60, 0, 7), 4)
    assert judge(reading, "end") == ("ok", None)
    assert judge(stream("bedrock.invoke", chunks(*payloads)), "end")[0] == "incomplete"


def test_titan_counts_for_itself_where_a_guardrail_blocks_its_input() -> None:
    blocked = {"amazon-bedrock-guardrailAction": "INTERVENED", "outputText": "No."}
    counted = {"inputTextTokenCount": 6.0, "totalOutputTextTokenCount": 3.0}
    reading = stream("bedrock.invoke", chunks({**blocked, **counted}))
    assert (reading.usage, reading.notes) == (Usage(6, 3), [GUARDED])
    assert judge(reading, "end") == ("ok", None)
    first = {"outputText": "T", "inputTextTokenCount": 6, "totalOutputTextTokenCount": None}
    assert judge(stream("bedrock.invoke", chunks(first)), "end")[0] == "incomplete"


def test_what_users_write_is_not_taken_for_events() -> None:
    said = json.dumps({"type": "message_stop", **metrics(), "totalOutputTextTokenCount": 1})
    reading = stream("bedrock.invoke", chunks({"generation": said}))
    assert (reading.usage, judge(reading, "end")[0]) == (None, "incomplete")
    told = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": said}}
    reading = stream("bedrock.invoke", chunks(*CLAUDE[:1], told))
    assert judge(reading, "end")[0] == "incomplete"


@pytest.mark.parametrize(
    "damage",
    [
        frame("chunk", {"bytes": "not base64!"}),
        frame("chunk", {"bytes": None}),
        frame("chunk", {"bytes": base64.b64encode(f'{{"{METRICS}"'.encode()).decode()}),
        chunks({METRICS: {"inputTokenCount": "four", "outputTokenCount": 60}}),
        chunks({METRICS: {"inputTokenCount": 4}}),
        chunks({METRICS: 5}),
    ],
)
def test_damaged_metrics_are_a_problem_and_no_usage(damage: bytes) -> None:
    reading = stream("bedrock.invoke", chunks(*CLAUDE[:1]) + damage)
    status, reason = judge(reading, "end")
    assert reading.usage is None or reading.usage.output_tokens is None
    assert status in ("unmetered", "incomplete")
    assert reading.problem
    assert reason


@pytest.mark.parametrize("api", ["bedrock.converse", "bedrock.invoke"])
def test_a_stream_that_is_cut_or_damaged_is_never_exact(api: str) -> None:
    stop = {"type": "message_stop", **metrics()}
    data = b"".join(CONVERSED) if api == "bedrock.converse" else chunks(*CLAUDE, stop)
    for end in range(len(data)):
        for damaged in (data[:end], data[:end] + bytes([data[end] ^ 4]) + data[end + 1 :]):
            reader = BodyReader(BY_API[api], FRAMES if end % 2 else {}, "", 10_000)
            reader.feed(damaged[: end // 2])
            reader.feed(damaged[end // 2 :])
            reader.end()
            assert judge(reader.reading, "end")[0] != "ok"


@pytest.mark.parametrize(
    ("payload", "usage"),
    [
        (
            {
                "id": "msg_1",
                "model": "claude-3-7-sonnet-20250219",
                "usage": CLAUDE[0]["message"]["usage"],
            },
            Usage(54, 1, 20, 30, 0, BY_TTL),
        ),
        (
            {"usage": {"inputTokens": 4, "outputTokens": 5, "cacheReadInputTokenCount": 6}},
            Usage(10, 5, 6),
        ),
        ({"model": "deepseek", "usage": {"prompt_tokens": 4, "completion_tokens": 5}}, Usage(4, 5)),
        (
            {"inputTextTokenCount": 4, "results": [{"tokenCount": 5.0, "outputText": "Tea."}]},
            Usage(4, 5),
        ),
        (
            {"generation": "Tea.", "prompt_token_count": 4, "generation_token_count": 5},
            Usage(4, 5),
        ),
        ({"outputs": [{"text": "Tea."}]}, None),
        ({"generations": [{"text": "Tea."}]}, None),
    ],
)
def test_bodies_of_each_family(payload: dict[str, Any], usage: Usage | None) -> None:
    reading = body("bedrock.invoke", payload)
    assert (reading.usage, reading.response_model) == (usage, None)
    assert judge(reading, "end")[0] == ("ok" if usage else "unmetered")


HEADERS = {
    "content-type": "application/json",
    "x-amzn-bedrock-input-token-count": "4",
    "x-amzn-bedrock-output-token-count": "50",
    "x-amzn-bedrock-cache-read-input-token-count": "600",
    "x-amzn-bedrock-cache-write-input-token-count": "1800",
}


def test_headers_count_where_the_body_does_not() -> None:
    reading = read_body(BY_API["bedrock.invoke"], HEADERS, b'{"text": "Tea."}', 1000)
    assert (reading.usage, judge(reading, "end")) == (Usage(2404, 50, 600, 1800), ("ok", None))
    # Nova's body lacks the output where a guardrail changed it.
    guarded = b'{"usage": {"inputTokens": 4}, "amazon-bedrock-guardrailAction": "INTERVENED"}'
    reading = read_body(BY_API["bedrock.invoke"], HEADERS, guarded, 1000)
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(2404, 50, 600, 1800), "ok")


@pytest.mark.parametrize("value", ["four", "-4", "4.0", "", "\u0664", "9" * 15])
def test_headers_that_are_no_numbers_are_a_problem(value: str) -> None:
    headers = {**HEADERS, "x-amzn-bedrock-output-token-count": value}
    reading = read_body(BY_API["bedrock.invoke"], headers, b"{}", 1000)
    status, reason = judge(reading, "end")
    assert (reading.usage, status) == (None, "unmetered")
    assert "headers" in str(reason)


def test_headers_without_an_output_are_exact_for_embeddings_alone() -> None:
    headers = {"x-amzn-bedrock-input-token-count": "9"}
    reading = read_body(BY_API["bedrock.embed"], headers, b'{"embeddings": [[0.1]]}', 1000)
    assert (reading.usage, judge(reading, "end")) == (Usage(9, 0), ("ok", None))
    reading = read_body(BY_API["bedrock.invoke"], headers, b"{}", 1000)
    assert judge(reading, "end")[0] == "unmetered"
    reading = body("bedrock.embed", {"embedding": [0.1], "inputTextTokenCount": 9})
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(9, 0), "ok")


ARN = "arn:aws:bedrock:us-east-1:123456789012:"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        ("global.anthropic.claude-opus-4-6-v1", "global.anthropic.claude-opus-4-6-v1"),
        (
            f"{ARN}inference-profile/us.anthropic.claude-3-haiku-20240307-v1:0",
            "us.anthropic.claude-3-haiku-20240307-v1:0",
        ),
        ("arn:aws:bedrock:us-east-1::foundation-model/cohere.x-v1:0", "cohere.x-v1:0"),
        (f"{ARN}application-inference-profile/a1b2c3", "a1b2c3"),
        (f"{ARN}provisioned-model/d4e5f6", "d4e5f6"),
        (f"{ARN}custom-model/amazon.nova-lite-v1:0:300k/g7h8", "g7h8"),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("operation", ["converse", "converse-stream", "invoke"])
def test_the_model_is_in_the_path(model: str, name: str, encoded: bool, operation: str) -> None:
    sent = model.replace(":", "%3A").replace("/", "%2F") if encoded else model
    assert found(f"/model/{sent}/{operation}") == (f"bedrock.{operation[:8].rstrip('-')}", name)


def found(path: str) -> tuple[str, str] | None:
    for wire in FORMATS:
        if match := wire.path.search(path):
            return wire.api, unquote(match["model"])
    return None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/model/amazon.titan-embed-text-v2:0/invoke", "amazon.titan-embed-text-v2:0"),
        ("/model/cohere.embed-english-v3/invoke", "cohere.embed-english-v3"),
        (f"/model/{ARN}inference-profile%2Fus.cohere.embed-v4%3A0/invoke", "us.cohere.embed-v4:0"),
    ],
)
def test_embeddings_are_told_by_the_models_name(path: str, expected: str) -> None:
    assert found(path) == ("bedrock.embed", expected)


@pytest.mark.parametrize(
    "path",
    [
        "/model/amazon.nova-lite-v1:0/count-tokens",
        "/model/amazon.nova-sonic-v1:0/invoke-with-bidirectional-stream",
        "/guardrail/g1/version/1/apply",
        "/async-invoke",
        "/agents/A/agentAliases/B/sessions/C/text",
        "/foundation-models",
    ],
)
def test_what_is_not_a_call_of_a_model_is_left_alone(path: str) -> None:
    assert found(path) is None
