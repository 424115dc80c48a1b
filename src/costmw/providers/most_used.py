"""The most that a request can use: its tokens, and what else is billed.

Input has no more tokens than the request has bytes, since a token of text is at least one byte
of UTF-8 and JSON only lengthens it. What providers add to it (templates of chats, descriptions
of tools) is a margin. What is not in the request is bounded by the model's context alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from costmw.providers.base import text_bytes
from costmw.providers.hosted_tools import USES_ASSUMED, Advisor
from costmw.providers.limits import RequestLimits, limits_of, place_of_limit
from costmw.providers.longest_answers import longest_answer

Json = Mapping[str, Any]

CONTEXT_ASSUMED = 1_048_576
"""Tokens that a model is taken to hold when nobody says; few hold more."""

TEMPLATE_TOKENS = 32
"""What the templates of a chat add beyond the names and braces of its JSON."""

TOOLS_TOKENS = 500
CLAUDE_TOOLS_TOKENS = 1_000
"""What a model that has tools is told; Anthropic documents at most 804 tokens, others nothing."""

PICTURE_TOKENS = 10_000
LARGE_PICTURE_TOKENS = 50_000
"""Of one picture, also where small models count a picture for more: see `beyond_text`."""

SHORT_RESULT_TOKENS = 32_768
"""What one use of a tool with short results adds; seen are 8,000, documented is nothing."""

MANY_USES = 100
"""Of tools: more are taken to fill the context each time."""

SOUND_BYTES_A_SECOND = 600
"""Fewer than any codec for speech has, so that bytes bound seconds."""

LONGEST_SOUND_SECONDS = 4 * 3600
"""Of sound that is not in the request; Mistral takes three hours, others less."""


@dataclass(frozen=True, slots=True)
class MostUsed:
    """What one request uses at most.

    `other` are counts by the price list's families of units (`characters`, `durations` in
    seconds, `document_pages`). `reads` and `writes` are kinds of tokens
    beside text. `warnings` say what was assumed for lack of a limit, and the remedy.
    """

    input_tokens: int
    output_tokens: int
    billed_tool_uses: int = 0
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    caches_for: str = ""
    other: Mapping[str, int] = field(default_factory=dict)
    advisors: tuple[Advisor, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asking:
    """A request, and what is known of its model.

    `size` is its length in bytes, `context_window` in tokens (None: not known), and
    `output_limit` the limit that is set for it if it has none itself.
    """

    api: str
    body: Json
    size: int
    model: str | None
    provider: str | None
    context_window: int | None
    output_limit: int | None = None

    @property
    def name(self) -> str:
        """The model, in a sentence."""
        return self.model or "the model"

    @property
    def context(self) -> int:
        """The most tokens that the model takes; the list rounds, 1,048,576 to a million."""
        if self.context_window is None:
            return CONTEXT_ASSUMED
        return self.context_window + self.context_window // 20


_ANYTHING = frozenset({"image", "audio", "video"})


def most_used(asking: Asking) -> MostUsed:
    """Work out what a request whose answer is text, or an embedding, uses at most."""
    limits = limits_of(asking.api, asking.body, asking.model)
    warnings: list[str] = []
    output = _output(asking, limits, warnings)
    is_outside = limits.beyond_text.is_outside or _is_continued(asking) or not asking.body
    once = _input(asking, limits, warnings, is_outside=is_outside)
    uses, total = limits.tools.uses, once
    if asking.api == "openai.runs":
        uses, total = _of_run(asking, once, warnings)
    elif uses:
        more = SHORT_RESULT_TOKENS if limits.tools.results_are_short else asking.context
        total = _in_rounds(once, uses, more, output, max(asking.context, once))
        if not limits.tools.is_limited:
            warnings.append(
                f"{uses} uses of the provider's tools are assumed: set max_uses of the tool "
                "(Anthropic) or max_tool_calls (OpenAI)"
            )
    if _is_compacted(asking.body):
        # The whole is read, and put in fewer words, before the answer is written.
        total, output = 2 * total, 2 * output
    beyond = limits.beyond_text
    return MostUsed(
        input_tokens=total,
        output_tokens=output,
        billed_tool_uses=limits.tools.billed_uses,
        reads=_ANYTHING if is_outside or uses else _kinds(beyond.pictures, beyond.sound_bytes),
        writes=_written(asking),
        caches_for=beyond.caches_for,
        other=_other(asking, beyond.sound_bytes, is_outside=is_outside),
        advisors=limits.tools.advisors,
        warnings=tuple(warnings),
    )


def _input(asking: Asking, limits: RequestLimits, warnings: list[str], *, is_outside: bool) -> int:
    beyond = limits.beyond_text
    pictures = beyond.pictures * _picture_tokens(asking)
    if is_outside:
        warnings.append(
            "a part of the input is not in the request, or cannot be read there, "
            f"so that all {asking.context:,} tokens that {asking.name} takes are held: send text "
            "and earlier turns in the request itself"
        )
        return asking.context * limits.prompts + pictures
    text = max(asking.size - beyond.media_bytes, 0) + TEMPLATE_TOKENS * limits.prompts
    if limits.has_tools:
        claude = "claude" in asking.name
        text += CLAUDE_TOOLS_TOKENS if claude else TOOLS_TOKENS
    if asking.api == "voyage.rerank":
        # The query is read once more for each document.
        documents = asking.body.get("documents")
        text += text_bytes(asking.body.get("query")) * len(
            documents if isinstance(documents, list) else ()
        )
    return text + beyond.sound_bytes + pictures


def _picture_tokens(asking: Asking) -> int:
    if asking.provider in ("anthropic", "aws.bedrock") or asking.api == "google.anthropic":
        return PICTURE_TOKENS
    large = "gpt-" in asking.name and "mini" not in asking.name and "nano" not in asking.name
    is_openai = asking.provider in ("openai", "azure.ai.openai")
    return PICTURE_TOKENS if is_openai and large else LARGE_PICTURE_TOKENS


def _is_continued(asking: Asking) -> bool:
    """Whether earlier turns are kept with the provider, under an id in the path."""
    return asking.api == "openai.runs" or (
        asking.api == "mistral.conversations" and "model" not in asking.body
    )


def _output(asking: Asking, limits: RequestLimits, warnings: list[str]) -> int:
    if limits.output_tokens is not None:
        return limits.output_tokens
    if asking.output_limit is not None:
        return asking.output_limit * limits.answers
    longest = longest_answer(asking.model) or asking.context
    held = min(longest, asking.context) * limits.answers
    place = place_of_limit(asking.api, asking.body, asking.provider)
    remedy = (
        "its format has no place for a limit: ask a model with a smaller context"
        if place is None
        else f"set {'.'.join(place)} in the call, or Budget(max_output_tokens=...)"
    )
    warnings.append(
        f"the answer of {asking.name} has no limit, so {held:,} tokens are held for it: {remedy}"
    )
    return held


def _in_rounds(once: int, uses: int, more: int, output: int, context: int) -> int:
    """The input of all rounds together: each reads what came before it again."""
    if uses > MANY_USES:
        return (uses + 1) * context
    later = (min(once + output + use * more, context) for use in range(1, uses + 1))
    return once + sum(later)


def _of_run(asking: Asking, once: int, warnings: list[str]) -> tuple[int, int]:
    """Uses and input of a run, whose steps and tools are the assistant's."""
    limit = asking.body.get("max_prompt_tokens")
    if type(limit) is int:
        return USES_ASSUMED, limit
    warnings.append("a run reads its thread again at every step: set max_prompt_tokens in the call")
    return USES_ASSUMED, (USES_ASSUMED + 1) * once


def _is_compacted(body: Json) -> bool:
    managed = body.get("context_management")
    if isinstance(managed, Mapping):
        managed = managed.get("edits")
    return isinstance(managed, list) and any("compact" in str(edit) for edit in managed)


def _kinds(pictures: int, sound: int) -> frozenset[str]:
    if not pictures and not sound:
        return frozenset()
    return frozenset(kind for kind, n in (("image", pictures), ("audio", sound)) if n)


def _written(asking: Asking) -> frozenset[str]:
    """Kinds of tokens in the answer: those asked for; models of images give some unasked."""
    body = asking.body
    asked = body.get("modalities") or body.get("response_modalities")
    for key in ("generationConfig", "generation_config"):
        if isinstance(config := body.get(key), Mapping):
            asked = asked or config.get("responseModalities") or config.get("response_modalities")
    if not isinstance(asked, list):
        return frozenset({"image", "video"})
    return frozenset(str(kind).lower() for kind in asked)


def _other(asking: Asking, sound_bytes: int, *, is_outside: bool) -> Mapping[str, int]:
    """What is billed by other units than tokens: Mistral bills sound in a chat by the second."""
    if asking.provider != "mistral_ai" or not (sound_bytes or is_outside):
        return {}
    # Encoded in base64, which is a third longer.
    sent = seconds_of(sound_bytes * 3 // 4)
    return {"durations": LONGEST_SOUND_SECONDS if is_outside else sent}


def seconds_of(sound_bytes: int) -> int:
    """The longest that so many bytes of encoded sound can last; Groq bills 10 at least."""
    return max(sound_bytes // SOUND_BYTES_A_SECOND + 1, 10)
