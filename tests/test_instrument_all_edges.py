"""`instrument_all()`: whoever else follows or wraps, one row; and nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import requests

from conftest import events_of
from costmw import Config, Meter
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import CHAT, CHAT_USAGE, HELLO

CHATS = {"model": "gpt-5-mini", "messages": HELLO}

MakeMeter = Callable[..., Meter]


@pytest.fixture
def all_meter(make_meter: MakeMeter, provider: FakeProvider) -> Iterator[Meter]:
    """Follows everything that goes to the fake provider."""
    provider.default = Reply(usage=CHAT_USAGE)
    hosts = {provider.url.removeprefix("http://"): "openai"}
    meter = make_meter(config=Config(ack_timeout=30, hosts=hosts))
    meter.instrument_all()
    yield meter
    meter.uninstrument_all()


def costs(meter: Meter) -> list[int | None]:
    return [event.price.cost_pico_usd for event in events_of(meter)]


def chat_url(provider: FakeProvider) -> str:
    return f"{provider.openai_url}/chat/completions"


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_a_client_that_is_followed_by_itself_too_makes_one_row(
    library: Any, all_meter: Meter, make_meter: MakeMeter, provider: FakeProvider
) -> None:
    other = make_meter()
    with other.instrument(library.Client(), provider="openai") as client:
        client.post(chat_url(provider), json=CHATS)
    with library.Client(event_hooks=all_meter.event_hooks()) as client:
        client.post(chat_url(provider), json=CHATS)
    # Both meters write to one store here.
    assert [CHAT[2]] * 2 == costs(other)
    assert (1, 1) == (other.status().committed, all_meter.status().committed)


def test_an_sdk_above_two_followed_libraries_makes_one_row(
    all_meter: Meter, provider: FakeProvider
) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(
            base_url=provider.openai_url, api_key="k", http_client=openai.DefaultAioHttpClient()
        ) as client:
            all_meter.instrument(client, provider="openai")
            stream = await client.chat.completions.create(**CHATS, stream=True)
            assert [chunk async for chunk in stream]

    asyncio.run(run())
    assert [CHAT[2]] == costs(all_meter)


def test_a_task_that_a_call_has_started_is_followed_on_its_own(
    all_meter: Meter, provider: FakeProvider
) -> None:
    """What is started while a request is sent inherits its context, and outlives it."""
    started: list[asyncio.Task[Any]] = []

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if not started:
                started.append(asyncio.create_task(later()))
            return await super().handle_async_request(request)

    async def later() -> None:
        await asyncio.sleep(0.3)
        async with httpx.AsyncClient() as client:
            await client.post(chat_url(provider), json=CHATS)

    async def run() -> None:
        async with httpx.AsyncClient(transport=Transport()) as client:
            await client.post(chat_url(provider), json=CHATS)
            await started[0]

    asyncio.run(run())
    assert [CHAT[2]] * 2 == costs(all_meter)


def test_other_hosts_and_paths_pass_untouched(all_meter: Meter, provider: FakeProvider) -> None:
    other = provider.url.replace("127.0.0.1", "localhost")
    for url in (f"{provider.url}/v1/models", f"{other}/v1/chat/completions"):
        requests.post(url, json={**CHATS, "stream": True})
        httpx.post(url, json={**CHATS, "stream": True})
    assert [] == costs(all_meter)
    assert all("stream_options" not in (r.json or {}) for r in provider.requests)


def test_a_gateway_of_a_name_that_nobody_knows_is_read_by_its_paths(
    make_meter: MakeMeter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=CHAT_USAGE)
    hosts = {provider.url.removeprefix("http://"): "acme-gateway"}
    meter = make_meter(config=Config(ack_timeout=30, hosts=hosts))
    meter.instrument_all()
    try:
        requests.post(chat_url(provider), json=CHATS)
    finally:
        meter.uninstrument_all()
    (event,) = events_of(meter)
    assert ("acme-gateway", 1210, None) == (
        event.provider,
        event.usage.input_tokens,
        event.price.cost_pico_usd,
    )
    assert "acme-gateway" in (event.reason or "")


def test_switching_off_puts_the_libraries_own_methods_back(meter: Meter) -> None:
    methods = [
        (httpx.Client, "send"),
        (httpx.AsyncClient, "send"),
        (httpx2.Client, "send"),
        (httpx2.AsyncClient, "send"),
        (requests.Session, "send"),
        (aiohttp.ClientSession, "_request"),
    ]
    own = [getattr(owner, name) for owner, name in methods]
    meter.instrument_all()
    meter.instrument_all()
    wrapped = [getattr(owner, name) for owner, name in methods]
    meter.uninstrument_all()
    meter.uninstrument_all()
    assert all(w is not o and w.__wrapped__ is o for w, o in zip(wrapped, own, strict=True))
    assert own == [getattr(owner, name) for owner, name in methods]


def test_a_wrapper_of_another_tool_on_top_stays_and_nothing_is_wrapped_twice(
    all_meter: Meter, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = requests.Session.send

    @functools.wraps(ours)
    def theirs(self: Any, request: Any, **options: Any) -> Any:
        return ours(self, request, **options)

    requests.Session.send = theirs  # type: ignore[method-assign]
    try:
        all_meter.uninstrument_all()
        assert requests.Session.send is theirs
        requests.post(chat_url(provider), json=CHATS)
        assert [] == costs(all_meter)
        all_meter.instrument_all()
        assert requests.Session.send is theirs
        requests.post(chat_url(provider), json=CHATS)
        assert [CHAT[2]] == costs(all_meter)
    finally:
        requests.Session.send = ours  # type: ignore[method-assign]


def test_a_second_meter_takes_over_and_says_so(
    all_meter: Meter,
    make_meter: MakeMeter,
    provider: FakeProvider,
    caplog: pytest.LogCaptureFixture,
) -> None:
    second = make_meter(config=all_meter.config)
    second.instrument_all()
    assert "second meter" in caplog.text
    all_meter.uninstrument_all()
    requests.post(chat_url(provider), json=CHATS)
    second.uninstrument_all()
    requests.post(chat_url(provider), json=CHATS)
    assert (1, 0) == (second.status().committed, all_meter.status().committed)


def test_a_meter_that_is_off_wraps_nothing(make_meter: MakeMeter) -> None:
    own = requests.Session.send
    make_meter(enabled=False).instrument_all()
    assert requests.Session.send is own


def test_libraries_that_are_imported_later_are_followed(
    provider: FakeProvider, store_url: str
) -> None:
    provider.default = Reply(usage=CHAT_USAGE)
    host = provider.url.removeprefix("http://")
    script = f"""
import sys
from costmw import Config, Meter
meter = Meter({store_url!r}, config=Config(ack_timeout=30, hosts={{{host!r}: "openai"}}))
meter.instrument_all()
loaded = {{"httpx", "httpx2", "requests", "aiohttp", "botocore", "openai"}} & set(sys.modules)
assert not loaded, loaded
import asyncio, json
body = {{"model": "gpt-5-mini", "messages": [{{"role": "user", "content": "hello"}}]}}
url = {chat_url(provider)!r}
import requests, httpx, httpx2, aiohttp
requests.post(url, json=body)
httpx.post(url, json=body)
httpx2.post(url, json=body)
async def run():
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=body) as response:
            await response.read()
asyncio.run(run())
print(meter.status().committed)
meter.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("4", "") == (done.stdout.strip(), done.stderr)
