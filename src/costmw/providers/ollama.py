"""Ollama's own API: chat, generate and embed.

Shapes: https://docs.ollama.com/api and /api/usage. A stream is one JSON object a line,
and the line that is `done` counts; fields that are 0 are left out. Since July 2024
`prompt_eval_count` is the whole prompt; before, it left out what was still in the
cache, and was missing when all of it was, so that then the input is not known.
"""

from __future__ import annotations

import re

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    check,
    count,
    json_object,
    text,
)

NO_USAGE = "the response carries no counts"
CACHED = "the response has no prompt_eval_count: this server leaves it out for a cached prompt"
CUT_SHORT = "the stream ended before the line that is done"
NO_EMBEDDINGS_USAGE = "api/embeddings reports no usage: api/embed does"
_NOTHING_RUN = ("load", "unload")


def _take(reading: Reading, body: Json) -> None:
    try:
        asked, said = count(body, "prompt_eval_count"), count(body, "eval_count")
        cached = count(body, "prompt_eval_cached_count") or 0
        if body.get("done_reason") in _NOTHING_RUN:
            asked, said = asked or 0, said or 0
        elif asked is not None:
            said = said or 0
        usage = check(Usage(asked, said, cache_read_input_tokens=cached))
    except UnreadableUsage as error:
        reading.usage, reading.problem = None, f"unreadable usage: {error}"
        return
    if asked is None and said is None:
        reading.problem = NO_USAGE
        return
    reading.usage, reading.problem = usage, CACHED if asked is None else None


def read(body: Json) -> Reading:
    """Read an answer of chat, generate or embed that came as a whole."""
    reading = Reading(finished=True, response_model=text(body, "model"))
    _take(reading, body)
    return reading


class Stream:
    """Lines up to the one that is `done`, or only that one: no header need tell them apart."""

    def __init__(self) -> None:
        self.reading = Reading(problem=CUT_SHORT)

    def message(self, event: str | None, data: bytes) -> None:
        """Take one line."""
        if self.reading.response_model is None or _DONE.search(data) is not None:
            body = json_object(data)
            self.reading.response_model = text(body, "model") or self.reading.response_model
            if body.get("done") is True:
                _take(self.reading, body)
                self.reading.finished = True
        for match in _SAID.finditer(data):
            self.reading.output_bytes += len(match[1])


_DONE = re.compile(rb'"done"\s*:\s*true')
_SAID = re.compile(rb'"(?:content|response|thinking)"\s*:\s*"((?:[^"\\]|\\.)*)"')


def read_embeddings(body: Json) -> Reading:
    """Read an answer of the older embeddings API, which counts nothing."""
    return Reading(finished=True, problem=NO_EMBEDDINGS_USAGE)


FORMATS = (
    WireFormat(
        api="ollama.chat",
        operation="chat",
        path=re.compile(r"/api/chat$"),
        read=read,
        stream=Stream,
        lines=True,
    ),
    WireFormat(
        api="ollama.generate",
        operation="text_completion",
        path=re.compile(r"/api/generate$"),
        read=read,
        stream=Stream,
        lines=True,
    ),
    WireFormat(
        api="ollama.embed",
        operation="embeddings",
        path=re.compile(r"/api/embed$"),
        read=read,
    ),
    WireFormat(
        api="ollama.embeddings",
        operation="embeddings",
        path=re.compile(r"/api/embeddings$"),
        read=read_embeddings,
    ),
)
