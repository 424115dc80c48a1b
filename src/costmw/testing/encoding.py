"""Content encodings that can be flushed after every stream event."""

from __future__ import annotations

import sys
import zlib
from typing import Protocol


class Encoder(Protocol):
    """Encodes a body piece by piece."""

    def add(self, data: bytes) -> bytes:
        """Bytes from which a client can decode everything added so far."""

    def end(self) -> bytes:
        """Bytes that close the encoded body."""


class _Identity:
    def add(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.compressobj(wbits=wbits)

    def add(self, data: bytes) -> bytes:
        return self._stream.compress(data) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush()


class _Brotli:
    def __init__(self) -> None:
        try:
            import brotli  # type: ignore[import-untyped]
        except ModuleNotFoundError as missing:
            from costmw.errors import MissingExtra

            raise MissingExtra(package="brotli", extra="compression") from missing
        self._stream = brotli.Compressor(quality=4)

    def add(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data) + self._stream.flush())

    def end(self) -> bytes:
        return bytes(self._stream.finish())


class _Zstd:
    def __init__(self) -> None:
        try:
            if sys.version_info >= (3, 14):
                from compression.zstd import ZstdCompressor
            else:
                from backports.zstd import ZstdCompressor
        except ModuleNotFoundError as missing:
            from costmw.errors import MissingExtra

            raise MissingExtra(package="backports.zstd", extra="compression") from missing
        self._stream = ZstdCompressor()

    def add(self, data: bytes) -> bytes:
        return self._stream.compress(data, self._stream.FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._stream.flush(self._stream.FLUSH_FRAME)


def encoder(name: str | None) -> Encoder:
    """Return a fresh encoder for a content encoding; None leaves bytes as they are.

    Raises `ValueError` for an encoding it does not know and `MissingExtra` for one whose
    package is not installed.
    """
    match name:
        case None:
            return _Identity()
        case "gzip":
            return _Zlib(wbits=zlib.MAX_WBITS | 16)
        case "deflate":
            return _Zlib(wbits=zlib.MAX_WBITS)
        case "br":
            return _Brotli()
        case "zstd":
            return _Zstd()
        case _:
            raise ValueError(f"encoding must be gzip, deflate, br or zstd, not {name!r}")
