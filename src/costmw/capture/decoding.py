"""Content encodings, read piece by piece beside the client's own decoder.

The client decodes for the app; what we look at is the same bytes as they pass,
which are still encoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

Decode = Callable[[bytes], bytes]


class DecodingError(ValueError):
    """The body cannot be decoded here; says why."""


def decoder(content_encoding: str) -> Decode | None:
    """A function that decodes a body piece by piece; None for identity.

    Args:
        content_encoding: the header's value, codings in the order they were applied.

    Raises:
        DecodingError: for a coding that is unknown or whose package is missing.
    """
    codings = [name for part in content_encoding.lower().split(",") if (name := part.strip())]
    steps = [_make(name) for name in reversed(codings) if name != "identity"]
    if not steps:
        return None

    def decode(data: bytes) -> bytes:
        try:
            for step in steps:
                data = step(data)
        except Exception as error:
            raise DecodingError(f"the body is not valid {content_encoding}: {error}") from error
        return data

    return decode


def _make(name: str) -> Decode:
    match name:
        case "gzip" | "x-gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
        case "deflate":
            return _Deflate()
        case "br":
            brotli = _first("brotli", "brotlicffi")
            decompressor = brotli.Decompressor()
            decompress: Decode = getattr(decompressor, "process", None) or decompressor.decompress
            return decompress
        case "zstd":
            return _zstd()
    raise DecodingError(f"content encoding {name!r} is not known")


class _Deflate:
    """`deflate` means zlib by the standard and raw deflate by custom: the first bytes tell."""

    def __init__(self) -> None:
        self._decompress: Decode | None = None
        self._seen = b""

    def __call__(self, data: bytes) -> bytes:
        if self._decompress is None:
            self._seen += data
            if len(self._seen) < 2:
                return b""
            data, self._seen = self._seen, b""
            # RFC 1950: method 8 in the low half of the first byte, both a multiple of 31.
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            window = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
            self._decompress = zlib.decompressobj(window).decompress
        return self._decompress(data)


def _zstd() -> Decode:
    try:
        return _multi_frame(_first("compression.zstd", "backports.zstd").ZstdDecompressor)
    except DecodingError:
        decompress: Decode = _first("zstandard").ZstdDecompressor().decompressobj().decompress
        return decompress


def _multi_frame(make: Callable[[], Any]) -> Decode:
    current = make()

    def decode(data: bytes) -> bytes:
        nonlocal current
        out = []
        while data:
            if current.eof:
                current = make()
            out.append(current.decompress(data))
            data = current.unused_data if current.eof else b""
        return b"".join(out)

    return decode


def _first(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise DecodingError(
        f"{names[-1]} is not installed: pip install 'costmw[compression]' reads this encoding"
    )
