"""A tee around the content of an aiohttp response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from costmw.capture.tee import Tee

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.capture.reading import BodyReader


class ContentTee(Tee):
    """Reads like the `StreamReader` that it stands for, from what has passed the reader.

    aiohttp has taken compression off the bytes by then, unless it was told not to.
    """

    def __init__(self, inner: Any, call: Call, reader: BodyReader) -> None:
        super().__init__(inner, call, reader)
        self._passed = bytearray()
        self._ended = False

    async def read(self, n: int = -1) -> bytes:
        """Give up to `n` bytes of what has come, or all there will be."""
        if n == 0:
            return b""
        while (n < 0 or not self._passed) and await self._more():
            pass
        return self._take(n)

    async def readany(self) -> bytes:
        """Give what has come, once there is something."""
        return await self.read(2**62)

    async def readline(self, **options: Any) -> bytes:
        """Give one line, its end included."""
        return await self.readuntil(**options)

    async def readuntil(self, separator: bytes = b"\n", **_: Any) -> bytes:
        """Give what comes before a separator, and the separator."""
        searched = 0
        while (found := self._passed.find(separator, searched)) < 0:
            searched = max(0, len(self._passed) - len(separator) + 1)
            if not await self._more():
                return self._take(-1)
        return self._take(found + len(separator))

    async def readexactly(self, n: int) -> bytes:
        """Give `n` bytes.

        Raises:
            IncompleteReadError: when there are fewer.
        """
        while len(self._passed) < n:
            if not await self._more():
                raise asyncio.IncompleteReadError(self._take(-1), n)
        return self._take(n)

    async def readchunk(self) -> tuple[bytes, bool]:
        """Give what has come, and True: every piece stands for a chunk of its own."""
        data = await self.readany()
        return data, bool(data)

    def read_nowait(self, n: int = -1) -> bytes:
        """Give what is there already."""
        if not self._ended:
            self._passed += self._look(self._inner.read_nowait(-1))
        return self._take(n)

    def at_eof(self) -> bool:
        """Whether all has been read."""
        return not self._passed and bool(self._inner.at_eof())

    def set_exception(self, *error: Any) -> None:
        """Take the word of aiohttp that the response is closed."""
        if self._inner.at_eof() and not self._ended:
            # Read to the end by someone who knew the length, and did not ask for more.
            self._ended = True
            self._passed += self._end()
        self._settle("closed")
        self._inner.set_exception(*error)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """Give pieces of up to `n` bytes."""
        while data := await self.read(n):
            yield data

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Give what has come, piece by piece."""
        while data := await self.readany():
            yield data

    async def iter_chunks(self) -> AsyncIterator[tuple[bytes, bool]]:
        """Give what has come, piece by piece, each as a chunk."""
        while (piece := await self.readchunk()) != (b"", False):
            yield piece

    async def _more(self) -> bool:
        """Wait for the next bytes; False at the end, once the row is committed."""
        if self._ended:
            return False
        try:
            data = await self._inner.readany()
        except BaseException:
            self._settle("failed")
            raise
        if data:
            self._passed += self._look(data)
            if self._settled:
                await self._call.wait_async()
            return True
        self._ended = True
        self._passed += self._end()
        await self._call.wait_async()
        return bool(self._passed)

    def _take(self, n: int) -> bytes:
        taken = bytes(self._passed if n < 0 else self._passed[:n])
        del self._passed[: len(taken)]
        return taken
