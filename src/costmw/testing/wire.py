"""What travels: the request as an endpoint sees it, its answer, and server-sent events."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costmw.testing.reply import Reply

JSON_TYPE = "application/json"
EVENTS_TYPE = "text/event-stream; charset=utf-8"

_WORD = re.compile(r"\S+\s*|\s+")
_EVENT = re.compile(rb".+?(?:\r\n\r\n|\n\n|\Z)", re.DOTALL)
_JSON_PIECE = 8


@dataclass(frozen=True, kw_only=True)
class Call:
    """A well-formed request to one endpoint, with the reply chosen for it."""

    payload: dict[str, Any]
    reply: Reply
    deployment: str | None = None

    @property
    def model(self) -> str:
        """The model that the response names."""
        asked = self.payload.get("model")
        named = asked if isinstance(asked, str) else self.deployment
        return self.reply.model or named or "fake-model"

    @property
    def streamed(self) -> bool:
        """Whether the request asks for server-sent events."""
        return self.payload.get("stream") is True


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response before delivery; a streamed one has a frame for each event."""

    frames: list[bytes]
    status: int = 200
    content_type: str | None = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    streamed: bool = False


def plain(value: object, *, status: int = 200) -> Answer:
    """Return a JSON response."""
    return Answer(frames=[dump(value).encode()], status=status)


def stream(frames: list[bytes]) -> Answer:
    """Return a stream of server-sent events."""
    return Answer(
        frames=frames,
        content_type=EVENTS_TYPE,
        headers={"cache-control": "no-cache"},
        streamed=True,
    )


def verbatim(reply: Reply, *, streamed: bool) -> Answer:
    """Return the raw body of a reply, a frame for each event if it is an event stream."""
    body = reply.body or b""
    content_type = reply.content_type or (EVENTS_TYPE if streamed else JSON_TYPE)
    if content_type.startswith("text/event-stream"):
        return Answer(
            frames=_EVENT.findall(body) or [b""],
            status=reply.status,
            content_type=content_type,
            streamed=True,
        )
    return Answer(frames=[body], status=reply.status, content_type=content_type)


def sse(data: object, event: str | None = None) -> bytes:
    """Return one server-sent event; text goes in as it is, anything else as JSON."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {data if isinstance(data, str) else dump(data)}\n\n".encode()


def dump(value: object) -> str:
    """Return compact JSON, letters beyond ASCII left as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def words(text: str) -> list[str]:
    """Cut text into the pieces a stream brings; joined, they are the text again."""
    return _WORD.findall(text)


def json_pieces(text: str) -> list[str]:
    """Cut the JSON text of tool arguments into stream pieces."""
    return [text[at : at + _JSON_PIECE] for at in range(0, len(text), _JSON_PIECE)]


def new_id(prefix: str, length: int = 24) -> str:
    """Return an id in the style of the providers: a prefix and some hex digits."""
    return f"{prefix}{uuid4().hex[:length]}"
