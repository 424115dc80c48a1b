"""Hugging Face's text generation server: generate, its stream, and the root of an endpoint.

Shapes: https://huggingface.co/docs/text-generation-inference (its openapi.json). It has
a chat API too, which is OpenAI's. An answer that came as a whole counts its prompt only
in the header `x-prompt-tokens`; a stream does in its last message, as `input_length`.
No answer names the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    add,
    count,
    json_object,
    part,
)

NO_USAGE = "neither the response nor its headers count both prompt and answer"
CUT_SHORT = "the stream ended before the message with its details"
_SENT, _SAID = "x-prompt-tokens", "x-generated-tokens"


def _usage(details: Json) -> Usage | None:
    """Read `details`; the input is None when the prompt is not counted there."""
    prompt, output = count(details, "input_length"), count(details, "generated_tokens")
    prefill = details.get("prefill")
    if prompt is None and isinstance(prefill, list) and prefill:
        prompt = len(prefill)
    return None if output is None else Usage(prompt, output)


def _take(reading: Reading, body: Json) -> None:
    reading.problem = NO_USAGE
    try:
        reading.usage = _usage(part(body, "details"))
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
    if reading.usage is not None and reading.usage.input_tokens is not None:
        reading.problem = None


def read(body: Json) -> Reading:
    """Read an answer."""
    reading = Reading(finished=True)
    _take(reading, body)
    if reading.problem is not None:
        # Nothing rather than a half: the headers may have both counts.
        reading.usage = None
    return reading


def read_array(answers: Sequence[Json]) -> Reading:
    """Read answers in a list, which is how the root of an endpoint gives even one."""
    reading = Reading(finished=True, problem=NO_USAGE)
    for answer in answers:
        one = read(answer)
        if one.usage is None:
            return one
        known = reading.usage
        reading.usage = one.usage if known is None else add(known, one.usage)
        reading.problem = None
    return reading


def read_headers(headers: Mapping[str, str]) -> Usage | None:
    """Read the counts that come as headers, if both do."""
    sent, said = headers.get(_SENT, ""), headers.get(_SAID, "")
    if not (sent.isdecimal() and said.isdecimal()):
        return None
    numbers = {_SENT: int(sent[:20]), _SAID: int(said[:20])}
    return Usage(count(numbers, _SENT), count(numbers, _SAID))


class Stream:
    """A message a token; the last one has the `details`."""

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one message."""
        if _DETAILS.search(data) is not None:
            _take(self.reading, json_object(data))
            self.reading.finished = True
        for match in _TOKEN.finditer(data):
            self.reading.output_bytes += len(match[1])


_DETAILS = re.compile(rb'"details"\s*:\s*\{')
_TOKEN = re.compile(rb'"text"\s*:\s*"((?:[^"\\]|\\.)*)"')


FORMATS = (
    WireFormat(
        api="huggingface.generate",
        operation="text_completion",
        path=re.compile(r"/generate(?:_stream)?$"),
        read=read,
        stream=Stream,
        read_headers=read_headers,
        read_array=read_array,
    ),
    WireFormat(
        api="huggingface.root",
        operation="text_completion",
        path=re.compile(r"^/(?:models/(?P<model>[^/]+(?:/[^/]+)?))?$"),
        read=read,
        stream=Stream,
        read_headers=read_headers,
        read_array=read_array,
    ),
)
