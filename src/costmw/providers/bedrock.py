"""Amazon Bedrock: Converse, and InvokeModel with every model's own format.

Shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference (API_runtime_Converse,
API_runtime_ConverseStream, API_runtime_TokenUsage) and /userguide/model-parameters.
`inputTokens` leaves out what was read from a cache or written to one, says
/userguide/prompt-caching. The model is in the path; bodies that name one leave out the
region, on which its price depends.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping

from costmw.events import NOTHING, Usage
from costmw.providers.anthropic import MessageStream, read_message
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
METRICS = "amazon-bedrock-invocationMetrics"


def token_usage(usage: Json) -> Usage:
    """Read a `TokenUsage`; its total tells whether cached tokens are apart from the input.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    fresh, output = _needed(usage, "inputTokens"), _needed(usage, "outputTokens")
    read = _first(count(usage, "cacheReadInputTokens"), count(usage, "cacheReadInputTokenCount"))
    written = _first(
        count(usage, "cacheWriteInputTokens"), count(usage, "cacheWriteInputTokenCount")
    )
    total, cached = count(usage, "totalTokens"), read + written
    if total not in (None, fresh + output, fresh + output + cached):
        raise UnreadableUsage(f"totalTokens is {total}, its parts are {fresh + output + cached}")
    is_inside = total == fresh + output and fresh >= cached
    by_ttl = {
        text(entry, "ttl"): count(entry, "inputTokens")
        for entry in _objects(usage.get("cacheDetails"))
    }
    if sum(filter(None, by_ttl.values())) > written:
        raise UnreadableUsage(f"cacheDetails exceeds the {written} tokens written")
    split = detail(cache_write_5m_tokens=by_ttl.get("5m"), cache_write_1h_tokens=by_ttl.get("1h"))
    total_in = fresh if is_inside else fresh + cached
    return check(Usage(total_in, output, read, written, detail=split))


def _needed(usage: Json, key: str) -> int:
    value = count(usage, key)
    if value is None:
        raise UnreadableUsage(f"usage has no {key}")
    return value


def _first(*counts: int | None) -> int:
    return next((n for n in counts if n is not None), 0)


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def read_converse(body: Json) -> Reading:
    """Read the answer of Converse, or the `metadata` that ends ConverseStream."""
    reading = Reading()
    _take_converse(reading, body)
    return reading


def _take_converse(reading: Reading, body: Json) -> None:
    reading.finished, reading.problem = True, NO_USAGE
    if tier := text(part(body, "serviceTier"), "type"):
        reading.price_context["service_tier"] = tier
    if latency := text(part(body, "performanceConfig"), "latency"):
        reading.price_context["latency"] = latency
    trace, usage = part(body, "trace"), part(body, "usage")
    if routed := text(part(trace, "promptRouter"), "invokedModelId"):
        reading.response_model = routed.rpartition("/")[2]
    if trace.get("guardrail") or body.get("stopReason") == "guardrail_intervened":
        _guarded(reading)
    if tools := part(usage, "serverToolUsage"):
        reading.notes.append(f"billed beside the tokens: {', '.join(sorted(tools))}")
    if usage:
        _settle(reading, lambda: token_usage(usage))


def _guarded(reading: Reading) -> None:
    if GUARDED not in reading.notes:
        reading.notes.append(GUARDED)


def _settle(reading: Reading, read: Callable[[], Usage]) -> None:
    reading.finished = True
    try:
        reading.usage, reading.problem = read(), None
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"


class ConverseStream:
    """Events up to `metadata`, which comes after `messageStop`."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before its metadata")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        if event == "metadata":
            _take_converse(self.reading, json_object(data))
        elif event == "messageStop" and b'"guardrail_intervened"' in data:
            _guarded(self.reading)
        elif event == "contentBlockDelta":
            self.reading.output_bytes += _said(data)


_SAID = re.compile(
    rb'"(?:text|input|outputText|generation|completion|content)"\s*:\s*"((?:[^"\\]|\\.)*)"'
)


def _said(data: bytes) -> int:
    return sum(len(match[1]) for match in _SAID.finditer(data))


def read_invoked(body: Json) -> Reading:
    """Read what a model gave in its own format; where that has no counts, the headers do."""
    reading = Reading(finished=True, problem=NO_USAGE)
    try:
        if "input_tokens" in part(body, "usage"):
            reading = read_message(body)
            reading.response_model = None
        elif (usage := _own_usage(body)) is not None:
            reading.usage, reading.problem = usage, None
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
    if "amazon-bedrock-guardrailAction" in body:
        _guarded(reading)
    return reading


def _own_usage(body: Json) -> Usage | None:
    """The usage in a body of Nova, of those who speak OpenAI's format, of Titan, of Llama."""
    usage = part(body, "usage")
    if "inputTokens" in usage:
        return token_usage(usage)
    if "prompt_tokens" in usage:
        return chat_usage(usage)
    if "inputTextTokenCount" in body and ("results" in body or "embedding" in body):
        written = [_needed(result, "tokenCount") for result in _objects(body.get("results"))]
        return Usage(_needed(body, "inputTextTokenCount"), sum(written))
    if "prompt_token_count" in body:
        return Usage(_needed(body, "prompt_token_count"), _needed(body, "generation_token_count"))
    return None


class InvokeStream:
    """Chunks of a model's own stream, the last with `amazon-bedrock-invocationMetrics`.

    The metrics are the count of who bills, so they win; Claude's own events add what the
    metrics lack. Where a guardrail blocked the input, Titan gives its own counts instead.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=f"the stream ended before {METRICS}")
        self._claude: MessageStream | None = None
        self._titan_input: int | None = None

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if event != "chunk":
            return
        chunk = b64decode(str(json_object(data).get("bytes")), validate=True)
        if b'"amazon-bedrock-guardrailAction"' in chunk:
            _guarded(self.reading)
        if self._claude is None and b'"message_start"' in chunk:
            self._claude = MessageStream(goes_on=True)
            self.reading.answer = self._claude.reading.answer
            self._claude.reading = self.reading
        if self._claude is not None:
            self._claude.message(None, chunk)
            self.reading.response_model = None
        else:
            self.reading.output_bytes += _said(chunk)
        if b'"amazon-bedrock-invocationMetrics"' in chunk:
            body = json_object(chunk)
            _settle(self.reading, lambda: self._metrics_usage(body))
        elif b'TextTokenCount"' in chunk:
            self._take_titan(json_object(chunk))

    def _metrics_usage(self, body: Json) -> Usage:
        metrics, last = part(body, METRICS), part(body, "usage")
        claude = self.reading.usage or Usage()
        read = _first(
            count(metrics, "cacheReadInputTokenCount"),
            count(last, "cache_read_input_tokens"),
            claude.cache_read_input_tokens,
        )
        written = _first(
            count(metrics, "cacheWriteInputTokenCount"),
            count(last, "cache_creation_input_tokens"),
            claude.cache_write_input_tokens,
        )
        fresh, output = _needed(metrics, "inputTokenCount"), _needed(metrics, "outputTokenCount")
        cached = claude.cache_read_input_tokens + claude.cache_write_input_tokens
        is_inside = cached and fresh == claude.input_tokens
        same = claude.cache_write_input_tokens == written
        return Usage(
            fresh if is_inside else fresh + read + written,
            output,
            read,
            written,
            min(claude.reasoning_output_tokens, output),
            claude.detail if same else NOTHING,
        )

    def _take_titan(self, body: Json) -> None:
        if (read := count(body, "inputTextTokenCount")) is not None:
            self._titan_input = read
        output = count(body, "totalOutputTextTokenCount")
        if output is not None:  # in the last chunk alone
            _settle(self.reading, lambda: Usage(self._titan_input, output))


def header_usage(headers: Mapping[str, str]) -> Usage | None:
    """Read the counts in the headers of InvokeModel's answer.

    Raises:
        UnreadableUsage: when they are not numbers of tokens.
    """
    counts = {key: _number(headers.get(f"{_PREFIX}{key}-token-count")) for key in _COUNTED}
    fresh = count(counts, "input")
    if fresh is None:
        return None
    read, written = (count(counts, key) or 0 for key in _COUNTED[2:])
    return Usage(fresh + read + written, count(counts, "output"), read, written)


_PREFIX = "x-amzn-bedrock-"
_COUNTED = ("input", "output", "cache-read-input", "cache-write-input")


def _number(value: str | None) -> int | str | None:
    return int(value) if value and re.fullmatch("[0-9]{1,15}", value) else value


def embedded_header_usage(headers: Mapping[str, str]) -> Usage | None:
    """Read the same of an embedding, which has no output to count."""
    usage = header_usage(headers)
    return usage and Usage(usage.input_tokens, 0)


# An ARN ends in the name of a public model, or in an id of the user's own.
_ARN = r"/model/(?:arn(?::|%3A).+(?:/|%2F))?"
_IN_NAME = r"(?:(?!%2F)[^/])"


def _path(name: str, *operations: str) -> re.Pattern[str]:
    return re.compile(rf"{_ARN}(?P<model>{name})/(?:{'|'.join(operations)})$", re.IGNORECASE)


FORMATS = (
    WireFormat(
        api="bedrock.converse",
        operation="chat",
        path=_path(f"{_IN_NAME}+", "converse", "converse-stream"),
        read=read_converse,
        stream=ConverseStream,
    ),
    WireFormat(
        api="bedrock.embed",
        operation="embeddings",
        path=_path(f"{_IN_NAME}*embed{_IN_NAME}*", "invoke"),
        read=read_invoked,
        read_headers=embedded_header_usage,
    ),
    WireFormat(
        api="bedrock.invoke",
        operation="chat",
        path=_path(f"{_IN_NAME}+", "invoke", "invoke-with-response-stream"),
        read=read_invoked,
        stream=InvokeStream,
        read_headers=header_usage,
    ),
)
