"""Tees around the streams of httpx and httpx2 responses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from costmw.capture.tee import Tee

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.capture.reading import BodyReader


class _SyncTee(Tee):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._inner:
                passed = self._look(chunk)
                if self._settled:
                    self._call.wait()
                if passed:
                    yield passed
            rest = self._end()
            self._call.wait()
            if rest:
                yield rest
        except GeneratorExit:
            raise
        except BaseException:
            self._settle("failed")
            raise

    def close(self) -> None:
        try:
            self._inner.close()
        finally:
            self._settle("closed")
            self._call.wait()


class _AsyncTee(Tee):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = self._inner.__aiter__()
        try:
            async for chunk in chunks:
                passed = self._look(chunk)
                if self._settled:
                    await self._call.wait_async()
                if passed:
                    yield passed
            rest = self._end()
            await self._call.wait_async()
            if rest:
                yield rest
        except GeneratorExit:
            raise
        except BaseException:
            self._settle("failed")
            raise
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._settle("closed")
            await self._call.wait_async()


_SHAPES = {"SyncByteStream": _SyncTee, "AsyncByteStream": _AsyncTee}


_tee_classes: dict[type[Any], type[Any]] = {}


def _tee_class(stream: type[Any]) -> type[Any]:
    """Derive a tee from the base classes that the client of this stream checks for.

    Both libraries call them SyncByteStream and AsyncByteStream.
    """
    if stream not in _tee_classes:
        bases = [base for base in stream.__mro__ if base.__name__ in _SHAPES]
        shapes = [_SHAPES[base.__name__] for base in bases]
        _tee_classes[stream] = type("Tee", (*shapes, *bases), {})
    return _tee_classes[stream]


def tee_around(response: Any, call: Call, reader: BodyReader) -> Tee:
    """A tee around the response's stream, of the library and kind that the stream is of."""
    tee: Tee = _tee_class(type(response.stream))(response.stream, call, reader)
    return tee
