"""OpenAI's responses, in the foreground, streamed, and polled from the background.

Shapes: https://platform.openai.com/docs/api-reference/responses and
/responses-streaming. Hosted tools are billed beside the tokens: the new `tool_usage`
counts web searches, the items of `output` tell the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from costmw.events import Usage
from costmw.providers.base import (
    AnswerLength,
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    detail,
    event_type,
    json_object,
    part,
    text_bytes,
)
from costmw.providers.openai import NO_USAGE, note

CUT_SHORT = "the stream ended before response.completed"
_RUNNING = ("queued", "in_progress")
_LAST = ("response.completed", "response.incomplete", "response.failed")


def response_usage(usage: Json, **tools: int | None) -> Usage:
    """Read a `usage` object with `input_tokens` and `output_tokens`, both totals.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    total = count(usage, "input_tokens")
    if total is None:
        raise UnreadableUsage("usage has no input_tokens")
    read = part(usage, "input_tokens_details") or part(usage, "input_token_details")
    written = part(usage, "output_tokens_details") or part(usage, "output_token_details")
    return check(
        Usage(
            input_tokens=total,
            output_tokens=count(usage, "output_tokens"),
            cache_read_input_tokens=count(read, "cached_tokens") or 0,
            cache_write_input_tokens=count(read, "cache_write_tokens") or 0,
            reasoning_output_tokens=count(written, "reasoning_tokens") or 0,
            detail=detail(
                input_audio_tokens=count(read, "audio_tokens"),
                input_image_tokens=count(read, "image_tokens"),
                output_audio_tokens=count(written, "audio_tokens"),
                output_image_tokens=count(written, "image_tokens"),
                **tools,
            ),
        )
    )


def read_response(body: Json) -> Reading:
    """Read a `response`, finished or still running in the background."""
    reading = Reading(problem=NO_USAGE)
    _take_response(reading, body)
    return reading


def read_retrieved(body: Json) -> Reading:
    """Read a `response` that was asked for by its id: a charge only if it ran unseen."""
    reading = read_response(body)
    reading.not_billed = body.get("background") is not True
    return reading


def _take_response(reading: Reading, body: Json) -> None:
    note(reading, body)
    reading.finished = True
    if body.get("background") is True:
        reading.result_id = reading.response_id
        reading.pending = body.get("status") in _RUNNING
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return
    try:
        tools = _tools(body, reading)
        reading.usage, reading.problem = response_usage(usage, **tools), None
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"


def _tools(body: Json, reading: Reading) -> dict[str, int | None]:
    """Hosted tools that were used: counts where there is a unit for them, else a note."""
    output = body.get("output")
    items = (
        [item for item in output if isinstance(item, Mapping)] if isinstance(output, list) else []
    )
    kinds = [item.get("type") for item in items]
    counted = part(body, "tool_usage")
    searches = count(part(counted, "web_search"), "num_requests")
    if searches is None:
        # Opening a page and searching in it are part of a search that was billed.
        searches = sum(
            item.get("type") == "web_search_call"
            and part(item, "action").get("type", "search") == "search"
            for item in items
        )
    if "code_interpreter_call" in kinds:
        reading.notes.append("code interpreter containers are billed beside the tokens")
    if "image_generation_call" in kinds:
        reading.notes.append("generated images are billed beside the tokens")
    return {"web_searches": searches, "storage_searches": kinds.count("file_search_call")}


class ResponseStream:
    """Response events up to `response.completed`, `.incomplete` or `.failed`."""

    def __init__(self) -> None:
        self._answer = AnswerLength()
        self.reading = Reading(problem=CUT_SHORT, answer=self._answer)

    def skips(self, data: bytes) -> bool:
        """Whether it can be neither the first nor the last event, and enough is known so far."""
        if not self._answer.is_measured or _FIRST_OR_LAST.search(data) is not None:
            return False
        self._answer.skip(data)
        return True

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or event_type(data, _KNOWN)
        if name in _LAST:
            self.reading.problem = NO_USAGE
            _take_response(self.reading, part(json_object(data), "response"))
        elif name == "response.created":
            created = part(json_object(data), "response")
            note(self.reading, created)
            if created.get("background") is True:
                self.reading.result_id = self.reading.response_id
        elif name is not None and name.endswith(".delta"):
            self._answer.read(event, data, text_bytes(json_object(data).get("delta")))


_FIRST_OR_LAST = re.compile(rb"response\.(?:created|completed|incomplete|failed)")
_KNOWN = re.compile(rb'"type"\s*:\s*"(response\.[a-z_.]+)"')


class RetrievedStream(ResponseStream):
    """The events of a background response, read again or for the first time."""

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        super().message(event, data)
        self.reading.not_billed = self.reading.result_id is None


FORMATS = (
    WireFormat(
        api="openai.responses",
        operation="chat",
        path=re.compile(r"/responses$"),
        read=read_response,
        stream=ResponseStream,
    ),
    WireFormat(
        api="openai.responses.retrieve",
        operation="chat",
        path=re.compile(r"/responses/[^/]+$"),
        read=read_retrieved,
        stream=RetrievedStream,
        method="GET",
    ),
)
