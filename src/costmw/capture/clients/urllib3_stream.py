"""A tee around the raw response of urllib3, which requests and botocore read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.urls import lower_names
from costmw.capture.tee import Tee

if TYPE_CHECKING:
    from types import TracebackType

    from costmw.capture.call import Call
    from costmw.capture.clients.base import Capture
    from costmw.capture.reading import BodyReader


def follow_raw(capture: Capture, call: Call, response: Any, *, hide: bool) -> None:
    """Put a tee around the raw body of a response of requests, or of botocore."""
    headers = lower_names(response.headers)
    encoding = headers.get("content-encoding", "")
    tee = RawTee(
        response.raw,
        call,
        lambda decoded: capture.reader(call, headers, "" if decoded else encoding),
    )
    # The bytes that are read are decoded ones by then.
    capture.follow(tee, headers, hide="" if hide else None)
    response.raw = tee


class RawTee(Tee):
    """Reads like the response that it stands for.

    Whether the bytes are decoded is up to whoever reads; `reader` makes a reader for
    either, given whether they are.
    """

    def __init__(self, inner: Any, call: Call, reader: Callable[[bool], BodyReader]) -> None:
        super().__init__(inner, call, reader(False))
        self._reader_for = reader
        self._begun = False
        self._ended = False

    @property
    def decode_content(self) -> bool:
        """Whether a reader that does not say gets decoded bytes."""
        return bool(getattr(self._inner, "decode_content", True))

    @decode_content.setter
    def decode_content(self, value: bool) -> None:
        self._inner.decode_content = value

    def stream(
        self, amt: int | None = 2**16, decode_content: bool | None = None
    ) -> Iterator[bytes]:
        """Give the body chunk by chunk."""
        self._begin(decode_content)
        try:
            for chunk in self._inner.stream(amt, decode_content=decode_content):
                if passed := self._pass(chunk):
                    yield passed
            if rest := self._finish():
                yield rest
        except GeneratorExit:
            raise
        except BaseException:
            self._settle("failed")
            raise

    read_chunked = stream

    def read(
        self, amt: int | None = None, decode_content: bool | None = None, **options: Any
    ) -> bytes:
        """Give up to `amt` bytes, or all of them."""
        return self._read(self._inner.read, amt, decode_content, options)

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """Give up to `amt` bytes, of what has come."""
        return self._read(self._inner.read1, amt, decode_content, {})

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; gives the number of bytes that were read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self.stream(decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest

    def __enter__(self) -> RawTee:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not read by now is never read."""
        try:
            self._inner.close()
        finally:
            self._settle("closed")
            self._call.wait()

    def _read(
        self,
        read: Callable[..., bytes],
        amt: int | None,
        decode_content: bool | None,
        options: dict[str, Any],
    ) -> bytes:
        if amt == 0:
            return b""
        self._begin(decode_content)
        try:
            # A chunk that is held back whole is not the end.
            while data := read(amt, decode_content=decode_content, **options):
                passed = self._pass(data)
                if amt is None or amt < 0 or getattr(self._inner, "length_remaining", None) == 0:
                    return passed + self._finish()
                if passed:
                    return passed
            return self._finish()
        except BaseException:
            self._settle("failed")
            raise

    def _begin(self, decode_content: bool | None) -> None:
        if not self._begun:
            self._begun = True
            decoded = self.decode_content if decode_content is None else decode_content
            if decoded:
                self._reader = self._reader_for(True)

    def _pass(self, chunk: bytes) -> bytes:
        passed = self._look(chunk)
        if self._settled:
            self._call.wait()
        return passed

    def _finish(self) -> bytes:
        if self._ended:
            return b""
        self._ended = True
        rest = self._end()
        self._call.wait()
        return rest
