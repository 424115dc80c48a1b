"""Voyage AI's embeddings of text, chunks, images and video, and its rerank.

Shapes: https://docs.voyageai.com/reference. Text is billed by `total_tokens`. Images
and video are billed by pixels and not by tokens (https://docs.voyageai.com/docs/pricing),
while `total_tokens` counts them as one token for 560 pixels: where there are pixels,
the input is `text_tokens`, so that nothing is counted in two units.
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
    part,
    text,
)

NO_USAGE = "the response carries no usage"


def voyage_usage(usage: Json) -> Usage | None:
    """Read a `usage` object; None when it has no tokens.

    Raises:
        UnreadableUsage: when it cannot be what is documented.
    """
    total, of_text = count(usage, "total_tokens"), count(usage, "text_tokens")
    pixels = (count(usage, "image_pixels") or 0) + (count(usage, "video_pixels") or 0)
    if total is not None and of_text is not None and of_text > total:
        raise UnreadableUsage(f"{of_text} text_tokens exceed the {total} total_tokens")
    if pixels and of_text is None:
        raise UnreadableUsage("usage has pixels and no text_tokens")
    read = of_text if pixels else total
    return None if read is None else Usage(read, 0, detail=detail(input_pixels=pixels))


def read(body: Json) -> Reading:
    """Read embeddings or a reranking."""
    reading = Reading(finished=True, problem=NO_USAGE, response_model=text(body, "model"))
    try:
        reading.usage = voyage_usage(part(body, "usage"))
    except UnreadableUsage as error:
        reading.problem = f"unreadable usage: {error}"
    if reading.usage is not None:
        reading.problem = None
    return reading


FORMATS = (
    WireFormat(
        api="voyage.embeddings",
        operation="embeddings",
        path=re.compile(r"/embeddings$"),
        read=read,
    ),
    WireFormat(
        api="voyage.multimodalembeddings",
        operation="embeddings",
        path=re.compile(r"/multimodalembeddings$"),
        read=read,
    ),
    WireFormat(
        api="voyage.contextualizedembeddings",
        operation="embeddings",
        path=re.compile(r"/contextualizedembeddings$"),
        read=read,
    ),
    WireFormat(
        api="voyage.rerank",
        operation="rerank",
        path=re.compile(r"/rerank$"),
        read=read,
    ),
)
