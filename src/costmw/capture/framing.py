"""From bytes to messages: server-sent events, JSON lines, AWS event streams, whole bodies.

Fed in chunks of any size; each message comes out once, as (event name, data).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

Message = tuple[str | None, bytes]

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A single event longer than this ends the reading of a stream."""


class FramingError(ValueError):
    """The bytes are not in the framing that the response announced."""


class Framing(Protocol):
    """Cuts bytes into messages."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes; gives the messages that they complete."""

    def end(self) -> Iterator[Message]:
        """Take the end of the body; gives what it completes."""


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")
# Atomic: the two halves of one CRLF are not two line ends.
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class ServerSentEvents:
    """`text/event-stream` (WHATWG HTML, section 9.2): LF, CRLF or CR, comments, any split."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes; gives the events that they complete."""
        for block in self.blocks(data):
            if message := parse_event(block):
                yield message

    def end(self) -> Iterator[Message]:
        """Give an event whose blank line never came: some servers leave it out."""
        if self._buffer and (message := parse_event(bytes(self._buffer))):
            yield message
        self._buffer.clear()
        self._searched = 0

    def blocks(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; gives the events that they complete as they came, ends included."""
        self._buffer += data
        start = 0
        while match := _EVENT_END.search(self._buffer, max(start, self._searched)):
            yield bytes(self._buffer[start : match.end()])
            start = self._searched = match.end()
        if start:
            del self._buffer[:start]
        # The separator may be cut anywhere: look at its last bytes again.
        self._searched = max(len(self._buffer) - 3, 0)
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise FramingError(f"one event is longer than {MAX_EVENT_BYTES} bytes")

    def is_whole(self, data: bytes) -> bool:
        """Whether the next bytes are whole events: most servers send them so."""
        return not self._buffer and data.endswith((b"\n\n", b"\r\n\r\n"))

    def rest(self) -> bytes:
        """The bytes of an event that is not complete yet; forgets them."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


def parse_event(block: bytes) -> Message | None:
    """Read one event's lines; None for comments and events without data."""
    if block.startswith(b"data: "):
        line = block[6:].rstrip(b"\r\n")
        if b"\n" not in line and b"\r" not in line:
            return None, line  # one data line, by far the most frequent form
    event: str | None = None
    data: list[bytes] = []
    for line in _LINE_END.split(block.removeprefix(_BYTE_ORDER_MARK)):
        field, colon, value = line.partition(b":")
        if not colon and not field:
            continue
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            event = value.decode("utf-8", "replace")
    return (event, b"\n".join(data)) if data else None


class JsonLines:
    """One JSON object a line (`application/x-ndjson`)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes; gives the lines that they complete."""
        *lines, rest = (bytes(self._buffer) + data if b"\n" in data else data).split(b"\n")
        if lines:
            self._buffer.clear()
        self._buffer += rest
        if len(self._buffer) > MAX_EVENT_BYTES:
            raise FramingError(f"one line is longer than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            if line := line.strip():
                yield None, line

    def end(self) -> Iterator[Message]:
        """Give a last line without its end."""
        if line := bytes(self._buffer).strip():
            yield None, line
        self._buffer.clear()


class AwsEventStream:
    """`application/vnd.amazon.eventstream`: prelude, typed headers, payload, checksums.

    The layout is that of the AWS event stream encoding: total length, length of the
    headers and their CRC-32 as big-endian 32-bit numbers, the headers, the payload, and
    the CRC-32 of all before it. A message comes out under its `:event-type`, or under
    its `:exception-type`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take the next bytes; gives the messages that they complete."""
        self._buffer += data
        while len(self._buffer) >= _PRELUDE.size:
            total, headers, checksum = _PRELUDE.unpack_from(self._buffer)
            if (
                zlib.crc32(self._buffer[:8]) != checksum
                or not 16 + headers <= total <= MAX_EVENT_BYTES
            ):
                raise FramingError("a message of the event stream is damaged")
            if len(self._buffer) < total:
                return
            message = bytes(self._buffer[:total])
            del self._buffer[:total]
            if zlib.crc32(message[:-4]) != int.from_bytes(message[-4:]):
                raise FramingError("a message of the event stream is damaged")
            start = _PRELUDE.size + headers
            named = _event_headers(message[_PRELUDE.size : start])
            yield named.get(":event-type") or named.get(":exception-type"), message[start:-4]

    def end(self) -> Iterator[Message]:
        """Give nothing: a message that is cut says nothing."""
        return iter(())

    @property
    def is_cut(self) -> bool:
        """Whether bytes of a message that is not complete are left."""
        return bool(self._buffer)


_PRELUDE = struct.Struct(">III")
_STRING = 7
# Lengths of the values by type; byte arrays and strings carry their own.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


def _event_headers(data: bytes) -> dict[str, str]:
    """The text headers of a message."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(data):
            end = at + 1 + data[at]
            name, kind = data[at + 1 : end].decode(), data[end]
            at = end + 1
            if kind in _FIXED:
                at += _FIXED[kind]
            else:
                length = int.from_bytes(data[at : at + 2])
                at += 2
                if kind == _STRING:
                    found[name] = data[at : at + length].decode()
                at += length
    except (IndexError, UnicodeDecodeError):
        raise FramingError("the headers of an event are damaged") from None
    return found


class WholeBody:
    """A JSON body that arrives in pieces: one message, at the end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Keep the bytes; gives nothing yet."""
        self._size += len(data)
        if self._size > self._limit:
            self._pieces.clear()
            raise FramingError(f"the body is longer than max_body_bytes ({self._limit})")
        self._pieces.append(data)
        return iter(())

    def end(self) -> Iterator[Message]:
        """Give the whole body."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        if body:
            yield None, body
