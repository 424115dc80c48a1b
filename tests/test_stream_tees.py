"""The bodies of requests and aiohttp, read in unusual ways: as without costmw, and metered."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import json
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import pytest
import requests
import urllib3

from conftest import events_of
from costmw import Meter
from costmw.testing.encoding import encoder
from test_sdk_matrix import CHAT, CHAT_USAGE, HELLO, row

pytestmark = pytest.mark.filterwarnings("ignore:unread_data:DeprecationWarning")

# A whole body; a stream whose usage the app asks for; one whose usage chunk is hidden.
MODES: dict[str, dict[str, Any]] = {
    "whole": {},
    "asked": {"stream": True, "stream_options": {"include_usage": True}},
    "hidden": {"stream": True},
}


class Answers(ThreadingHTTPServer):
    """Answers chats, each with the same bytes, and usage where it is due."""

    encoding: str | None = None
    size: int | None = None
    pace = 0.0
    text = "one two three four five"
    verbatim: tuple[str, list[bytes]] | None = None

    def handle_error(self, *_: Any) -> None:
        """Clients leave when they want to."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        hides = self.headers.get("accept-encoding") == "identity"
        encoding = None if hides else self.server.encoding
        coder = encoder(encoding)
        self.send_response(200)
        if encoding:
            self.send_header("content-encoding", encoding)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": self.server.text}
            answer = chat("", [{"index": 0, "message": message}], usage=CHAT_USAGE)
            body = coder.add(answer) + coder.end()
            self.start("application/json", ("content-length", str(len(body))))
            self.wfile.write(body)
            return
        content_type, events = self.server.verbatim or ("text/event-stream", self.events(asked))
        pieces = [*map(coder.add, events), coder.end()]
        if size := self.server.size:
            body = b"".join(pieces)
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
        self.start(content_type, ("transfer-encoding", "chunked"))
        framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
        # At once: what aiohttp tells of chunks depends on how many of them have come.
        framed.append(b"0\r\n\r\n")
        for part in framed if self.server.pace else [b"".join(framed)]:
            self.wfile.write(part)
            time.sleep(self.server.pace)

    def start(self, content_type: str, framing: tuple[str, str]) -> None:
        self.send_header("content-type", content_type)
        self.send_header(*framing)
        self.end_headers()

    def events(self, asked: dict[str, Any]) -> Iterator[bytes]:
        for word in self.server.text.split():
            choice = {"index": 0, "delta": {"content": f"{word} "}}
            yield b"data: %s\n\n" % chat(".chunk", [choice])
        if "stream_options" in asked:
            yield b"data: %s\n\n" % chat(".chunk", [], usage=CHAT_USAGE)
        yield b"data: [DONE]\n\n"

    def log_message(self, *_: Any) -> None:
        pass


def chat(kind: str, choices: list[Any], **more: Any) -> bytes:
    named = {"id": "c1", "object": f"chat.completion{kind}", "created": 1, "model": "gpt-5-mini"}
    return json.dumps({**named, "choices": choices, **more}).encode()


@pytest.fixture
def answers() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request_to(answers: Answers, mode: str) -> dict[str, Any]:
    return {
        "url": f"http://127.0.0.1:{answers.server_port}/v1/chat/completions",
        "json": {"model": "gpt-5-mini", "messages": HELLO, **MODES[mode]},
    }


def check_exact(meter: Meter, calls: int = 1) -> None:
    assert [CHAT] * calls == [row(event) for event in events_of(meter)]
    assert meter.status().faults == 0


# --- aiohttp -------------------------------------------------------------------------------

Content = aiohttp.StreamReader


def with_aiohttp(
    read: Callable[[Any], Awaitable[Any]], meter: Meter, answers: Answers, mode: str
) -> tuple[Any, Any]:
    """What comes of reading the content without costmw, and with."""

    async def run() -> tuple[Any, Any]:
        got = []
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.post(**request_to(answers, mode)) as response:
                    got.append(await read(response.content))
                meter.instrument(session, provider="openai")
        return got[0], got[1]

    return asyncio.run(run())


async def error_of(reading: Awaitable[Any]) -> Any:
    try:
        return await reading
    except Exception as error:
        return type(error).__name__, str(error)[:60]


async def chunks(content: Content) -> Any:
    return [piece async for piece in content.iter_chunks()]


async def chunks_one_by_one(content: Content) -> Any:
    pieces = []
    while (piece := await content.readchunk()) != (b"", False):
        pieces.append(piece)
    return pieces, await content.readchunk(), content.at_eof()


async def chunks_after_bytes(content: Content) -> Any:
    start = await content.read(5), await content.readexactly(3), await content.readexactly(0)
    return start, await chunks(content)


async def nowait(content: Content) -> Any:
    start = await content.read(1), content.read_nowait(3), content.read_nowait(0)
    return start, await content.readexactly(2), content.read_nowait(1), await content.read()


async def unread(content: Content) -> Any:
    start = await content.read(5)
    content.unread_data(start)
    again = await content.read(3)
    content.unread_data(b"more")
    content.unread_data(b"")
    return start, again, await content.readexactly(7), await content.read()


async def unread_chunk(content: Content) -> Any:
    first, _ = await content.readchunk()
    content.unread_data(first)
    return await content.readexactly(len(first)) == first, await content.read()


async def unread_at_the_end(content: Content) -> Any:
    body = await content.read(), content.at_eof()
    content.unread_data(b"line\nrest")
    assert not content.at_eof()
    return body, await content.readline(), await content.read(), content.at_eof()


async def nothing(content: Content) -> Any:
    none: Any = None
    return await content.read(none), await content.read(0), await content.read()


async def is_a_stream_reader(content: Content) -> Any:
    return isinstance(content, aiohttp.StreamReader), await content.read()


async def without_a_separator(content: Content) -> Any:
    return await error_of(content.readuntil(b"")), await content.read()


async def too_short(content: Content) -> Any:
    start = await content.readexactly(3)
    try:
        await content.readexactly(100_000)
    except asyncio.IncompleteReadError as error:
        return start, error.partial, error.expected


@pytest.mark.parametrize("encoding", [None, "gzip"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "read",
    [
        chunks,
        chunks_one_by_one,
        chunks_after_bytes,
        nowait,
        unread,
        unread_chunk,
        unread_at_the_end,
        nothing,
        is_a_stream_reader,
        without_a_separator,
        too_short,
    ],
)
def test_aiohttp(
    read: Any, mode: str, encoding: str | None, meter: Meter, answers: Answers
) -> None:
    if mode == "hidden" and read is chunks_after_bytes:
        pytest.skip("what is left of bytes that were held back has lost its chunk")
    answers.encoding = encoding
    bare, metered = with_aiohttp(read, meter, answers, mode)
    assert metered == bare
    check_exact(meter)


@pytest.mark.parametrize("size", [13, 300])
@pytest.mark.parametrize("read", [nowait, unread, chunks_after_bytes, too_short])
def test_aiohttp_where_bytes_are_held_back(
    read: Any, size: int, meter: Meter, answers: Answers
) -> None:
    answers.size = size
    bare, metered = with_aiohttp(read, meter, answers, "hidden")
    if read is chunks_after_bytes:
        bare, metered = ((start, b"".join(dict(rest))) for start, rest in (bare, metered))
    assert metered == bare
    check_exact(meter)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [-1, 5, 0])
def test_aiohttp_read_after_it_was_closed(
    first: int, mode: str, meter: Meter, answers: Answers
) -> None:
    async def read(content: Any) -> list[Any]:
        await content.read(first)
        # As the response does when it is closed.
        content.set_exception(aiohttp.ClientConnectionError("Connection closed"))
        readings = (
            content.read(),
            content.read(0),
            content.read(3),
            content.readany(),
            content.readline(),
            content.readuntil(b"x"),
            content.readexactly(3),
            content.readchunk(),
            anext(content.iter_any()),
        )
        return [await error_of(reading) for reading in readings]

    bare, metered = with_aiohttp(read, meter, answers, mode)
    assert metered == bare == [("ClientConnectionError", "Connection closed")] * 9
    assert len(events_of(meter)) == 1


def test_a_closed_response_of_aiohttp_is_not_read(meter: Meter, answers: Answers) -> None:
    async def run() -> None:
        async with meter.instrument(aiohttp.ClientSession(), provider="openai") as session:
            async with session.post(**request_to(answers, "whole")) as response:
                await response.content.read()
                response.close()
                with pytest.raises(aiohttp.ClientConnectionError):
                    await response.content.read()

    asyncio.run(run())
    check_exact(meter)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    "read",
    [
        lambda content: content.readline(),
        lambda content: content.readline(max_line_length=50),
        lambda content: content.readuntil(b"\n\n"),
        lambda content: content.readuntil(b"xyz", max_size=99_999),
        lambda content: anext(aiter(content)),
    ],
)
def test_aiohttp_lines_without_an_end(
    read: Any, content_type: str, meter: Meter, answers: Answers
) -> None:
    async def error(content: Content) -> Any:
        return await error_of(read(content))

    answers.verbatim = content_type, [b"data: "] + [b"x" * 1_000_000] * 8
    bare, metered = with_aiohttp(error, meter, answers, "hidden")
    assert metered == bare
    assert metered[0] == "LineTooLong"
    assert len(events_of(meter)) == 1
    assert meter.status().faults == 0


@pytest.mark.parametrize("mode", ["asked", "hidden"])
def test_aiohttp_lines_that_are_long_enough(mode: str, meter: Meter, answers: Answers) -> None:
    """What counts is a line's length, not an event's; after one too long it goes on."""

    async def read(content: Content) -> Any:
        lines = [len(await content.readline()) for _ in range(5)]
        too_long = await error_of(content.readline(max_line_length=9))
        return lines, too_long, await content.readline(), await content.read()

    event = [b": " + b"x" * 300_000 + b"\n"] * 4 + [b"\n", b"data: 1234\n", b"\n", b"data: 2\n\n"]
    answers.verbatim = "text/event-stream", event
    bare, metered = with_aiohttp(read, meter, answers, mode)
    assert metered == bare
    assert metered[0] == [300_003] * 4 + [1]


@pytest.mark.parametrize("mode", ["asked", "hidden"])
@pytest.mark.parametrize("way", ["iter_any", "iter_chunks", "__aiter__"])
def test_an_iterator_of_aiohttp_goes_on_after_a_timeout(
    way: str, mode: str, meter: Meter, answers: Answers
) -> None:
    async def read(content: Content) -> Any:
        body, cuts = b"", 0
        coming = aiter(getattr(content, way)())
        while True:
            try:
                async with asyncio.timeout(0.015):
                    piece = await anext(coming)
                    body += piece[0] if way == "iter_chunks" else piece
            except TimeoutError:
                cuts += 1
            except StopAsyncIteration:
                return body, cuts > 0

    answers.pace = 0.05
    bare, metered = with_aiohttp(read, meter, answers, mode)
    assert metered == bare
    assert metered[1]
    assert ["incomplete"] == [event.status for event in events_of(meter)]


@pytest.mark.parametrize("mode", ["asked", "hidden"])
@pytest.mark.parametrize("start", ["read()", "readexactly(9999)", "readuntil(b'DONE')"])
def test_what_a_timeout_cuts_is_read_later(
    start: str, mode: str, meter: Meter, answers: Answers
) -> None:
    """aiohttp itself loses what a cut reading had; that need not be copied."""

    async def read(content: Any) -> Any:
        begun = {
            "read()": lambda: content.read(),
            "readexactly(9999)": lambda: content.readexactly(9999),
            "readuntil(b'DONE')": lambda: content.readuntil(b"DONE"),
        }[start]
        if answers.pace:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await begun()
        answers.pace = 0.1
        return await content.read()

    bare, metered = with_aiohttp(read, meter, answers, mode)
    assert metered == bare
    assert ["incomplete"] == [event.status for event in events_of(meter)]


@pytest.mark.parametrize("read", ["readexactly", "read", "read_nowait"])
def test_the_last_bytes_of_aiohttp_come_with_the_row(
    read: str, meter: Meter, answers: Answers
) -> None:
    """The number of bytes is known: nobody asks for the end."""

    async def run() -> None:
        async with meter.instrument(aiohttp.ClientSession(), provider="openai") as session:
            async with session.post(**request_to(answers, "whole")) as response:
                content, length = response.content, int(response.headers["content-length"])
                if read == "read_nowait":
                    assert len(await content.read(1) + content.read_nowait(length - 1)) == length
                else:
                    assert len(await getattr(content, read)(length)) == length
                check_exact(meter)

    asyncio.run(run())
    check_exact(meter)


# --- requests ------------------------------------------------------------------------------


def with_requests(
    read: Callable[[Any], Any], meter: Meter, answers: Answers, mode: str
) -> tuple[Any, Any]:
    """What comes of reading the raw body without costmw, and with."""
    got = []
    with requests.Session() as session:
        for _ in range(2):
            with session.post(**request_to(answers, mode), stream=True) as response:
                response.raw.decode_content = True
                got.append(read(response.raw))
            meter.instrument(session, provider="openai")
    return got[0], got[1]


def joined(pieces: list[bytes], size: int, *, exact: bool = False) -> bytes:
    assert all(0 < len(piece) <= size for piece in pieces)
    assert not exact or {size} >= {len(piece) for piece in pieces[:-1]}
    return b"".join(pieces)


def copied(raw: Any) -> Any:
    whole = io.BytesIO()
    shutil.copyfileobj(raw, whole, 1000)
    return whole.getvalue(), raw.read(5), raw.read(), raw.read1()


def into_a_memoryview(raw: Any) -> Any:
    buffer, pieces = bytearray(512), []
    while size := raw.readinto(memoryview(buffer)):
        pieces.append(bytes(buffer[:size]))
    return joined(pieces, 512, exact=True)


def by_512(raw: Any) -> Any:
    return joined(list(iter(lambda: raw.read(512), b"")), 512, exact=True)


def by_1(raw: Any) -> Any:
    return joined(list(iter(lambda: raw.read(1), b"")), 1, exact=True)


def as_it_comes(raw: Any) -> Any:
    return joined(list(iter(lambda: raw.read1(512), b"")), 512)


def all_that_came(raw: Any) -> Any:
    return b"".join(iter(raw.read1, b"")), raw.read1(-1), raw.read1(0)


def streamed_by_100(raw: Any) -> Any:
    return b"".join(raw.stream(100, decode_content=True))


def streamed_whole(raw: Any) -> Any:
    return b"".join(raw.stream(None, decode_content=True)), list(raw.stream())


def in_no_pieces(raw: Any) -> Any:
    return list(raw.stream(0)), raw.read(0), raw.read(-1), raw.read(-1)


def buffered(raw: Any) -> Any:
    raw.auto_close = False
    with io.BufferedReader(raw) as reader:
        return list(reader), raw.closed


def as_text(raw: Any) -> Any:
    raw.auto_close = False
    return list(io.TextIOWrapper(raw, encoding="utf-8"))


def data(raw: Any) -> Any:
    return raw.data, raw.data, raw.read()


def data_of_the_rest(raw: Any) -> Any:
    return raw.read(5), raw.data, raw.data


def cached(raw: Any) -> Any:
    return raw.read(cache_content=True), raw.data, raw.read()


def as_json(raw: Any) -> Any:
    try:
        return raw.json()
    except ValueError as error:
        return str(error)


def line_by_line(raw: Any) -> Any:
    start = raw.readline(4), raw.readline(0), raw.readline()
    return start, list(iter(raw.readline, b"")), raw.readline(None)


def lines(raw: Any) -> Any:
    return raw.readlines()


def lines_up_to_a_hint(raw: Any) -> Any:
    return raw.readlines(9999)


def next_by_next(raw: Any) -> Any:
    return next(raw), list(iter(lambda: next(raw, None), None))


def drained(raw: Any) -> Any:
    return raw.drain_conn(), raw.read(), raw.isclosed(), raw.closed


def drained_half(raw: Any) -> Any:
    return raw.read(5), raw.drain_conn(), raw.isclosed()


def drained_half_undecoded(raw: Any) -> Any:
    return len(raw.read(5, decode_content=False)), raw.drain_conn(), raw.isclosed()


def undecoded(raw: Any) -> Any:
    return b"".join(iter(lambda: raw.read(100, decode_content=False), b""))[:3]


def chunked(raw: Any) -> Any:
    try:
        return b"".join(raw.read_chunked(decode_content=True))
    except urllib3.exceptions.ResponseNotChunked as error:
        return str(error), raw.read()


def chunked_as_they_are(raw: Any) -> Any:
    return b"".join(raw.stream())[:2]


def its_kinds(raw: Any) -> Any:
    is_one = isinstance(raw, io.IOBase), isinstance(raw, urllib3.response.BaseHTTPResponse)
    return is_one, raw.readable(), raw.status, raw.closed, raw.isclosed(), raw.read(), raw.closed


SYNC = [
    copied,
    into_a_memoryview,
    by_512,
    by_1,
    as_it_comes,
    all_that_came,
    streamed_by_100,
    streamed_whole,
    in_no_pieces,
    buffered,
    as_text,
    data,
    data_of_the_rest,
    cached,
    as_json,
    line_by_line,
    lines,
    lines_up_to_a_hint,
    next_by_next,
    drained,
    drained_half,
    drained_half_undecoded,
    undecoded,
    chunked,
    chunked_as_they_are,
    its_kinds,
]


@pytest.mark.parametrize("encoding", [None, "gzip", "br", "zstd", "deflate"])
@pytest.mark.parametrize("mode", ["whole", "asked"])
@pytest.mark.parametrize("read", SYNC)
def test_requests(
    read: Any, mode: str, encoding: str | None, meter: Meter, answers: Answers
) -> None:
    answers.encoding = encoding
    answers.text = "one two three four five " * 10
    bare, metered = with_requests(read, meter, answers, mode)
    assert metered == bare
    check_exact(meter)


@pytest.mark.parametrize("size", [None, 13, 700])
@pytest.mark.parametrize("read", SYNC)
def test_requests_where_bytes_are_held_back(
    read: Any, size: int | None, meter: Meter, answers: Answers
) -> None:
    answers.size = size
    bare, metered = with_requests(read, meter, answers, "hidden")
    assert metered == bare
    check_exact(meter)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("read", [copied, by_512, as_it_comes, drained_half])
def test_a_long_body_of_a_known_length_that_is_decoded(
    read: Any, encoding: str, meter: Meter, answers: Answers
) -> None:
    """All of the bytes have come long before all that they decode to is read."""
    answers.text, answers.encoding = "hello " * 60_000, encoding
    bare, metered = with_requests(read, meter, answers, "whole")
    assert metered == bare
    check_exact(meter)


@pytest.mark.parametrize("size", [7, 512])
@pytest.mark.parametrize("chunk", [29, 900])
def test_requests_gives_pieces_of_the_size_asked_for(
    chunk: int, size: int, meter: Meter, answers: Answers
) -> None:
    answers.size = chunk
    with meter.instrument(requests.Session(), provider="openai") as session:
        with session.post(**request_to(answers, "hidden"), stream=True) as response:
            assert joined(list(response.iter_content(size)), size).endswith(b"[DONE]\n\n")
    check_exact(meter)


@pytest.mark.parametrize("how", ["read", "stream"])
def test_the_last_bytes_of_requests_come_with_the_row(
    how: str, meter: Meter, answers: Answers
) -> None:
    with meter.instrument(requests.Session(), provider="openai") as session:
        with session.post(**request_to(answers, "whole"), stream=True) as response:
            length = int(response.headers["content-length"])
            raw = response.raw
            assert len(raw.read(length) if how == "read" else next(raw.stream(length))) == length
            check_exact(meter)


def test_what_is_left_of_a_closed_body_is_not_given(meter: Meter, answers: Answers) -> None:
    with meter.instrument(requests.Session(), provider="openai") as session:
        with session.post(**request_to(answers, "hidden"), stream=True) as response:
            raw = response.raw
            assert raw.read1(5) == b"data:"
    assert raw.read() == raw.read1() == raw.read(3) == b""
    assert list(raw.stream()) == []
    assert raw.closed
    assert ["incomplete"] == [event.status for event in events_of(meter)]


# --- copies --------------------------------------------------------------------------------


def test_a_copy_of_a_stream_is_read_and_dropped_without_harm(
    meter: Meter, answers: Answers
) -> None:
    with meter.instrument(requests.Session(), provider="openai") as session:
        with session.post(**request_to(answers, "whole"), stream=True) as response:
            copied = copy.copy(response.raw)
            start = copied.read(5)
            del copied
            gc.collect()
            assert json.loads(start + response.raw.read())["id"] == "c1"
            assert not hasattr(object.__new__(type(response.raw)), "anything")

    async def run() -> None:
        async with meter.instrument(aiohttp.ClientSession(), provider="openai") as session:
            async with session.post(**request_to(answers, "whole")) as response:
                copied = copy.copy(response.content)
                start = await copied.read(5)
                del copied
                gc.collect()
                assert json.loads(start + await response.read())["id"] == "c1"

    asyncio.run(run())
    check_exact(meter, calls=2)
