"""Mistral shapes: chat and fill-in-the-middle completions, embeddings, models and errors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from costmw.testing import counting, openai
from costmw.testing.framing import sse
from costmw.testing.wire import Answer, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

MODELS = ("mistral-large-latest", "mistral-small-latest", "codestral-latest", "mistral-embed")

_DIMENSIONS = 1024
_ERRORS = {
    400: ("invalid_request_error", "3001", "The request cannot be served as it is."),
    401: ("unauthorized", "1100", "Unauthorized"),
    403: ("forbidden", "1101", "You are not allowed to do this."),
    404: ("not_found", "1500", "Not found"),
    429: ("rate_limited", "1300", "Rate limit exceeded"),
    503: ("service_unavailable", "3505", "Service unavailable."),
}
_SERVER_ERROR = ("internal_server_error", "3000", "Internal server error")


def complete(call: Call) -> Answer:
    """Answer a chat or fill-in-the-middle request; usage is in the last chunk, unasked."""
    usage = call.usage(lambda: _count(call))
    tail: Json = {} if usage is None else {"usage": usage}
    kind = "chat.completion.chunk" if call.streamed else "chat.completion"
    head = {
        "id": new_id("", 32),
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
    }
    message = {"content": "", "tool_calls": None} | _message(call)
    if not call.streamed:
        choice = {"index": 0, "finish_reason": openai.finish_reason(call), "message": message}
        return plain(head | {"choices": [choice]} | tail)
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in words(call.reply.said)]
    # Arguments come whole, and with the end.
    last = {"content": ""} | ({"tool_calls": message["tool_calls"]} if call.reply.tool_call else {})
    frames = [sse(head | {"choices": [_choice(delta, None)]}) for delta in deltas]
    frames.append(sse(head | {"choices": [_choice(last, openai.finish_reason(call))]} | tail))
    return stream(call, [*frames, sse("[DONE]")])


def _count(call: Call) -> Json:
    tier = call.reply.service_tier
    return openai.token_counts(call) | ({"service_tier": tier} if tier else {})


def _message(call: Call) -> Json:
    made = openai.message(call)
    made["content"] = made["content"] or ""
    for index, tool_call in enumerate(made.get("tool_calls", ())):
        tool_call |= {"id": new_id("", 9), "index": index}
    return made


def _choice(delta: Json, finish: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}


def embeddings(call: Call) -> Answer:
    """Answer an embeddings request."""
    size = counting.or_count(call.payload.get("output_dimension"), _DIMENSIONS)
    return plain({"id": new_id("", 32)} | openai.embedding_list(call, size))


def models() -> Answer:
    """List a few models."""
    data = [
        {"id": name, "object": "model", "type": "base", "capabilities": {"completion_chat": True}}
        for name in MODELS
    ]
    return plain({"object": "list", "data": data})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    if status == 422:
        detail = {"loc": ["body"], "msg": message or "Field required", "type": "value_error"}
        return plain({"detail": [detail]}, status=status)
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    kind, code, usual = _ERRORS.get(status, fallback)
    body = {"object": "error", "message": message or usual, "type": kind}
    return plain({**body, "param": None, "code": code}, status=status)
