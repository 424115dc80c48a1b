"""Headers on their way through: which end here, and which go on as they came.

Names are bytes in small letters, as ASGI has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import lru_cache

from costmw.capture.decoding import DecodingError, decoder
from costmw.proxy.refusals import NAME, Refusal
from costmw.proxy.settings import TAGS_HEADER

RawHeaders = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Meant for the next hop alone, as is whatever `Connection` names (RFC 9110, 7.6.1)."""

OURS = frozenset(
    {
        # Written anew for the upstream.
        b"accept-encoding",
        b"content-length",
        b"expect",
        b"host",
        b"via",
        # Of the network and the site that the client is in, which are nobody's business.
        b"cookie",
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
        TAGS_HEADER.encode(),
    }
)


def values(headers: RawHeaders, wanted: bytes) -> list[bytes]:
    """All values of one header."""
    return [value for name, value in headers if name == wanted]


def one_value(headers: RawHeaders, wanted: bytes) -> str | None:
    """The value of a header that may come once, as text; None where there is none.

    Raises:
        Refusal: when it comes twice, or is no text.
    """
    found = values(headers, wanted)
    if not found:
        return None
    try:
        if len(found) == 1:
            return found[0].decode()
    except UnicodeDecodeError:
        pass
    raise Refusal(
        400, "http_request_error", f"send the header {wanted.decode()} once, in ASCII or UTF-8"
    )


LARGEST_HEAD = 64 * 1024
"""Bytes of a request's headers at most, names and values."""


def check_head(headers: RawHeaders) -> None:
    """Refuse what is too large, and what two servers in a row may read in two ways.

    Raises:
        Refusal: for large headers, a length beside chunks, or two lengths.
    """
    if sum(len(name) + len(value) for name, value in headers) > LARGEST_HEAD:
        raise Refusal(431, "http_request_error", "the request's headers are too large")
    lengths = values(headers, b"content-length")
    codings = values(headers, b"transfer-encoding")
    if (lengths and codings) or len(lengths) > 1 or len(codings) > 1:
        raise Refusal(
            400,
            "http_request_error",
            "send Content-Length or Transfer-Encoding, and send it once",
            headers={"connection": "close"},
        )


def to_upstream(headers: RawHeaders, *, host: bytes, drop: Set[bytes], via: bytes) -> RawHeaders:
    """The headers of a request to send on; the caller adds length, encodings and key."""
    dropped = HOP_BY_HOP | OURS | drop | _named_by_connection(headers)
    passed = [(b"host", host), *(pair for pair in headers if pair[0] not in dropped)]
    passed.append((b"via", b", ".join([*values(headers, b"via"), via])))
    return passed


def to_client(raw: Iterable[tuple[bytes, bytes]], drop: Set[bytes]) -> RawHeaders:
    """The headers of an answer to hand on."""
    headers = [(name.lower(), value) for name, value in raw]
    dropped = HOP_BY_HOP | drop | _named_by_connection(headers)
    if any(name == b"transfer-encoding" for name, _ in headers):
        dropped |= {b"content-length"}  # not the length of what is in the chunks
    return [pair for pair in headers if pair[0] not in dropped]


def via(proxy_id: str) -> bytes:
    """What the proxy adds to `Via`."""
    return f"1.1 {NAME}-{proxy_id}".encode()


def readable_encodings(headers: RawHeaders) -> bytes | None:
    """The client's `Accept-Encoding` without those that cannot be read here."""
    asked = values(headers, b"accept-encoding")
    return _readable(b", ".join(asked)) if asked else None


@lru_cache(maxsize=256)
def _readable(asked: bytes) -> bytes:
    items = [item.strip() for item in asked.split(b",")]
    kept = [item for item in items if _can_read(item.partition(b";")[0].strip().lower())]
    if len(kept) == len(items):
        return asked
    return b", ".join(kept) or b"identity"


def _can_read(coding: bytes) -> bool:
    if coding == b"*":
        return False
    try:
        decoder(coding.decode("latin-1"))
    except DecodingError:
        return False
    return True


def _named_by_connection(headers: RawHeaders) -> frozenset[bytes]:
    return frozenset(
        name.strip().lower()
        for value in values(headers, b"connection")
        for name in value.split(b",")
    )
