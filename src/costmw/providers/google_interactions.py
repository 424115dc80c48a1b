"""Google's interactions, plain, streamed, and read again by their id.

Shapes: https://ai.google.dev/api/interactions-api. The counts are those of
`usageMetadata` under other names.
"""

from __future__ import annotations

import re

from costmw.providers.base import (
    Json,
    Reading,
    WireFormat,
    count,
    event_type,
    json_object,
    part,
    text,
)
from costmw.providers.google import NO_USAGE, add_note, objects, take_tier, take_usage

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
    """Read an `interaction`, ended or still running in the background."""
    reading = Reading(problem=NO_USAGE)
    _take_interaction(reading, body)
    return reading


def _take_interaction(reading: Reading, body: Json) -> None:
    reading.response_model = text(body, "model") or text(body, "agent") or reading.response_model
    reading.response_id = reading.result_id = text(body, "id") or reading.result_id
    reading.pending = body.get("status") in ("in_progress", "queued")
    reading.finished = True
    take_tier(reading, body.get("service_tier"))
    usage = part(body, "usage")
    searches = 0
    for tool in objects(usage.get("grounding_tool_count")):
        if tool.get("type") == "google_search":
            searches += count(tool, "count") or 0
        else:
            add_note(reading, f"grounding by {text(tool, 'type')} is billed beside the tokens")
    if usage:
        meta = {new: usage[old] for old, new in _AS_METADATA.items() if old in usage}
        take_usage(reading, meta, searches)


class InteractionStream:
    """Events up to `interaction.completed`; usage in earlier ones is a running total."""

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


FORMATS = (
    WireFormat(
        api="google.interactions",
        operation="generate_content",
        path=re.compile(r"/interactions$"),
        read=read_interaction,
        stream=InteractionStream,
    ),
    WireFormat(
        api="google.interactions.retrieve",
        operation="generate_content",
        path=re.compile(r"/interactions/[^/:]+$"),
        read=read_interaction,
        stream=InteractionStream,
        method="GET",
    ),
)
