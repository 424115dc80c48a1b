"""Cohere's chat, embeddings, rerank and the rest, in their first and second version.

Shapes: https://docs.cohere.com/reference. Two counts come with a response, and
https://docs.cohere.com/docs/how-does-cohere-pricing-work says which one is charged:
`billed_units`, and not `tokens`, which has those that Cohere adds itself (templates,
special tokens). So `Usage` is what is billed. `cached_tokens` are a part of `tokens`,
are more than the billed input in most answers, and have no price: they are left out.
A rerank is billed by searches, not tokens; a body of the second version names no model.
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
    detail,
    event_type,
    json_object,
    part,
    text,
)

NO_USAGE = "the response carries no billed units"
CUT_SHORT = "the stream ended before its last event, which carries the billed units"
_NO_UNIT_PRICE = ("images", "classifications")


def billed_usage(billed: Json) -> Usage | None:
    """Read `billed_units`; None when they are of a kind that is not counted in a `Usage`.

    Raises:
        UnreadableUsage: when they cannot be what is documented.
    """
    stated, of_text = count(billed, "input_tokens"), count(billed, "text_tokens")
    of_images = count(billed, "image_tokens")
    written = count(billed, "output_tokens")
    units = detail(
        input_image_tokens=of_images,
        rerank_searches=count(billed, "search_units"),
        input_document_pages=count(billed, "pages"),
    )
    read = stated if of_text is None else of_text
    if of_images is not None:
        read = (read or 0) + of_images
    if read is None and written is None and not units:
        return None
    if read is None and written is None:
        read = 0
    return Usage(read, written or 0, detail=units)


def _take(reading: Reading, body: Json) -> None:
    """Take what an answer says of itself: `usage` in the second chat, else `meta`."""
    reading.response_id = text(body, "id") or text(body, "response_id") or reading.response_id
    reading.response_model = text(body, "model") or reading.response_model
    reading.problem = NO_USAGE
    try:
        billed = part(part(body, "usage") or part(body, "meta"), "billed_units")
        reading.usage = billed_usage(billed)
        others = [f"{n} {unit}" for unit in _NO_UNIT_PRICE if (n := count(billed, unit))]
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    if reading.usage is not None:
        known = reading.usage.input_tokens is not None
        reading.problem = None if known else "billed_units has no input_tokens"
    elif others:
        # As far as an estimate goes, too: tokens guessed from bytes are not what is billed.
        reading.unreadable = True
        reading.problem = f"billed by {' and '.join(others)}, for which there is no unit price"


def read(body: Json) -> Reading:
    """Read the answer of any of these APIs."""
    reading = Reading(finished=True)
    _take(reading, body)
    return reading


class ChatStream:
    """Events of the second version, from `message-start` to `message-end`."""

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or event_type(data, _KNOWN)
        if name == "message-end":
            _take(self.reading, part(json_object(data), "delta"))
            self.reading.finished = True
        elif name == "message-start":
            self.reading.response_id = text(json_object(data), "id")
        else:
            _hear(self.reading, data)


class LinesStream:
    """Lines of the first version; the one that `is_finished` holds the whole answer."""

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one line."""
        if _IS_FINISHED.search(data) is not None:
            body = json_object(data)
            if body.get("is_finished") is True:
                _take(self.reading, part(body, "response"))
                self.reading.finished = True
        elif b'"is_finished"' not in data and b'"billed_units"' in data:
            # Not a stream at all, and nothing in the headers said so.
            _take(self.reading, json_object(data))
            self.reading.finished = True
        else:
            _hear(self.reading, data)


def _hear(reading: Reading, data: bytes) -> None:
    for match in _SAID.finditer(data):
        reading.output_bytes += len(match[1])


_KNOWN = re.compile(rb'"type"\s*:\s*"(message-(?:start|end))"')
_IS_FINISHED = re.compile(rb'"is_finished"\s*:\s*true')
_SAID = re.compile(rb'"(?:text|thinking|tool_plan|arguments)"\s*:\s*"((?:[^"\\]|\\.)*)"')


FORMATS = (
    WireFormat(
        api="cohere.chat",
        operation="chat",
        path=re.compile(r"/v2/chat$"),
        read=read,
        stream=ChatStream,
    ),
    WireFormat(
        api="cohere.chat_v1",
        operation="chat",
        path=re.compile(r"/v1/chat$"),
        read=read,
        stream=LinesStream,
        lines=True,
    ),
    WireFormat(
        api="cohere.generate",
        operation="text_completion",
        path=re.compile(r"/v1/generate$"),
        read=read,
        stream=LinesStream,
        lines=True,
    ),
    WireFormat(
        api="cohere.summarize",
        operation="text_completion",
        path=re.compile(r"/v1/summarize$"),
        read=read,
    ),
    WireFormat(
        api="cohere.embed",
        operation="embeddings",
        path=re.compile(r"/v[12]/embed$"),
        read=read,
    ),
    WireFormat(
        api="cohere.rerank",
        operation="rerank",
        path=re.compile(r"/v[12]/rerank$"),
        read=read,
    ),
    WireFormat(
        api="cohere.classify",
        operation="classification",
        path=re.compile(r"/v1/classify$"),
        read=read,
    ),
    WireFormat(
        api="cohere.parse",
        operation="ocr",
        path=re.compile(r"/v2/parse$"),
        read=read,
    ),
)
