"""How long the answers of widely used models can be, where that is far less than they read.

From https://platform.openai.com/docs/models and https://ai.google.dev/gemini-api/docs/models;
Gemini's thoughts (32,768 at most) are counted beside the answer when no limit is set. A model
that is not here is taken to fill its context.
"""

from __future__ import annotations

import re

_LONGEST = (
    (r"gpt-3\.5|gpt-4-turbo|gpt-4-\d{4}-preview|gpt-4-vision", 4_096),
    (r"gpt-4o(?!.*(?:64k|long))|chatgpt-4o", 16_384),
    (r"gpt-4\.1", 32_768),
    (r"o[134](?:-mini|-pro|-preview)?(?=$|-\d{4})", 100_000),
    (r"gpt-5(?:\.[1-4])?(?:-mini|-nano|-codex)?(?=$|-\d{4})", 128_000),
    (r"gemini-(?:1\.5|2\.0)-(?:flash|pro)", 8_192),
    (r"gemini-(?:(?:2\.5|3(?:\.\d)?)-)?(?:flash|pro)", 65_536 + 32_768),
)
_KNOWN = [(re.compile(rf"(?:^|[/:.]){pattern}"), tokens) for pattern, tokens in _LONGEST]


def longest_answer(model: str | None) -> int | None:
    """How many tokens an answer of this model can have; None when that is not known."""
    if model is None:
        return None
    return next((tokens for pattern, tokens in _KNOWN if pattern.search(model)), None)
