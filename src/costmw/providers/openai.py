"""OpenAI's formats: chat completions, responses, embeddings.

Shapes: https://platform.openai.com/docs/api-reference (usage objects and streaming
events). Spoken by many other providers. Counts in `prompt_tokens` and
`input_tokens` include cached ones, `completion_tokens` and `output_tokens` include
reasoning, which is the form that `Usage` has.
"""

from __future__ import annotations

import re

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    detail,
    json_object,
    part,
    text,
)

NO_USAGE = "the response carries no usage"
NO_STREAM_USAGE = (
    "the stream carries no usage: send stream_options={'include_usage': True}, "
    "or leave include_usage on in instrument()"
)


def _usage(usage: Json, total_in: str, total_out: str) -> Usage:
    read = part(usage, f"{total_in}_details")
    written = part(usage, f"{total_out}_details")
    return check(
        Usage(
            input_tokens=count(usage, total_in),
            output_tokens=count(usage, total_out) or 0,
            cache_read_input_tokens=count(read, "cached_tokens") or 0,
            cache_write_input_tokens=count(read, "cache_write_tokens") or 0,
            reasoning_output_tokens=count(written, "reasoning_tokens") or 0,
            detail=detail(
                input_audio_tokens=count(read, "audio_tokens"),
                output_audio_tokens=count(written, "audio_tokens"),
                input_image_tokens=count(read, "image_tokens"),
            ),
        )
    )


def _note(reading: Reading, body: Json) -> None:
    reading.response_model = text(body, "model") or reading.response_model
    reading.response_id = text(body, "id") or reading.response_id
    if tier := text(body, "service_tier"):
        reading.price_context["service_tier"] = tier


def _take_usage(reading: Reading, body: Json, total_in: str, total_out: str) -> None:
    usage = body.get("usage")
    if usage is None:
        return
    try:
        if not isinstance(usage, dict):
            raise UnreadableUsage(f"usage is {type(usage).__name__}, not an object")
        read = _usage(usage, total_in, total_out)
        if read.input_tokens is None:
            raise UnreadableUsage(f"usage has no {total_in}")
        reading.usage, reading.problem = read, None
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"


def _read_body(body: Json, total_in: str, total_out: str) -> Reading:
    reading = Reading(finished=True, problem=NO_USAGE)
    _note(reading, body)
    _take_usage(reading, body, total_in, total_out)
    return reading


def read_chat(body: Json) -> Reading:
    """Read a `chat.completion`, or an embeddings `list`."""
    return _read_body(body, "prompt_tokens", "completion_tokens")


def read_response(body: Json) -> Reading:
    """Read a `response`; one that still runs in the background has no usage yet."""
    reading = _read_body(body, "input_tokens", "output_tokens")
    if reading.usage is None and body.get("status") in ("queued", "in_progress"):
        reading.problem = "the response runs in the background; its usage comes with its result"
    return reading


class ChatStream:
    """`chat.completion.chunk` messages up to `[DONE]`.

    The usage chunk has no choices and is usually the last before `[DONE]`, not always;
    some servers leave `[DONE]` out. Usage beside choices is a running total, and final
    only with their `finish_reason`.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=NO_STREAM_USAGE)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if data == b"[DONE]":
            self.reading.finished = True
        elif self.reading.response_id is None or _has_usage(data):
            body = json_object(data)
            _note(self.reading, body)
            _take_usage(self.reading, body, "prompt_tokens", "completion_tokens")
            if body.get("usage") and _is_final(body.get("choices")):
                self.reading.finished = True


def _is_final(choices: object) -> bool:
    return isinstance(choices, list) and all(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )


class ResponseStream:
    """Response events up to `response.completed`, `.incomplete` or `.failed`."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before response.completed")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or _event_type(data)
        if name in ("response.completed", "response.incomplete", "response.failed"):
            body = part(json_object(data), "response")
            self.reading.problem = NO_USAGE
            _note(self.reading, body)
            _take_usage(self.reading, body, "input_tokens", "output_tokens")
            self.reading.finished = True
        elif name == "response.created":
            _note(self.reading, part(json_object(data), "response"))


_USAGE_OBJECT = re.compile(rb'"usage"\s*:\s*\{')
_EVENT_TYPE = re.compile(rb'"type"\s*:\s*"(response\.(?:created|completed|incomplete|failed))"')


def _has_usage(data: bytes) -> bool:
    return b'"usage"' in data and _USAGE_OBJECT.search(data) is not None


def _event_type(data: bytes) -> str | None:
    match = _EVENT_TYPE.search(data)
    return match[1].decode() if match else None


FORMATS = (
    WireFormat(
        api="openai.chat",
        operation="chat",
        path=re.compile(r"/chat/completions$"),
        read=read_chat,
        stream=ChatStream,
        include_usage=True,
    ),
    WireFormat(
        api="openai.responses",
        operation="chat",
        path=re.compile(r"/responses$"),
        read=read_response,
        stream=ResponseStream,
    ),
    WireFormat(
        api="openai.embeddings",
        operation="embeddings",
        path=re.compile(r"/embeddings$"),
        read=read_chat,
    ),
)
