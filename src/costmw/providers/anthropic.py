"""Anthropic's messages format.

Shapes: https://docs.anthropic.com/en/api/messages and /messages-streaming.
`input_tokens` excludes what was read from and written to the cache; `Usage`
includes it. `output_tokens` includes thinking.
"""

from __future__ import annotations

import re
from typing import Any

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

CUT_SHORT = "the stream ended before message_stop"


def _usage(usage: Json) -> Usage:
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
            detail=detail(
                cache_write_5m_tokens=written_5m,
                cache_write_1h_tokens=written_1h,
                web_searches=count(part(usage, "server_tool_use"), "web_search_requests"),
            ),
        )
    )


def _note(reading: Reading, message: Json) -> None:
    reading.response_model = text(message, "model") or reading.response_model
    reading.response_id = text(message, "id") or reading.response_id


def _take_usage(reading: Reading, usage: Json) -> None:
    if tier := text(usage, "service_tier"):
        reading.price_context["service_tier"] = tier
    if speed := text(usage, "speed"):
        reading.price_context["speed"] = speed
    try:
        reading.usage, reading.problem = _usage(usage), None
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"


def read_message(body: Json) -> Reading:
    """Read a `message`."""
    reading = Reading(finished=True, problem="the response carries no usage")
    _note(reading, body)
    usage = body.get("usage")
    if isinstance(usage, dict):
        _take_usage(reading, usage)
    return reading


class MessageStream:
    """`message_start` to `message_stop`.

    The cache's 5m/1h split is in `message_start` only; each `message_delta` carries
    running totals that replace its values key by key, never the object as a whole.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)
        self._usage: dict[str, Any] = {}
        self._complete = False

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or _event_type(data)
        if name == "message_start":
            message = part(json_object(data), "message")
            _note(self.reading, message)
            self._merge(part(message, "usage"))
        elif name == "message_delta":
            self._complete = True
            self._merge(part(json_object(data), "usage"))
        elif name == "message_stop":
            self.reading.finished = True

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


_EVENT_TYPE = re.compile(rb'"type"\s*:\s*"(message_(?:start|delta|stop))"')


def _event_type(data: bytes) -> str | None:
    match = _EVENT_TYPE.search(data)
    return match[1].decode() if match else None


FORMATS = (
    WireFormat(
        api="anthropic.messages",
        operation="chat",
        path=re.compile(r"/messages$"),
        read=read_message,
        stream=MessageStream,
    ),
)
