"""OpenAI shapes: chat completions, embeddings, models and errors; Azure's where they differ."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from costmw.testing import counting
from costmw.testing.framing import dump, sse
from costmw.testing.vectors import input_list, packed, unit_vector
from costmw.testing.wire import Answer, json_pieces, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

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
    if not call.streamed:
        return plain(completion(call))
    return stream(call, [*(sse(chunk) for chunk in chunks(call)), sse("[DONE]")])


def completion(call: Call) -> Json:
    """Make a whole chat completion."""
    choice = {
        "index": 0,
        "message": {"refusal": None, "annotations": [], **message(call)},
        "logprobs": None,
        "finish_reason": finish_reason(call),
    }
    body = _head(call, "chat.completion") | {"choices": [choice]}
    if "deployment" in call.in_path:
        choice["content_filter_results"] = _UNFILTERED
        body["prompt_filter_results"] = _prompt_filter()
    usage = chat_usage(call)
    return body if usage is None else body | {"usage": usage}


def message(call: Call) -> Json:
    """Make the message of a completion, as all who speak this format have it."""
    reply = call.reply
    made: Json = {"role": "assistant", "content": reply.said or (None if reply.tool_call else "")}
    if reply.tool_call is not None:
        name, arguments = reply.tool_call
        function = {"name": name, "arguments": dump(arguments)}
        made["tool_calls"] = [{"id": new_id("call_"), "type": "function", "function": function}]
    return made


def finish_reason(call: Call) -> str:
    """Why a completion ends."""
    return "tool_calls" if call.reply.tool_call else "stop"


def chat_usage(call: Call) -> Json | None:
    """Usage of a chat completion, in tokens; None if the reply leaves it out."""
    return call.usage(
        lambda: {
            **token_counts(call),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
    )


def token_counts(call: Call) -> Json:
    """Count the tokens of a chat completion."""
    prompt, output = call.prompt_tokens, call.output_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
    }


def service_tier(call: Call) -> str:
    """Tier that an OpenAI response names: the reply's, the one asked for, or default."""
    asked = call.payload.get("service_tier")
    if call.reply.service_tier is not None:
        return call.reply.service_tier
    return asked if isinstance(asked, str) and asked != "auto" else "default"


def _head(call: Call, kind: str) -> Json:
    return {
        "id": new_id("chatcmpl-", 29),
        "object": kind,
        "created": int(time.time()),
        "model": call.model,
        "service_tier": service_tier(call),
        "system_fingerprint": _FINGERPRINT,
    }


def chunks(call: Call) -> list[Json]:
    """Make the chunks of a chat completion, with usage in a last one if the request asks."""
    usage = chat_usage(call) if asks_for_usage(call) else None
    head = _head(call, "chat.completion.chunk")
    tail: Json = {} if usage is None else {"usage": None}
    made = [_azure_first_chunk()] if "deployment" in call.in_path else []
    for delta, finish in [*((delta, None) for delta in _deltas(call)), ({}, finish_reason(call))]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        made.append(head | {"choices": [choice]} | tail)
    return made if usage is None else [*made, head | {"choices": [], "usage": usage}]


def asks_for_usage(call: Call) -> bool:
    """Whether the request asks for a chunk with the usage of a stream."""
    options = call.payload.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _deltas(call: Call) -> list[Json]:
    reply = call.reply
    role: Json = {"role": "assistant", "refusal": None}
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


def _prompt_filter() -> list[Json]:
    return [{"prompt_index": 0, "content_filter_results": _UNFILTERED}]


def _azure_first_chunk() -> Json:
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    return empty | {"choices": [], "prompt_filter_results": _prompt_filter()}


def embeddings(call: Call) -> Answer:
    """Answer an embeddings request."""
    size = 3072 if call.model == "text-embedding-3-large" else 1536
    return plain(embedding_list(call, counting.or_count(call.payload.get("dimensions"), size)))


def embedding_list(call: Call, size: int) -> Json:
    """Make vectors of that size for the inputs of a request."""
    inputs = input_list(call.payload.get("input"))
    encode = packed if call.payload.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(unit_vector(item, size))}
        for index, item in enumerate(inputs)
    ]
    tokens = counting.embedding_tokens(inputs)
    usage = call.usage(lambda: {"prompt_tokens": tokens, "total_tokens": tokens})
    body: Json = {"object": "list", "data": data, "model": call.model}
    return body if usage is None else body | {"usage": usage}


def models(names: tuple[str, ...] = MODELS, owner: str = "openai") -> Answer:
    """List a few models."""
    data = [
        {"id": name, "object": "model", "created": 1_735_689_600, "owned_by": owner}
        for name in names
    ]
    return plain({"object": "list", "data": data})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    kind, code, usual = _error(status)
    body = {"message": message or usual, "type": kind, "param": None}
    return plain({"error": body | {"code": None if message else code}}, status=status)


def azure_error(status: int, message: str | None = None) -> Answer:
    """Return Azure's error body for an HTTP status."""
    _, _, usual = _error(status)
    return plain({"error": {"code": str(status), "message": message or usual}}, status=status)


def _error(status: int) -> tuple[str, str | None, str]:
    return _ERRORS.get(status, _SERVER_ERROR if status >= 500 else _ERRORS[400])
