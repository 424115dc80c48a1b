"""The body of a request with what is asked on the app's behalf: usage, and a limit.

Nothing else of it changes: its bytes stay as they are wherever that is possible, and its
keys in their order always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from costmw.providers.limits import with_output_limit
from costmw.providers.registry import Match

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChangedBody:
    """What is sent in place of a request's body.

    `body` is the same as `content`, parsed. `asks_usage`: the answer will have a chunk that
    the app did not ask for.
    """

    content: bytes
    body: Json
    asks_usage: bool


def changed_body(
    content: bytes, body: Json, match: Match, *, output_limit: int | None, ask_usage: bool
) -> ChangedBody | None:
    """The body that asks for what is to be asked for; None when it asks for all of it already.

    Args:
        content: the bytes of the body.
        body: the same, parsed.
        match: its wire format, and who bills it.
        output_limit: tokens that the answer may have, unless the request limits it itself.
        ask_usage: whether a chat stream is asked for its usage, unless it speaks of it itself.
    """
    asked = body
    if output_limit is not None:
        provider = match.provider.name if match.provider else None
        asked = with_output_limit(match.format.api, body, output_limit, provider) or body
    with_usage = _with_usage_asked(asked) if ask_usage else None
    asked = with_usage or asked
    if asked is body:
        return None
    return ChangedBody(_encoded(content, body, asked), asked, with_usage is not None)


def _with_usage_asked(body: Json) -> dict[str, Any] | None:
    if body.get("stream") is not True:
        return None
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or "include_usage" in options:
        return None
    return {**body, "stream_options": {**options, "include_usage": True}}


def _encoded(content: bytes, body: Json, changed: Json) -> bytes:
    """The bytes of a body that was made from another one, whose bytes are `content`."""
    if not body or any(changed[key] is not value for key, value in body.items()):
        return to_json(changed)
    added = to_json({key: value for key, value in changed.items() if key not in body})
    return content.replace(b"{", added[:-1] + b",", 1)
