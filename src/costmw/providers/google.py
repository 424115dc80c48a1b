"""Google's Gemini API and Vertex AI: content, embeddings, interactions, partner models.

Shapes: https://ai.google.dev/api/generate-content, /api/embeddings and
/api/interactions-api; https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference
(inference, text-embeddings-api) and /docs/partner-models. Cached tokens are inside
`promptTokenCount`; thoughts are outside `candidatesTokenCount`, and results of tools
outside `promptTokenCount`; `totalTokenCount` is the sum. Enums are names or numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic_core import to_json

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    check,
    count,
    event_type,
    json_object,
    part,
    text,
    text_bytes,
)

NO_USAGE = "the response carries no usage"
CUT_SHORT = "the stream ended before its finishReason"

_MODALITIES: Mapping[object, str] = {
    "IMAGE": "image", "VIDEO": "video", "AUDIO": "audio", "DOCUMENT": "image",
    2: "image", 3: "video", 4: "audio", 5: "image",
}
"""Modalities that have prices of their own; pages of documents are billed as images."""

_TRAFFIC = {0: "", 1: "ON_DEMAND", 2: "PROVISIONED_THROUGHPUT"}


def metadata_usage(meta: Json, searches: int = 0) -> Usage:
    """Read a `usageMetadata`. Its total tells what its parts include.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    prompt, total = count(meta, "promptTokenCount"), count(meta, "totalTokenCount")
    tools = count(meta, "toolUsePromptTokenCount") or 0
    answer = count(meta, "candidatesTokenCount") or 0
    thoughts = count(meta, "thoughtsTokenCount")
    output = answer + (thoughts or 0)
    if total is not None:
        # Zeros are left out of the JSON.
        prompt = max(total - tools - output, 0) if prompt is None else prompt
        rest = total - prompt - tools - output
        if rest == -tools:
            tools = 0
        elif thoughts and rest == -thoughts <= answer - thoughts:
            output = answer
        elif rest > 0 and thoughts is None:
            output += rest  # thoughts that are counted in the total alone
        elif rest:
            raise UnreadableUsage(f"totalTokenCount is {total}, and its parts sum to {total - rest}")
    cached = count(meta, "cachedContentTokenCount") or 0
    return check(
        Usage(
            input_tokens=None if prompt is None else prompt + tools,
            output_tokens=output,
            cache_read_input_tokens=cached,
            reasoning_output_tokens=thoughts or 0,
            detail=_detail(meta, cached, searches),
        )
    )


def _detail(meta: Json, cached: int, searches: int) -> Mapping[str, int]:
    prompt = _by_modality(
        meta, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"
    )
    written = _by_modality(meta, "candidatesTokensDetails")
    found = {f"input_{modality}_tokens": tokens for modality, tokens in prompt.items()}
    found |= {f"output_{modality}_tokens": tokens for modality, tokens in written.items()}
    if cached and "cacheTokensDetails" in meta:
        read = _by_modality(meta, "cacheTokensDetails")
        # Explicit zeros: where both overlap, a price needs to know how far.
        found |= {f"cache_{modality}_read_tokens": read.get(modality, 0) for modality in prompt}
    return found | {"web_searches": searches} if searches else found


def _by_modality(meta: Json, *keys: str) -> dict[str, int]:
    """Sum the tokens of each modality that has prices of its own."""
    found: dict[str, int] = {}
    for key in keys:
        entries = meta.get(key) or ()
        if not isinstance(entries, list | tuple):
            raise UnreadableUsage(f"{key} is {type(entries).__name__}, not a list")
        for entry in entries:
            if not isinstance(entry, Mapping):
                raise UnreadableUsage(f"{key} holds something else than objects")
            tokens = count(entry, "tokenCount") or count(entry, "tokens")
            modality = _MODALITIES.get(_enum(entry.get("modality")))
            if modality and tokens:
                found[modality] = found.get(modality, 0) + tokens
    return found


def _enum(value: object) -> str | int | None:
    return value.upper() if isinstance(value, str) else value if type(value) is int else None


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _add_note(reading: Reading, note: str) -> None:
    if note not in reading.notes:
        reading.notes.append(note)


def _take_tier(reading: Reading, tier: object, traffic: object = None) -> None:
    """Keep how the request was processed, where that changes its price."""
    if isinstance(tier, str) and tier.lower().removeprefix("service_tier_") != "unspecified":
        reading.price_context["service_tier"] = tier.lower().removeprefix("service_tier_")[:64]
    kind = _enum(traffic)
    name = _TRAFFIC.get(kind, f"traffic_type_{kind}") if isinstance(kind, int) else kind or ""
    if name == "PROVISIONED_THROUGHPUT":
        _add_note(reading, "provisioned throughput is billed by the hour, not by these tokens")
    elif name not in ("", "ON_DEMAND", "TRAFFIC_TYPE_UNSPECIFIED"):
        reading.price_context["service_tier"] = name.removeprefix("ON_DEMAND_").lower()[:64]


def _billed_searches(reading: Reading, searches: int) -> int:
    """Gemini 3 bills each search, earlier models each prompt that was grounded."""
    model = reading.response_model
    if searches and model is None:
        _add_note(reading, "Google searches are billed beside the tokens")
        return 0
    return min(searches, 1) if re.match(r"gemini-[12]\D", model or "") else searches


class GenerateStream:
    """Chunks up to the one with the last `finishReason`; the last `usageMetadata` counts."""

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)
        self._meta: Json | None = None
        self._running: set[int] = set()
        self._queries: set[str] = set()

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if data != b"[DONE]":
            self.take(json_object(data))

    def take(self, body: Json) -> None:
        """Take one chunk that is parsed, or a whole response."""
        reading = self.reading
        # A tuned model is named by its resource, whose last part is all that is told of it.
        reading.response_model = (text(body, "modelVersion") or "").rpartition("/")[2] or (
            reading.response_model
        )
        reading.response_id = text(body, "responseId") or reading.response_id
        ended = bool(part(body, "promptFeedback").get("blockReason"))
        for candidate in _objects(body.get("candidates")):
            self._take_candidate(candidate)
            ended = ended or _has_ended(candidate)
        meta = part(body, "usageMetadata")
        _take_tier(reading, meta.get("serviceTier"), meta.get("trafficType"))
        counted = any(key.endswith("TokenCount") for key in meta)
        if counted:
            self._meta = meta
        if self._meta is not None:
            searches = _billed_searches(reading, len(self._queries))
            _take_usage(reading, self._meta, searches)
        # Counts that are older than the last words are a running total, not the sum.
        reading.finished = not self._running and (
            (ended or reading.finished) if counted or self._meta is None else False
        )
        if self._meta is None and reading.finished:
            reading.problem = NO_USAGE

    def _take_candidate(self, candidate: Json) -> None:
        index = candidate.get("index")
        index = index if isinstance(index, int) else 0
        (self._running.discard if _has_ended(candidate) else self._running.add)(index)
        for said in _objects(part(candidate, "content").get("parts")):
            self.reading.output_bytes += text_bytes(said.get("text"))
            if "functionCall" in said:
                self.reading.output_bytes += len(to_json(said["functionCall"]))
        grounding = part(candidate, "groundingMetadata")
        queries = grounding.get("webSearchQueries")
        if isinstance(queries, list):
            # Empty ones and repetitions are not billed.
            self._queries.update(query for query in queries if isinstance(query, str) and query)
        if any("maps" in chunk for chunk in _objects(grounding.get("groundingChunks"))):
            _add_note(self.reading, "grounding with Google Maps is billed beside the tokens")
        if grounding.get("imageSearchQueries"):
            _add_note(self.reading, "Google image searches are billed beside the tokens")


def _has_ended(candidate: Json) -> bool:
    return candidate.get("finishReason") not in (None, "", 0, "FINISH_REASON_UNSPECIFIED")


def _take_usage(reading: Reading, meta: Json, searches: int = 0) -> None:
    try:
        reading.usage = metadata_usage(meta, searches)
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    known = reading.usage.input_tokens is not None
    reading.problem = None if known else "usageMetadata has no promptTokenCount"


def read_generated(body: Json) -> Reading:
    """Read a `GenerateContentResponse`."""
    reading = read_chunks((body,))
    reading.finished = True
    if reading.usage is None and reading.problem == CUT_SHORT:
        reading.problem = NO_USAGE
    return reading


def read_chunks(chunks: Sequence[Json]) -> Reading:
    """Read a stream that came as one JSON array, without `alt=sse`."""
    stream = GenerateStream()
    for chunk in chunks:
        stream.take(chunk)
    return stream.reading


def read_embedded(body: Json) -> Reading:
    """Read the answer to `embedContent` or `batchEmbedContents`: older models tell no usage."""
    reading = Reading(finished=True, problem=NO_USAGE)
    if meta := part(body, "usageMetadata"):
        _take_usage(reading, meta)
    return reading


def read_predicted(body: Json) -> Reading:
    """Read embeddings of Vertex AI's `predict`: tokens by input, and characters of all."""
    reading = Reading(finished=True, problem=NO_USAGE)
    predictions = _objects(body.get("predictions"))
    try:
        tokens = [_embedded_tokens(prediction) for prediction in predictions]
        characters = count(part(body, "metadata"), "billableCharacterCount")
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
        return reading
    known = [n for n in tokens if n is not None]
    if known and len(known) == len(tokens):
        detail = {"input_characters": characters} if characters else {}
        reading.usage, reading.problem = Usage(sum(known), 0, detail=detail), None
    return reading


def _embedded_tokens(prediction: Json) -> int | None:
    return count(part(part(prediction, "embeddings"), "statistics"), "token_count")


_AS_METADATA = {
    "total_input_tokens": "promptTokenCount",
    "total_output_tokens": "candidatesTokenCount",
    "total_thought_tokens": "thoughtsTokenCount",
    "total_tool_use_tokens": "toolUsePromptTokenCount",
    "total_cached_tokens": "cachedContentTokenCount",
    "total_tokens": "totalTokenCount",
    "input_tokens_by_modality": "promptTokensDetails",
    "output_tokens_by_modality": "candidatesTokensDetails",
    "tool_use_tokens_by_modality": "toolUsePromptTokensDetails",
    "cached_tokens_by_modality": "cacheTokensDetails",
}


def read_interaction(body: Json) -> Reading:
    """Read an `interaction`, finished or still running in the background."""
    reading = Reading(problem=NO_USAGE)
    _take_interaction(reading, body)
    return reading


def _take_interaction(reading: Reading, body: Json) -> None:
    reading.response_model = text(body, "model") or text(body, "agent") or reading.response_model
    reading.response_id = reading.result_id = text(body, "id") or reading.result_id
    reading.pending = body.get("status") in ("in_progress", "queued")
    reading.finished = True
    _take_tier(reading, body.get("service_tier"))
    usage = part(body, "usage")
    if usage:
        meta = {new: usage[old] for old, new in _AS_METADATA.items() if old in usage}
        _take_usage(reading, meta, _billed_searches(reading, _tool_searches(reading, usage)))


def _tool_searches(reading: Reading, usage: Json) -> int:
    searches = 0
    for tool in _objects(usage.get("grounding_tool_count")):
        if tool.get("type") == "google_search":
            searches += count(tool, "count") or 0
        else:
            _add_note(reading, f"grounding by {text(tool, 'type')} is billed beside the tokens")
    return searches


class InteractionStream:
    """Events up to `interaction.completed`; the usage of earlier ones is a running total."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before interaction.completed")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or event_type(data, _KNOWN)
        if name in ("interaction.completed", "interaction.complete"):
            self.reading.problem = NO_USAGE
            _take_interaction(self.reading, part(json_object(data), "interaction"))
        elif name in ("interaction.created", "interaction.start"):
            created = part(json_object(data), "interaction")
            self.reading.response_model = text(created, "model") or text(created, "agent")
            self.reading.response_id = self.reading.result_id = text(created, "id")
        elif name in ("step.delta", "content.delta"):
            self.reading.output_bytes += sum(len(match[1]) for match in _SAID.finditer(data))


_KNOWN = re.compile(rb'"event_type"\s*:\s*"([a-z_.]+)"')
_SAID = re.compile(rb'"(?:text|arguments)"\s*:\s*"((?:[^"\\]|\\.)*)"')
