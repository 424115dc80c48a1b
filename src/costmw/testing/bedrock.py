"""Amazon Bedrock shapes: Converse, InvokeModel, both of them streamed, and errors."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmw.testing import anthropic, counting
from costmw.testing.framing import aws_event, dump
from costmw.testing.vectors import unit_vector
from costmw.testing.wire import Answer, json_pieces, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

_DIMENSIONS = 1024
_LATENCY = 10
_ERRORS = {
    400: ("ValidationException", "The request cannot be served as it is."),
    401: ("UnrecognizedClientException", "The security token included is invalid."),
    403: ("AccessDeniedException", "You don't have access to the model."),
    404: ("ResourceNotFoundException", "Could not resolve the model."),
    408: ("ModelTimeoutException", "Model has timed out in processing the request."),
    424: ("ModelErrorException", "The model had an error while processing your request."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
}
_SERVER_ERROR = ("InternalServerException", "The system had an internal error.")
# A count of tokens: in the headers of InvokeModel, in the metrics that end its stream, and
# in the usage of a model's own body.
_COUNTS = (
    ("input", "inputTokenCount", ("input_tokens", "inputTokens", "inputTextTokenCount")),
    ("output", "outputTokenCount", ("output_tokens", "outputTokens")),
    (
        "cache-read-input",
        "cacheReadInputTokenCount",
        ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount"),
    ),
    (
        "cache-write-input",
        "cacheWriteInputTokenCount",
        ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"),
    ),
)


def converse(call: Call) -> Answer:
    """Answer a Converse or ConverseStream request."""
    usage = call.usage(lambda: _count(call))
    tail = {"metrics": {"latencyMs": _LATENCY}} | _tier(call)
    if not call.streamed:
        return plain(_conversation(call, usage) | tail)
    events = _conversation_events(call, usage, tail)
    return stream(call, [aws_event(name, event) for name, event in events])


def _count(call: Call) -> Json:
    prompt, output = call.prompt_tokens, call.output_tokens
    return {"inputTokens": prompt, "outputTokens": output, "totalTokens": prompt + output}


def _tier(call: Call) -> Json:
    asked = call.payload.get("serviceTier")
    tier = call.reply.service_tier or (asked.get("type") if isinstance(asked, dict) else None)
    return {"serviceTier": {"type": tier}} if tier else {}


def _conversation(call: Call, usage: Json | None) -> Json:
    body = {
        "output": {"message": {"role": "assistant", "content": _blocks(call)}},
        "stopReason": _stop_reason(call),
    }
    return body if usage is None else body | {"usage": usage}


def _blocks(call: Call) -> list[Json]:
    blocks: list[Json] = []
    if call.reply.said or call.reply.tool_call is None:
        blocks.append({"text": call.reply.said})
    if call.reply.tool_call is not None:
        name, arguments = call.reply.tool_call
        use = {"toolUseId": new_id("tooluse_", 22), "name": name, "input": dict(arguments)}
        blocks.append({"toolUse": use})
    return blocks


def _stop_reason(call: Call) -> str:
    return "tool_use" if call.reply.tool_call else "end_turn"


def _conversation_events(call: Call, usage: Json | None, tail: Json) -> list[tuple[str, Json]]:
    events: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
    for index, block in enumerate(_blocks(call)):
        place = {"contentBlockIndex": index}
        use = block.get("toolUse")
        if use is None:
            deltas: list[Json] = [{"text": piece} for piece in words(block["text"])]
        else:
            # Only a tool's block is announced.
            start = {"toolUse": {name: use[name] for name in ("toolUseId", "name")}}
            events.append(("contentBlockStart", place | {"start": start}))
            deltas = [{"toolUse": {"input": piece}} for piece in json_pieces(dump(use["input"]))]
        events += [("contentBlockDelta", place | {"delta": delta}) for delta in deltas]
        events.append(("contentBlockStop", place))
    events.append(("messageStop", {"stopReason": _stop_reason(call)}))
    return [*events, ("metadata", tail if usage is None else {"usage": usage} | tail)]


def invoke(call: Call) -> Answer:
    """Answer an InvokeModel request, streamed or not, in the format of the model's maker.

    Those are Anthropic's, Titan's for embeddings, and Nova's for all other models.
    """
    model = call.in_path["model"]
    is_claude = "anthropic" in model or "anthropic_version" in call.payload
    if is_claude:
        call = replace(call, in_path={"model": _own_name(model)})
        body = anthropic.message(call)
    elif "embed" in model:
        body = _embedding(call)
    else:
        body = _conversation(call, call.usage(lambda: _count(call)))
    usage = body.get("usage")
    if not call.streamed:
        headers = _count_headers(body if usage is None else usage)
        return plain(body, headers=headers | {"x-amzn-bedrock-invocation-latency": str(_LATENCY)})
    if is_claude:
        events = anthropic.events(call)
    else:
        events = [{name: event} for name, event in _conversation_events(call, usage, {})]
    if usage is not None:
        latency = {"invocationLatency": _LATENCY, "firstByteLatency": _LATENCY}
        events[-1]["amazon-bedrock-invocationMetrics"] = _metrics(usage) | latency
    headers = {"x-amzn-bedrock-content-type": "application/json"}
    return stream(call, [_chunk(event) for event in events], headers=headers)


def _own_name(model: str) -> str:
    """Return what Anthropic calls a model that Bedrock has another name for."""
    found = re.search(r"anthropic\.(.+?)(?:-v\d+(?::\d+)?)?$", model)
    return model if found is None else found[1]


def _chunk(event: Json) -> bytes:
    return aws_event("chunk", {"bytes": b64encode(dump(event).encode()).decode()})


def _counts(usage: Json) -> dict[tuple[str, str], Any]:
    return {
        (header, metric): usage[name]
        for header, metric, names in _COUNTS
        for name in names
        if name in usage
    }


def _metrics(usage: Json) -> Json:
    return {metric: count for (_, metric), count in _counts(usage).items()}


def _count_headers(usage: Json) -> dict[str, str]:
    return {
        f"x-amzn-bedrock-{header}-token-count": str(count)
        for (header, _), count in _counts(usage).items()
    }


def _embedding(call: Call) -> Json:
    text = call.payload.get("inputText")
    size = counting.or_count(call.payload.get("dimensions"), _DIMENSIONS)
    usage = call.usage(lambda: {"inputTextTokenCount": counting.embedding_tokens([text])})
    return {"embedding": unit_vector(text, size)} | (usage or {})


def error(status: int, message: str | None = None) -> Answer:
    """Return an error body for an HTTP status; its kind is in a header."""
    fallback = _SERVER_ERROR if status >= 500 else _ERRORS[400]
    kind, usual = _ERRORS.get(status, fallback)
    return plain(
        {"message": message or usual}, status=status, headers={"x-amzn-errortype": f"{kind}:"}
    )
