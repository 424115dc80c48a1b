"""The body of a request with what is asked on the app's behalf: usage, and a limit.

Nothing else of it changes: its bytes stay as they are wherever that is possible, and its
keys in their order always.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from costmw.providers.base import Match
from costmw.providers.limits import with_output_limit

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
        body: the same, parsed; not empty.
        match: its wire format, and who bills it.
        output_limit: tokens that the answer may have, unless the request limits it itself.
        ask_usage: whether a chat stream is asked for its usage, unless it speaks of it itself.

    Raises:
        ValueError: when `content` cannot be read.
    """

    def asked_of(given: Json) -> tuple[Json, bool]:
        asked = given
        if output_limit is not None:
            provider = match.provider.name if match.provider else None
            asked = with_output_limit(match.format.api, given, output_limit, provider) or given
        with_usage = _with_usage_asked(asked) if ask_usage else None
        return with_usage or asked, with_usage is not None

    asked, asks_usage = asked_of(body)
    if asked is body:
        return None
    if any(asked[key] is not value for key, value in body.items()):
        # Written anew, from what is sent: `body` may have values that only the app can write.
        asked, asks_usage = asked_of(from_json(content))
        return ChangedBody(to_json(asked), asked, asks_usage)
    added = to_json({key: value for key, value in asked.items() if key not in body})
    return ChangedBody(content.replace(b"{", added[:-1] + b",", 1), asked, asks_usage)


def _with_usage_asked(body: Json) -> dict[str, Any] | None:
    if body.get("stream") is not True:
        return None
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or "include_usage" in options:
        return None
    return {**body, "stream_options": {**options, "include_usage": True}}
