"""Tags from headers: what a client that cannot call `bind()` says of who asks.

They come from outside: none are taken that the settings do not name, and what was known
before, from the app's middleware or a token, is not changed by them.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import from_json

from costmw.context import MAX_TAGS
from costmw.proxy.headers import RawHeaders, one_value
from costmw.proxy.refusals import Refusal
from costmw.proxy.settings import TAGS_HEADER

LONGEST = 8192
"""Bytes of the header at most."""


def tags_of(
    headers: RawHeaders, *, accept_header: bool, tag_headers: Mapping[str, str]
) -> dict[str, str]:
    """The tags that a request's headers give.

    Raises:
        Refusal: when they cannot be read; it says what to send.
    """
    tags: dict[str, str] = {}
    if accept_header and (text := one_value(headers, TAGS_HEADER.encode())) is not None:
        tags = _from_json(text)
    for header, tag in tag_headers.items():
        if value := one_value(headers, header.encode()):
            tags[tag] = value
    return tags


def _from_json(text: str) -> dict[str, str]:
    try:
        tags = from_json(text) if len(text) <= LONGEST else None
        if isinstance(tags, dict) and len(tags) <= MAX_TAGS:
            return {key: _text(value) for key, value in tags.items()}
    except ValueError:
        pass
    raise Refusal(
        400,
        "http_request_error",
        f"{TAGS_HEADER} must be a JSON object of at most {MAX_TAGS} texts and numbers, "
        'such as {"tenant": "acme", "feature": "chat"}',
    )


def _text(value: object) -> str:
    if not isinstance(value, str | int | float):
        raise ValueError(type(value).__name__)
    return str(value).lower() if isinstance(value, bool) else str(value)
