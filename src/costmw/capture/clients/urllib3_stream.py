"""A tee around the raw response of urllib3, which requests and botocore read from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.urls import lower_names
from costmw.capture.tee import BodyTee

if TYPE_CHECKING:
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
        encoded=encoding not in ("", "identity"),
    )
    # The bytes that are read are decoded ones by then.
    capture.follow(tee, headers, hide="" if hide else None)
    response.raw = tee


class RawTee(BodyTee):
    """Reads like the response that it stands for.

    Whether the bytes are decoded is up to whoever reads; `reader` makes a reader for
    either, given whether they are. `encoded` says whether there is something to decode.
    """

    def __init__(
        self, inner: Any, call: Call, reader: Callable[[bool], BodyReader], *, encoded: bool
    ) -> None:
        super().__init__(inner, call, reader(False))
        self._reader_for = reader
        self._encoded = encoded
        self._begun = False
        self._decoded = False
        self._body = b""

    def __setattr__(self, name: str, value: Any) -> None:
        # `decode_content` and `auto_close` are there to be set.
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._inner, name, value)

    def stream(
        self, amt: int | None = 2**16, decode_content: bool | None = None
    ) -> Iterator[bytes]:
        """Give the body piece by piece."""
        if self._gives_chunks():
            # Without a word, urllib3 leaves chunks as they are.
            decode_content = bool(decode_content)
        pieces = self._inner.stream(amt, decode_content=decode_content)
        yield from self._pieces(pieces, amt, decode_content)

    def read_chunked(
        self, amt: int | None = None, decode_content: bool | None = None
    ) -> Iterator[bytes]:
        """Give the chunks of a chunked body; of another, urllib3 says that it is none."""
        pieces = self._inner.read_chunked(amt, decode_content=decode_content)
        if self._gives_chunks():
            return self._pieces(pieces, amt, bool(decode_content))
        return iter(pieces)

    def read(
        self,
        amt: int | None = None,
        decode_content: bool | None = None,
        cache_content: bool = False,
    ) -> bytes:
        """Give `amt` bytes, or fewer at the end, or all of them."""
        if amt is not None and amt >= 0:
            return self._read(self._inner.read, amt, decode_content, enough=amt)
        first = not self._begun
        data = self._read(self._inner.read, None, decode_content, enough=math.inf)
        if first and cache_content:
            self._body = data
        return data

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """Give up to `amt` bytes, of what has come."""
        amt = None if amt is not None and amt < 0 else amt
        return self._read(self._inner.read1, amt, decode_content, enough=min(1, amt or 1))

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; gives the number of bytes that were read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1) -> bytes:
        """Give one line, or up to `size` bytes of it."""
        line = bytearray()
        while not line.endswith(b"\n") and (size is None or size < 0 or len(line) < size):
            if not (byte := self.read(1)):
                break
            line += byte
        return bytes(line)

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Give the lines; not many more than `hint` bytes, if it is given."""
        lines, size = [], 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint < size:
                break
        return lines

    @property
    def data(self) -> bytes:
        """The whole body, as often as it is asked for."""
        return self._body or self.read(cache_content=True) or self._inner.data

    def json(self) -> Any:
        """Give the body as an object, if this urllib3 has a way."""
        return self._inner.__class__.json(self)

    def drain_conn(self) -> None:
        """Read the rest and forget it, so that the connection can be used again."""
        # The original keeps errors to itself as well.
        with contextlib.suppress(Exception):
            while self.read(2**16, decode_content=self._decoded):
                pass
        self._inner.drain_conn()

    @property
    def closed(self) -> bool:
        """Whether nothing can be read any more."""
        return bool(self._inner.closed) and not self._passed

    def isclosed(self) -> bool:
        """Whether the body has been read to its end."""
        return bool(self._inner.isclosed()) and not self._passed

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        for chunk in self.stream(decode_content=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest

    def __next__(self) -> bytes:
        if line := self.readline():
            return line
        raise StopIteration

    def __enter__(self) -> RawTee:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was not read by now is never read."""
        try:
            self._inner.close()
        finally:
            self._ended = True
            self._passed.clear()
            self._settle("closed")
            self._call.wait()

    def _pieces(
        self, pieces: Iterable[bytes], amt: int | None, decode_content: bool | None
    ) -> Iterator[bytes]:
        if amt == 0:
            return
        self._begin(decode_content)
        try:
            yield from self._cut(amt)
            for piece in pieces:
                self._pass(piece)
                yield from self._cut(amt)
            self._pass(b"", last=True)
            yield from self._cut(amt)
        except GeneratorExit:
            raise
        except BaseException:
            self._settle("failed")
            raise

    def _cut(self, amt: int | None) -> Iterator[bytes]:
        while self._passed:
            yield self._take(amt)

    def _read(
        self,
        read: Callable[..., bytes],
        amt: int | None,
        decode_content: bool | None,
        *,
        enough: float,
    ) -> bytes:
        if amt == 0:
            return b""
        self._begin(decode_content)
        while len(self._passed) < enough:
            wanted = None if amt is None else amt - len(self._passed)
            try:
                data = read(wanted, decode_content=decode_content)
            except BaseException:
                self._settle("failed")
                raise
            self._pass(data, last=enough == math.inf)
            if self._ended or not data:
                break
        return self._take(amt)

    def _begin(self, decode_content: bool | None) -> None:
        if not self._begun:
            self._begun = True
            if decode_content is None:
                decode_content = getattr(self._inner, "decode_content", True)
            if decode_content:
                self._decoded = True
                self._reader = self._reader_for(True)

    def _pass(self, data: bytes | None, *, last: bool = False) -> None:
        self._note(data, last=last or self._is_last(data))
        if self._settled:
            self._call.wait()

    def _is_last(self, data: bytes | None) -> bool:
        """Whether nothing comes after these bytes, as far as can be told."""
        if not (self._encoded and self._decoded):
            if not data or getattr(self._inner, "length_remaining", None) == 0:
                return True
        elif data:
            # All may have come, and some of what it decodes to lie in the response still.
            return False
        try:
            return bool(self._inner.isclosed())
        except (AttributeError, ValueError):
            return not data

    def _gives_chunks(self) -> bool:
        chunked = getattr(self._inner, "chunked", False)
        return bool(chunked and self._inner.supports_chunked_reads())
