"""Token counts that are plausible, cheap and the same on every run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmw.testing.reply import Reply

CHARACTERS_PER_TOKEN = 4

_LIMITS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "maxOutputTokens",
    "maxTokens",
    "num_predict",
)
_LIMIT_HOLDERS = ("generationConfig", "inferenceConfig", "options")
_PROMPT_FIELDS = (
    "chat_history",
    "contents",
    "input",
    "instructions",
    "message",
    "messages",
    "preamble",
    "prompt",
    "suffix",
    "system",
    "systemInstruction",
    "toolConfig",
    "tools",
)
# Labels and attachments: a base64 image is not a prompt of a million letters.
_UNCOUNTED = frozenset(
    {
        "cache_control",
        "call_id",
        "data",
        "file",
        "fileData",
        "file_data",
        "id",
        "image_url",
        "images",
        "inlineData",
        "input_audio",
        "role",
        "source",
        "thoughtSignature",
        "tool_call_id",
        "toolUseId",
        "tool_use_id",
        "type",
    }
)


def text_tokens(characters: int) -> int:
    """Tokens for that many characters: one for every four, and never none."""
    return max(1, -(-characters // CHARACTERS_PER_TOKEN))


def prompt_tokens(payload: dict[str, Any]) -> int:
    """Input tokens of any request for text."""
    return text_tokens(sum(_characters(payload.get(name)) for name in _PROMPT_FIELDS))


def output_tokens(reply: Reply, payload: dict[str, Any]) -> int:
    """Output tokens of a reply, within the limit that the request sets."""
    characters = len(reply.said)
    if reply.tool_call is not None:
        name, arguments = reply.tool_call
        characters += len(name) + len(json.dumps(arguments))
    holders = [payload, *(payload.get(name) for name in _LIMIT_HOLDERS)]
    limits: list[int] = [
        holder[name]
        for holder in holders
        if isinstance(holder, dict)
        for name in _LIMITS
        if is_count(holder.get(name))
    ]
    return min([text_tokens(characters), *limits])


def embedding_tokens(inputs: list[Any]) -> int:
    """Input tokens of an embeddings request; token ids given as such count one each."""
    return sum(
        len(item) if isinstance(item, list) else text_tokens(_characters(item)) for item in inputs
    )


def or_count(value: object, usual: int) -> int:
    """Return a JSON value that is a positive whole number, or what is usual instead."""
    return value if isinstance(value, int) and is_count(value) else usual


def is_count(value: object) -> bool:
    """Whether a JSON value is a positive whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _characters(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    if isinstance(value, dict):
        return sum(_characters(item) for name, item in value.items() if name not in _UNCOUNTED)
    return 0
