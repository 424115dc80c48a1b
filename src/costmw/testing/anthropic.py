"""Anthropic shapes: messages, models and errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costmw.testing import counting
from costmw.testing.framing import dump, sse
from costmw.testing.wire import Answer, json_pieces, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

MODELS = {
    "claude-sonnet-4-5-20250929": "Claude Sonnet 4.5",
    "claude-haiku-4-5-20251001": "Claude Haiku 4.5",
    "claude-opus-4-1-20250805": "Claude Opus 4.1",
}

_ERRORS = {
    400: ("invalid_request_error", "The request cannot be served as it is."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low."),
    403: ("permission_error", "You are not allowed to do this."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_SERVER_ERROR = ("api_error", "Internal server error")

# Settled when a message starts, and not repeated with its end.
_ONLY_AT_START = ("cache_creation", "inference_geo", "service_tier", "speed")
# Not known before the end of a message.
_ONLY_AT_END = ("output_tokens_details", "server_tool_use")


def messages(call: Call) -> Answer:
    """Answer a messages request."""
    if call.streamed:
        return stream(call, [sse(event, event["type"]) for event in events(call)])
    return plain(message(call))


def message(call: Call) -> Json:
    """Make a whole message."""
    usage = _usage(call)
    made = {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": _content(call),
        "stop_reason": "tool_use" if call.reply.tool_call else "end_turn",
        "stop_sequence": None,
    }
    return made if usage is None else made | {"usage": usage}


def _usage(call: Call) -> Json | None:
    tier = call.reply.service_tier
    usage = call.usage(
        lambda: {
            "input_tokens": call.prompt_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": call.output_tokens,
            "service_tier": tier or "standard",
        }
    )
    return usage if usage is None or tier is None else {"service_tier": tier} | usage


def _content(call: Call) -> list[Json]:
    content: list[Json] = []
    if call.reply.said or call.reply.tool_call is None:
        content.append({"type": "text", "text": call.reply.said})
    if call.reply.tool_call is not None:
        name, arguments = call.reply.tool_call
        block = {"type": "tool_use", "id": new_id("toolu_"), "name": name}
        content.append({**block, "input": dict(arguments)})
    return content


def events(call: Call) -> list[Json]:
    """Make the events of a message."""
    whole = message(call)
    usage = whole.pop("usage", None)
    start = whole | {"content": [], "stop_reason": None}
    end: Json = {
        "type": "message_delta",
        "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
    }
    if usage is not None:
        start["usage"] = _usage_at_start(usage)
        end["usage"] = {name: usage[name] for name in usage if name not in _ONLY_AT_START}
    made: list[Json] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(whole["content"]):
        empty: Json = {"text": ""} if block["type"] == "text" else {"input": {}}
        made.append({"type": "content_block_start", "index": index, "content_block": block | empty})
        if index == 0:
            made.append({"type": "ping"})
        made += [
            {"type": "content_block_delta", "index": index, "delta": delta}
            for delta in _deltas(block)
        ]
        made.append({"type": "content_block_stop", "index": index})
    return [*made, end, {"type": "message_stop"}]


def _usage_at_start(usage: Json) -> Json:
    start = {name: usage[name] for name in usage if name not in _ONLY_AT_END}
    # The real one has written a token or so by then; a count is cumulative from there.
    if counting.is_count(start.get("output_tokens")):
        start["output_tokens"] = 1
    return start


def _deltas(block: Json) -> list[Json]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": piece} for piece in words(block["text"])]
    pieces = ["", *json_pieces(dump(block["input"]))]
    return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def models() -> Answer:
    """List a few models."""
    data = [
        {"type": "model", "id": name, "display_name": shown, "created_at": "2025-10-01T00:00:00Z"}
        for name, shown in MODELS.items()
    ]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return plain({"data": data, "has_more": False, **ends})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    kind, usual = _ERRORS.get(status, fallback)
    body = {"type": "error", "error": {"type": kind, "message": message or usual}}
    return plain({**body, "request_id": new_id("req_")}, status=status)
