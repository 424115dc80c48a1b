"""Amazon Bedrock: Converse, and InvokeModel with every model's own format.

Shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html,
API_runtime_ConverseStream.html, API_runtime_TokenUsage.html and
/userguide/model-parameters.html. Of input tokens, says /userguide/prompt-caching.html,
`inputTokens` counts what was neither read from a cache nor written to one. The model is
in the path: bodies name it without the region that its price depends on.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping

from costmw.events import Usage
from costmw.providers.anthropic import MessageStream, message_usage, read_message
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    detail,
    json_object,
    part,
    text,
)
from costmw.providers.openai import chat_usage

NO_USAGE = "the response carries no usage"
GUARDED = "guardrails are billed beside the tokens"


def token_usage(usage: Json) -> Usage:
    """Read a `TokenUsage`; its total tells whether cached tokens are apart from the input.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    fresh, output = _needed(usage, "inputTokens"), _needed(usage, "outputTokens")
    read = _either(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _either(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    total = count(usage, "totalTokens")
    apart = read + written
    if apart and total == fresh + output and fresh >= apart:
        apart = 0
    elif total not in (None, fresh + output, fresh + output + apart):
        raise UnreadableUsage(f"totalTokens is {total}, its parts are {fresh + output + apart}")
    return _usage(fresh + apart, output, read, written, _by_ttl(usage))


def _needed(usage: Json, key: str) -> int:
    value = count(usage, key)
    if value is None:
        raise UnreadableUsage(f"usage has no {key}")
    return value


def _either(usage: Json, *keys: str) -> int:
    return next((n for n in (count(usage, key) for key in keys) if n is not None), 0)


def _by_ttl(usage: Json) -> Mapping[str, int]:
    details = usage.get("cacheDetails")
    entries = [e for e in details if isinstance(e, Mapping)] if isinstance(details, list) else []
    by_ttl = {text(entry, "ttl"): count(entry, "inputTokens") for entry in entries}
    return detail(cache_write_5m_tokens=by_ttl.get("5m"), cache_write_1h_tokens=by_ttl.get("1h"))


def _usage(
    total_in: int | None, output: int | None, read: int, written: int, more: Mapping[str, int]
) -> Usage:
    split = more.get("cache_write_5m_tokens", 0) + more.get("cache_write_1h_tokens", 0)
    if split > written:
        raise UnreadableUsage(f"{split} tokens written by TTL exceed the {written} written")
    return check(
        Usage(
            input_tokens=total_in,
            output_tokens=output,
            cache_read_input_tokens=read,
            cache_write_input_tokens=written,
            detail=more,
        )
    )


def read_converse(body: Json) -> Reading:
    """Read the answer of Converse, or the `metadata` that ends ConverseStream."""
    reading = Reading(finished=True, problem=NO_USAGE)
    _take_converse(reading, body)
    return reading


def _take_converse(reading: Reading, body: Json) -> None:
    reading.finished, reading.problem = True, NO_USAGE
    if tier := text(part(body, "serviceTier"), "type"):
        reading.price_context["service_tier"] = tier
    if latency := text(part(body, "performanceConfig"), "latency"):
        reading.price_context["latency"] = latency
    trace = part(body, "trace")
    if "guardrail" in trace or body.get("stopReason") == "guardrail_intervened":
        reading.notes.append(GUARDED)
    if routed := text(part(trace, "promptRouter"), "invokedModelId"):
        reading.response_model = routed.rpartition("/")[2]
    usage = part(body, "usage")
    if tools := part(usage, "serverToolUsage"):
        reading.notes.append(f"{', '.join(sorted(tools))} billed beside the tokens")
    if not usage:
        return
    try:
        reading.usage, reading.problem = token_usage(usage), None
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"


class ConverseStream:
    """Events up to `metadata`, which comes after `messageStop`."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before its metadata")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        if event == "metadata":
            _take_converse(self.reading, json_object(data))
        elif event == "contentBlockDelta":
            self.reading.output_bytes += _said(data)


_SAID = re.compile(
    rb'"(?:text|input|thinking|partial_json|outputText|generation|completion|content)"'
    rb'\s*:\s*"((?:[^"\\]|\\.)*)"'
)


def _said(data: bytes) -> int:
    return sum(len(match[1]) for match in _SAID.finditer(data))


def read_invoked(body: Json) -> Reading:
    """Read what a model gave, in its own format; the headers count where it does not."""
    reading = Reading(finished=True, problem=NO_USAGE)
    try:
        if "input_tokens" in part(body, "usage"):
            reading = read_message(body)
            reading.response_model = None
        else:
            reading.usage = _own_usage(body)
            reading.problem = NO_USAGE if reading.usage is None else None
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
    if "amazon-bedrock-guardrailAction" in body:
        reading.notes.append(GUARDED)
    return reading


def _own_usage(body: Json) -> Usage | None:
    """The usage in a body of Nova, of those who speak OpenAI's format, of Titan, of Llama."""
    usage = part(body, "usage")
    if "inputTokens" in usage:
        return token_usage(usage)
    if "prompt_tokens" in usage:
        return chat_usage(usage)
    if "inputTextTokenCount" in body and isinstance(body.get("results"), list):
        written = [count(result, "tokenCount") or 0 for result in body["results"]]
        return Usage(_needed(body, "inputTextTokenCount"), sum(written))
    if "inputTextTokenCount" in body and "embedding" in body:
        return Usage(_needed(body, "inputTextTokenCount"), 0)
    if "prompt_token_count" in body:
        return Usage(_needed(body, "prompt_token_count"), _needed(body, "generation_token_count"))
    return None


class InvokeStream:
    """Chunks of a model's own stream, the last with `amazon-bedrock-invocationMetrics`.

    The metrics are the count of who bills, so they win; Claude's own events add what the
    metrics lack. Titan gives counts of its own where a guardrail stepped in, no metrics.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)
        self._claude: MessageStream | None = None
        self._titan_input: int | None = None

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if event != "chunk":
            return
        chunk = b64decode(str(json_object(data).get("bytes")), validate=True)
        if b'"amazon-bedrock-guardrailAction"' in chunk and GUARDED not in self.reading.notes:
            self.reading.notes.append(GUARDED)
        if self._claude is None and b'"message_start"' in chunk:
            self._claude = MessageStream()
            self._claude.reading = self.reading
        if self._claude is not None:
            self._claude.message(None, chunk)
            self.reading.response_model = None
        else:
            self.reading.output_bytes += sum(len(match[1]) for match in _SAID.finditer(chunk))
        if b'"amazon-bedrock-invocationMetrics"' in chunk:
            body = json_object(chunk)
            self._settle(lambda: self._metrics(body))
        elif b'TextTokenCount"' in chunk:
            body = json_object(chunk)
            self._titan_input = count(body, "inputTextTokenCount") or self._titan_input
            if body.get("completionReason"):
                self._settle(
                    lambda: Usage(self._titan_input, count(body, "totalOutputTextTokenCount"))
                )

    def _settle(self, usage: Callable[[], Usage]) -> None:
        self.reading.finished = True
        try:
            self.reading.usage, self.reading.problem = usage(), None
        except UnreadableUsage as error:
            self.reading.usage, self.reading.problem = None, f"unreadable usage: {error}"

    def _metrics(self, body: Json) -> Usage:
        metrics, last = part(body, METRICS), part(body, "usage")
        claude = self.reading.usage or Usage()
        fresh = _needed(metrics, "inputTokenCount")
        read, written = (
            _first(metrics_count, count(last, key), known) for metrics_count, key, known in ()
        )
