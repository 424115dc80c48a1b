"""Google shapes: Gemini API and Vertex AI content and embeddings, token counts, models."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from costmw.testing import counting
from costmw.testing.framing import dump, sse
from costmw.testing.vectors import unit_vector
from costmw.testing.wire import JSON_TYPE, Answer, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")

_DIMENSIONS = 3072
# The Gemini API does not say what this one counted.
_TELLS_NO_USAGE = "gemini-embedding-001"
_ERRORS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "Requested entity was not found."),
    409: ("ABORTED", "The operation was aborted."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    499: ("CANCELLED", "The operation was cancelled."),
    501: ("UNIMPLEMENTED", "The operation is not implemented."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_SERVER_ERROR = ("INTERNAL", "An internal error has occurred.")


def generate(call: Call) -> Answer:
    """Answer a request for content."""
    usage = call.usage(lambda: _count(call))
    said = call.reply.said
    texts = words(said) if call.streamed else [said] * bool(said)
    parts = [*({"text": text} for text in texts), *_tool_call(call)] or [{"text": ""}]
    tail = {"modelVersion": call.model, "responseId": new_id("", 22)}
    if "vertex" in call.in_path:
        tail["createTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if not call.streamed:
        return plain(_body(parts, "STOP", usage) | tail)
    bodies = []
    for number, part in enumerate(parts, 1):
        is_last = number == len(parts)
        so_far = usage if is_last or usage is None else _running(usage, number, len(parts))
        bodies.append(_body([part], "STOP" if is_last else None, so_far) | tail)
    return stream(call, _framed(bodies, call))


def _framed(bodies: list[Json], call: Call) -> list[bytes]:
    if call.stream_type != JSON_TYPE:
        return [sse(body, newline="\r\n") for body in bodies]
    opened = ["[", *[",\r\n"] * (len(bodies) - 1)]
    frames = [f"{before}{dump(body)}" for before, body in zip(opened, bodies, strict=True)]
    return [*(frame.encode() for frame in frames), b"]"]


def _tool_call(call: Call) -> list[Json]:
    if call.reply.tool_call is None:
        return []
    name, arguments = call.reply.tool_call
    return [{"functionCall": {"name": name, "args": dict(arguments)}}]


def _body(parts: list[Json], finish: str | None, usage: Json | None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    body: Json = {"candidates": [candidate | {"index": 0}]}
    return body if usage is None else body | {"usageMetadata": usage}


def _count(call: Call) -> Json:
    prompt, output = call.prompt_tokens, call.output_tokens
    counts: Json = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": output,
        "totalTokenCount": prompt + output,
        "promptTokensDetails": _text(prompt),
    }
    tier = call.reply.service_tier
    if "vertex" not in call.in_path:
        asked = call.payload.get("serviceTier")
        return counts | {"serviceTier": tier or (asked if isinstance(asked, str) else "standard")}
    traffic = f"ON_DEMAND_{tier.upper()}" if tier else "ON_DEMAND"
    return counts | {"candidatesTokensDetails": _text(output), "trafficType": traffic}


def _text(tokens: int) -> list[Json]:
    return [{"modality": "TEXT", "tokenCount": tokens}]


def _running(usage: Json, number: int, of: int) -> Json:
    """Usage as it stands after some of the parts."""
    said, total = usage.get("candidatesTokenCount"), usage.get("totalTokenCount")
    if not isinstance(said, int) or not isinstance(total, int):
        return usage
    unsaid = said - said * number // of
    running = {name: usage[name] for name in usage if name != "candidatesTokensDetails"}
    return running | {"candidatesTokenCount": said - unsaid, "totalTokenCount": total - unsaid}


def count_tokens(call: Call) -> Answer:
    """Answer a request to count tokens."""
    wrapped = call.payload.get("generateContentRequest")
    asked = wrapped if isinstance(wrapped, dict) else call.payload
    tokens = counting.prompt_tokens(asked)
    return plain({"totalTokens": tokens, "promptTokensDetails": _text(tokens)})


def embed(call: Call) -> Answer:
    """Answer a request to embed one content."""
    return plain({"embedding": _embedding(call.payload)} | _embed_usage(call, [call.payload]))


def embed_batch(call: Call) -> Answer:
    """Answer a request to embed several contents."""
    requests = _objects(call.payload.get("requests"))
    embeddings = [_embedding(request) for request in requests]
    return plain({"embeddings": embeddings} | _embed_usage(call, requests))


def _embedding(request: Json) -> Json:
    held = request.get("embedContentConfig")
    config = held if isinstance(held, dict) else request
    size = counting.or_count(config.get("outputDimensionality"), _DIMENSIONS)
    return {"values": unit_vector(request.get("content"), size)}


def _embed_usage(call: Call, requests: list[Json]) -> Json:
    tokens = counting.embedding_tokens([request.get("content") for request in requests])
    counts = {"promptTokenCount": tokens, "promptTokenDetails": _text(tokens)}
    is_silent = call.in_path["model"] == _TELLS_NO_USAGE and "vertex" not in call.in_path
    usage = call.usage(lambda: {} if is_silent else counts)
    return {"usageMetadata": usage} if usage else {}


def predict(call: Call) -> Answer:
    """Answer a request for Vertex AI embeddings; usage is the `statistics` of each input."""
    asked = call.payload.get("parameters")
    parameters = asked if isinstance(asked, dict) else {}
    size = counting.or_count(parameters.get("outputDimensionality"), _DIMENSIONS)
    texts = [instance.get("content") for instance in _objects(call.payload.get("instances"))]
    predictions = [{"embeddings": _predicted(call, text, size)} for text in texts]
    characters = sum(len(text) for text in texts if isinstance(text, str))
    metadata = {"metadata": {"billableCharacterCount": characters}}
    return plain({"predictions": predictions} | ({} if call.reply.omit_usage else metadata))


def _predicted(call: Call, text: Any, size: int) -> Json:
    tokens = counting.embedding_tokens([text])
    statistics = call.usage(lambda: {"truncated": False, "token_count": tokens})
    values = {"values": unit_vector(text, size)}
    return values if statistics is None else values | {"statistics": statistics}


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def models() -> Answer:
    """List a few models."""
    return plain(
        {
            "models": [
                {
                    "name": f"models/{name}",
                    "displayName": name,
                    "inputTokenLimit": 1_048_576,
                    "outputTokenLimit": 65_536,
                    "supportedGenerationMethods": ["generateContent", "countTokens"],
                }
                for name in MODELS
            ]
        }
    )


def publisher_models() -> Answer:
    """List a few models as Vertex AI does."""
    names = [{"name": f"publishers/google/models/{name}"} for name in MODELS]
    return plain({"publisherModels": names})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status."""
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    name, usual = _ERRORS.get(status, fallback)
    body = {"code": status, "message": message or usual, "status": name}
    return plain({"error": body}, status=status)
