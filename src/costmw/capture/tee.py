"""The tee: a response stream that hands every chunk on and looks at it as it passes.

Chunks are handed on as they come, and no error of ours gets in the way. Two things wait:
where usage was asked for on the app's behalf, the bytes of an event that is not whole yet;
and the last chunk, until the row is committed, so that what the app has seen whole is
recorded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from costmw.capture.decoding import Decode, DecodingError, decoder
from costmw.capture.framing import FramingError

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.capture.hiding import UsageChunkHider
    from costmw.capture.reading import BodyReader
    from costmw.capture.settle import End


class Tee:
    """What the sync and the async tee share: looking at chunks, settling the call."""

    def __init__(self, inner: Any, call: Call, reader: BodyReader) -> None:
        self._inner = inner
        self._call = call
        self._reader = reader
        self._hider: UsageChunkHider | None = None
        self._decode: Decode | None = None
        self._settled = False
        self._chunks = 0
        self._chunks_before = 0
        self._quiet_since_ns = time.monotonic_ns()
        # A copy shares the call, and does not end it by being dropped.
        self._original = id(self)

    def hide_usage(self, hider: UsageChunkHider, encoding: str) -> None:
        """Take the usage chunk out; the bytes handed on are then decoded ones."""
        self._decode = decoder(encoding)
        self._hider = hider

    def _look(self, chunk: bytes) -> bytes:
        """Read a chunk; gives the bytes to hand on. Settles when the protocol's end is seen."""
        if not self._chunks:
            self._call.first_chunk_ns = time.monotonic_ns()
        self._chunks += 1
        reader = self._reader
        reader.feed(chunk)
        if self._hider is not None:
            chunk = self._hide(self._hider, chunk)
        if reader.reading.finished and not self._settled:
            self._settle("end")
        return chunk

    def _hide(self, hider: UsageChunkHider, chunk: bytes) -> bytes:
        try:
            decoded = self._decode(chunk) if self._decode else chunk
        except DecodingError as error:
            # The client cannot decode it either; it shall say so itself.
            self._call.fault(error)
            self._hider = None
            return hider.end() + chunk
        try:
            return hider.feed(decoded)
        except FramingError as error:
            self._call.fault(error)
            self._hider = None
            return hider.end()

    def _end(self) -> bytes:
        self._reader.end()
        self._settle("end")
        return self._hider.end() if self._hider is not None else b""

    def _settle(self, end: End) -> None:
        if not self._settled:
            self._settled = True
            self._call.settle(self._reader.reading, end)

    def abandon(self) -> None:
        """Settle now: nobody will read on."""
        self._settle("dropped")

    def abandon_if_idle(self, now_ns: int, timeout: float) -> None:
        """Settle when no chunk came for `timeout` seconds, as seen by whoever asks now and then."""
        if self._chunks != self._chunks_before:
            self._chunks_before = self._chunks
            self._quiet_since_ns = now_ns
        elif now_ns - self._quiet_since_ns > timeout * 1e9:
            self.abandon()

    def __getattr__(self, name: str) -> Any:
        # httpx2 reads `elapsed`, and SDKs keep things of their own, on the stream.
        inner = self.__dict__.get("_inner")
        if inner is None:  # not made yet: a copy is asked what it has before it has anything
            raise AttributeError(name)
        return getattr(inner, name)

    def __del__(self) -> None:
        if self.__dict__.get("_original") == id(self):
            self.abandon()


class BodyTee(Tee):
    """A tee that is read from, in pieces of the app's choice.

    It passes for what it stands for in `isinstance`, and does itself whatever gives bytes;
    the rest it leaves to the original.
    """

    def __init__(self, inner: Any, call: Call, reader: BodyReader) -> None:
        super().__init__(inner, call, reader)
        # What was looked at, and not asked for yet.
        self._passed = bytearray()
        self._ended = False

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.__dict__.get("_inner", self))

    def _note(self, data: bytes | None, *, last: bool) -> None:
        """Look at what came, and let it pass; what comes after the end passes unseen."""
        if data:
            self._passed += data if self._ended else self._look(data)
        if last and not self._ended:
            self._ended = True
            self._passed += self._end()

    def _take(self, n: int | None) -> bytes:
        taken = bytes(self._passed if n is None or n < 0 else self._passed[:n])
        del self._passed[: len(taken)]
        return taken
