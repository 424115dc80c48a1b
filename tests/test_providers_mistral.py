"""What Mistral's answers say of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.reading import BodyReader, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading, answer_bytes
from costmw.providers.mistral import FORMATS

BY_API = {wire.api: wire for wire in FORMATS}
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def body(api: str, payload: Any) -> Reading:
    return read_json(BY_API[api], json.dumps(payload).encode())


def wire_bytes(*messages: Any) -> bytes:
    lines = []
    for message in messages:
        if isinstance(message, dict) and "type" in message:
            lines.append(f"event: {message['type']}\n")
        lines.append(f"data: {message if message == '[DONE]' else json.dumps(message)}\n\n")
    return "".join(lines).encode()


def stream(api: str, data: bytes) -> Reading:
    reader = BodyReader(BY_API[api], SSE, "", 1000)
    reader.feed(data)
    reader.end()
    return reader.reading


USAGE = {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49}


@pytest.mark.parametrize(
    "cached",
    [
        {"num_cached_tokens": 32},
        {"num_cached_tokens": 32, "prompt_token_details": None},
        {"prompt_tokens_details": {"cached_tokens": 32}},
        {"prompt_token_details": {"cached_tokens": 32}},
        {"prompt_tokens_details": {"cached_tokens": 32}, "num_cached_tokens": 32},
    ],
)
def test_cached_tokens_are_found_under_each_of_their_names(cached: dict[str, Any]) -> None:
    reading = body("mistral.chat", {"id": "c", "model": "m", "usage": {**USAGE, **cached}})
    assert reading.usage == Usage(40, 9, 32)
    assert judge(reading, "end") == ("ok", None)


def test_more_cached_tokens_than_input_are_refused() -> None:
    reading = body("mistral.chat", {"usage": {**USAGE, "num_cached_tokens": 41}})
    assert reading.usage is None
    assert "unreadable usage" in str(reading.problem)


def test_the_tier_is_inside_of_the_usage() -> None:
    reading = body("mistral.chat", {"usage": {**USAGE, "service_tier": "priority"}})
    assert reading.price_context == {"service_tier": "priority"}


def chunk(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "cmpl-1", "model": "mistral-small-2603", "choices": [choice], **more}


CHAT = wire_bytes(
    chunk("Bonjour"),
    chunk(", monde"),
    chunk("", "stop", usage={**USAGE, "num_cached_tokens": 16}),
    "[DONE]",
)


@pytest.mark.parametrize("api", ["mistral.chat", "mistral.fim"])
def test_a_stream_has_its_usage_in_the_chunk_that_finishes_it(api: str) -> None:
    reading = stream(api, CHAT)
    assert (reading.usage, reading.response_id) == (Usage(40, 9, 16), "cmpl-1")
    assert reading.response_model == "mistral-small-2603"
    assert answer_bytes(reading) == len("Bonjour, monde")
    assert judge(reading, "closed") == ("ok", None)
    assert judge(stream(api, CHAT.removesuffix(b"data: [DONE]\n\n")), "closed") == ("ok", None)


def test_a_stream_without_usage_is_unmetered() -> None:
    reading = stream("mistral.chat", wire_bytes(chunk("x"), chunk("", "stop"), "[DONE]"))
    assert judge(reading, "end") == ("unmetered", "the stream carries no usage")


def test_malformed_usage_of_a_stream_is_unmetered() -> None:
    bad = wire_bytes(chunk("", "stop", usage={**USAGE, "completion_tokens": "9"}), "[DONE]")
    status, reason = judge(stream("mistral.chat", bad), "end")
    assert status == "unmetered"
    assert "completion_tokens" in str(reason)


SEARCHED = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 3120,
    "connector_tokens": 3000,
    "connectors": {"web_search": 2, "image_generation": 1},
}
OUTPUTS = [
    {"type": "tool.execution", "name": "web_search", "id": "tool_exec_1"},
    {"type": "message.output", "id": "msg_1", "model": "mistral-medium-2508", "content": "Hi"},
]


def test_a_conversation_counts_what_connectors_put_into_the_prompt() -> None:
    reading = body(
        "mistral.conversations",
        {
            "object": "conversation.response",
            "conversation_id": "conv_1",
            "outputs": OUTPUTS,
            "usage": SEARCHED,
        },
    )
    assert reading.usage == Usage(3100, 20, detail={"input_tool_tokens": 3000, "web_searches": 2})
    assert (reading.response_model, reading.response_id) == ("mistral-medium-2508", "msg_1")
    assert reading.notes == ["calls of image_generation are billed beside the tokens"]


def test_connector_tokens_that_the_prompt_has_already_are_not_added_again() -> None:
    usage = {**SEARCHED, "prompt_tokens": 3100, "connectors": None}
    reading = body("mistral.conversations", {"outputs": [], "usage": usage})
    assert reading.usage == Usage(3100, 20, detail={"input_tool_tokens": 3000})


def test_more_connector_tokens_than_input_are_refused() -> None:
    usage = {**USAGE, "connector_tokens": 41}
    reading = body("mistral.conversations", {"outputs": [None, "x"], "usage": usage})
    assert (reading.usage, judge(reading, "end")[0]) == (None, "unmetered")
    assert "connector_tokens" in str(reading.problem)


def test_models_that_a_conversation_is_handed_to_are_named() -> None:
    other = {"type": "message.output", "id": "msg_2", "model": "magistral-medium-2509"}
    reading = body("mistral.conversations", {"outputs": [*OUTPUTS, other, other], "usage": USAGE})
    assert reading.response_model == "mistral-medium-2508"
    assert reading.notes == [
        "magistral-medium-2509 answered too: its tokens are counted as those of mistral-medium-2508"
    ]


def said(text: str, model: str = "mistral-medium-2508") -> dict[str, Any]:
    return {"type": "message.output.delta", "id": "msg_1", "content": text, "model": model}


CONVERSATION = wire_bytes(
    {"type": "conversation.response.started", "conversation_id": "conv_1"},
    {"type": "tool.execution.started", "name": "web_search"},
    said("Hel"),
    said("lo"),
    {"type": "conversation.response.done", "usage": SEARCHED},
)


def test_a_streamed_conversation_has_its_usage_in_the_event_that_is_done() -> None:
    reading = stream("mistral.conversations", CONVERSATION)
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (3100, 20)
    assert (reading.response_model, reading.response_id) == ("mistral-medium-2508", "msg_1")
    assert reading.output_bytes == len("Hello")
    assert judge(reading, "closed") == ("ok", None)


def test_a_streamed_conversation_names_the_model_after_a_handoff() -> None:
    handed = wire_bytes(
        said("a"),
        {"type": "agent.handoff.done", "next_agent_id": "ag_2"},
        said("b", "magistral-medium-2509"),
        {"type": "conversation.response.done", "usage": USAGE},
    )
    assert len(stream("mistral.conversations", handed).notes) == 1


def test_a_conversation_that_fails_is_unmetered() -> None:
    failed = {"type": "conversation.response.error", "message": "overloaded", "code": 3505}
    status, reason = judge(stream("mistral.conversations", wire_bytes(said("a"), failed)), "end")
    assert (status, "error" in str(reason)) == ("unmetered", True)


def test_events_are_told_by_their_data_where_the_name_is_missing() -> None:
    nameless = b"\n".join(
        line for line in CONVERSATION.split(b"\n") if not line.startswith(b"event")
    )
    assert judge(stream("mistral.conversations", nameless), "end") == ("ok", None)


HEARD = {
    "prompt_tokens": 4,
    "completion_tokens": 120,
    "total_tokens": 1724,
    "prompt_audio_seconds": 128,
}
SECONDS = {"audio_seconds": 128, "input_audio_seconds": 128}


def test_a_transcription_is_counted_in_seconds_and_in_tokens_of_text() -> None:
    payload = {"model": "voxtral-mini-2602", "text": "...", "language": "fr", "usage": HEARD}
    reading = body("mistral.audio.transcriptions", payload)
    assert reading.usage == Usage(4, 120, detail=SECONDS)
    assert reading.response_model == "voxtral-mini-2602"


def test_a_transcription_may_count_nothing_but_seconds() -> None:
    reading = body("mistral.audio.transcriptions", {"usage": {"prompt_audio_seconds": 128}})
    assert reading.usage == Usage(0, 0, detail=SECONDS)


@pytest.mark.parametrize("seconds", [1.5, -1, "12", True])
def test_seconds_that_are_not_whole_are_refused(seconds: Any) -> None:
    usage = {**HEARD, "prompt_audio_seconds": seconds}
    reading = body("mistral.audio.transcriptions", {"usage": usage})
    assert reading.usage is None
    assert "prompt_audio_seconds" in str(reading.problem)


TRANSCRIPTION = wire_bytes(
    {"type": "transcription.language", "audio_language": "fr"},
    {"type": "transcription.text.delta", "text": "Bonjour"},
    {"type": "transcription.done", "model": "voxtral-mini-2602", "text": "Bonjour", "usage": HEARD},
)


def test_a_streamed_transcription_has_its_usage_in_its_last_event() -> None:
    reading = stream("mistral.audio.transcriptions", TRANSCRIPTION)
    assert (reading.usage, reading.response_model) == (
        Usage(4, 120, detail=SECONDS),
        "voxtral-mini-2602",
    )
    assert judge(reading, "end") == ("ok", None)


def test_no_estimate_is_made_of_a_transcription() -> None:
    """It would be one of tokens, and seconds are what is billed."""
    assert stream("mistral.audio.transcriptions", TRANSCRIPTION[:-40]).output_bytes == 0


SPEECH = wire_bytes(
    {"type": "speech.audio.delta", "audio_data": "AAAA"},
    {"type": "speech.audio.done", "usage": USAGE},
)


def test_speech_counts_its_tokens_only_when_it_is_streamed() -> None:
    assert stream("mistral.audio.speech", SPEECH).usage == Usage(40, 9)
    assert judge(body("mistral.audio.speech", {"audio_data": "AAAA"}), "end")[0] == "unmetered"


@pytest.mark.parametrize(
    ("more", "units"),
    [
        ({}, {"input_document_pages": 3}),
        ({"document_annotation": None}, {"input_document_pages": 3}),
        (
            {"document_annotation": '{"title": "x"}'},
            {"input_document_pages": 3, "input_annotated_document_pages": 3},
        ),
        (
            {"pages": [{"images": [{"id": "a"}, {"id": "b", "image_annotation": "{}"}]}]},
            {"input_document_pages": 3, "input_annotated_document_pages": 3},
        ),
        (
            {"pages": [None, {"images": None}, {"images": [{"id": "a"}]}]},
            {"input_document_pages": 3},
        ),
    ],
)
def test_ocr_is_counted_in_pages(more: dict[str, Any], units: dict[str, int]) -> None:
    used = {"pages_processed": 3, "doc_size_bytes": 12345}
    reading = body("mistral.ocr", {"model": "mistral-ocr-4-1", "usage_info": used, **more})
    assert (reading.usage, reading.response_model) == (Usage(0, 0, detail=units), "mistral-ocr-4-1")
    assert judge(reading, "end") == ("ok", None)


@pytest.mark.parametrize("used", [None, {}, {"pages_processed": "3"}, [3]])
def test_ocr_without_readable_pages_is_unmetered(used: Any) -> None:
    reading = body("mistral.ocr", {"usage_info": used})
    assert judge(reading, "end")[0] == "unmetered"
    assert reading.problem


@pytest.mark.parametrize("api", ["mistral.embeddings", "mistral.moderations"])
def test_embeddings_and_moderations_have_no_output(api: str) -> None:
    usage = {"prompt_tokens": 12, "total_tokens": 12, "completion_tokens": 0}
    nulls = {"prompt_audio_seconds": None, "request_count": None, "prompt_token_details": None}
    assert body(api, {"id": "e", "usage": {**usage, **nulls}}).usage == Usage(12, 0)


def test_a_moderation_may_report_nothing() -> None:
    assert judge(body("mistral.moderations", {"id": "m", "results": []}), "end") == (
        "unmetered",
        "the response carries no usage",
    )


def test_responses_are_those_of_openai() -> None:
    usage = {"input_tokens": 7, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 3}}
    whole = {"id": "resp_1", "status": "completed", "usage": usage}
    assert body("mistral.responses", whole).usage == Usage(7, 5, 3)
    done = wire_bytes({"type": "response.completed", "response": whole})
    assert judge(stream("mistral.responses", done), "end") == ("ok", None)


@pytest.mark.parametrize(
    ("api", "whole"),
    [
        ("mistral.chat", CHAT),
        ("mistral.conversations", CONVERSATION),
        ("mistral.audio.transcriptions", TRANSCRIPTION),
        ("mistral.audio.speech", SPEECH),
    ],
)
def test_a_stream_that_is_cut_is_exact_or_not_ok(api: str, whole: bytes) -> None:
    exact = stream(api, whole).usage
    for end in range(len(whole)):
        reading = stream(api, whole[:end])
        assert judge(reading, "closed")[0] != "ok" or reading.usage == exact


@pytest.mark.parametrize("usage", [[], "49", {"prompt_tokens": {}}, {"connectors": 3}])
@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: str(wire.api))
def test_usage_of_another_shape_is_never_ok(wire: Any, usage: Any) -> None:
    reading = read_json(wire, json.dumps({"usage": usage}).encode())
    assert judge(reading, "end")[0] == "unmetered"


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", "mistral.chat"),
        ("/v1/agents/completions", "mistral.chat"),
        ("/v1/fim/completions", "mistral.fim"),
        ("/v1/responses", "mistral.responses"),
        ("/v1/embeddings", "mistral.embeddings"),
        ("/v1/moderations", "mistral.moderations"),
        ("/v1/chat/moderations", "mistral.moderations"),
        ("/v1/classifications", "mistral.moderations"),
        ("/v1/chat/classifications", "mistral.moderations"),
        ("/v1/ocr", "mistral.ocr"),
        ("/v1/conversations", "mistral.conversations"),
        ("/v1/conversations/conv_1", "mistral.conversations"),
        ("/v1/conversations/conv_1/restart", "mistral.conversations"),
        ("/v1/conversations/conv_1/history", None),
        ("/v1/responses/input_tokens", None),
        ("/v1/audio/transcriptions", "mistral.audio.transcriptions"),
        ("/v1/audio/speech", "mistral.audio.speech"),
        ("/v1/agents", None),
        ("/v1/files", None),
    ],
)
def test_a_path_has_one_format_or_none(path: str, api: str | None) -> None:
    assert [wire.api for wire in FORMATS if wire.path.search(path)] == [api] * (api is not None)
