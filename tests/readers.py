"""One entry to all readers, for fuzzing: the first bytes choose the format and framing."""

from __future__ import annotations

from costmw.capture.reading import BodyReader
from costmw.capture.settle import judge
from costmw.providers.registry import FAMILIES

FORMATS = [wire for formats in FAMILIES.values() for wire in formats]
CONTENT_TYPES = [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
    "",
]
ENCODINGS = ["", "", "", "gzip", "deflate"]


def read_fuzzed(data: bytes) -> None:
    """Read a body in two pieces; whatever it is, nothing may be raised."""
    if len(data) < 4:
        return
    wire = FORMATS[data[0] % len(FORMATS)]
    headers = {"content-type": CONTENT_TYPES[data[1] % len(CONTENT_TYPES)]}
    body, cut = data[4:], data[3]
    reader = BodyReader(wire, headers, ENCODINGS[data[2] % len(ENCODINGS)], 1_000_000)
    reader.feed(body[:cut])
    reader.feed(body[cut:])
    reader.end()
    status, reason = judge(reader.reading, "end")
    if status != "ok" and not reason and not reader.reading.not_billed:
        raise AssertionError(f"{wire.api}: {status} without a reason")
