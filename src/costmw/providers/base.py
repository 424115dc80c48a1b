"""What every wire format gives: a reader for JSON bodies and one for streams.

`api` is the wire format (`openai.chat`), `provider` is who bills (`openai`,
`azure.ai.openai`); many providers speak the same format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable

from pydantic_core import from_json

from costmw.events import NOTHING, Usage
from costmw.providers.known import Provider

Json = Mapping[str, Any]

MAX_COUNT = 10**12
"""More tokens than any call can use: a larger count is damage, not usage."""


class UnreadableUsage(ValueError):
    """The response has usage that cannot be what the provider documents."""


ENVELOPES_MEASURED = 8


class AnswerLength:
    """How long an answer is, from messages of which most are not read.

    The first few are: what they have beside the answer, their envelope, is the same in
    all that follow.
    """

    def __init__(self) -> None:
        self.is_measured = False
        """Whether enough messages were read to know their envelope."""
        self._measured = 0
        self._envelopes = 0
        self._read = 0
        self._skipped_bytes = 0
        self._skipped = 0

    def read(self, event: str | None, data: bytes, answer_bytes: int) -> None:
        """A message with so many bytes of the answer."""
        self._read += answer_bytes
        # As it came: "data: " and the blank line, and "event: " with its name and end.
        framing = 8 if event is None else 16 + len(event)
        if answer_bytes:
            self._measured += 1
            self.is_measured = self._measured >= ENVELOPES_MEASURED
            self._envelopes += len(data) + framing - answer_bytes

    def skip(self, data: bytes) -> None:
        """Whole events as they came, unread."""
        self._skipped_bytes += len(data)
        self._skipped += data.count(b"data:")

    @property
    def bytes(self) -> int:
        """The answer's length so far."""
        if not self._skipped:
            return self._read
        envelope = self._envelopes / max(self._measured, 1)
        return self._read + max(int(self._skipped_bytes - self._skipped * envelope), 0)


@dataclass(slots=True)
class Reading:
    """What a response says of itself, as far as it has been read.

    `finished` is True once the protocol's own end was seen (for a JSON body, once it
    was parsed). `price_context` are the facts that choose a price, such as the
    `service_tier` charged. `cost_usd` is the provider's own figure, where it gives one.
    `side_usage` is what other models used on behalf of this one, each at its own price.
    `notes` name what is billed beside the usage, and missing in it. `problem` says why
    usage is missing or cannot be read. `unreadable` is True when the bytes themselves
    made no sense, so that nothing more can come of them. `output_bytes` counts the
    answer's text as far as it came, for an estimate where usage is missing; `answer`
    does in streams.

    `result_id` is set where the same result can be read again, by polling or from a
    batch: whoever reads it, it is one row. `pending` says that it is not there yet;
    `also_known_as` are other ids that the provider gives the same submission.
    `not_billed` that this exchange charges nothing. `parts` are the results of a batch.
    """

    usage: Usage | None = None
    response_model: str | None = None
    response_id: str | None = None
    price_context: dict[str, str] = field(default_factory=dict)
    cost_usd: Decimal | None = None
    side_usage: list[tuple[str, Usage]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: bool = False
    unreadable: bool = False
    problem: str | None = None
    output_bytes: int = 0
    answer: AnswerLength | None = None
    result_id: str | None = None
    pending: bool = False
    also_known_as: list[str] = field(default_factory=list)
    not_billed: bool = False
    parts: list[Reading] = field(default_factory=list)


def answer_bytes(reading: Reading) -> int:
    """How long the answer is, as far as it came."""
    return reading.answer.bytes if reading.answer is not None else reading.output_bytes


class StreamReader(Protocol):
    """Reads a stream message by message; must be cheap for messages without usage."""

    reading: Reading

    def message(self, event: str | None, data: bytes) -> None:
        """Take one message: its event name, if the framing has one, and its data."""


@runtime_checkable
class EndingReader(StreamReader, Protocol):
    """A stream reader for which the end of the body says something."""

    def end(self) -> None:
        """Take the end of the body."""


@runtime_checkable
class SelectiveReader(StreamReader, Protocol):
    """A stream reader that can tell from raw bytes that there is nothing to read in them."""

    def skips(self, data: bytes) -> bool:
        """Whether whole messages, as they came, hold nothing to read; takes note of them then."""


class NoStream:
    """The stream reader of APIs that are not documented to stream."""

    def __init__(self) -> None:
        self.reading = Reading(problem="this API is not known to stream")

    def message(self, event: str | None, data: bytes) -> None:
        """Take nothing from it."""


@dataclass(frozen=True, slots=True)
class WireFormat:
    """One API of one format family.

    `path` matches the end of a request's path; a group named `model` is the model
    (percent-encoded) where the path has it, a group named `submission` the id under
    which the results were asked for. `read` takes a JSON object, `read_array` a JSON
    array of objects where the provider may stream as one. `stream` makes a reader for
    messages. `read_headers` takes the response's headers (lower-case names) for APIs
    that report usage there, which then wins over the body's; `read_request` the JSON
    that was sent, for APIs that bill by what is sent and answer with something else
    than JSON. `lines` says that a stream is one JSON object a line. `include_usage`
    says that a stream carries usage only when the request asks by
    `stream_options.include_usage`.
    """

    api: str
    operation: str
    path: re.Pattern[str]
    read: Callable[[Json], Reading]
    stream: Callable[[], StreamReader] = NoStream
    read_headers: Callable[[Mapping[str, str]], Usage | None] | None = None
    read_request: Callable[[Json], Usage | None] | None = None
    read_array: Callable[[Sequence[Json]], Reading] | None = None
    lines: bool = False
    include_usage: bool = False
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Match:
    """The format of an exchange and who bills it; no provider when the host is unknown.

    `model` is the model that the path names, where it does, and `submission` the id
    under which the results were asked for.
    """

    format: WireFormat
    provider: Provider | None
    model: str | None = None
    submission: str | None = None


def json_object(data: bytes) -> Json:
    """Parse the data of one message; an empty object when it is JSON of another kind.

    Raises:
        ValueError: when it is not JSON.
    """
    body = parse_json(data)
    return body if isinstance(body, dict) else NOTHING


def parse_json(data: bytes) -> Any:
    """Parse JSON; also with lone surrogates, which Python's own parser takes.

    Raises:
        ValueError: when it is not JSON.
    """
    try:
        return from_json(data)
    except ValueError:
        if b"\\u" not in data:
            raise
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("too deeply nested") from None


def count(usage: Json, key: str) -> int | None:
    """Read a number of tokens; None when absent or null.

    Raises:
        UnreadableUsage: for anything but a whole number from 0 to `MAX_COUNT`.
    """
    value = usage.get(key)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise UnreadableUsage(f"{key} is {str(value)[:40]!r}, not a number of tokens")
    return value


def part(usage: Json, key: str) -> Json:
    """Read a nested object of counts; an empty one when absent or null.

    Raises:
        UnreadableUsage: when it is something else than an object.
    """
    value = usage.get(key)
    if value is None:
        return NOTHING
    if not isinstance(value, Mapping):
        raise UnreadableUsage(f"{key} is {type(value).__name__}, not an object")
    return value


def text(body: Json, key: str) -> str | None:
    """Read a short text such as a model or an id; None when it is anything else."""
    value = body.get(key)
    return storable(value) if isinstance(value, str) and value else None


def storable(name: str) -> str:
    """A name that every store can take: at most 256 characters, no halves of surrogate pairs."""
    return name[:256].encode("utf-8", "replace").decode("utf-8")


def add(first: Usage, second: Usage) -> Usage:
    """The sum of two usages; what one of them does not know, neither does the sum."""

    def total(a: int | None, b: int | None) -> int | None:
        return None if a is None or b is None else a + b

    names = {*first.detail, *second.detail}
    return Usage(
        total(first.input_tokens, second.input_tokens),
        total(first.output_tokens, second.output_tokens),
        first.cache_read_input_tokens + second.cache_read_input_tokens,
        first.cache_write_input_tokens + second.cache_write_input_tokens,
        first.reasoning_output_tokens + second.reasoning_output_tokens,
        {name: first.detail.get(name, 0) + second.detail.get(name, 0) for name in names} or NOTHING,
    )


def check(usage: Usage) -> Usage:
    """Refuse usage whose parts exceed the whole.

    Raises:
        UnreadableUsage: naming the part.
    """
    cached = usage.cache_read_input_tokens + usage.cache_write_input_tokens
    if usage.input_tokens is not None and cached > usage.input_tokens:
        raise UnreadableUsage(
            f"{cached} cached input tokens exceed the {usage.input_tokens} input tokens"
        )
    if usage.output_tokens is not None and usage.reasoning_output_tokens > usage.output_tokens:
        raise UnreadableUsage(
            f"{usage.reasoning_output_tokens} reasoning tokens exceed "
            f"the {usage.output_tokens} output tokens"
        )
    return usage


def event_type(data: bytes, known: re.Pattern[bytes]) -> str | None:
    """The `type` of a message that came without an event name, if it is one of `known`."""
    match = known.search(data)
    return match[1].decode() if match else None


def text_bytes(value: object) -> int:
    """How long a text is, in bytes of UTF-8; 0 for anything else."""
    return len(value.encode("utf-8", "replace")) if isinstance(value, str) else 0


def detail(**counts: int | None) -> Mapping[str, int]:
    """Keep the counts that are there and not 0."""
    return {key: value for key, value in counts.items() if value} or NOTHING
