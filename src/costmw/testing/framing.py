"""How the events of a stream are framed: server-sent events, JSON lines, AWS event streams."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS_TYPE = "text/event-stream; charset=utf-8"
LINES_TYPE = "application/x-ndjson"
COHERE_LINES_TYPE = "application/stream+json"
AWS_TYPE = "application/vnd.amazon.eventstream"

_EVENT = re.compile(rb".+?(?:\r\n\r\n|\n\n|\Z)", re.DOTALL)
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_AWS_STRING = 7
_AWS_PRELUDE = 8
_CRC = 4


def dump(value: object) -> str:
    """Return compact JSON, letters beyond ASCII left as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sse(data: object, event: str | None = None, *, newline: str = "\n") -> bytes:
    """Return one server-sent event; text goes in as it is, anything else as JSON."""
    head = f"event: {event}{newline}" if event else ""
    text = data if isinstance(data, str) else dump(data)
    return f"{head}data: {text}{newline}{newline}".encode()


def line(value: object) -> bytes:
    """Return a line of JSON."""
    return f"{dump(value)}\n".encode()


def aws_event(name: str, value: object) -> bytes:
    """Return one event of an AWS event stream, with JSON inside."""
    headers = b"".join(
        _aws_header(key, text)
        for key, text in (
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    payload = dump(value).encode()
    length = _AWS_PRELUDE + _CRC + len(headers) + len(payload) + _CRC
    prelude = struct.pack(">II", length, len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def _aws_header(name: str, text: str) -> bytes:
    head = struct.pack(">B", len(name)) + name.encode()
    return head + struct.pack(">BH", _AWS_STRING, len(text)) + text.encode()


def splitter(content_type: str) -> Callable[[bytes], list[bytes]] | None:
    """Return what cuts a body of that type into its events; None if it is no stream."""
    return _SPLITTERS.get(content_type.partition(";")[0])


def _aws_events(body: bytes) -> list[bytes]:
    frames = []
    while body:
        # What claims no length is one frame with all the rest.
        length = int.from_bytes(body[:4], "big") or len(body)
        frames.append(body[:length])
        body = body[len(frames[-1]) :]
    return frames


_SPLITTERS: dict[str, Callable[[bytes], list[bytes]]] = {
    "text/event-stream": _EVENT.findall,
    LINES_TYPE: _LINE.findall,
    COHERE_LINES_TYPE: _LINE.findall,
    AWS_TYPE: _aws_events,
}
