"""What each wire format says of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.framing import ServerSentEvents
from costmw.capture.reading import BodyReader, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers import registry
from costmw.providers.base import Reading
from costmw.providers.registry import FAMILIES

FORMATS = {f.api: f for formats in FAMILIES.values() for f in formats}
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def body(api: str, payload: Any) -> Reading:
    return read_json(FORMATS[api], json.dumps(payload).encode())


def stream(api: str, *messages: Any) -> Reading:
    reader = BodyReader(FORMATS[api], SSE, "", 1000)
    for message in messages:
        if isinstance(message, dict) and "type" in message:
            reader.feed(f"event: {message['type']}\n".encode())
        data = message if isinstance(message, str) else json.dumps(message)
        reader.feed(f"data: {data}\n\n".encode())
    reader.end()
    return reader.reading


def test_chat_input_includes_cache_and_output_includes_reasoning() -> None:
    reading = body(
        "openai.chat",
        {
            "id": "chatcmpl-1",
            "model": "gpt-5-mini-2025-08-07",
            "service_tier": "flex",
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 40, "audio_tokens": 2},
            },
        },
    )
    assert reading.usage == Usage(
        100, 50, 64, 0, 40, {"input_audio_tokens": 3, "output_audio_tokens": 2}
    )
    assert (reading.response_model, reading.response_id) == ("gpt-5-mini-2025-08-07", "chatcmpl-1")
    assert reading.price_context == {"service_tier": "flex"}


def test_chat_details_may_be_null() -> None:
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert body("openai.chat", {"usage": usage}).usage == Usage(5, 6)


CHUNK = {"id": "c", "model": "m", "choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def test_a_chat_stream_whose_usage_chunk_is_not_the_last() -> None:
    reading = stream(
        "openai.chat", CHUNK, {**CHUNK, "choices": [], "usage": USAGE}, CHUNK, "[DONE]"
    )
    assert (reading.usage, judge(reading, "end")) == (Usage(7, 3), ("ok", None))


def test_a_chat_stream_without_done_ends_with_its_usage_chunk() -> None:
    reading = stream("openai.chat", CHUNK, {**CHUNK, "choices": [], "usage": USAGE})
    assert judge(reading, "closed") == ("ok", None)


def test_running_totals_are_not_taken_for_final_ones() -> None:
    running = {**CHUNK, "usage": USAGE}
    reading = stream("openai.chat", running, running)
    assert reading.usage == Usage(7, 3)
    assert judge(reading, "end")[0] == "incomplete"
    last = {**running, "choices": [{"delta": {}, "finish_reason": "stop"}]}
    assert judge(stream("openai.chat", running, last), "end")[0] == "ok"


def test_a_chat_stream_with_null_usage_everywhere_is_unmetered_and_says_how_to_mend_it() -> None:
    reading = stream("openai.chat", {**CHUNK, "usage": None}, "[DONE]")
    status, reason = judge(reading, "end")
    assert (status, reading.usage) == ("unmetered", None)
    assert "include_usage" in str(reason)


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_a_response_stream_has_its_usage_in_its_last_event(end: str) -> None:
    usage = {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    started = {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5"}}
    last = {
        "type": f"response.{end}",
        "response": {"id": "resp_1", "model": "gpt-5", "service_tier": "default", "usage": usage},
    }
    reading = stream("openai.responses", started, {"type": "response.output_text.delta"}, last)
    assert (reading.usage, reading.response_id) == (Usage(9, 8, 4, 0, 5), "resp_1")
    assert judge(reading, "closed") == ("ok", None)
    assert judge(stream("openai.responses", started), "end")[0] == "incomplete"


def test_a_failed_response_without_usage_is_unmetered() -> None:
    reading = stream(
        "openai.responses", {"type": "response.failed", "response": {"id": "r", "usage": None}}
    )
    assert judge(reading, "end") == ("unmetered", "the response carries no usage")


def test_a_response_in_the_background_says_that_its_usage_comes_later() -> None:
    queued = {"id": "r", "background": True, "status": "queued", "usage": None}
    reading = body("openai.responses", queued)
    assert (reading.pending, reading.result_id) == (True, "r")


def test_a_message_counts_cached_input_as_input() -> None:
    reading = body(
        "anthropic.messages",
        {
            "id": "msg_1",
            "model": "claude-haiku-4-5-20251001",
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 30,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 10,
                    "ephemeral_1h_input_tokens": 20,
                },
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 2},
                "service_tier": "priority",
            },
        },
    )
    assert reading.usage == Usage(
        60,
        5,
        20,
        30,
        0,
        {"cache_write_5m_tokens": 10, "cache_write_1h_tokens": 20, "web_searches": 2},
    )
    assert reading.price_context == {"service_tier": "priority"}


def message_start(**usage: Any) -> Any:
    return {
        "type": "message_start",
        "message": {"id": "msg_1", "model": "claude-haiku-4-5", "usage": usage},
    }


STARTED = {
    "input_tokens": 2039,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 1,
}
STOP = {"type": "message_stop"}


def test_a_message_stream_merges_its_totals_key_by_key() -> None:
    delta = {"type": "message_delta", "usage": {"input_tokens": 10423, "output_tokens": 77}}
    reading = stream("anthropic.messages", message_start(**STARTED), {"type": "ping"}, delta, STOP)
    assert reading.usage == Usage(10453, 77, 0, 30, 0, {"cache_write_5m_tokens": 30})
    assert judge(reading, "end") == ("ok", None)


def test_the_last_message_delta_counts() -> None:
    deltas = [{"type": "message_delta", "usage": {"output_tokens": n}} for n in (5, 9)]
    reading = stream("anthropic.messages", message_start(**STARTED), *deltas, STOP)
    assert reading.usage is not None
    assert reading.usage.output_tokens == 9


def test_a_cut_message_stream_knows_its_input_and_not_its_output() -> None:
    reading = stream("anthropic.messages", message_start(**STARTED))
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (2069, None)
    assert judge(reading, "closed")[0] == "incomplete"


def test_messages_are_told_by_their_data_where_the_event_name_is_missing() -> None:
    reader = BodyReader(FORMATS["anthropic.messages"], SSE, "", 1000)
    delta = {"type": "message_delta", "usage": {"output_tokens": 3}}
    for message in (message_start(**STARTED), delta, STOP):
        reader.feed(f"data: {json.dumps(message)}\n\n".encode())
    assert judge(reader.reading, "end") == ("ok", None)


@pytest.mark.parametrize(
    ("host", "path", "found"),
    [
        ("api.openai.com", "/v1/chat/completions", ("openai.chat", "openai")),
        ("eu.api.openai.com", "/v1/responses", ("openai.responses", "openai")),
        ("api.openai.com", "/v1/embeddings", ("openai.embeddings", "openai")),
        ("api.openai.com", "/v1/responses/resp_1/cancel", None),
        ("api.openai.com", "/v1/files", None),
        ("api.anthropic.com", "/v1/messages", ("anthropic.messages", "anthropic")),
        ("api.anthropic.com", "/v1/messages/count_tokens", None),
        ("api.anthropic.com", "/v1/messages/batches", ("anthropic.batches", "anthropic")),
        (
            "acme.openai.azure.com",
            "/openai/deployments/d/chat/completions",
            ("openai.chat", "azure.ai.openai"),
        ),
        (
            "acme.services.ai.azure.com",
            "/anthropic/v1/messages",
            ("anthropic.messages", "azure.ai.openai"),
        ),
        ("api.openai.com.evil.example", "/v1/chat/completions", None),
        ("notapi.openai.com", "/v1/chat/completions", None),
        ("example.com", "/v1/chat/completions", None),
    ],
)
def test_a_format_is_found_by_host_and_path(host: str, path: str, found: Any) -> None:
    match = registry.match("POST", host, path)
    assert (match and (match.format.api, match.provider and match.provider.name)) == found


def test_every_format_reads_an_empty_object_as_unknown() -> None:
    for wire in FORMATS.values():
        reading = read_json(wire, b"{}")
        assert reading.usage is None
        assert reading.problem or reading.not_billed


def test_framing_is_not_read_into_json_bodies() -> None:
    assert list(ServerSentEvents().feed(b'{"usage": {}}')) == []
