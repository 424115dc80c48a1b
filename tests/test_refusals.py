"""A refused call: what each SDK raises of it, that it is sent zero times, and tried once."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import anthropic
import boto3
import botocore.exceptions
import cohere.core.api_error
import google.genai.errors
import groq
import httpx
import httpx2
import mistralai.client as mistralai
import ollama
import openai
import pytest
import requests
from botocore.config import Config as BotoConfig
from google import genai
from google.genai.types import HttpOptions, HttpRetryOptions
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from mistralai.client.errors import MistralError
from mistralai.client.utils import BackoffStrategy, RetryConfig

import test_sdk_matrix as matrix
from conftest import events_of, outcomes_of
from costmw import Budget, Config, Meter
from costmw.capture.call import Call
from costmw.capture.clients import httpx_refusal
from costmw.errors import BudgetExceeded
from costmw.price_overrides import PriceOverride
from costmw.testing import FakeProvider
from test_sdk_matrix import MESSAGE_REQUEST, drained, settled
from test_ways_in import (
    CASES,
    CHAT_REQUEST,
    CONVERSE_REQUEST,
    GEMINI_REQUEST,
    MISTRAL_REQUEST,
    Way,
    boto_options,
    close,
    key,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute:DeprecationWarning"),
]

BASES: dict[str, type[Exception]] = {
    "openai": openai.OpenAIError,
    "azure": openai.OpenAIError,
    "anthropic": anthropic.AnthropicError,
    "google-genai": google.genai.errors.APIError,
    "mistralai": MistralError,
    "groq": groq.GroqError,
    "cohere": cohere.core.api_error.ApiError,
    "ollama": ollama.ResponseError,
    "boto3": botocore.exceptions.ClientError,
}
CAP = Budget("tenant cap", limit="0", per="tenant", action="block")


@pytest.fixture
def capped(make_meter: Callable[..., Meter]) -> Callable[..., Meter]:
    """Makes meters whose budget has no room for anything."""

    def make(hosts: dict[str, str] | None = None) -> Meter:
        own_price = PriceOverride("llama3.2", {"input": "0.01", "output": "0.02"})
        config = Config(ack_timeout=30, hosts=hosts or {}, prices=(own_price,))
        return make_meter(config=config, budgets=[CAP], tags={"tenant": "acme"})

    return make


@pytest.fixture
def capped_for_all(capped: Callable[..., Meter], provider: FakeProvider) -> Iterator[Meter]:
    meter = capped({key(provider): "openai"})
    meter.instrument_all()
    yield meter
    meter.uninstrument_all()


async def refused(work: Callable[[], Any], streamed: bool = False) -> BudgetExceeded:
    try:
        answer = work()
        answer = await answer if inspect.isawaitable(answer) else answer
        if streamed:
            await drained(answer)
    except BudgetExceeded as error:
        return error
    raise AssertionError(f"no refusal, but {answer}")


def check(error: BudgetExceeded, base: type[Exception] | None, meter: Meter) -> None:
    """That it says all, is an error of this base, and was raised once, with no fault on the way."""
    assert ("tenant cap", {"tenant": "acme"}, 0, 0) == (
        error.budget,
        error.scope,
        error.limit,
        error.spent,
    )
    assert error.asked
    assert error.resets_at
    assert (error.reason, (error.reason,)) == (str(error), error.args)
    assert ({"refused": 1}, [], 0) == (outcomes_of(meter), events_of(meter), meter.status().faults)
    if base is None:
        assert type(error) is BudgetExceeded
        return
    assert isinstance(error, base)
    for copied in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (type(error), str(error), vars(error)) == (type(copied), str(copied), vars(copied))


@pytest.mark.parametrize("everything", [False, True], ids=["instrument", "instrument_all"])
@pytest.mark.parametrize(("way", "streamed"), CASES)
def test_each_sdk_raises_a_refusal_as_an_error_of_its_own(
    way: Way,
    streamed: bool,
    everything: bool,
    capped: Callable[..., Meter],
    provider: FakeProvider,
) -> None:
    hosts = {key(provider): way.provider} if everything else {}
    meter = capped(hosts)

    async def run() -> BudgetExceeded:
        client = way.open(provider)
        if everything:
            meter.instrument_all()
        else:
            meter.instrument(client, **({} if way.usual else {"provider": way.provider}))
        try:
            return await refused(lambda: (way.stream if streamed else way.plain)(client), streamed)
        finally:
            meter.uninstrument_all()
            await close(client)

    check(asyncio.run(run()), BASES[way.name.split()[0]], meter)
    assert [] == provider.requests


MODES = [
    matrix.chat_plain,
    matrix.chat_streamed,
    matrix.chat_raw,
    matrix.chat_streaming_response,
    matrix.chat_helper,
    matrix.response_raw,
    matrix.response_streaming_response,
    matrix.response_helper,
    matrix.embedding_raw,
    matrix.message_plain,
    matrix.message_streamed,
    matrix.message_raw,
    matrix.message_streaming_response,
    matrix.message_helper,
]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_every_way_to_call_raises_it_and_no_retry_is_made(
    mode: Any, kind: str, capped: Callable[..., Meter], provider: FakeProvider
) -> None:
    meter = capped()
    sdk = "anthropic" if mode.__name__.startswith("message") else "openai"

    async def run() -> BudgetExceeded:
        client = meter.instrument(matrix.CLIENTS[sdk, kind](provider), provider=sdk)
        try:
            return await refused(lambda: mode(client.with_options(max_retries=5)))
        finally:
            await settled(client.close())

    check(asyncio.run(run()), BASES[sdk], meter)
    assert [] == provider.requests


def langchain_openai(provider: FakeProvider) -> Any:
    model = ChatOpenAI(base_url=provider.openai_url, api_key="k", model="gpt-5-mini")  # type: ignore[arg-type]
    return model.invoke("hello")


def langchain_anthropic(provider: FakeProvider) -> Any:
    model = ChatAnthropic(
        base_url=provider.anthropic_url,
        api_key="k",
        model_name="claude-haiku-4-5",  # type: ignore[arg-type]
    )  # type: ignore[call-arg]
    return model.invoke("hello")


def openai_under_a_name_of_the_app(provider: FakeProvider) -> Any:
    client = openai.OpenAI(
        base_url=provider.openai_url, api_key="k", default_headers={"User-Agent": "app/1"}
    )
    return client.chat.completions.create(**CHAT_REQUEST)


def anthropic_behind_a_middleware(provider: FakeProvider) -> Any:
    client = anthropic.Anthropic(
        base_url=provider.anthropic_url,
        api_key="k",
        middleware=[lambda request, call_next: call_next(request)],
    )
    return client.messages.create(**MESSAGE_REQUEST)


def google_with_retries(provider: FakeProvider) -> Any:
    options = HttpOptions(
        base_url=provider.google_url, retry_options=HttpRetryOptions(attempts=4, initial_delay=0)
    )
    client = genai.Client(api_key="k", http_options=options)
    return client.models.generate_content(**GEMINI_REQUEST)


def mistral_with_retries(provider: FakeProvider) -> Any:
    often = RetryConfig("backoff", BackoffStrategy(1, 10, 1.5, 1000), True)
    client = mistralai.Mistral(api_key="k", server_url=provider.mistral_url, retry_config=often)
    return client.chat.complete(**MISTRAL_REQUEST)


def boto_in_mode(mode: str) -> Callable[[FakeProvider], Any]:
    def converse(provider: FakeProvider) -> Any:
        retries = BotoConfig(retries={"max_attempts": 4, "mode": mode})
        client = boto3.client("bedrock-runtime", **{**boto_options(provider), "config": retries})
        return client.converse(**CONVERSE_REQUEST)

    converse.__name__ = f"boto3_{mode}"
    return converse


@pytest.mark.parametrize(
    ("work", "base"),
    [
        (langchain_openai, openai.OpenAIError),
        (langchain_anthropic, anthropic.AnthropicError),
        (openai_under_a_name_of_the_app, openai.OpenAIError),
        (anthropic_behind_a_middleware, anthropic.AnthropicError),
        (google_with_retries, google.genai.errors.APIError),
        (mistral_with_retries, MistralError),
        (boto_in_mode("legacy"), botocore.exceptions.ClientError),
        (boto_in_mode("standard"), botocore.exceptions.ClientError),
        (boto_in_mode("adaptive"), botocore.exceptions.ClientError),
    ],
    ids=lambda value: value.__name__,
)
def test_what_retries_or_wraps_lets_it_through_at_once(
    work: Callable[[FakeProvider], Any],
    base: type[Exception],
    capped: Callable[..., Meter],
    provider: FakeProvider,
) -> None:
    billed = {
        "anthropic": "anthropic",
        "google": "gcp.gemini",
        "mistralai": "mistral_ai",
        "botocore": "aws.bedrock",
    }.get(base.__module__.partition(".")[0], "openai")
    meter = capped({key(provider): billed})
    meter.instrument_all()
    try:
        check(asyncio.run(refused(lambda: work(provider))), base, meter)
    finally:
        meter.uninstrument_all()
    assert [] == provider.requests


def with_httpx(url: str) -> Any:
    return httpx.post(url, json=CHAT_REQUEST)


def with_httpx2(url: str) -> Any:
    return httpx2.post(url, json=CHAT_REQUEST)


async def with_async_httpx(url: str) -> Any:
    async with httpx.AsyncClient() as client:
        return await client.post(url, json=CHAT_REQUEST)


async def with_async_httpx2(url: str) -> Any:
    async with httpx2.AsyncClient() as client, client.stream("POST", url, json=CHAT_REQUEST) as r:
        return await r.aread()


def with_requests(url: str) -> Any:
    return requests.post(url, json=CHAT_REQUEST)


async def with_aiohttp(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url, json=CHAT_REQUEST) as answer:
        return await answer.read()


@pytest.mark.parametrize(
    "send",
    [with_httpx, with_httpx2, with_async_httpx, with_async_httpx2, with_requests, with_aiohttp],
    ids=lambda send: send.__name__,
)
def test_without_an_sdk_it_is_plain(
    send: Callable[[str], Any], capped_for_all: Meter, provider: FakeProvider
) -> None:
    check(
        asyncio.run(refused(lambda: send(f"{provider.openai_url}/chat/completions"))),
        None,
        capped_for_all,
    )
    assert [] == provider.requests


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
def test_hooks_refuse_and_an_async_client_waits_in_its_event_loop(
    library: Any,
    capped: Callable[..., Meter],
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"{provider.openai_url}/chat/completions"
    ways: list[str] = []

    def noting(way: str) -> None:
        original = getattr(Call, way)

        def noted(self: Call) -> Any:
            ways.append(way)
            return original(self)

        monkeypatch.setattr(Call, way, noted)

    noting("reserve")
    noting("areserve")
    meter = capped()
    hooks = meter.event_hooks(provider="openai")

    async def run() -> BudgetExceeded:
        async with library.AsyncClient(event_hooks=hooks) as client:
            return await refused(lambda: client.post(url, json=CHAT_REQUEST))

    check(asyncio.run(run()), None, meter)
    with library.Client(event_hooks=hooks) as client:
        asyncio.run(refused(lambda: client.post(url, json=CHAT_REQUEST)))
    assert ([], ["areserve", "reserve"]) == (provider.requests, ways)
    assert {"refused": 2} == outcomes_of(meter)


def test_an_sdk_that_has_changed_still_gets_the_refusal(
    capped_for_all: Meter, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("not to be derived from")

    monkeypatch.setattr(openai, "OpenAIError", Odd)
    monkeypatch.setattr(httpx2, "Response", None)
    httpx_refusal._answer_class.cache_clear()
    url = f"{provider.openai_url}/chat/completions"
    headers = {"user-agent": "OpenAI/Python 3", "x-stainless-lang": "python"}
    with httpx2.Client(headers=headers) as client:
        error = asyncio.run(refused(lambda: client.post(url, json=CHAT_REQUEST)))
    assert (BudgetExceeded, [], 2) == (
        type(error),
        provider.requests,
        capped_for_all.status().faults,
    )


def test_an_sdk_that_does_not_ask_its_answer_finds_a_402_that_says_why(
    capped_for_all: Meter, provider: FakeProvider
) -> None:
    headers = {"user-agent": "Other/Python 1", "x-stainless-lang": "python"}
    with httpx.Client(headers=headers) as client:
        answer = client.post(f"{provider.openai_url}/chat/completions", json=CHAT_REQUEST)
    with pytest.raises(BudgetExceeded) as caught:
        answer.raise_for_status()
    check(caught.value, None, capped_for_all)
    assert (402, "false") == (answer.status_code, answer.headers["x-should-retry"])
    assert caught.value.reason == answer.json()["error"]["message"]
