"""Anthropic's messages, streamed, plain and in batches.

Shapes: https://docs.anthropic.com/en/api/messages, /messages-streaming and
/messages-batches. `input_tokens` excludes what was read from and written to the cache;
`Usage` includes it. `output_tokens` includes thinking. `usage.iterations` holds rounds
of compaction and of advisors that the totals leave out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from costmw.events import Usage
from costmw.providers.base import (
    AnswerLength,
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    add,
    check,
    count,
    detail,
    event_type,
    json_object,
    part,
    text,
    text_bytes,
)

CUT_SHORT = "the stream ended before message_stop"
_ANYWHERE = ("not_available", "global", "default")


def message_usage(usage: Json) -> Usage:
    """Read one `usage` object, or one entry of its `iterations`.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    uncached = count(usage, "input_tokens")
    if uncached is None:
        raise UnreadableUsage("usage has no input_tokens")
    read = count(usage, "cache_read_input_tokens") or 0
    by_ttl = part(usage, "cache_creation")
    written_5m = count(by_ttl, "ephemeral_5m_input_tokens") or 0
    written_1h = count(by_ttl, "ephemeral_1h_input_tokens") or 0
    written = count(usage, "cache_creation_input_tokens")
    if written is None:
        written = written_5m + written_1h
    if written_5m + written_1h > written:
        raise UnreadableUsage("cache_creation exceeds cache_creation_input_tokens")
    return check(
        Usage(
            input_tokens=uncached + read + written,
            output_tokens=count(usage, "output_tokens"),
            cache_read_input_tokens=read,
            cache_write_input_tokens=written,
            reasoning_output_tokens=count(part(usage, "output_tokens_details"), "thinking_tokens")
            or 0,
            detail=detail(
                cache_write_5m_tokens=written_5m,
                cache_write_1h_tokens=written_1h,
                web_searches=count(part(usage, "server_tool_use"), "web_search_requests"),
            ),
        )
    )


def _take_usage(reading: Reading, usage: Json) -> None:
    if tier := text(usage, "service_tier"):
        # A batch is a way of processing, in the price list and elsewhere.
        key, value = ("processing", "batch") if tier == "batch" else ("service_tier", tier)
        reading.price_context[key] = value
    if speed := text(usage, "speed"):
        reading.price_context["speed"] = speed
    if (geo := text(usage, "inference_geo")) and geo not in _ANYWHERE:
        reading.price_context["inference_geo"] = geo
    try:
        reading.usage, reading.problem = message_usage(usage), None
        _take_iterations(reading, usage)
        executions = count(part(usage, "server_tool_use"), "code_execution_requests")
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    note = "code execution is billed by the hour, beside the tokens"
    if executions and note not in reading.notes:
        reading.notes.append(note)


def _take_iterations(reading: Reading, usage: Json) -> None:
    """Sum the rounds of a request: those of its model, and those of others apart."""
    iterations = usage.get("iterations")
    if not isinstance(iterations, list) or not iterations:
        return
    totals = reading.usage
    own: Usage | None = None
    reading.side_usage = []
    for entry in iterations:
        if not isinstance(entry, Mapping):
            raise UnreadableUsage("iterations holds something else than objects")
        model, used = text(entry, "model"), message_usage(entry)
        if model is not None and model != reading.response_model:
            reading.side_usage.append((model, used))
        else:
            own = used if own is None else add(own, used)
    if own is not None and totals is not None:
        # Tools are counted in the totals alone.
        searches = detail(web_searches=totals.detail.get("web_searches"))
        reading.usage = add(own, Usage(0, 0, detail=searches))


def read_message(body: Json) -> Reading:
    """Read a `message`."""
    reading = Reading(finished=True, problem="the response carries no usage")
    _note(reading, body)
    usage = body.get("usage")
    if isinstance(usage, dict):
        _take_usage(reading, usage)
    return reading


def _note(reading: Reading, message: Json) -> None:
    reading.response_model = text(message, "model") or reading.response_model
    reading.response_id = text(message, "id") or reading.response_id


class MessageStream:
    """`message_start` to `message_stop`.

    The cache's 5m/1h split is in `message_start` only; each `message_delta` carries
    running totals that replace its values key by key, never the object as a whole.

    Args:
        goes_on: what comes after the totals counts too, as in Bedrock's streams.
    """

    def __init__(self, *, goes_on: bool = False) -> None:
        self._goes_on = goes_on
        self._answer = AnswerLength()
        self.reading = Reading(problem=CUT_SHORT, answer=self._answer)
        self._usage: dict[str, Any] = {}
        self._complete = False

    def skips(self, data: bytes) -> bool:
        """Whether it says nothing of the message as a whole, and enough is known so far."""
        if b"message_" in data or not self._answer.is_measured:
            return False
        self._answer.skip(data)
        return True

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or event_type(data, _KNOWN)
        if name == "message_start":
            message = part(json_object(data), "message")
            _note(self.reading, message)
            self._merge(part(message, "usage"))
        elif name == "message_delta":
            self._complete = True
            body = json_object(data)
            self._merge(part(body, "usage"))
            # Not every reader goes on to message_stop: LiteLLM leaves the stream here.
            stopped = text(part(body, "delta"), "stop_reason") is not None
            self.reading.finished = stopped and not self._goes_on
        elif name == "message_stop":
            self.reading.finished = True
        elif name == "content_block_delta":
            said = sum(len(match[1]) for match in _SAID.finditer(data))
            self._answer.read(event, data, said)

    def _merge(self, usage: Json) -> None:
        self._usage.update({key: value for key, value in usage.items() if value is not None})
        _take_usage(self.reading, self._usage)
        if not self._complete and self.reading.usage is not None:
            # message_start counts the first output token or two: no more than a beginning.
            started = self.reading.usage
            self.reading.usage = Usage(
                input_tokens=started.input_tokens,
                cache_read_input_tokens=started.cache_read_input_tokens,
                cache_write_input_tokens=started.cache_write_input_tokens,
                detail=started.detail,
            )
            self.reading.problem = CUT_SHORT


_KNOWN = re.compile(rb'"type"\s*:\s*"(message_(?:start|delta|stop)|content_block_delta)"')
_SAID = re.compile(rb'"(?:text|thinking|partial_json)"\s*:\s*"((?:[^"\\]|\\.)*)"')


def read_batch(body: Json) -> Reading:
    """Read a `message_batch` when it is made: nothing is billed yet."""
    reading = Reading(finished=True, not_billed=body.get("type") != "message_batch", pending=True)
    reading.result_id = text(body, "id")
    return reading


class BatchLines:
    """The lines of a batch's results."""

    def __init__(self) -> None:
        self.reading = Reading(not_billed=True, problem="no request of the batch succeeded")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one line: a message where the request succeeded."""
        result = part(json_object(data), "result")
        if result.get("type") != "succeeded":
            return
        reading = read_message(part(result, "message"))
        reading.result_id = reading.response_id
        reading.price_context["processing"] = "batch"
        reading.price_context.pop("service_tier", None)
        self.reading.parts.append(reading)
        self.reading.not_billed = False


FORMATS = (
    WireFormat(
        api="anthropic.messages",
        operation="chat",
        path=re.compile(r"/messages$"),
        read=read_message,
        stream=MessageStream,
    ),
    WireFormat(
        api="anthropic.complete",
        operation="text_completion",
        path=re.compile(r"/v1/complete$"),
        read=lambda body: Reading(
            finished=True,
            problem="this API reports no usage",
            response_model=text(body, "model"),
            output_bytes=text_bytes(body.get("completion")),
        ),
    ),
    WireFormat(
        api="anthropic.batches",
        operation="chat",
        path=re.compile(r"/messages/batches$"),
        read=read_batch,
    ),
    WireFormat(
        api="anthropic.batches.results",
        operation="chat",
        path=re.compile(r"/messages/batches/(?P<submission>[^/]+)/results$"),
        read=lambda _: Reading(not_billed=True),
        stream=BatchLines,
        lines=True,
        method="GET",
    ),
)
