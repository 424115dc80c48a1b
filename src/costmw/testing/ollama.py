"""Ollama shapes: chat, generate, embed, the models there are, and errors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from costmw.testing import counting
from costmw.testing.framing import line
from costmw.testing.vectors import input_list, unit_vector
from costmw.testing.wire import Answer, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

MODELS = ("llama3.2:latest", "qwen3:8b", "nomic-embed-text:latest")

_DIMENSIONS = 768
_LOAD_NANOSECONDS = 3_000_000
_TOKEN_NANOSECONDS = 1_000_000
_ERRORS = {
    400: "invalid request",
    401: "unauthorized",
    404: "model not found, try pulling it first",
    405: "method not allowed",
    429: "too many requests",
    503: "server busy, please try again. maximum pending requests exceeded",
}


def chat(call: Call) -> Answer:
    """Answer a chat request."""

    def part(text: str, tool_calls: Json) -> Json:
        return {"message": {"role": "assistant", "content": text, **tool_calls}}

    called: Json = {}
    if call.reply.tool_call is not None:
        name, arguments = call.reply.tool_call
        called["tool_calls"] = [{"function": {"name": name, "arguments": dict(arguments)}}]
    whole = part(call.reply.said, called)
    parts = [part(piece, {}) for piece in words(call.reply.said)]
    return _answer(call, whole, parts + [part("", called)] * bool(called), part("", {}))


def generate(call: Call) -> Answer:
    """Answer a request to complete a prompt."""
    parts = [{"response": piece} for piece in words(call.reply.said)]
    return _answer(call, {"response": call.reply.said}, parts, {"response": ""})


def _answer(call: Call, whole: Json, parts: list[Json], empty: Json) -> Answer:
    end = {"done": True, "done_reason": "stop"} | _counts(call)
    if not call.streamed:
        return plain(_head(call) | whole | end)
    lines = [line(_head(call) | part | {"done": False}) for part in parts]
    return stream(call, [*lines, line(_head(call) | empty | end)])


def _head(call: Call) -> Json:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return {"model": call.model, "created_at": now}


def _counts(call: Call) -> Json:
    prompt, output = call.prompt_tokens, call.output_tokens
    reading, writing = prompt * _TOKEN_NANOSECONDS, output * _TOKEN_NANOSECONDS
    counts = call.usage(lambda: {"prompt_eval_count": prompt, "eval_count": output})
    return {
        "total_duration": _LOAD_NANOSECONDS + reading + writing,
        "load_duration": _LOAD_NANOSECONDS,
        "prompt_eval_duration": reading,
        "eval_duration": writing,
    } | (counts or {})


def embed(call: Call) -> Answer:
    """Answer an embed request."""
    inputs = input_list(call.payload.get("input"))
    size = counting.or_count(call.payload.get("dimensions"), _DIMENSIONS)
    durations = {"total_duration": 2 * _LOAD_NANOSECONDS, "load_duration": _LOAD_NANOSECONDS}
    counts = call.usage(lambda: {"prompt_eval_count": counting.embedding_tokens(inputs)})
    vectors = [unit_vector(item, size) for item in inputs]
    return plain({"model": call.model, "embeddings": vectors} | durations | (counts or {}))


def models() -> Answer:
    """List a few models."""
    return plain(
        {
            "models": [
                {
                    "name": name,
                    "model": name,
                    "modified_at": "2025-10-01T00:00:00Z",
                    "size": 2_019_393_189,
                    "digest": "0a1b2c3d4e5f",
                }
                for name in MODELS
            ]
        }
    )


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    usual = "internal server error" if status >= 500 else _ERRORS[400]
    return plain({"error": message or _ERRORS.get(status, usual)}, status=status)
