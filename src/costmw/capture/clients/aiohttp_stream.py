"""A tee around the content of an aiohttp response."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from costmw.capture.tee import BodyTee

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.capture.reading import BodyReader


class ContentTee(BodyTee):
    """Reads like the `StreamReader` that it stands for, from what has passed the reader.

    aiohttp has taken compression off the bytes by then, unless it was told not to.
    """

    def __init__(self, inner: Any, call: Call, reader: BodyReader) -> None:
        super().__init__(inner, call, reader)
        # Bytes at the end of what has come that are held back: of a line without its end.
        self._held = 0

    async def read(self, n: int = -1) -> bytes:
        """Give up to `n` bytes of what has come, or all there will be."""
        self._raise_as_inner()
        if not n:
            return b""
        while (n < 0 or not self._passed) and await self._more(n):
            pass
        return self._take(n)

    async def readany(self) -> bytes:
        """Give what has come, once there is something."""
        self._raise_as_inner()
        while not self._passed and await self._more():
            pass
        return self._take(-1)

    async def readline(self, *, max_line_length: int | None = None) -> bytes:
        """Give one line, its end included.

        Raises:
            LineTooLong: when it is longer than that, or than aiohttp's own limit.
        """
        return await self.readuntil(max_size=max_line_length)

    async def readuntil(self, separator: bytes = b"\n", *, max_size: int | None = None) -> bytes:
        """Give what comes before a separator, and the separator.

        Raises:
            LineTooLong: when it is longer than that, or than aiohttp's own limit.
        """
        self._raise_as_inner()
        if not separator:
            raise ValueError("Separator should be at least one-byte string")
        searched = 0
        while (found := self._passed.find(separator, searched)) < 0:
            searched = max(0, len(self._passed) - len(separator) + 1)
            if (size := len(self._passed) + self._held) and size > (limit := self._limit(max_size)):
                if not self._held:
                    raise _too_long(self._take(-1), limit)
                self._let_go()
            elif not await self._more():
                return self._take(-1)
        line = self._take(found + len(separator))
        if len(line) > (limit := self._limit(max_size)):
            raise _too_long(line, limit)
        return line

    async def readexactly(self, n: int) -> bytes:
        """Give `n` bytes.

        Raises:
            IncompleteReadError: when there are fewer.
        """
        self._raise_as_inner()
        while len(self._passed) < n:
            if not await self._more(n - len(self._passed)):
                raise asyncio.IncompleteReadError(self._take(-1), n)
        return self._take(max(n, 0))

    async def readchunk(self) -> tuple[bytes, bool]:
        """Give what has come of a chunk of HTTP, and whether that is its end."""
        self._raise_as_inner()
        ends = False
        while not self._passed:
            data, ends = await self._pass(self._inner.readchunk(), of=_first)
            if not data:
                break
        return self._take(-1), ends

    def read_nowait(self, n: int = -1) -> bytes:
        """Give what is there already."""
        wanted = n if n < 0 or self._hider is None else -1
        if wanted > 0:
            wanted = max(0, wanted - len(self._passed))
        self._see(self._inner.read_nowait(wanted))
        return self._take(n)

    def unread_data(self, data: bytes) -> None:
        """Take back what was given, to give it again."""
        self._inner.unread_data(b"")  # warns that this is deprecated
        self._passed[:0] = data

    def at_eof(self) -> bool:
        """Whether all has been read."""
        self._see(b"")
        return not self._passed and bool(self._inner.at_eof())

    def set_exception(self, *error: Any) -> None:
        """Take the word of aiohttp that the response is closed."""
        # It may have been read to the end by someone who knew the length.
        self._see(b"")
        self._settle("closed")
        self._inner.set_exception(*error)

    def __aiter__(self) -> _Pieces[bytes]:
        return _Pieces(self.readline, b"")

    def iter_chunked(self, n: int) -> _Pieces[bytes]:
        """Give pieces of up to `n` bytes."""
        return _Pieces(lambda: self.read(n), b"")

    def iter_any(self) -> _Pieces[bytes]:
        """Give what has come, piece by piece."""
        return _Pieces(self.readany, b"")

    def iter_chunks(self) -> _Pieces[tuple[bytes, bool]]:
        """Give what has come, piece by piece, and whether each ends a chunk of HTTP."""
        return _Pieces(self.readchunk, (b"", False))

    def _raise_as_inner(self) -> None:
        """Raise what aiohttp raises of a response that is closed or broken, whatever is left."""
        if (error := self._inner.exception()) is not None:
            self._settle("failed")
            raise error

    async def _more(self, n: int = -1) -> bool:
        """Wait for the next bytes, up to `n`; False at the end, once the row is committed."""
        if self._ended:
            return False
        # Where bytes are held back, that many may never pass.
        all_of_it = n < 0 or self._hider is not None
        before = len(self._passed)
        data = await self._pass(self._inner.readany() if all_of_it else self._inner.read(n))
        return bool(data) or len(self._passed) > before

    async def _pass(self, reading: Awaitable[Any], of: Callable[[Any], bytes] = bytes) -> Any:
        try:
            piece = await reading
        except BaseException:
            self._settle("failed")
            raise
        self._see(of(piece))
        if self._settled:
            await self._call.wait_async()
        return piece

    def _see(self, data: bytes) -> None:
        if self._hider is not None and data:
            start = data.rfind(b"\n") + 1
            self._held = (0 if start else self._held) + len(data) - start
        self._note(data, last=self._inner.at_eof())
        if self._hider is None or self._ended:
            self._held = 0

    def _let_go(self) -> None:
        """Hand on what is held back: its last line is too long to be waited for."""
        if self._hider is not None:
            self._passed += self._hider.end()
        self._held = 0

    def _limit(self, max_size: int | None) -> int:
        return max_size or int(self._inner.get_read_buffer_limits()[1])


_Piece = TypeVar("_Piece")


class _Pieces(Generic[_Piece]):
    """Goes on after an error, as aiohttp's own iterators do and a generator does not."""

    def __init__(self, read: Callable[[], Awaitable[_Piece]], end: _Piece) -> None:
        self._read = read
        self._end = end

    def __aiter__(self) -> _Pieces[_Piece]:
        return self

    async def __anext__(self) -> _Piece:
        if (piece := await self._read()) == self._end:
            raise StopAsyncIteration
        return piece


def _first(piece: tuple[bytes, bool]) -> bytes:
    return piece[0]


def _too_long(line: bytes, limit: int) -> Exception:
    """What the installed aiohttp raises of a line; there is one, or no content to read."""
    kind = getattr(sys.modules.get("aiohttp.streams"), "LineTooLong", None)
    if kind is None:
        return ValueError("Chunk too big")
    error: Exception = kind(line[:100] + b"...", limit)
    return error
