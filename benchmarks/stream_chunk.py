"""One chunk of a stream, identity encoding: the tee against a tee that does nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx2

from benchmarks.measure import compare, main, show
from costmw import Config, Meter

CHUNKS = 400
"""How many more chunks the long stream has than the short one."""

FEW = 10
"""Chunks of the short stream, whose time is what a call costs whatever its length."""


def chunk(text: str) -> bytes:
    """One event of a chat stream."""
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        "usage": None,
    }
    return b"data: " + json.dumps(data).encode() + b"\n\n"


USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9}}\n\n'

REQUEST = {
    "model": "gpt-5-mini",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [],
}


class Served(httpx2.SyncByteStream):
    """A stream of so many chunks, from memory."""

    def __init__(self, chunks: int) -> None:
        self._chunks = [chunk(f" word{n}") for n in range(chunks)]

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        yield USAGE
        yield b"data: [DONE]\n\n"


class BareTee(httpx2.SyncByteStream):
    """Hands every chunk on and does nothing."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            yield self._look(piece)

    def _look(self, piece: bytes) -> bytes:
        return piece

    def close(self) -> None:
        """Close the stream inside."""
        self._inner.close()


class Transport(httpx2.BaseTransport):
    """Answers every request with a stream."""

    def __init__(self, chunks: int) -> None:
        self._stream = Served(chunks)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer, whatever is asked."""
        return httpx2.Response(
            200, headers={"content-type": "text/event-stream"}, stream=self._stream
        )


def drain(client: httpx2.Client, *, tee: bool = False) -> None:
    """Send the request and take every chunk."""
    request = client.build_request(
        "POST", "https://api.openai.com/v1/chat/completions", json=REQUEST
    )
    response = client.send(request, stream=True)
    if tee:
        response.stream = BareTee(response.stream)
    for _ in response.iter_raw():
        pass


def run() -> dict[str, Any]:
    """Time a long and a short stream; by the chunk, the difference is what the tee costs."""
    # Rows go nowhere here, so that the tee alone is timed: nothing waits for a disk.
    meter = Meter("sqlite:///unused.db", config=Config(durability="async"))
    meter.commit_call = lambda *_: None  # type: ignore[method-assign]
    figures: dict[str, Any] = {}
    for chunks in (FEW, FEW + CHUNKS):
        bare = httpx2.Client(transport=Transport(chunks))
        metered = meter.instrument(httpx2.Client(transport=Transport(chunks)))
        medians = compare(
            {
                "bare": partial(drain, bare),
                "a tee that does nothing": partial(drain, bare, tee=True),
                "costmw": partial(drain, metered),
            },
            calls=20,
            rounds=15,
        )
        show(f"a stream of {chunks} chunks", medians, "a tee that does nothing")
        figures[f"{chunks} chunks"] = medians
    short, long = figures.values()
    added = {name: (long[name] - short[name]) / CHUNKS for name in long}
    show("one chunk", added, "a tee that does nothing")
    beyond = added["costmw"] - added["a tee that does nothing"]
    print(f"  costmw adds {beyond:.2f} us a chunk to a tee that does nothing")
    return {**figures, "one chunk": added, "added_us_a_chunk": beyond}


if __name__ == "__main__":
    main("stream_chunk", lambda _: run())
