"""OpenAI's images and audio.

Shapes: https://platform.openai.com/docs/api-reference/images and /audio. Newer models
report tokens; `whisper-1` seconds; `tts-1` nothing, it is billed by the characters
sent; `dall-e` nothing, it is billed by size and number, which no unit price covers.
"""

from __future__ import annotations

import re

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    count,
    event_type,
    json_object,
    part,
)
from costmw.providers.openai import note
from costmw.providers.openai_responses import response_usage

NO_IMAGE_USAGE = "the response carries no usage: images of this model are billed by size and number"
NO_AUDIO_USAGE = "the response carries no usage: ask for response_format='json'"
NO_SPEECH_USAGE = "speech of this model is billed by tokens, which its response does not report"


def _read_media(body: Json, problem: str) -> Reading:
    reading = Reading(finished=True, problem=problem)
    note(reading, body)
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return reading
    try:
        reading.usage, reading.problem = _media_usage(usage), None
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
    return reading


def _media_usage(usage: Json) -> Usage:
    if usage.get("type") == "duration":
        seconds = count(usage, "seconds")
        if seconds is None:
            raise UnreadableUsage("usage has no seconds")
        return Usage(0, 0, detail={"input_audio_seconds": seconds})
    read = response_usage(usage)
    images = count(part(usage, "input_tokens_details"), "image_tokens")
    is_image = images is not None and "output_tokens_details" not in usage
    if not is_image or not read.output_tokens:
        return read
    # Older image models write images alone, and do not say so.
    return Usage(
        read.input_tokens,
        read.output_tokens,
        detail={**read.detail, "output_image_tokens": read.output_tokens},
    )


def read_images(body: Json) -> Reading:
    """Read the answer of `images/generations` or `images/edits`."""
    return _read_media(body, NO_IMAGE_USAGE)


def read_transcription(body: Json) -> Reading:
    """Read a transcription or translation."""
    return _read_media(body, NO_AUDIO_USAGE)


def speech_usage(request: Json) -> Usage | None:
    """What a speech request is billed for, where that is its number of characters."""
    said = request.get("input")
    if request.get("model") not in ("tts-1", "tts-1-hd") or not isinstance(said, str):
        return None
    return Usage(0, 0, detail={"input_characters": len(said)})


class _LastEventStream:
    """A stream whose last event carries usage."""

    def __init__(self, last: str, problem: str) -> None:
        self.reading = Reading(problem=f"the stream ended before {last}")
        self._last = last
        self._problem = problem

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        if (event or event_type(data, _KNOWN)) == self._last:
            self.reading = _read_media(json_object(data), self._problem)


_KNOWN = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')


FORMATS = (
    WireFormat(
        api="openai.images.generations",
        operation="generate_content",
        path=re.compile(r"/images/generations$"),
        read=read_images,
        stream=lambda: _LastEventStream("image_generation.completed", NO_IMAGE_USAGE),
    ),
    WireFormat(
        api="openai.images.edits",
        operation="generate_content",
        path=re.compile(r"/images/(?:edits|variations)$"),
        read=read_images,
        stream=lambda: _LastEventStream("image_edit.completed", NO_IMAGE_USAGE),
    ),
    WireFormat(
        api="openai.audio.transcriptions",
        operation="transcription",
        path=re.compile(r"/audio/(?:transcriptions|translations)$"),
        read=read_transcription,
        stream=lambda: _LastEventStream("transcript.text.done", NO_AUDIO_USAGE),
    ),
    WireFormat(
        api="openai.audio.speech",
        operation="speech",
        path=re.compile(r"/audio/speech$"),
        read=lambda _: Reading(finished=True, problem=NO_SPEECH_USAGE),
        read_request=speech_usage,
    ),
)
