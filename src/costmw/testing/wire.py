"""What travels: the request as an endpoint sees it, and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from costmw.testing import counting
from costmw.testing.framing import dump, splitter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmw.testing.reply import Reply

JSON_TYPE = "application/json"

_WORD = re.compile(r"\S+\s*|\s+")
_JSON_PIECE = 8


@dataclass(frozen=True, kw_only=True)
class Call:
    """A well-formed request to one endpoint, with the reply chosen for it.

    in_path: What the path names, such as a `model` or an Azure `deployment`.
    stream_type: Content type of the stream that the request asks for, None if it asks
        for a plain response.
    """

    payload: dict[str, Any]
    reply: Reply
    in_path: Mapping[str, str] = field(default_factory=dict)
    stream_type: str | None = None

    @property
    def model(self) -> str:
        """The model that the response names."""
        asked = self.in_path.get("model") or self.payload.get("model")
        named = asked if isinstance(asked, str) else self.in_path.get("deployment")
        return self.reply.model or named or "fake-model"

    @property
    def streamed(self) -> bool:
        """Whether the request asks for a stream."""
        return self.stream_type is not None

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of the request."""
        return counting.prompt_tokens(self.payload)

    @property
    def output_tokens(self) -> int:
        """Output tokens of the reply, within the limit that the request sets."""
        return counting.output_tokens(self.reply, self.payload)

    def usage(self, count: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Usage for the response: the reply's as it is, else what is counted; None for none."""
        if self.reply.omit_usage:
            return None
        return count() if self.reply.usage is None else dict(self.reply.usage)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response before delivery; a streamed one has a frame for each event."""

    frames: list[bytes]
    status: int = 200
    content_type: str | None = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    streamed: bool = False


def plain(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a JSON response."""
    return Answer(frames=[dump(value).encode()], status=status, headers=headers or {})


def stream(call: Call, frames: list[bytes], *, headers: Mapping[str, str] | None = None) -> Answer:
    """Return the stream that a request asks for, a frame for each event."""
    return Answer(
        frames=frames,
        content_type=call.stream_type,
        headers={"cache-control": "no-cache", **(headers or {})},
        streamed=True,
    )


def verbatim(call: Call) -> Answer:
    """Return the raw body of a reply, a frame for each event if it is a stream."""
    reply = call.reply
    body = reply.body or b""
    content_type = reply.content_type or call.stream_type or JSON_TYPE
    split = splitter(content_type)
    frames = [body] if split is None else split(body) or [b""]
    return Answer(
        frames=frames,
        status=reply.status,
        content_type=content_type,
        streamed=split is not None,
    )


def words(text: str) -> list[str]:
    """Cut text into the pieces a stream brings; joined, they are the text again."""
    return _WORD.findall(text)


def json_pieces(text: str) -> list[str]:
    """Cut the JSON text of tool arguments into stream pieces."""
    return [text[at : at + _JSON_PIECE] for at in range(0, len(text), _JSON_PIECE)]


def new_id(prefix: str, length: int = 24) -> str:
    """Return an id in the style of the providers: a prefix and some hex digits."""
    return f"{prefix}{uuid4().hex[:length]}"
