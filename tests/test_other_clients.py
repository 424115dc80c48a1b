"""requests and aiohttp: the same bytes with and without costmw, however they are read."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import requests

from conftest import events_of, outcomes_of
from costmw import Config, Meter
from costmw.events import UsageEvent
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import CHAT, CHAT_USAGE, HELLO, MESSAGE, MESSAGE_USAGE, closed_port

MESSAGES = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": HELLO}
CHATS = {"model": "gpt-5-mini", "messages": HELLO}


def row(event: UsageEvent) -> tuple[int | None, int | None, int | None]:
    return event.usage.input_tokens, event.usage.output_tokens, event.price.cost_pico_usd


def stable(body: bytes | str) -> bytes:
    """A body without what differs from one answer to the next, or since usage was asked for."""
    if isinstance(body, str):
        body = body.encode()
    body = re.sub(rb'"(id|created|system_fingerprint)":("[^"]*"|\d+)', b"", body)
    return body.replace(b',"usage":null', b"")


def requests_whole(session: requests.Session, url: str, body: Any) -> bytes:
    return session.post(url, json=body).content


def requests_text(session: requests.Session, url: str, body: Any) -> bytes:
    return session.post(url, data=json.dumps(body)).text.encode()


def requests_pieces(session: requests.Session, url: str, body: Any) -> bytes:
    with session.post(url, json=body, stream=True) as response:
        return b"".join(response.iter_content(7))


def requests_as_it_comes(session: requests.Session, url: str, body: Any) -> bytes:
    with session.post(url, json=body, stream=True) as response:
        return b"".join(response.iter_content(None))


def requests_lines(session: requests.Session, url: str, body: Any) -> bytes:
    with session.post(url, json=body, stream=True) as response:
        return b"\n".join(response.iter_lines())


def requests_late_content(session: requests.Session, url: str, body: Any) -> bytes:
    return session.post(url, json=body, stream=True).content


def raw_lines(session: requests.Session, url: str, body: Any) -> bytes:
    with session.post(url, json=body, stream=True) as response, response.raw as raw:
        return b"".join(raw)


def raw_read(session: requests.Session, url: str, body: Any) -> bytes:
    with session.post(url, json=body, stream=True) as response:
        response.raw.decode_content = True
        return response.raw.read(5) + response.raw.read(0) + response.raw.read()


def raw_readinto(session: requests.Session, url: str, body: Any) -> bytes:
    taken = b""
    with session.post(url, json=body, stream=True) as response:
        response.raw.decode_content = True
        buffer = bytearray(64)
        while size := response.raw.readinto(buffer):
            taken += bytes(buffer[:size])
        assert response.raw.read1(9) == b""
    return taken


async def aiohttp_whole(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        return await response.read()


async def aiohttp_text(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    response = await session.post(url, data=json.dumps(body).encode())
    return (await response.text()).encode()


async def aiohttp_lines(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        return b"".join([line async for line in response.content])


async def aiohttp_pieces(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        return b"".join([piece async for piece in response.content.iter_chunked(7)])


async def aiohttp_any(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        return b"".join([piece async for piece in response.content.iter_any()])


async def aiohttp_chunks(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        return b"".join([piece async for piece, _ in response.content.iter_chunks()])


async def aiohttp_until(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        head = await response.content.readexactly(3) + await response.content.readuntil(b'"')
        rest = await response.content.read()
        assert response.content.at_eof()
        assert await response.content.read() == b""
        return head + rest


async def aiohttp_too_much(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        with pytest.raises(asyncio.IncompleteReadError) as error:
            await response.content.readexactly(10**6)
        return error.value.partial


async def aiohttp_nowait(session: aiohttp.ClientSession, url: str, body: Any) -> bytes:
    async with session.post(url, json=body) as response:
        taken = b""
        while not response.content.at_eof():
            taken += response.content.read_nowait() or await response.content.read(1)
        return taken


SYNC: list[Callable[..., bytes]] = [
    requests_whole,
    requests_text,
    requests_pieces,
    requests_as_it_comes,
    requests_lines,
    requests_late_content,
    raw_lines,
    raw_read,
    raw_readinto,
]
ASYNC: list[Callable[..., Awaitable[bytes]]] = [
    aiohttp_whole,
    aiohttp_text,
    aiohttp_lines,
    aiohttp_pieces,
    aiohttp_any,
    aiohttp_chunks,
    aiohttp_until,
    aiohttp_too_much,
    aiohttp_nowait,
]


def bare_and_metered(
    way: Callable[..., Any], instrument: Callable[[Any], object], url: str, body: Any
) -> tuple[bytes, bytes]:
    """What a way of reading gives without costmw, and with."""
    if way in SYNC:
        with requests.Session() as session:
            bare = way(session, url, body)
            instrument(session)
            return bare, way(session, url, body)

    async def run() -> tuple[bytes, bytes]:
        async with aiohttp.ClientSession() as session:
            bare = await way(session, url, body)
            instrument(session)
            return bare, await way(session, url, body)

    return asyncio.run(run())


@pytest.mark.parametrize("encoding", [None, "gzip", "br", "zstd"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", [*SYNC, *ASYNC], ids=lambda way: way.__name__)
def test_every_way_of_reading_gives_the_same_and_is_read_exactly(
    way: Callable[..., Any],
    streamed: bool,
    encoding: str | None,
    meter: Meter,
    provider: FakeProvider,
) -> None:
    provider.default = Reply(usage=MESSAGE_USAGE, encoding=encoding, chunk_bytes=37)
    bare, metered = bare_and_metered(
        way,
        lambda session: meter.instrument(session, provider="anthropic"),
        f"{provider.anthropic_url}/v1/messages",
        {**MESSAGES, "stream": streamed},
    )
    assert stable(metered) == stable(bare)
    assert len(metered) > 100
    assert [MESSAGE] == [row(event) for event in events_of(meter)]
    assert meter.status().faults == 0


@pytest.mark.parametrize("way", [*SYNC[2:], *ASYNC], ids=lambda way: way.__name__)
def test_a_chat_stream_is_asked_for_usage_and_looks_as_if_it_were_not(
    way: Callable[..., Any], meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=CHAT_USAGE, text="one two three", chunk_bytes=29)
    bare, metered = bare_and_metered(
        way,
        lambda session: meter.instrument(session, provider="openai"),
        f"{provider.openai_url}/chat/completions",
        {**CHATS, "stream": True},
    )
    assert stable(metered) == stable(bare)
    assert b'"choices":[]' not in metered
    assert [CHAT] == [row(event) for event in events_of(meter)]
    asked = provider.requests[-1]
    assert asked.json["stream_options"] == {"include_usage": True}
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["content-type"] == provider.requests[0].headers["content-type"]


@pytest.mark.parametrize("library", ["requests", "aiohttp"])
@pytest.mark.parametrize("everything", [False, True])
def test_edges(
    library: str, everything: bool, make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    """Errors, redirects, cut, abandoned and refused calls: one row each, or an outcome."""
    refused = f"127.0.0.1:{closed_port()}"
    hosts = {provider.url.removeprefix("http://"): "anthropic", refused: "anthropic"}
    meter = make_meter(config=Config(ack_timeout=30, hosts=hosts))
    url = f"{provider.url}/v1/messages"
    if everything:
        meter.instrument_all()

    def prepared(session: Any) -> Any:
        return session if everything else meter.instrument(session)

    def run_requests() -> None:
        with prepared(requests.Session()) as session:
            assert session.post(url, json=MESSAGES).status_code == 429
            redirected = session.post(url, json=MESSAGES)
            assert len(redirected.history) == 1
            assert redirected.ok
            assert session.get(f"{provider.url}/v1/models").ok
            with pytest.raises(requests.exceptions.ConnectionError):
                session.post(f"http://{refused}/v1/messages", json=MESSAGES)
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                session.post(url, json={**MESSAGES, "stream": True}, stream=True).content  # noqa: B018
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                session.post(url, json=MESSAGES)
            left = session.post(url, json={**MESSAGES, "stream": True}, stream=True)
            next(left.iter_content(50))
            left.close()
            dropped = session.post(url, json={**MESSAGES, "stream": True}, stream=True)
            assert dropped.ok
            del dropped
            with pytest.raises(requests.exceptions.InvalidURL):
                session.post("http://", json=MESSAGES)

    async def run_aiohttp() -> None:
        async with prepared(aiohttp.ClientSession()) as session:
            assert (await session.post(url, json=MESSAGES)).status == 429
            async with session.post(url, json=MESSAGES) as redirected:
                assert len(redirected.history) == 1
                await redirected.json()
            assert (await session.get(f"{provider.url}/v1/models")).ok
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(f"http://{refused}/v1/messages", json=MESSAGES)
            with pytest.raises(aiohttp.ClientPayloadError):
                async with session.post(url, json={**MESSAGES, "stream": True}) as cut:
                    await cut.read()
            with pytest.raises(aiohttp.ClientError):
                async with session.post(url, json=MESSAGES) as cut:
                    await cut.read()
            async with session.post(url, json={**MESSAGES, "stream": True}) as left:
                await left.content.read(50)
            dropped = await session.post(url, json={**MESSAGES, "stream": True})
            dropped.close()
            with pytest.raises(aiohttp.InvalidURL):
                await session.post("http://", json=MESSAGES)

    paced = Reply(usage=MESSAGE_USAGE, text="one two three four", pace=0.02)
    provider.reply(
        Reply(status=429),
        Reply(redirect=f"{provider.url}/v1/messages"),
        Reply(usage=MESSAGE_USAGE),
        Reply(usage=MESSAGE_USAGE, abort_after=3),
        Reply(usage=MESSAGE_USAGE, abort_after=0),
        paced,
        paced,
    )
    try:
        run_requests() if library == "requests" else asyncio.run(run_aiohttp())
    finally:
        meter.uninstrument_all()
    gc.collect()
    assert [("ok", *MESSAGE)] == [
        (event.status, *row(event)) for event in events_of(meter) if event.status == "ok"
    ]
    assert ["incomplete"] * 4 == [
        event.status for event in events_of(meter) if event.status != "ok"
    ]
    assert {"error": 2} == outcomes_of(meter)
    assert meter.status().faults == 0


def test_a_session_that_never_answers_is_kept_as_incomplete(meter: Meter) -> None:
    """The request was on its way when the time was up: it may be billed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/messages"
        session = meter.instrument(requests.Session(), provider="anthropic")
        with pytest.raises(requests.exceptions.ReadTimeout):
            session.post(url, json=MESSAGES, timeout=0.05)

        async def run() -> None:
            timeout = aiohttp.ClientTimeout(total=0.05)
            async with aiohttp.ClientSession(timeout=timeout) as asession:
                meter.instrument(asession, provider="anthropic")
                with pytest.raises(TimeoutError):
                    await asession.post(url, json=MESSAGES)

        asyncio.run(run())
        session.close()
    assert ["incomplete"] * 2 == [event.status for event in events_of(meter)]


def test_sessions_are_dropped_as_before(meter: Meter) -> None:
    """Following a session keeps nothing of it alive."""
    import weakref

    session = meter.instrument(requests.Session(), provider="anthropic")
    reference = weakref.ref(session)
    del session
    assert reference() is None

    async def run() -> weakref.ref[Any]:
        async with meter.instrument(aiohttp.ClientSession(), provider="anthropic") as asession:
            return weakref.ref(asession)

    reference = asyncio.run(run())
    assert reference() is None


def test_threads_share_a_session(meter: Meter, provider: FakeProvider) -> None:
    provider.default = Reply(usage=MESSAGE_USAGE)
    session = meter.instrument(requests.Session(), provider="anthropic")
    url = f"{provider.url}/v1/messages"
    threads = [
        threading.Thread(target=session.post, args=(url,), kwargs={"json": MESSAGES})
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [MESSAGE] * 20 == [row(event) for event in events_of(meter)]
