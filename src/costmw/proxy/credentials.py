"""Keys and tokens: who may use the proxy, and whose key a request carries on."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from costmw.proxy.headers import RawHeaders, values
from costmw.proxy.refusals import Refusal
from costmw.proxy.settings import Token

PLACES = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""The headers that SDKs put a key in."""

_USUAL_PLACE = {"anthropic": b"x-api-key", "google": b"x-goog-api-key"}


class Door:
    """Knows the tokens that clients may show, without keeping them."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = [(_digest(token.secret.encode()), token) for token in tokens]

    @property
    def is_open(self) -> bool:
        """Whether nothing has to be shown."""
        return not self._tokens

    def admit(self, headers: RawHeaders) -> Token:
        """The token that a request shows, wherever its SDK puts keys.

        Raises:
            Refusal: when it shows none that is known.
        """
        found = None
        for place in PLACES:
            for value in values(headers, place):
                shown = _digest(_secret(place, value))
                for digest, token in self._tokens:
                    # All are looked at, so that the time taken tells nothing.
                    if hmac.compare_digest(shown, digest):
                        found = token
        if found is None:
            raise Refusal(
                401,
                "http_request_denied",
                "this proxy wants a token of its own where the provider's key goes",
                headers={"www-authenticate": 'Bearer realm="costmw"'},
            )
        return found


def with_key(headers: RawHeaders, shown: RawHeaders, key: str, family: str) -> RawHeaders:
    """The headers with the configured key where the client's SDK put what it had.

    `shown` are the client's own headers, `family` tells where a key goes that has no
    predecessor.
    """
    place = next((place for place in PLACES if values(shown, place)), None)
    if place is None:
        place = _USUAL_PLACE.get(family, b"authorization")
    value = f"Bearer {key}" if place == b"authorization" else key
    return [*without_keys(headers), (place, value.encode())]


def without_keys(headers: RawHeaders) -> RawHeaders:
    """The headers without any key or token."""
    return [pair for pair in headers if pair[0] not in PLACES]


def check_origin(headers: RawHeaders) -> None:
    """Refuse a request that a web page sends, where the proxy would pay for it.

    Any page could, as no token is asked for: browsers say so by `Origin`.

    Raises:
        Refusal: for a request with an `Origin`.
    """
    if values(headers, b"origin"):
        raise Refusal(
            403,
            "http_request_denied",
            "web pages may not use this proxy's key: set up a token for them",
        )


def _secret(place: bytes, value: bytes) -> bytes:
    if place != b"authorization":
        return value.strip()
    scheme, _, credentials = value.partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""


def _digest(secret: bytes) -> bytes:
    return sha256(secret).digest()
