"""Interrupts, hooks, signatures, hosts: what calls meet in the wild, and what comes of it."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

import aiohttp
import anthropic
import httpx
import pytest
import requests

from conftest import events_of, outcomes_of
from costmw import Config, Meter
from costmw.errors import ConfigError
from costmw.hosts import normal_host
from costmw.providers.registry import provider_of_host
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import CHAT_USAGE, HELLO, MESSAGE_REQUEST, MESSAGE_USAGE

CHATS = {"model": "gpt-5-mini", "messages": HELLO}


class Impatient(Exception):
    """As task queues raise into a worker that takes too long."""


@pytest.fixture
def all_meter(make_meter: Callable[..., Meter], provider: FakeProvider) -> Iterator[Meter]:
    provider.default = Reply(usage=CHAT_USAGE)
    hosts = {provider.url.removeprefix("http://"): "openai"}
    meter = make_meter(config=Config(ack_timeout=30, hosts=hosts))
    meter.instrument_all()
    yield meter
    meter.uninstrument_all()


def url_of(provider: FakeProvider) -> str:
    return f"{provider.openai_url}/chat/completions"


def statuses(meter: Meter) -> list[str]:
    return [event.status for event in events_of(meter)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Impatient, TimeoutError, GeneratorExit])
@pytest.mark.parametrize("library", ["httpx", "requests"])
def test_an_interrupt_while_the_provider_works_may_be_billed(
    library: str, error: type[BaseException], meter: Meter
) -> None:
    url = "https://api.openai.com/v1/chat/completions"

    def interrupted(*_: Any, **__: Any) -> Any:
        raise error

    client: Any
    if library == "httpx":
        client = meter.instrument(httpx.Client(transport=httpx.MockTransport(interrupted)))
    else:
        client = meter.instrument(requests.Session())
        client.get_adapter("https://").send = interrupted
    with pytest.raises(error):
        client.post(url, json=CHATS)
    client.close()
    assert ["incomplete"] == statuses(meter)


@pytest.mark.parametrize("error", [ValueError("bad"), httpx.ConnectError("no"), TypeError("odd")])
def test_what_was_never_sent_is_not_billed(error: Exception, meter: Meter) -> None:
    def failing(_: httpx.Request) -> httpx.Response:
        raise error

    with (
        meter.instrument(httpx.Client(transport=httpx.MockTransport(failing))) as client,
        pytest.raises(type(error)),
    ):
        client.post("https://api.openai.com/v1/chat/completions", json=CHATS)
    assert ({"error": 1}, []) == (outcomes_of(meter), statuses(meter))


def test_an_error_status_that_the_library_raises_is_not_billed(
    all_meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(status=429)

    async def run() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session:
            with pytest.raises(aiohttp.ClientResponseError):
                await session.post(url_of(provider), json=CHATS)

    asyncio.run(run())
    assert ({"error": 1}, []) == (outcomes_of(all_meter), statuses(all_meter))


def test_a_call_inside_of_a_hook_is_a_call_of_its_own(
    all_meter: Meter, provider: FakeProvider
) -> None:
    def guard(_: httpx.Request) -> None:
        with httpx.Client() as other:
            other.post(url_of(provider), json=CHATS)

    with httpx.Client(event_hooks={"request": [guard]}) as client:
        client.post(url_of(provider), json=CHATS)
    assert ["ok", "ok"] == statuses(all_meter)


def test_a_body_that_a_hook_has_read_is_read_exactly(
    all_meter: Meter, provider: FakeProvider
) -> None:
    with requests.Session() as session:
        session.hooks["response"].append(lambda response, **_: response.content and None)
        session.post(url_of(provider), json=CHATS, stream=True)

    async def read_first(request: Any, handler: Any) -> Any:
        response = await handler(request)
        await response.read()
        return response

    async def run() -> None:
        async with aiohttp.ClientSession(middlewares=(read_first,)) as asession:
            await asession.post(url_of(provider), json=CHATS)

    asyncio.run(run())
    assert ["ok", "ok"] == statuses(all_meter)


class InMemory(requests.adapters.BaseAdapter):
    """An adapter that makes its responses itself."""

    def send(self, request: Any, **_: Any) -> Any:
        response = requests.Response()
        response.status_code = 200
        response.raw = io.BytesIO(b"made by hand")
        response.request = request
        return response

    def close(self) -> None:
        """Nothing is open."""


def test_a_hand_made_response_is_left_alone(meter: Meter) -> None:
    session = meter.instrument(requests.Session())
    session.mount("https://", InMemory())
    response = session.post("https://api.openai.com/v1/chat/completions", json=CHATS, stream=True)
    assert response.content == b"made by hand"
    (event,) = events_of(meter)
    assert ("unmetered", True) == (event.status, "BytesIO" in (event.reason or ""))
    assert meter.status().faults == 0


@pytest.mark.parametrize(
    "headers", [{"authorization": "HMAC k:abc"}, {"content-digest": "sha-256=:abc=:"}]
)
def test_a_signed_body_is_not_changed(
    headers: dict[str, str], all_meter: Meter, provider: FakeProvider
) -> None:
    with httpx.Client(headers=headers) as client:
        with client.stream("POST", url_of(provider), json={**CHATS, "stream": True}) as response:
            response.read()
    assert "stream_options" not in provider.requests[-1].json
    assert len(statuses(all_meter)) == 1


def test_a_body_that_only_the_sessions_serializer_knows(
    all_meter: Meter, provider: FakeProvider
) -> None:
    async def run() -> None:
        async with aiohttp.ClientSession(
            json_serialize=lambda value: json.dumps(value, default=str)
        ) as session:
            body = {**CHATS, "temperature": Decimal("0.5"), "stream": True}
            async with session.post(
                url_of(provider), json=body, headers=[("x-a", "1"), ("x-a", "2")]
            ) as response:
                await response.read()

    asyncio.run(run())
    assert ["ok"] == statuses(all_meter)
    assert "0.5" == provider.requests[-1].json["temperature"]
    assert 0 == all_meter.status().faults


def test_a_patch_that_ends_does_not_end_following(all_meter: Meter, provider: FakeProvider) -> None:
    all_meter.uninstrument_all()
    with mock.patch.object(requests.Session, "send", requests.Session.send):
        all_meter.instrument_all()
    all_meter.uninstrument_all()
    all_meter.instrument_all()
    requests.post(url_of(provider), json=CHATS)
    assert ["ok"] == statuses(all_meter)


def test_a_coroutine_that_is_ended_in_another_context(meter: Meter) -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        return httpx.Response(200, json={})

    async def call() -> int:
        transport = httpx.MockTransport(answer)
        async with meter.instrument(httpx.AsyncClient(transport=transport)) as client:
            response = await client.post("https://api.openai.com/v1/chat/completions", json=CHATS)
            return response.status_code

    async def step_by_step() -> int:
        coroutine = call()
        while True:
            try:
                waiting = contextvars.copy_context().run(coroutine.send, None)
            except StopIteration as done:
                return int(done.value)
            if waiting is not None:
                waiting._asyncio_future_blocking = False
                await waiting

    assert 200 == asyncio.run(step_by_step())


class OurClaude(anthropic.AnthropicBedrock):
    """A subclass, as apps have them."""


CLOUDS: dict[str, Callable[[FakeProvider], Any]] = {
    "AnthropicBedrock": lambda p: anthropic.AnthropicBedrock(
        base_url=p.bedrock_url, aws_region="us-east-1", aws_access_key="k", aws_secret_key="k"
    ),
    "a subclass": lambda p: OurClaude(
        base_url=p.bedrock_url, aws_region="us-east-1", aws_access_key="k", aws_secret_key="k"
    ),
    "AnthropicBedrockMantle": lambda p: anthropic.AnthropicBedrockMantle(
        base_url=p.url, aws_region="us-east-1", aws_access_key="k", aws_secret_key="k"
    ),
    "AnthropicVertex": lambda p: anthropic.AnthropicVertex(
        base_url=f"{p.google_url}/v1", region="r", project_id="p", access_token="t"
    ),
}


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("streamed", [False, True])
def test_claude_in_the_clouds(
    name: str, streamed: bool, meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=MESSAGE_USAGE)
    with meter.instrument(CLOUDS[name](provider)) as client:
        answer = client.messages.create(**MESSAGE_REQUEST, stream=streamed)
        if streamed:
            assert list(answer)
    (event,) = events_of(meter)
    assert ("ok", 2400, 55) == (
        event.status,
        event.usage.input_tokens,
        event.usage.output_tokens,
    )
    assert event.provider == ("gcp.vertex_ai" if "Vertex" in name else "aws.bedrock")


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("API.OpenAI.com", "api.openai.com"),
        ("api.openai.com.", "api.openai.com"),
        ("api.openai.com:443", "api.openai.com"),
        ("llm.internal:8000", "llm.internal:8000"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("::1", "[::1]"),
        ("[::1]:8000", "[::1]:8000"),
        ("[::1]:80", "[::1]"),
        ("", ""),
    ],
)
def test_a_host_has_one_form(written: str, normal: str) -> None:
    assert normal == normal_host(written)


@pytest.mark.parametrize(
    ("own", "host", "found"),
    [
        ("LLM.Internal", "llm.internal:8000", True),
        ("llm.internal:8000", "llm.internal:8000", True),
        ("llm.internal:8000", "llm.internal:9000", False),
        ("llm.internal:443", "llm.internal", True),
        (".internal", "a.b.internal", True),
        (".internal", "internal", False),
        ("*.llm.internal", "eu.llm.internal", True),
        ("::1", "[::1]:8000", True),
        ("bücher.example", "xn--bcher-kva.example", True),
    ],
)
def test_own_hosts(own: str, host: str, found: bool) -> None:
    provider = provider_of_host(host, Config(hosts={own: "openai"}).hosts)
    assert found == (provider is not None)


@pytest.mark.parametrize("host", ["https://llm.internal", "llm.internal/v1", "a b", "", "u@h"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="without a scheme or path"):
        Config(hosts={host: "openai"})


@pytest.mark.parametrize(
    "url",
    ["http://evil.example?@{}/v1/chat/completions", "http://evil.example#@{}/v1/chat/completions"],
)
def test_a_host_is_not_taken_from_behind_a_url(url: str) -> None:
    from costmw.capture.clients.urls import host_of

    assert "evil.example" == host_of(url.format("api.openai.com"))
