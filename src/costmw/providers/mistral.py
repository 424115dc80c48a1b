"""Mistral's chat, completions, embeddings, moderation, OCR, audio and conversations.

Shapes: https://docs.mistral.ai/api; cached tokens as in its page on prompt caching,
connectors as in its page on web search. Usage is OpenAI's with more in it:
`num_cached_tokens` where the details are null, the tier charged, whole seconds of
audio (billed by the second; `prompt_tokens` leaves its tokens out, `total_tokens` does
not), and tokens that connectors put into the prompt beside `prompt_tokens`.
"""

from __future__ import annotations

import re
from dataclasses import replace

from costmw.events import NOTHING, Usage
from costmw.providers import openai
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    detail,
    event_type,
    json_object,
    part,
    text,
)
from costmw.providers.openai_responses import ResponseStream, read_response

_CONNECTORS = {
    "web_search": "web_searches",
    "code_interpreter": "code_executions",
    "document_library": "storage_searches",
}


def mistral_usage(usage: Json) -> Usage:
    """Read a `usage` object of any of these APIs.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    seconds = count(usage, "prompt_audio_seconds")
    if seconds is not None:
        # Audio alone needs no prompt tokens.
        usage = {**usage, "prompt_tokens": count(usage, "prompt_tokens") or 0}
    read = openai.chat_usage(usage, total_tells=False)
    prompt, output = read.input_tokens or 0, read.output_tokens or 0
    connected = count(usage, "connector_tokens") or 0
    if connected and count(usage, "total_tokens") != prompt + output:
        prompt += connected
    if connected > prompt:
        raise UnreadableUsage(f"{connected} connector_tokens exceed the {prompt} input tokens")
    calls = part(usage, "connectors")
    more = detail(
        input_tool_tokens=connected,
        # The price list wants the wider unit named too.
        audio_seconds=seconds,
        input_audio_seconds=seconds,
        **{unit: count(calls, name) for name, unit in _CONNECTORS.items()},
    )
    return check(
        replace(
            read,
            input_tokens=prompt,
            cache_read_input_tokens=read.cache_read_input_tokens
            or count(usage, "num_cached_tokens")
            or 0,
            detail={**read.detail, **more} or NOTHING,
        )
    )


def _take_usage(reading: Reading, body: Json) -> None:
    """Read usage again, where OpenAI's reading of it leaves something out."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return
    if tier := text(usage, "service_tier"):
        reading.price_context["service_tier"] = tier
    try:
        reading.usage, reading.problem = mistral_usage(usage), None
        others = [
            name
            for name, calls in part(usage, "connectors").items()
            if calls and name not in _CONNECTORS
        ]
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    reading.notes.extend(f"calls of {name[:64]} are billed beside the tokens" for name in others)


def read(body: Json) -> Reading:
    """Read a completion, embeddings, a moderation or a transcription."""
    reading = openai.read_chat(body)
    _take_usage(reading, body)
    return reading


class ChatStream(openai.ChatStream):
    """OpenAI's chunks; the last one, with its `finish_reason`, carries the usage unasked."""

    def __init__(self) -> None:
        super().__init__()
        self.reading.problem = "the stream carries no usage"

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        super().message(event, data)
        if self.reading.usage is not None and b'"usage"' in data:
            _take_usage(self.reading, json_object(data))


def read_conversation(body: Json) -> Reading:
    """Read a `conversation.response`; its models are in its outputs."""
    reading = read(body)
    outputs = body.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict):
            _answered_by(reading, output)
    return reading


def _answered_by(reading: Reading, output: Json) -> None:
    model, first = text(output, "model"), reading.response_model
    if first is None:
        reading.response_model = model
        reading.response_id = text(output, "id")
    elif model is not None and model != first:
        note = f"{model} answered too: its tokens are counted as those of {first}"
        if note not in reading.notes:
            reading.notes.append(note)


class EventStream:
    """Named events up to one that carries the usage of them all.

    Args:
        last: the name of that event.
    """

    def __init__(self, last: str) -> None:
        self.reading = Reading(problem=f"the stream ended before {last}")
        self._last = last
        self._look = True

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name, reading = event or event_type(data, _KNOWN), self.reading
        if name == self._last:
            body = json_object(data)
            reading.problem = openai.NO_USAGE
            openai.note(reading, body)
            _take_usage(reading, body)
            reading.finished = True
        elif name == "conversation.response.error":
            reading.problem = "the conversation ended in an error, without usage"
            reading.finished = True
        elif name == "agent.handoff.done":
            self._look = True
        elif name == "message.output.delta" and self._look:
            _answered_by(reading, json_object(data))
            self._look = reading.response_model is None
        if name in _SAYING:
            # Not for audio: no count of bytes gives the seconds that it is billed by.
            reading.output_bytes += sum(len(match[1]) for match in _SAID.finditer(data))


_KNOWN = re.compile(
    rb'"type"\s*:\s*"(conversation\.response\.(?:done|error)|agent\.handoff\.done'
    rb'|message\.output\.delta|function\.call\.delta|transcription\.done|speech\.audio\.done)"'
)
_SAYING = ("message.output.delta", "function.call.delta")
_SAID = re.compile(rb'"(?:content|text|thinking|arguments)"\s*:\s*"((?:[^"\\]|\\.)*)"')


def read_ocr(body: Json) -> Reading:
    """Read an OCR result: billed by the page, annotated pages at a price of their own."""
    reading = Reading(finished=True, problem=openai.NO_USAGE)
    openai.note(reading, body)
    try:
        pages = count(part(body, "usage_info"), "pages_processed")
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
        return reading
    if pages is not None:
        annotated = pages if _is_annotated(body) else None
        units = detail(input_document_pages=pages, input_annotated_document_pages=annotated)
        reading.usage, reading.problem = Usage(0, 0, detail=units), None
    return reading


def _is_annotated(body: Json) -> bool:
    if body.get("document_annotation"):
        return True
    pages = body.get("pages")
    for page in pages if isinstance(pages, list) else ():
        images = page.get("images") if isinstance(page, dict) else None
        for image in images if isinstance(images, list) else ():
            if isinstance(image, dict) and image.get("image_annotation"):
                return True
    return False


FORMATS = (
    WireFormat(
        api="mistral.chat",
        operation="chat",
        path=re.compile(r"/(?:chat|agents)/completions$"),
        read=read,
        stream=ChatStream,
    ),
    WireFormat(
        api="mistral.fim",
        operation="text_completion",
        path=re.compile(r"/fim/completions$"),
        read=read,
        stream=ChatStream,
    ),
    WireFormat(
        api="mistral.responses",
        operation="chat",
        path=re.compile(r"/responses$"),
        read=read_response,
        stream=ResponseStream,
    ),
    WireFormat(
        api="mistral.conversations",
        operation="invoke_agent",
        path=re.compile(r"/conversations(?:/[^/]+(?:/restart)?)?$"),
        read=read_conversation,
        stream=lambda: EventStream("conversation.response.done"),
    ),
    WireFormat(
        api="mistral.embeddings",
        operation="embeddings",
        path=re.compile(r"/embeddings$"),
        read=read,
    ),
    WireFormat(
        api="mistral.moderations",
        operation="moderation",
        path=re.compile(r"/(?:moderations|classifications)$"),
        read=read,
    ),
    WireFormat(
        api="mistral.ocr",
        operation="ocr",
        path=re.compile(r"/ocr$"),
        read=read_ocr,
    ),
    WireFormat(
        api="mistral.audio.transcriptions",
        operation="transcription",
        path=re.compile(r"/audio/transcriptions$"),
        read=read,
        stream=lambda: EventStream("transcription.done"),
    ),
    WireFormat(
        api="mistral.audio.speech",
        operation="speech",
        path=re.compile(r"/audio/speech$"),
        read=read,
        stream=lambda: EventStream("speech.audio.done"),
    ),
)
