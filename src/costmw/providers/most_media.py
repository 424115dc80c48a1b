"""The most that a request for pictures, sound or scanned pages can use.

Sizes of generated pictures: https://platform.openai.com/docs/guides/image-generation (one token
for 252 pixels at high quality, fewer at others); pages of a document:
https://docs.mistral.ai/capabilities/document_ai (1,000 at most); length of speech: 1,250 tokens
a minute, as the price page of gpt-4o-mini-tts has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from costmw.providers.base import text_bytes
from costmw.providers.most_used import (
    LONGEST_SOUND_SECONDS,
    PICTURE_TOKENS,
    TEMPLATE_TOKENS,
    Asking,
    MostUsed,
    seconds_of,
)

PIXELS_A_TOKEN = 128
USUAL_PIXELS = 1536 * 1024
"""Of a picture whose size is left to the model."""

PARTIAL_PICTURE_TOKENS = 100
PICTURES_EDITED = 16
"""Pictures that one edit can take."""

LONGEST_DOCUMENT_PAGES = 1_000

SPOKEN_TOKENS_A_SECOND = 10
HEARD_TOKENS_A_SECOND = 32
SPEECH_TOKENS_A_BYTE = 8
"""At a quarter of the usual speed: 15 characters a second and 21 tokens of sound otherwise."""


def _pictures(asking: Asking) -> MostUsed:
    """Generated or edited pictures."""
    body = asking.body
    count = _number(body.get("n")) or 1
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(body.get("size")))
    pixels = int(size[1]) * int(size[2]) if size else USUAL_PIXELS
    each = pixels // PIXELS_A_TOKEN + PARTIAL_PICTURE_TOKENS * (
        1 + (_number(body.get("partial_images")) or 0)
    )
    edits = asking.api.endswith("edits")
    text = text_bytes(body.get("prompt")) if edits else asking.size
    return MostUsed(
        input_tokens=text + TEMPLATE_TOKENS + (PICTURES_EDITED * PICTURE_TOKENS if edits else 0),
        output_tokens=count * each,
        reads=frozenset({"image"}),
        writes=frozenset({"image"}),
    )


def _transcription(asking: Asking) -> MostUsed:
    """Sound that is sent, or that is kept elsewhere, as text."""
    elsewhere = any(asking.body.get(key) for key in ("file_id", "file_url", "url"))
    seconds = LONGEST_SOUND_SECONDS if elsewhere else seconds_of(asking.size)
    return MostUsed(
        input_tokens=seconds * HEARD_TOKENS_A_SECOND + TEMPLATE_TOKENS,
        output_tokens=seconds * SPOKEN_TOKENS_A_SECOND,
        reads=frozenset({"audio"}),
        other={"durations": seconds},
    )


def _speech(asking: Asking) -> MostUsed:
    """Text that is spoken: billed by its characters, or by the tokens of the sound."""
    return MostUsed(
        input_tokens=asking.size,
        output_tokens=asking.size * SPEECH_TOKENS_A_BYTE,
        writes=frozenset({"audio"}),
        other={"characters": asking.size},
    )


def _pages(asking: Asking) -> MostUsed:
    """Pages that are read."""
    body = asking.body
    document, pages = body.get("document"), body.get("pages")
    count = LONGEST_DOCUMENT_PAGES
    if isinstance(pages, list):
        count = len(pages)
    elif isinstance(document, Mapping) and document.get("type") == "image_url":
        count = 1
    warning = (
        f"a document has up to {LONGEST_DOCUMENT_PAGES:,} pages, which are held: "
        "name its pages in the call"
    )
    unknown = count == LONGEST_DOCUMENT_PAGES
    return MostUsed(0, 0, other={"document_pages": count}, warnings=(warning,) if unknown else ())


def _number(value: Any) -> int | None:
    """A number, also as the text that a form has it in."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,3}", value):
        return int(value)
    return value if type(value) is int and value >= 0 else None


MOST_MEDIA: Mapping[str, Callable[[Asking], MostUsed]] = {
    "openai.images.generations": _pictures,
    "openai.images.edits": _pictures,
    "openai.audio.transcriptions": _transcription,
    "openai.audio.speech": _speech,
    "mistral.audio.transcriptions": _transcription,
    "mistral.audio.speech": _speech,
    "mistral.ocr": _pages,
}
"""By wire format."""
