"""Google's Gemini API and Vertex AI: content, embeddings, interactions, partners' models.

Shapes: https://ai.google.dev/api/generate-content, /api/embeddings and
/api/interactions-api; https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference
and /docs/partner-models. Cached tokens are inside `promptTokenCount`; thoughts are
outside `candidatesTokenCount` and what tools gave outside `promptTokenCount`;
`totalTokenCount` is the sum. Zeros may be left out, and enums may be numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic_core import to_json

from costmw.events import Usage
from costmw.providers.anthropic import MessageStream, read_message
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    json_object,
    part,
    text,
    text_bytes,
)
from costmw.providers.openai import ChatStream, read_chat

NO_USAGE = "the response carries no usage"
PROVISIONED = "provisioned throughput is billed by the hour, not by these tokens"

_MODALITIES = ("", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
_TRAFFIC = ("TRAFFIC_TYPE_UNSPECIFIED", "ON_DEMAND", "PROVISIONED_THROUGHPUT")


def metadata_usage(meta: Json, searches: int = 0) -> Usage:
    """Read a `usageMetadata`.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    prompt, total = count(meta, "promptTokenCount"), count(meta, "totalTokenCount")
    tools = count(meta, "toolUsePromptTokenCount") or 0
    answer, thoughts = count(meta, "candidatesTokenCount"), count(meta, "thoughtsTokenCount")
    output = (answer or 0) + (thoughts or 0)
    if total is not None:
        prompt = max(total - tools - output, 0) if prompt is None else prompt
        rest = total - prompt - tools - output
        if rest == -tools:
            tools = 0  # inside the prompt
        elif rest > 0 and thoughts is None:
            output += rest  # that only the total counts: thoughts, where there is an answer
            thoughts = 0 if answer is None else rest
        elif rest:
            raise UnreadableUsage(f"totalTokenCount is {total}, its parts are {total - rest}")
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
    read = _by_modality(
        meta, "promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"
    )
    found = {f"input_{modality}_tokens": n for modality, n in read.items()}
    for modality, n in _by_modality(meta, "candidatesTokensDetails").items():
        found[f"output_{modality}_tokens"] = n
    if cached and "cacheTokensDetails" in meta:
        from_cache = _by_modality(meta, "cacheTokensDetails")
        # Zeros too: a price for what is both cached and audio must know that nothing is.
        found |= {f"cache_{modality}_read_tokens": from_cache.get(modality, 0) for modality in read}
    return found | {"web_searches": searches} if searches else found


def _by_modality(meta: Json, *keys: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for key in keys:
        entries = meta.get(key)
        if entries is not None and not isinstance(entries, list):
            raise UnreadableUsage(f"{key} is {type(entries).__name__}, not a list")
        for entry in objects(entries):
            modality = _enum(entry.get("modality"), _MODALITIES).lower()
            modality = "image" if modality == "document" else modality
            tokens = count(entry, "tokenCount") or count(entry, "tokens")
            if tokens and modality in ("image", "video", "audio"):
                found[modality] = found.get(modality, 0) + tokens
    return found


def _enum(value: object, names: Sequence[str]) -> str:
    """The name of a value that is sent by name or by number."""
    if isinstance(value, str):
        return value.upper()
    if type(value) is not int:
        return ""
    return names[value] if 0 <= value < len(names) else f"NUMBER_{value}"


def objects(value: object) -> list[Json]:
    """The objects of an array; none when it is something else."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def add_note(reading: Reading, note: str) -> None:
    """Note what is billed beside the usage, once."""
    if note not in reading.notes:
        reading.notes.append(note)


def take_tier(reading: Reading, tier: object, traffic: object = None) -> None:
    """Keep how the request was processed, where that chooses its price."""
    name = _enum(traffic, _TRAFFIC).removeprefix("ON_DEMAND").removeprefix("_")
    if name == "PROVISIONED_THROUGHPUT":
        add_note(reading, PROVISIONED)
        return
    if name in ("", "TRAFFIC_TYPE_UNSPECIFIED") and isinstance(tier, str):
        name = tier.upper().removeprefix("SERVICE_TIER_")
    if name and not name.endswith("UNSPECIFIED"):
        reading.price_context["service_tier"] = name.lower()[:64]


def take_usage(reading: Reading, meta: Json, searches: int = 0) -> None:
    """Take `usageMetadata`, and the web searches counted elsewhere in the response."""
    if searches and reading.response_model is None:
        add_note(reading, "Google searches are billed beside the tokens")
        searches = 0
    elif re.match(r"gemini-[12]\D", reading.response_model or ""):
        searches = min(searches, 1)  # billed by the prompt; later models by the search
    try:
        reading.usage, reading.problem = metadata_usage(meta, searches), None
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    if reading.usage.input_tokens is None:
        reading.problem = "usageMetadata has no promptTokenCount"


class GenerateStream:
    """Chunks up to the last `finishReason`; the last `usageMetadata` counts."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before its finishReason")
        self._meta: Json | None = None
        self._stale = False
        self._running: set[int] = set()
        self._ended = False
        self._queries: set[str] = set()

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if data != b"[DONE]":  # not Google's own, but some gateways add it
            self.take(json_object(data))

    def take(self, body: Json) -> None:
        """Take one parsed chunk, or a whole response."""
        reading = self.reading
        if model := text(body, "modelVersion"):
            reading.response_model = model.rpartition("/")[2]
        reading.response_id = text(body, "responseId") or reading.response_id
        self._ended |= bool(part(body, "promptFeedback").get("blockReason"))
        candidates = objects(body.get("candidates"))
        for candidate in candidates:
            self._take_candidate(candidate)
        meta = part(body, "usageMetadata")
        take_tier(reading, meta.get("serviceTier"), meta.get("trafficType"))
        if any(key.endswith("TokenCount") for key in meta):
            self._meta, self._stale = meta, False
        elif candidates:
            self._stale = True
        if self._meta is not None:
            take_usage(reading, self._meta, len(self._queries))
        elif self._ended:
            reading.problem = NO_USAGE
        # Counts from before the last words are a running total.
        current = self._meta is None or not self._stale
        reading.finished = self._ended and not self._running and current

    def _take_candidate(self, candidate: Json) -> None:
        index = candidate.get("index")
        index = index if isinstance(index, int) else 0
        if candidate.get("finishReason") in (None, "", 0, "FINISH_REASON_UNSPECIFIED"):
            self._running.add(index)
        else:
            self._running.discard(index)
            self._ended = True
        for said in objects(part(candidate, "content").get("parts")):
            self.reading.output_bytes += text_bytes(said.get("text"))
            if "functionCall" in said:
                self.reading.output_bytes += len(to_json(said["functionCall"]))
        grounding = part(candidate, "groundingMetadata")
        queries = grounding.get("webSearchQueries")
        if isinstance(queries, list):
            # Empty and repeated ones are not billed.
            self._queries.update(query for query in queries if query and isinstance(query, str))
        if any("maps" in chunk for chunk in objects(grounding.get("groundingChunks"))):
            add_note(self.reading, "grounding by google_maps is billed beside the tokens")


def read_generated(body: Json) -> Reading:
    """Read a `GenerateContentResponse`."""
    stream = GenerateStream()
    stream.reading.problem = NO_USAGE
    stream.take(body)
    stream.reading.finished = True
    return stream.reading


def read_chunks(chunks: Sequence[Json]) -> Reading:
    """Read a stream that was sent as one JSON array, for lack of `alt=sse`."""
    stream = GenerateStream()
    for chunk in chunks:
        stream.take(chunk)
    return stream.reading


def read_embedded(body: Json) -> Reading:
    """Read what `embedContent` or `batchEmbedContents` gave; older models tell no usage."""
    reading = Reading(finished=True, problem=NO_USAGE)
    if meta := part(body, "usageMetadata"):
        take_usage(reading, meta)
    return reading


def read_predicted(body: Json, *, by_character: bool = True) -> Reading:
    """Read embeddings that `predict` gave: tokens by input, characters of all together."""
    reading = Reading(finished=True, problem=NO_USAGE)
    embeddings = [part(item, "embeddings") for item in objects(body.get("predictions"))]
    tokens = [count(part(embedding, "statistics"), "token_count") for embedding in embeddings]
    known = [n for n in tokens if n is not None]
    if known and len(known) == len(tokens):
        characters = count(part(body, "metadata"), "billableCharacterCount") or 0
        detail = {"input_characters": characters} if by_character and characters else {}
        reading.usage, reading.problem = Usage(sum(known), 0, detail=detail), None
    return reading


_NAME = r"(?P<model>(?:(?!%3A)[^/:])+)"


def _method(resource: str, *methods: str) -> re.Pattern[str]:
    return re.compile(rf"{resource}(?::|%3A)(?:{'|'.join(methods)})$", re.IGNORECASE)


_RAW = ("rawPredict", "streamRawPredict")
_PUBLIC = rf"/(?:models|tunedModels|dynamic)/{_NAME}"

FORMATS = (
    WireFormat(
        api="google.generate",
        operation="generate_content",
        path=_method(
            rf"(?:{_PUBLIC}|/endpoints/[^/:]+)", "generateContent", "streamGenerateContent"
        ),
        read=read_generated,
        read_array=read_chunks,
        stream=GenerateStream,
    ),
    WireFormat(
        api="google.embed",
        operation="embeddings",
        path=_method(_PUBLIC, "embedContent", "batchEmbedContents"),
        read=read_embedded,
    ),
    WireFormat(
        api="google.predict.gemini",
        operation="embeddings",
        path=_method(r"/models/(?P<model>gemini-embedding[^/:]*)", "predict"),
        read=lambda body: read_predicted(body, by_character=False),
    ),
    WireFormat(
        api="google.predict",
        operation="embeddings",
        path=_method(r"/models/(?P<model>[^/:]*embedding[^/:]*)", "predict"),
        read=read_predicted,
    ),
    WireFormat(
        api="google.anthropic",
        operation="chat",
        path=_method(rf"/publishers/anthropic/models/(?!count-tokens){_NAME}", *_RAW),
        read=read_message,
        stream=MessageStream,
    ),
    WireFormat(
        api="google.chat",
        operation="chat",
        path=_method(rf"/publishers/(?:mistralai|ai21)/models/{_NAME}", *_RAW),
        read=read_chat,
        stream=ChatStream,
    ),
)
