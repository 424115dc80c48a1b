"""Calls that set no limit on their answer are given the budget's; nothing else of them changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest import mock

import aiohttp
import httpx
import httpx2
import pytest
import requests
from pydantic_core import from_json

from conftest import events_of
from costmw import Budget, BudgetExceeded, Config, Meter
from costmw.capture.clients import base
from costmw.capture.clients.request_body import changed_body
from costmw.price_overrides import PriceOverride
from costmw.providers.known import find_provider
from costmw.providers.registry import match
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import CHAT_USAGE, HELLO, drained, settled
from test_ways_in import WAYS, Way, close, key

pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute:DeprecationWarning"),
]

ROOMY = Budget("cap", limit="1000000", action="block", max_output_tokens=77)
CHATS = {"model": "gpt-5-mini", "messages": HELLO}

PLACES: dict[str, tuple[str, ...]] = {
    "openai chat": ("max_completion_tokens",),
    "azure openai chat": ("max_completion_tokens",),
    "openai responses": ("max_output_tokens",),
    "azure openai responses": ("max_output_tokens",),
    "google-genai": ("generationConfig", "maxOutputTokens"),
    "google-genai vertex": ("generationConfig", "maxOutputTokens"),
    "mistralai": ("max_tokens",),
    "groq": ("max_completion_tokens",),
    "cohere": ("max_tokens",),
    "ollama": ("options", "num_predict"),
}


def place_in(way: Way) -> tuple[str, ...] | None:
    found = [name for name in PLACES if way.name.startswith(name + " ")]
    return PLACES[max(found, key=len)] if found else None


@pytest.fixture
def limiting(make_meter: Callable[..., Meter]) -> Callable[..., Meter]:
    def make(*budgets: Budget, hosts: dict[str, str] | None = None) -> Meter:
        own_price = PriceOverride("llama3.2", {"input": "0.01", "output": "0.02"})
        config = Config(ack_timeout=30, hosts=hosts or {}, prices=(own_price,))
        return make_meter(config=config, budgets=budgets or [ROOMY])

    return make


@pytest.fixture
def all_meter(limiting: Callable[..., Meter], provider: FakeProvider) -> Iterator[Meter]:
    provider.default = Reply(usage=CHAT_USAGE)
    meter = limiting(hosts={key(provider): "openai"})
    meter.instrument_all()
    yield meter
    meter.uninstrument_all()


def at(body: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        body = body[name]
    return body


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("way", [way for way in WAYS if way.stream], ids=lambda way: way.name)
def test_each_sdk_sends_the_limit_where_its_provider_reads_it(
    way: Way, streamed: bool, limiting: Callable[..., Meter], provider: FakeProvider
) -> None:
    provider.default = Reply(usage=way.usage, text="one two three")
    meter = limiting()

    async def run() -> None:
        client = way.open(provider)
        answer = await settled((way.stream if streamed else way.plain)(client))
        if streamed:
            await drained(answer)
        await close(client)
        client = meter.instrument(
            way.open(provider), **({} if way.usual else {"provider": way.provider})
        )
        answer = await settled((way.stream if streamed else way.plain)(client))
        if streamed:
            await drained(answer)
        await close(client)

    asyncio.run(run())
    bare, limited = (request.json for request in provider.requests)
    if (place := place_in(way)) is not None:
        assert 77 == at(limited, place)
        inner = at(limited, place[:-1])
        del inner[place[-1]]
        if not inner:
            del limited[place[0]]
    limited.pop("stream_options", None)
    bare.pop("stream_options", None)
    assert list(bare.items()) == list(limited.items())
    assert (["ok"], 0) == ([event.status for event in events_of(meter)], meter.status().faults)


async def with_aiohttp(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers) as response,
    ):
        return await response.read()


def with_requests(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    with requests.post(url, data=body, headers=headers, stream=True) as response:
        return response.content


def with_httpx(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    with httpx.stream("POST", url, content=body, headers=headers) as response:
        return response.read()


def with_httpx2(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    with httpx2.stream("POST", url, content=body, headers=headers) as response:
        return response.read()


LIBRARIES = [with_aiohttp, with_requests, with_httpx, with_httpx2]


def sent(
    send: Callable[..., Any], provider: FakeProvider, body: bytes, **headers: str
) -> tuple[bytes, str, bytes]:
    """The body that arrived, the encodings that were accepted, and the answer."""
    url = f"{provider.openai_url}/chat/completions"
    headers = {"content-type": "application/json", "accept-encoding": "br", **headers}
    answer = asyncio.run(settled_call(lambda: send(url, body, headers)))
    record = provider.requests[-1]
    return record.body_bytes, record.headers["accept-encoding"], answer


async def settled_call(call: Callable[[], Any]) -> Any:
    return await settled(call())


@pytest.mark.parametrize("send", LIBRARIES, ids=lambda send: send.__name__)
class TestEachLibrary:
    def test_all_other_bytes_stay_and_so_does_the_encoding(
        self, send: Any, all_meter: Meter, provider: FakeProvider
    ) -> None:
        body = b' {"z": 1.10, "model":"gpt-5-mini",\n "messages" : [], "a": "\\u00e9"}'
        expected = b' {"max_completion_tokens":77,' + body[2:]
        assert (expected, "br") == sent(send, provider, body)[:2]

    def test_a_limit_of_its_own_stays(
        self, send: Any, all_meter: Meter, provider: FakeProvider
    ) -> None:
        for name in ("max_tokens", "max_completion_tokens"):
            body = json.dumps({**CHATS, name: 9}).encode()
            assert (body, "br") == sent(send, provider, body)[:2]

    def test_a_stream_is_asked_for_usage_too_and_that_alone_is_hidden(
        self, send: Any, all_meter: Meter, provider: FakeProvider
    ) -> None:
        body, encodings, answer = sent(
            send, provider, json.dumps({**CHATS, "stream": True}).encode()
        )
        assert "identity" == encodings
        assert {"max_completion_tokens": 77, "stream_options": {"include_usage": True}} == {
            name: json.loads(body)[name] for name in ("max_completion_tokens", "stream_options")
        }
        assert b'"prompt_tokens"' not in answer

    def test_usage_that_the_app_asked_for_is_not_hidden(
        self, send: Any, all_meter: Meter, provider: FakeProvider
    ) -> None:
        asked = {**CHATS, "stream": True, "stream_options": {"include_usage": True}}
        body, encodings, answer = sent(send, provider, json.dumps(asked).encode())
        assert (77, "br") == (json.loads(body)["max_completion_tokens"], encodings)
        assert b'"prompt_tokens"' in answer

    def test_a_signed_body_stays(self, send: Any, all_meter: Meter, provider: FakeProvider) -> None:
        body = json.dumps(CHATS).encode()
        assert body == sent(send, provider, body, authorization="HMAC k:abc")[0]
        assert body == sent(send, provider, body, **{"content-digest": "sha-256=:abc=:"})[0]

    def test_what_is_no_json_object_stays(
        self, send: Any, all_meter: Meter, provider: FakeProvider
    ) -> None:
        for body in (b"[1]", b"{", b"{}", b"a=b"):
            assert body == sent(send, provider, body)[0]
        assert 0 == all_meter.status().faults


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ([], None),
        ([Budget("alert", limit="9", max_output_tokens=5)], None),
        ([Budget("block", limit="9", action="block")], None),
        ([Budget("other", limit="9", action="block", where={"a": "b"}, max_output_tokens=5)], None),
        ([ROOMY, Budget("two", limit="9", action="block", max_output_tokens=5)], 5),
    ],
    ids=["no budget", "one that alerts", "one without a limit", "one of others", "the smallest"],
)
def test_only_budgets_that_block_the_call_limit_it(
    budgets: list[Budget],
    expected: int | None,
    make_meter: Callable[..., Meter],
    provider: FakeProvider,
) -> None:
    meter = make_meter(budgets=budgets)
    with meter.instrument(httpx.Client(), provider="openai") as client:
        client.post(f"{provider.openai_url}/chat/completions", json=CHATS)
    assert expected == provider.requests[-1].json.get("max_completion_tokens")


def test_no_more_is_held_than_the_limit_that_was_sent(
    limiting: Callable[..., Meter], provider: FakeProvider
) -> None:
    # The longest answer of the model costs more than 0.2 USD.
    meter = limiting(Budget("a cent", limit="0.01", action="block", max_output_tokens=77))
    with meter.instrument(httpx.Client(), provider="openai") as client:
        assert client.post(f"{provider.openai_url}/chat/completions", json=CHATS).is_success
        with pytest.raises(BudgetExceeded):
            client.post(
                f"{provider.openai_url}/chat/completions",
                json=CHATS,
                headers={"content-digest": "sha-256=:abc=:"},
            )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"contents": []}', b'{"generationConfig":{"maxOutputTokens":7},"contents": []}'),
        (
            b'{"a": 1.0, "generationConfig": {"topK": 3}, "b": "\xc3\xa9"}',
            b'{"a":1.0,"generationConfig":{"topK":3,"maxOutputTokens":7},"b":"\xc3\xa9"}',
        ),
        (
            b'{"generationConfig": null, "big": 123456789012345678901234567890}',
            b'{"generationConfig":{"maxOutputTokens":7},"big":123456789012345678901234567890}',
        ),
        (b'{"generationConfig": {"maxOutputTokens": 9}}', None),
    ],
)
def test_a_part_that_is_there_keeps_its_place(body: bytes, expected: bytes | None) -> None:
    found = match("POST", "", "/v1/models/m:generateContent", "google", find_provider("gcp.gemini"))
    assert found is not None
    changed = changed_body(body, from_json(body), found, output_limit=7, ask_usage=False)
    assert expected == (changed.content if changed else None)
    if changed:
        assert (from_json(changed.content), False) == (changed.body, changed.asks_usage)


def test_a_value_that_only_the_app_can_write_is_sent_as_it_wrote_it(
    all_meter: Meter, provider: FakeProvider
) -> None:
    async def run() -> None:
        def write(value: Any) -> str:
            return json.dumps(value, default=float)

        async with aiohttp.ClientSession(json_serialize=write) as session:
            # One that is null is no limit, so that the body has to be written anew.
            body = {**CHATS, "temperature": Decimal("0.5"), "max_completion_tokens": None}
            url = f"{provider.openai_url}/chat/completions"
            async with session.post(url, json=body) as response:
                await response.read()

    asyncio.run(run())
    sent = provider.requests[-1].json
    assert (0.5, 77) == (sent["temperature"], sent["max_completion_tokens"])
    assert ["ok"] == [event.status for event in events_of(all_meter)]


def test_a_body_that_cannot_be_written_is_sent_as_it_is_and_still_held(
    all_meter: Meter, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(base, "changed_body", fail)
    reserved = mock.Mock(wraps=all_meter.reserve)
    monkeypatch.setattr(all_meter, "reserve", reserved)
    httpx.post(f"{provider.openai_url}/chat/completions", json=CHATS)
    assert (CHATS, 1, 1) == (
        provider.requests[-1].json,
        all_meter.status().faults,
        reserved.call_count,
    )
