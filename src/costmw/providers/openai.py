"""OpenAI's chat completions, legacy completions and embeddings, and everyone who speaks them.

Shapes: https://platform.openai.com/docs/api-reference/chat and the pages of those who
are compatible. `prompt_tokens` includes cached tokens and `completion_tokens`
reasoning, which is the form that `Usage` has; where a dialect differs, the total
tells. Dialects: cached tokens as `prompt_cache_hit_tokens` (DeepSeek), as
`cached_tokens` beside the totals (Together, Moonshot); usage under `x_groq` (Groq);
reasoning beside the output (xAI), or in the total alone (Gemini); the provider's own
cost (OpenRouter, Perplexity, xAI).
"""

from __future__ import annotations

import re
from decimal import Decimal

from costmw.events import Usage
from costmw.providers.base import (
    AnswerLength,
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    detail,
    json_object,
    part,
    text,
    text_bytes,
)

NO_USAGE = "the response carries no usage"
NO_STREAM_USAGE = (
    "the stream carries no usage: send stream_options={'include_usage': True}, "
    "or leave include_usage on in instrument()"
)
USD_TICKS = 10**10
"""xAI's `cost_in_usd_ticks` in one USD."""


def chat_usage(usage: Json, *, total_tells: bool = True) -> Usage:
    """Read a `usage` object with `prompt_tokens` and `completion_tokens`.

    `total_tells` says that `total_tokens` is the sum of input and output, so that it
    shows what the two leave out.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    prompt = count(usage, "prompt_tokens")
    if prompt is None:
        raise UnreadableUsage("usage has no prompt_tokens")
    read = part(usage, "prompt_tokens_details") or part(usage, "prompt_token_details")
    written = part(usage, "completion_tokens_details") or part(usage, "completion_token_details")
    output = count(usage, "completion_tokens") or 0
    reasoning = count(written, "reasoning_tokens") or count(usage, "reasoning_tokens") or 0
    cached = (
        count(read, "cached_tokens")
        or count(usage, "prompt_cache_hit_tokens")
        or count(usage, "cached_tokens")
        or 0
    )
    # What the total has beyond the two is one of their parts, told apart by its size.
    total = count(usage, "total_tokens") if total_tells else None
    beyond = (total or 0) - prompt - output
    if beyond > 0 and beyond == cached:
        prompt += cached
    elif beyond > 0 and reasoning in (0, beyond):
        output, reasoning = output + beyond, beyond
    return check(
        Usage(
            input_tokens=prompt,
            output_tokens=output,
            cache_read_input_tokens=cached,
            cache_write_input_tokens=count(read, "cache_write_tokens") or 0,
            reasoning_output_tokens=reasoning,
            detail=detail(
                input_audio_tokens=count(read, "audio_tokens"),
                output_audio_tokens=count(written, "audio_tokens"),
                input_image_tokens=count(read, "image_tokens"),
                output_image_tokens=count(written, "image_tokens"),
                web_searches=count(usage, "num_search_queries"),
            ),
        )
    )


def own_cost(usage: Json) -> Decimal | None:
    """The provider's own figure in USD; believed only of providers that document it."""
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool):
        return Decimal(str(cost))
    ticks = usage.get("cost_in_usd_ticks")
    return Decimal(ticks) / USD_TICKS if isinstance(ticks, int) else None


def note(reading: Reading, body: Json) -> None:
    """Take the model, the id and the tier that is charged."""
    reading.response_model = text(body, "model") or reading.response_model
    reading.response_id = text(body, "id") or reading.response_id
    if tier := text(body, "service_tier"):
        reading.price_context["service_tier"] = tier


def take_chat_usage(reading: Reading, body: Json) -> None:
    """Take usage from a body or chunk, if it has any."""
    usage = body.get("usage") or part(body, "x_groq").get("usage")
    if usage is None:
        return
    try:
        if not isinstance(usage, dict):
            raise UnreadableUsage(f"usage is {type(usage).__name__}, not an object")
        reading.usage, reading.problem = chat_usage(usage), None
        reading.cost_usd = own_cost(usage)
        if usage.get("is_byok") is True:
            reading.notes.append("your own key: the upstream provider bills beside this cost")
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"


def read_chat(body: Json) -> Reading:
    """Read a `chat.completion`, a `text_completion`, or an embeddings `list`."""
    reading = Reading(finished=True, problem=NO_USAGE)
    note(reading, body)
    take_chat_usage(reading, body)
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        reading.output_bytes += _answer_bytes(choice)
    return reading


class ChatStream:
    """`chat.completion.chunk` and `text_completion` messages up to `[DONE]`.

    The usage chunk has no choices and is usually the last before `[DONE]`, not always;
    some servers leave `[DONE]` out. Usage beside choices is a running total, and final
    only with their `finish_reason`.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=NO_STREAM_USAGE)
        self._answer = AnswerLength()

    def wants(self, data: bytes) -> bool:
        """Whether there is usage or the end in it, or too little is known so far."""
        return (
            b"[DONE]" in data
            or not self._answer.is_measured
            or self.reading.response_id is None
            or _has_usage(data)
        )

    def skip(self, data: bytes) -> None:
        """Count chunks that are not read."""
        self._answer.skip(data)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if data == b"[DONE]":
            self.reading.finished = True
        elif self.reading.response_id is None or _has_usage(data):
            body = json_object(data)
            note(self.reading, body)
            take_chat_usage(self.reading, body)
            if self.reading.usage is not None and _is_final(body.get("choices")):
                self.reading.finished = True
        self._answer.read(data, sum(len(match[1]) for match in _CONTENT.finditer(data)))
        self.reading.output_bytes = self._answer.bytes


def _is_final(choices: object) -> bool:
    return isinstance(choices, list) and all(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )


def _answer_bytes(choice: object) -> int:
    if not isinstance(choice, dict):
        return 0
    answer = choice.get("message")
    said = answer.get("content") if isinstance(answer, dict) else choice.get("text")
    return text_bytes(said)


_USAGE_OBJECT = re.compile(rb'"usage"\s*:\s*\{')
_CONTENT = re.compile(
    rb'"(?:content|text|reasoning_content|reasoning|arguments|refusal)"\s*:\s*"((?:[^"\\]|\\.)*)"'
)


def _has_usage(data: bytes) -> bool:
    return b'"usage"' in data and _USAGE_OBJECT.search(data) is not None


FORMATS = (
    WireFormat(
        api="openai.chat",
        operation="chat",
        path=re.compile(r"/chat/completions$"),
        read=read_chat,
        stream=ChatStream,
        include_usage=True,
    ),
    WireFormat(
        api="openai.completions",
        operation="text_completion",
        path=re.compile(r"(?<!/chat)/completions$"),
        read=read_chat,
        stream=ChatStream,
        include_usage=True,
    ),
    WireFormat(
        api="openai.embeddings",
        operation="embeddings",
        path=re.compile(r"/embeddings$"),
        read=read_chat,
    ),
)
