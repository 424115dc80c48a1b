"""What the fake provider is told to answer, and what it noted about each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from costmw.testing.encoding import encoder

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TEXT = "Hello! This is a made-up answer, good enough to try things with."


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer of the fake provider.

    Every field has a default, so `Reply()` is a normal, quick, complete answer.

    text: What the model says, sent whole whatever the request's token limit. None is a
        stock sentence, or nothing beside a tool call.
    usage: Usage in the provider's own shape, put in as it is. None computes one from the
        request and the text. A streamed Anthropic message spreads it over `message_start`
        and `message_delta`, and a streamed Gemini response counts up to it, as the real
        ones do. Where usage has no object of its own, it is put in beside the rest:
        Ollama's counts, Cohere's `meta`, the `statistics` of Vertex AI's `predict`.
    omit_usage: Leave usage out everywhere, of the headers of Bedrock too.
    model: The model named in the response. None is the request's model.
    status: HTTP status; 400 and up send an error body in the provider's shape.
    headers: Extra response headers; they win over those set by the provider.
    tool_call: Name and arguments of a tool the model calls.
    service_tier: Tier named in the response. None is the tier asked for, or standard.
    encoding: Content encoding forced on the body: "gzip", "deflate", "br" or "zstd",
        whatever the request accepts.
    delay: Seconds before the first byte.
    pace: Seconds between two stream events, be they server-sent events, lines of JSON,
        the items of a JSON array or the frames of an AWS event stream.
    chunk_bytes: Deliver the body in chunks of this many bytes, so that events are split
        over chunks. With a `pace`, what is left over is sent before each pause.
    abort_after: Cut the connection after this many stream events, with no proper end. Of
        a plain response, 0 cuts off the body; more has no effect.
    body: Response body to send verbatim (before `encoding`).
    content_type: Content type for `body`; None follows the request (JSON, or the kind of
        stream it asks for).
    redirect: Location to redirect to, with status 307.
    """

    text: str | None = None
    usage: Mapping[str, Any] | None = None
    omit_usage: bool = False
    model: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    tool_call: tuple[str, Mapping[str, Any]] | None = None
    service_tier: str | None = None
    encoding: str | None = None
    delay: float = 0.0
    pace: float = 0.0
    chunk_bytes: int | None = None
    abort_after: int | None = None
    body: bytes | None = None
    content_type: str | None = None
    redirect: str | None = None

    def __post_init__(self) -> None:
        # One made in vain: an encoding that cannot be had is reported here, not while serving.
        encoder(self.encoding)
        if not 200 <= self.status <= 599 or self.status in (204, 304):
            raise ValueError(f"status must be one that carries a body, not {self.status}")
        if self.usage is not None and self.omit_usage:
            raise ValueError("give usage or omit_usage, not both")
        if self.delay < 0 or self.pace < 0:
            raise ValueError("delay and pace are seconds, zero or more")
        if self.chunk_bytes is not None and self.chunk_bytes < 1:
            raise ValueError(f"chunk_bytes must be 1 or more, not {self.chunk_bytes}")
        if self.abort_after is not None and self.abort_after < 0:
            raise ValueError(f"abort_after must be 0 or more, not {self.abort_after}")

    @property
    def said(self) -> str:
        """The text this reply says: `text`, or what stands in for it."""
        if self.text is not None:
            return self.text
        return "" if self.tool_call is not None else DEFAULT_TEXT


@dataclass(kw_only=True)
class RequestRecord:
    """One request as the fake provider saw it, and how its response went.

    method, path, query: As sent, percent-decoded; of a repeated query parameter, the last.
    headers: Request headers with lower-case names; of repeated ones, the last.
    body_bytes: Request body as received.
    json: The body parsed, or None if it is not JSON.
    reply: The reply used. None for requests the provider answers by itself (unknown
        paths, malformed requests, model lists).
    started_at: Unix time in seconds when the request was there in full.
    sent_events: Stream events sent; a plain body counts as one.
    completed: The response was sent whole.
    disconnected: The client left before that.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body_bytes: bytes
    json: Any
    started_at: float
    reply: Reply | None = None
    sent_events: int = 0
    completed: bool = False
    disconnected: bool = False
