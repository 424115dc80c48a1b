"""Reads a response body beside the app, as its bytes pass."""

from __future__ import annotations

from pydantic_core import from_json

from costmw.capture.decoding import Decode, DecodingError, decoder
from costmw.capture.framing import Framing, FramingError, Message, ServerSentEvents, WholeBody
from costmw.providers.base import Reading, WireFormat


class BodyReader:
    """One body: decoding, framing and format put together. Never raises.

    What goes wrong is kept in `reading.problem`, and the rest is not looked at.
    """

    def __init__(
        self, wire: WireFormat, content_type: str, content_encoding: str, max_body_bytes: int
    ) -> None:
        self._wire = wire
        self._stream = wire.stream() if content_type.startswith("text/event-stream") else None
        self._framing: Framing = (
            WholeBody(max_body_bytes) if self._stream is None else ServerSentEvents()
        )
        self.reading = (
            Reading(problem="the body was not read to its end")
            if self._stream is None
            else self._stream.reading
        )
        self._decode: Decode | None = None
        self._broken = False
        try:
            self._decode = decoder(content_encoding)
        except DecodingError as error:
            self._give_up(str(error))

    def feed(self, data: bytes) -> None:
        """Take the next bytes as they came from the network."""
        if self._broken:
            return
        try:
            if self._decode is not None:
                data = self._decode(data)
            for message in self._framing.feed(data):
                self._take(message)
        except (DecodingError, FramingError) as error:
            self._give_up(str(error))

    def end(self) -> None:
        """Take the end of the body."""
        if self._broken:
            return
        for message in self._framing.end():
            self._take(message)

    def _take(self, message: Message) -> None:
        event, data = message
        try:
            if self._stream is not None:
                self._stream.message(event, data)
            else:
                self.reading = read_json(self._wire, data)
        except ValueError as error:
            self._give_up(f"a message is not what {self._wire.api} documents: {error}")

    def _give_up(self, problem: str) -> None:
        self._broken = True
        self.reading.usage = None
        self.reading.unreadable = True
        self.reading.problem = problem[:300]


def read_json(wire: WireFormat, body: bytes) -> Reading:
    """Read a whole JSON body; never raises."""
    try:
        parsed = from_json(body)
    except ValueError:
        return Reading(unreadable=True, problem="the body is not JSON")
    if not isinstance(parsed, dict):
        problem = f"the body is a JSON {type(parsed).__name__}, not an object"
        return Reading(unreadable=True, problem=problem)
    try:
        return wire.read(parsed)
    except ValueError as error:
        problem = f"the body is not what {wire.api} documents: {error}"
        return Reading(unreadable=True, problem=problem[:300])
