"""Reads a response body beside the app, as its bytes pass."""

from __future__ import annotations

from collections.abc import Mapping

from costmw.capture.decoding import Decode, DecodingError, decoder
from costmw.capture.framing import (
    AwsEventStream,
    Framing,
    FramingError,
    JsonLines,
    ServerSentEvents,
    WholeBody,
)
from costmw.events import Usage
from costmw.providers.base import (
    EndingReader,
    Reading,
    SelectiveReader,
    StreamReader,
    WireFormat,
    parse_json,
)

CUT_SHORT = "the body was not read to its end"

_ENOUGH_TO_TELL = 6
"""Bytes of a body that tell its framing where no content type does: the length of `event:`."""


class BodyReader:
    """One body: decoding, framing and format put together. Never raises.

    What goes wrong is kept in `reading.problem`, and the rest is not looked at.

    Args:
        wire: the format that the body is in.
        headers: the response's headers, names in lower case.
        encoding: the content encoding of the bytes that will be fed.
        max_body_bytes: how long a body may be that has to be kept whole.
    """

    def __init__(
        self, wire: WireFormat, headers: Mapping[str, str], encoding: str, max_body_bytes: int
    ) -> None:
        self._wire = wire
        self._headers = headers
        self._max_body_bytes = max_body_bytes
        self._framing: Framing | None = None
        self._start = b""
        self._stream: StreamReader | None = None
        self._events = ServerSentEvents()
        self._selective: SelectiveReader | None = None
        self.reading = Reading(problem=CUT_SHORT)
        self._decode: Decode | None = None
        # Nothing more is looked at: the body says nothing, or makes no sense.
        self._deaf = wire.read_request is not None
        self._in_headers: Usage | None = None
        self._wrong_headers: str | None = None
        if wire.read_headers is not None:
            self._read_headers()
        try:
            self._decode = decoder(encoding)
        except DecodingError as error:
            self._give_up(str(error))

    def feed(self, data: bytes) -> None:
        """Take the next bytes as they came from the network."""
        if self._deaf:
            return
        try:
            if self._decode is not None:
                data = self._decode(data)
            if self._framing is None:
                self._start += data
                if len(self._start.lstrip()) < _ENOUGH_TO_TELL:
                    return
                self._framing = self._choose_framing(self._start)
                data, self._start = self._start, b""
            if (
                self._selective is not None
                and self._events.is_whole(data)
                and self._selective.skips(data)
            ):
                return
            for event, message in self._framing.feed(data):
                self._take(event, message)
        except (DecodingError, FramingError) as error:
            self._give_up(str(error))

    def end(self) -> None:
        """Take the end of the body."""
        if not self._deaf and (self._framing is not None or self._start):
            try:
                if self._framing is None:
                    self._framing = self._choose_framing(self._start)
                    for event, message in self._framing.feed(self._start):
                        self._take(event, message)
                for event, message in self._framing.end():
                    self._take(event, message)
                cut = isinstance(self._framing, AwsEventStream) and self._framing.is_cut
                if isinstance(self._stream, EndingReader) and not cut:
                    self._stream.end()
            except FramingError as error:
                self._give_up(str(error))
        if self._wire.read_request is not None:
            self.reading = self._wire.read({})
        if self.reading.usage is None and self._wrong_headers:
            self.reading.problem = self._wrong_headers

    def _choose_framing(self, start: bytes) -> Framing:
        """By the content type; where there is none, by how the body starts."""
        content_type = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        framing: Framing
        match content_type:
            case "text/event-stream":
                framing = self._events
            case "application/vnd.amazon.eventstream":
                framing = AwsEventStream()
            case "application/x-ndjson" | "application/jsonl" | "application/stream+json":
                framing = JsonLines()
            case "" if start.lstrip().startswith((b"data:", b"event:", b":", b"id:")):
                framing = self._events
            case _ if self._wire.lines and content_type != "application/json":
                framing = JsonLines()
            case "" if start.startswith(b"\0"):
                framing = AwsEventStream()
            case _:
                return WholeBody(self._max_body_bytes)
        self._stream = self._wire.stream()
        self.reading = self._stream.reading
        if framing is self._events and isinstance(self._stream, SelectiveReader):
            self._selective = self._stream
        return framing

    def _take(self, event: str | None, data: bytes) -> None:
        try:
            if self._stream is not None:
                self._stream.message(event, data)
                self.reading = self._stream.reading
            else:
                self.reading = read_json(self._wire, data)
            self._prefer_headers()
        except ValueError as error:
            self._give_up(f"a message is not what {self._wire.api} documents: {error}")

    def _read_headers(self) -> None:
        assert self._wire.read_headers is not None
        try:
            self._in_headers = self._wire.read_headers(self._headers)
        except ValueError as error:
            self._wrong_headers = f"unreadable usage in the headers: {error}"
        else:
            self._prefer_headers()

    def _prefer_headers(self) -> None:
        """Headers are sent whole, before the body: what they count is exact at once."""
        if self._in_headers is not None:
            self.reading.usage, self.reading.problem = self._in_headers, None
            self.reading.finished, self.reading.unreadable = True, False

    def _give_up(self, problem: str) -> None:
        self._deaf = True
        self.reading.usage = None
        self.reading.unreadable = True
        self.reading.problem = problem[:300]
        self._prefer_headers()


def read_json(wire: WireFormat, body: bytes) -> Reading:
    """Read a whole JSON body; never raises."""
    try:
        parsed = parse_json(body)
    except ValueError:
        return Reading(unreadable=True, problem="the body is not JSON")
    try:
        if isinstance(parsed, dict):
            return wire.read(parsed)
        if isinstance(parsed, list) and wire.read_array is not None:
            return wire.read_array([part for part in parsed if isinstance(part, dict)])
    except ValueError as error:
        problem = f"the body is not what {wire.api} documents: {error}"
        return Reading(unreadable=True, problem=problem[:300])
    return Reading(
        unreadable=True, problem=f"the body is a JSON {type(parsed).__name__}, not an object"
    )


def read_body(wire: WireFormat, headers: Mapping[str, str], body: bytes, limit: int) -> Reading:
    """Read a body that is there as a whole, already decoded."""
    reader = BodyReader(wire, headers, "", max(limit, len(body)))
    reader.feed(body)
    reader.end()
    return reader.reading
