"""OpenAI shapes: chat completions, embeddings, models and errors; Azure's where they differ."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import time
from typing import TYPE_CHECKING, Any

from costmw.testing import counting
from costmw.testing.wire import Answer, dump, json_pieces, new_id, plain, sse, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

MODELS = ("gpt-5", "gpt-5-mini", "gpt-4o-mini", "text-embedding-3-small", "text-embedding-3-large")

_FINGERPRINT = "fp_0a1b2c3d4e"
_UNFILTERED = {
    kind: {"filtered": False, "severity": "safe"}
    for kind in ("hate", "self_harm", "sexual", "violence")
}
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request cannot be served as it is."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "forbidden", "You are not allowed to do this."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request.")


def chat(call: Call) -> Answer:
    """Answer a chat completion request."""
    return _chat_stream(call) if call.streamed else _chat_plain(call)


def chat_usage(call: Call) -> dict[str, Any] | None:
    """Usage of a chat completion, in tokens; None if the reply leaves it out."""
    if call.reply.omit_usage:
        return None
    if call.reply.usage is not None:
        return dict(call.reply.usage)
    prompt = counting.prompt_tokens(call.payload)
    completion = counting.output_tokens(call.reply, call.payload)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def service_tier(call: Call) -> str:
    """Tier that an OpenAI response names: the reply's, the one asked for, or default."""
    asked = call.payload.get("service_tier")
    if call.reply.service_tier is not None:
        return call.reply.service_tier
    return asked if isinstance(asked, str) and asked != "auto" else "default"


def _head(call: Call, kind: str) -> dict[str, Any]:
    return {
        "id": new_id("chatcmpl-", 29),
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "service_tier": service_tier(call),
        "system_fingerprint": _FINGERPRINT,
    }


def _chat_plain(call: Call) -> Answer:
    reply = call.reply
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.said or (None if reply.tool_call else ""),
        "refusal": None,
        "annotations": [],
    }
    if reply.tool_call is not None:
        name, arguments = reply.tool_call
        function = {"name": name, "arguments": dump(arguments)}
        message["tool_calls"] = [{"id": new_id("call_"), "type": "function", "function": function}]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "tool_calls" if reply.tool_call else "stop",
    }
    body = _head(call, "chat.completion") | {"choices": [choice]}
    if call.deployment is not None:
        choice["content_filter_results"] = _UNFILTERED
        body["prompt_filter_results"] = _prompt_filter()
    usage = chat_usage(call)
    if usage is not None:
        body["usage"] = usage
    return plain(body)


def _chat_stream(call: Call) -> Answer:
    options = call.payload.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    usage = chat_usage(call) if asked else None
    head = _head(call, "chat.completion.chunk")
    tail: dict[str, Any] = {} if usage is None else {"usage": None}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse(head | {"choices": [choice]} | tail)

    frames = [] if call.deployment is None else [_azure_first_chunk()]
    frames += [chunk(delta) for delta in _deltas(call)]
    frames.append(chunk({}, "tool_calls" if call.reply.tool_call else "stop"))
    if usage is not None:
        frames.append(sse(head | {"choices": [], "usage": usage}))
    frames.append(sse("[DONE]"))
    return stream(frames)


def _deltas(call: Call) -> list[dict[str, Any]]:
    reply = call.reply
    role: dict[str, Any] = {"role": "assistant", "refusal": None}
    if reply.tool_call is None:
        pieces = [{"content": piece} for piece in words(reply.said)]
        return [role | {"content": ""}, *pieces]
    name, arguments = reply.tool_call
    first = {
        "index": 0,
        "id": new_id("call_"),
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
    if reply.said:
        spoken = [{"content": piece} for piece in words(reply.said)]
        deltas = [role | {"content": ""}, *spoken, {"tool_calls": [first]}]
    else:
        deltas = [role | {"content": None, "tool_calls": [first]}]
    for piece in json_pieces(dump(arguments)):
        deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    return deltas


def _prompt_filter() -> list[dict[str, Any]]:
    return [{"prompt_index": 0, "content_filter_results": _UNFILTERED}]


def _azure_first_chunk() -> bytes:
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    return sse(empty | {"choices": [], "prompt_filter_results": _prompt_filter()})


def embeddings(call: Call) -> Answer:
    """Answer an embeddings request with vectors that depend on the inputs alone."""
    given = call.payload.get("input")
    # A bare list of token ids is one input, a list of anything else one input per item.
    alone = not isinstance(given, list) or all(isinstance(item, int) for item in given)
    inputs: list[Any] = [given] if alone or not isinstance(given, list) else given
    asked = call.payload.get("dimensions")
    dimensions = asked if isinstance(asked, int) and counting.is_count(asked) else 0
    size = dimensions or (3072 if call.model == "text-embedding-3-large" else 1536)
    in_base64 = call.payload.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector) if in_base64 else vector,
        }
        for index, vector in enumerate(_vector(dump(item), size) for item in inputs)
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": call.model}
    if call.reply.usage is not None:
        body["usage"] = dict(call.reply.usage)
    elif not call.reply.omit_usage:
        tokens = counting.embedding_tokens(inputs)
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return plain(body)


def _vector(text: str, size: int) -> list[float]:
    digest = hashlib.shake_128(text.encode()).digest(size * 2)
    raw = [value / 32768 for value in struct.unpack(f"<{size}h", digest)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / length for value in raw]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def models() -> Answer:
    """List a few models."""
    data = [
        {"id": name, "object": "model", "created": 1_735_689_600, "owned_by": "openai"}
        for name in MODELS
    ]
    return plain({"object": "list", "data": data})


def error(status: int, message: str | None = None, *, azure: bool = False) -> Answer:
    """Return an error body for an HTTP status."""
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    kind, code, usual = _ERRORS.get(status, fallback)
    if azure:
        return plain({"error": {"code": str(status), "message": message or usual}}, status=status)
    if message is not None:
        code = None
    return plain(
        {"error": {"message": message or usual, "type": kind, "param": None, "code": code}},
        status=status,
    )
