"""What a request brings in beside its own text: pictures, sound, and what it only refers to.

A token of text is at least one byte of the request. That says nothing of a picture, which
costs by its size in pixels, nor of a file, an address or an earlier answer, which are not in
the request at all. Where the tokens of a picture are documented:
https://platform.openai.com/docs/guides/images-vision (at most 8 tiles of 5,667 and 2,833 more
for gpt-4o-mini, 10,000 patches elsewhere), /docs/build-with-claude/vision of Anthropic (4,784),
https://ai.google.dev/gemini-api/docs/image-understanding (258 a tile, 2,240 at most from
Gemini 3 on). Sound has at most 32 tokens a second (Gemini) and no codec that these APIs take
says anything in less than 32 bytes, silence in FLAC apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(slots=True)
class BeyondText:
    """What a request has beside its text.

    `media_bytes`: how much of its length is encoded media, which is no text. `sound_bytes`:
    how much of these is sound. `pictures`: how many there are, inside or by their address.
    `is_outside`: part of the input is not in the request, or its tokens do not follow from
    anything in it: only the model's context bounds it. `caches_for`: for how long a cache is
    asked to keep the input ("5m", "1h"), "" when it is not asked to.
    """

    media_bytes: int = 0
    sound_bytes: int = 0
    pictures: int = 0
    is_outside: bool = False
    caches_for: str = ""


_ELSEWHERE = frozenset(
    {
        *("previous_response_id", "conversation", "conversation_id", "previous_interaction_id"),
        *("thread", "thread_id", "assistant_id", "agent_id", "prompt_id"),
        *("file_id", "file_url", "document_url", "video_url", "video_base64", "s3Location"),
        *("cachedContent", "cached_content", "vector_store_ids", "promptVariables"),
    }
)
"""Keys of what is kept elsewhere, or of documents and films."""

_PICTURES = frozenset({"image_url", "image_base64", "images", "image"})
_DATA = frozenset({"inlineData", "inline_data", "fileData", "file_data", "input_audio", "source"})
_CACHES = frozenset({"cache_control", "cachePoint"})
_TELLING = frozenset(
    {*_ELSEWHERE, *_PICTURES, *_DATA, *_CACHES, "document", "video", "audio", "uri", "data"}
)
_NOT_INPUT = frozenset({"tools", "response_format", "metadata", "args", "arguments", "text"})
"""Keys whose values are text or the app's own names, whatever they are called inside."""

_ENCODED_FROM = 100
"""A shorter text beside a picture is an option such as its detail, not its data."""


def beyond_text(body: Json) -> BeyondText:
    """Find what a request brings in beside its text."""
    found = BeyondText()
    waiting: list[Any] = [dict(body)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not _TELLING.isdisjoint(value):
                _take(found, value)
            kind = value.get("type")
            if kind == "tool_use":
                continue
            if kind == "item_reference":
                found.is_outside = True
            for key, inner in value.items():
                if isinstance(inner, dict | list) and key not in _NOT_INPUT:
                    waiting.append(inner)
        else:
            waiting += [inner for inner in value if isinstance(inner, dict | list)]
    if isinstance(body.get("prompt"), Mapping):
        found.is_outside = True  # a prompt that is kept with the provider
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping) and not _CACHES.isdisjoint(tool):
            _take_cache(found, tool)
    return found


def _take(found: BeyondText, value: Json) -> None:
    for key in _TELLING & value.keys():
        inner = value[key]
        if not inner:
            continue
        if key in _ELSEWHERE or (key in ("document", "video") and isinstance(inner, Mapping)):
            found.is_outside = True
        elif key in _PICTURES:
            for picture in inner if isinstance(inner, list) else (inner,):
                _take_picture(found, picture)
        elif key == "audio" or (key == "input_audio" and isinstance(inner, str)):
            _take_sound(found, inner)
        elif key in _DATA:
            _take_data(found, value, inner)
        elif key in _CACHES:
            _take_cache(found, value)
        elif key in ("uri", "data"):
            _take_block(found, value)


def _take_picture(found: BeyondText, picture: object) -> None:
    """Take a picture: its address, its data, or an object with one of these."""
    if not isinstance(picture, Mapping | str):
        return
    found.pictures += 1
    for inner in picture.values() if isinstance(picture, Mapping) else (picture,):
        data = inner.get("bytes") if isinstance(inner, Mapping) else inner
        found.media_bytes += _data_bytes(data)


def _data_bytes(value: object) -> int:
    """How long encoded data is; 0 for an address."""
    if not isinstance(value, str) or len(value) < _ENCODED_FROM or value.startswith("http"):
        return 0
    return len(value)


def _take_data(found: BeyondText, holder: Json, inner: object) -> None:
    """Take what has its data, or its address, in an object: its type is there or beside it."""
    if not isinstance(inner, Mapping):
        # A file of OpenAI's, or the name of a source.
        found.is_outside = found.is_outside or "file_data" in holder
        return
    kind = str(holder.get("type") or "")
    medium = str(inner.get("mimeType") or inner.get("mime_type") or inner.get("media_type") or kind)
    if kind == "image" or medium.startswith("image"):
        _take_picture(found, {"data": inner.get("data")})
    elif kind == "input_audio" or medium.startswith("audio"):
        _take_sound(found, inner)
    elif medium and inner.get("type") not in ("text", "content"):
        found.is_outside = found.is_outside or not medium.startswith("text")


def _take_block(found: BeyondText, block: Json) -> None:
    """Take a block that has its type, and its data or address, in itself."""
    kind = block.get("type")
    if kind == "image":
        _take_picture(found, {"data": block.get("data")})
    elif kind == "audio":
        _take_sound(found, block)
    elif kind in ("document", "video"):
        found.is_outside = True


def _take_sound(found: BeyondText, sound: object) -> None:
    data = sound.get("data") if isinstance(sound, Mapping) else sound
    if not isinstance(data, str):
        # Options such as the voice of the answer, or the id of an earlier one, or an address.
        named = isinstance(sound, Mapping) and not {"id", "uri", "fileUri"}.isdisjoint(sound)
        found.is_outside = found.is_outside or named
        return
    encoding = [sound.get(key) for key in _ENCODINGS] if isinstance(sound, Mapping) else []
    if not _data_bytes(data) or any("flac" in str(name).lower() for name in encoding):
        found.is_outside = True
    found.media_bytes += _data_bytes(data)
    found.sound_bytes += _data_bytes(data)


_ENCODINGS = ("format", "mimeType", "mime_type", "media_type")


def _take_cache(found: BeyondText, value: Json) -> None:
    asked = value.get("cache_control") or value.get("cachePoint")
    if isinstance(asked, Mapping) and found.caches_for != "1h":
        found.caches_for = "1h" if asked.get("ttl") == "1h" else "5m"
