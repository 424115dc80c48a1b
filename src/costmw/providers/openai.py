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

import math
import re
from collections.abc import Mapping
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
USD_TICK_DIGITS = 10
"""xAI's `cost_in_usd_ticks` are 1e-10 USD."""


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
    total = count(usage, "total_tokens")
    output = count(usage, "completion_tokens")
    if output is None and (total == prompt or not total_tells):
        output = 0  # embeddings have none, and say so by their total
    reasoning = count(written, "reasoning_tokens") or count(usage, "reasoning_tokens") or 0
    cached = (
        count(read, "cached_tokens")
        or count(usage, "prompt_cache_hit_tokens")
        or count(usage, "cached_tokens")
        or 0
    )
    # What the total has beyond the two is one of their parts, told apart by its size.
    if output is not None and total_tells and (beyond := (total or 0) - prompt - output) > 0:
        if beyond == reasoning:
            output += reasoning
        elif beyond == cached:
            prompt += cached
        elif reasoning == 0:
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
    if isinstance(cost, int | float) and not isinstance(cost, bool) and math.isfinite(cost):
        return Decimal(str(cost))
    ticks = count(usage, "cost_in_usd_ticks")
    # Written out, not divided: the app's decimal context has no say in it.
    return None if ticks is None else Decimal(f"{ticks}e-{USD_TICK_DIGITS}")


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
        reading.usage = chat_usage(usage)
        unknown = reading.usage.output_tokens is None
        reading.problem = "usage has no completion_tokens" if unknown else None
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
    some servers leave `[DONE]` out. Usage beside choices is a running total: final at
    `[DONE]`, or at the end once every choice has its `finish_reason`.
    """

    def __init__(self) -> None:
        self._answer = AnswerLength()
        self.reading = Reading(problem=NO_STREAM_USAGE, answer=self._answer)
        self._open_choices: set[object] = set()

    def skips(self, data: bytes) -> bool:
        """Whether there is neither usage nor the end in it, and enough is known so far."""
        answer = self._answer
        if (
            not answer.is_measured
            or b"[DONE]" in data
            or (b'"usage"' in data and _USAGE_OBJECT.search(data) is not None)
            or self.reading.response_id is None
        ):
            return False
        answer.skip(data)
        return True

    def message(self, event: str | None, data: bytes) -> None:
        """Take one chunk."""
        if data == b"[DONE]":
            self.reading.finished = True
        elif self.reading.response_id is None or _has_usage(data):
            body = json_object(data)
            note(self.reading, body)
            take_chat_usage(self.reading, body)
            self._follow_choices(body.get("choices"))
            if self.reading.usage is not None and body.get("choices") == []:
                self.reading.finished = True
        self._answer.read(event, data, sum(len(match[1]) for match in _CONTENT.finditer(data)))

    def end(self) -> None:
        """Take the end of a stream without `[DONE]`: good when every choice has ended."""
        if self.reading.usage is not None and not self._open_choices:
            self.reading.finished = True

    def _follow_choices(self, choices: object) -> None:
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping):
                ended = (
                    self._open_choices.discard
                    if choice.get("finish_reason")
                    else self._open_choices.add
                )
                ended(str(choice.get("index")))


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
