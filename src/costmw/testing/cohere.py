"""Cohere shapes: chat, embed and rerank in both versions, models and errors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from costmw.testing import counting, openai
from costmw.testing.framing import line, sse
from costmw.testing.vectors import packed, unit_vector
from costmw.testing.wire import Answer, json_pieces, plain, stream, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from costmw.testing.wire import Call

Json = dict[str, Any]

MODELS = ("command-a-03-2025", "command-r7b-12-2024", "embed-v4.0", "rerank-v3.5")

_DIMENSIONS = 1536
_DOCUMENTS_PER_SEARCH = 100
# What a template puts around a prompt: counted, but not billed.
_TEMPLATE_TOKENS = 60
_ERRORS = {
    400: "invalid request: the request cannot be served as it is.",
    401: "invalid api token",
    403: "this token is not allowed to do this",
    404: "not found",
    429: "You have been rate limited. Please try again later.",
    499: "request cancelled by user",
    503: "service unavailable, please retry",
}


def chat(call: Call) -> Answer:
    """Answer a chat request of the second version."""
    reply, name = call.reply, str(uuid4())
    usage = call.usage(lambda: _count(call))
    tail: Json = {"finish_reason": "TOOL_CALL" if reply.tool_call else "COMPLETE"}
    tail |= {} if usage is None else {"usage": usage}
    tool_calls = openai.message(call).get("tool_calls", [])
    message: Json = {"role": "assistant"}
    if reply.said or not tool_calls:
        message["content"] = [{"type": "text", "text": reply.said}]
    if tool_calls:
        message["tool_calls"] = tool_calls
    if not call.streamed:
        return plain({"id": name, "message": message} | tail)
    opened = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": []}
    start = {"id": name, "type": "message-start", "delta": {"message": opened | {"citations": []}}}
    events = [start, *_content_events(message), *_tool_events(tool_calls)]
    events.append({"type": "message-end", "delta": tail})
    return stream(call, [sse(event, event["type"]) for event in events])


def _content_events(message: Json) -> list[Json]:
    def event(kind: str, content: Json) -> Json:
        return {"type": kind, "index": 0, "delta": {"message": {"content": content}}}

    events = []
    for block in message.get("content", ()):
        events.append(event("content-start", {"type": "text", "text": ""}))
        events += [event("content-delta", {"text": piece}) for piece in words(block["text"])]
        events.append({"type": "content-end", "index": 0})
    return events


def _tool_events(tool_calls: list[Json]) -> list[Json]:
    def event(kind: str, tool_call: Json) -> Json:
        return {"type": kind, "index": 0, "delta": {"message": {"tool_calls": tool_call}}}

    events = []
    for tool_call in tool_calls:
        function = tool_call["function"]
        opened = tool_call | {"function": function | {"arguments": ""}}
        events.append(event("tool-call-start", opened))
        events += [
            event("tool-call-delta", {"function": {"arguments": piece}})
            for piece in json_pieces(function["arguments"])
        ]
        events.append({"type": "tool-call-end", "index": 0})
    return events


def chat_v1(call: Call) -> Answer:
    """Answer a chat request of the first version."""
    reply, generation = call.reply, str(uuid4())
    body = {
        "response_id": str(uuid4()),
        "text": reply.said,
        "generation_id": generation,
        "chat_history": _history(call),
        "finish_reason": "COMPLETE",
    }
    if reply.tool_call is not None:
        name, arguments = reply.tool_call
        body["tool_calls"] = [{"name": name, "parameters": dict(arguments)}]
    body |= _meta(call, "1", lambda: _count(call))
    if not call.streamed:
        return plain(body)
    events: list[Json] = [{"event_type": "stream-start", "generation_id": generation}]
    events += [{"event_type": "text-generation", "text": piece} for piece in words(reply.said)]
    if "tool_calls" in body:
        calls = {"text": reply.said, "tool_calls": body["tool_calls"]}
        events.append({"event_type": "tool-calls-generation"} | calls)
    end = {"event_type": "stream-end", "response": body, "finish_reason": "COMPLETE"}
    lines = [line({"is_finished": False} | event) for event in events]
    return stream(call, [*lines, line({"is_finished": True} | end)])


def _history(call: Call) -> list[Json]:
    given = call.payload.get("chat_history")
    history = list(given) if isinstance(given, list) else []
    asked = {"role": "USER", "message": call.payload.get("message")}
    return [*history, asked, {"role": "CHATBOT", "message": call.reply.said}]


def _count(call: Call) -> Json:
    prompt, output = call.prompt_tokens, call.output_tokens
    return {
        "billed_units": {"input_tokens": prompt, "output_tokens": output},
        "tokens": {"input_tokens": prompt + _TEMPLATE_TOKENS, "output_tokens": output},
    }


def _meta(call: Call, version: str, count: Callable[[], Json]) -> Json:
    return {"meta": {"api_version": {"version": version}} | (call.usage(count) or {})}


def embed(call: Call) -> Answer:
    """Answer an embed request; one that names no types gets a bare list of vectors."""
    payload, version = call.payload, call.in_path["version"]
    texts = payload.get("texts")
    inputs: list[Any] = texts if isinstance(texts, list) else []
    for field in ("images", "inputs"):
        more = payload.get(field)
        inputs = [*inputs, *more] if isinstance(more, list) else inputs
    size = counting.or_count(payload.get("output_dimension"), _DIMENSIONS)
    vectors = [unit_vector(item, size) for item in inputs]
    types = payload.get("embedding_types")
    if isinstance(types, list) and types:
        kind: str = "embeddings_by_type"
        embeddings: Any = {str(name): [_as_type(name, v) for v in vectors] for name in types}
    elif version == "2":
        kind, embeddings = "embeddings_by_type", {"float": vectors}
    else:
        kind, embeddings = "embeddings_floats", vectors
    body = {"id": str(uuid4()), "embeddings": embeddings, "texts": inputs, "response_type": kind}
    tokens = counting.embedding_tokens(inputs)
    return plain(body | _meta(call, version, lambda: {"billed_units": {"input_tokens": tokens}}))


def _as_type(name: object, vector: list[float]) -> Any:
    if name == "float":
        return vector
    return packed(vector) if name == "base64" else [round(value * 127) for value in vector]


def rerank(call: Call) -> Answer:
    """Answer a rerank request: the documents in the order they came in."""
    given = call.payload.get("documents")
    count = len(given) if isinstance(given, list) else 0
    shown = min(count, counting.or_count(call.payload.get("top_n"), count))
    results = [{"index": at, "relevance_score": 1 / (at + 1)} for at in range(shown)]
    searches = max(1, math.ceil(count / _DOCUMENTS_PER_SEARCH))
    meta = _meta(
        call, call.in_path["version"], lambda: {"billed_units": {"search_units": searches}}
    )
    return plain({"id": str(uuid4()), "results": results} | meta)


def models() -> Answer:
    """List a few models."""
    return plain({"models": [{"name": name, "endpoints": ["chat"]} for name in MODELS]})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    usual = "internal server error" if status >= 500 else _ERRORS[400]
    body = {"id": str(uuid4()), "message": message or _ERRORS.get(status, usual)}
    return plain(body, status=status)
