"""Frameworks above the SDKs, followed by `instrument_all()`: every call is one exact row.

Nothing is changed where they are called. Prints a table of what was recorded.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx_aiohttp
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from conftest import events_of, outcomes_of
from costmw import Config, Meter, tag
from costmw.testing import FakeProvider
from prices import CHAT, EMBEDDING, MESSAGE, RESPONSE, Row, counted, row, stated
from test_sdk_matrix import chat_plain, chat_streamed, message_plain, message_streamed

Way = Callable[[Any], Any]

QUESTIONS = ["one", "two", "three"]


async def langchain_ainvoke(model: Any) -> str:
    return (await model.ainvoke("hello")).text


async def langchain_astream(model: Any) -> list[str]:
    return [chunk.text async for chunk in model.astream("hello")]


async def langchain_abatch(model: Any) -> list[str]:
    return [answer.text for answer in await model.abatch(QUESTIONS)]


async def pydantic_ai_run(agent: Agent) -> str:
    return (await agent.run("hello")).output


async def pydantic_ai_run_stream(agent: Agent) -> str:
    async with agent.run_stream("hello") as result:
        return await result.get_output()


LANGCHAIN: dict[str, Way] = {
    "invoke": lambda model: model.invoke("hello").text,
    "ainvoke": langchain_ainvoke,
    "stream": lambda model: [chunk.text for chunk in model.stream("hello")],
    "astream": langchain_astream,
    "batch": lambda model: [answer.text for answer in model.batch(QUESTIONS)],
    "abatch": langchain_abatch,
}
EMBEDDINGS: dict[str, Way] = {
    "embed_query": lambda model: model.embed_query("hello"),
    "aembed_query": lambda model: model.aembed_query("hello"),
    "embed_documents": lambda model: model.embed_documents(QUESTIONS),
    "aembed_documents": lambda model: model.aembed_documents(QUESTIONS),
}
PYDANTIC_AI: dict[str, Way] = {
    "run": pydantic_ai_run,
    "run_sync": lambda agent: agent.run_sync("hello").output,
    "run_stream": pydantic_ai_run_stream,
    "run_stream_sync": lambda agent: agent.run_stream_sync("hello").get_output(),
}
CHATS: dict[str, Way] = {"plain": chat_plain, "streamed": chat_streamed}
MESSAGES: dict[str, Way] = {"plain": message_plain, "streamed": message_streamed}
CALLS = {"batch": len(QUESTIONS), "abatch": len(QUESTIONS)}
"""Calls that a way makes, where it is not one."""


@dataclass(frozen=True)
class Framework:
    """How its client is made, whose it is, the ways to ask it, and the row of each call."""

    provider: str
    make: Callable[[FakeProvider], Any]
    ways: Mapping[str, Way]
    api: str
    row: Row


def openai_options(provider: FakeProvider) -> dict[str, Any]:
    return {"base_url": provider.openai_url, "api_key": "k"}


def anthropic_options(provider: FakeProvider) -> dict[str, Any]:
    return {"base_url": provider.anthropic_url, "api_key": "k"}


_seconds = itertools.count(60)


def own_client() -> dict[str, Any]:
    """langchain shares the HTTP clients of models that have the same address and timeout."""
    return {"timeout": next(_seconds)}


GPT = "gpt-5-mini"
CLAUDE = "claude-haiku-4-5"

FRAMEWORKS = {
    "langchain-openai chat": Framework(
        "openai",
        lambda p: ChatOpenAI(model=GPT, **openai_options(p), **own_client()),
        LANGCHAIN,
        "openai.chat",
        CHAT,
    ),
    "langchain-openai chat with usage": Framework(
        "openai",
        lambda p: ChatOpenAI(model=GPT, stream_usage=True, **openai_options(p), **own_client()),
        {name: LANGCHAIN[name] for name in ("stream", "astream")},
        "openai.chat",
        CHAT,
    ),
    "langchain-openai responses": Framework(
        "openai",
        lambda p: ChatOpenAI(
            model=GPT, use_responses_api=True, **openai_options(p), **own_client()
        ),
        LANGCHAIN,
        "openai.responses",
        RESPONSE,
    ),
    "langchain-openai embeddings": Framework(
        "openai",
        lambda p: OpenAIEmbeddings(
            model="text-embedding-3-small",
            check_embedding_ctx_length=False,  # it would fetch a tokenizer
            **openai_options(p),
            **own_client(),
        ),
        EMBEDDINGS,
        "openai.embeddings",
        EMBEDDING,
    ),
    "langchain-anthropic": Framework(
        "anthropic",
        lambda p: ChatAnthropic(model=CLAUDE, **anthropic_options(p), **own_client()),
        LANGCHAIN,
        "anthropic.messages",
        MESSAGE,
    ),
    "pydantic-ai openai chat": Framework(
        "openai",
        lambda p: Agent(OpenAIChatModel(GPT, provider=OpenAIProvider(**openai_options(p)))),
        PYDANTIC_AI,
        "openai.chat",
        CHAT,
    ),
    "pydantic-ai openai responses": Framework(
        "openai",
        lambda p: Agent(OpenAIResponsesModel(GPT, provider=OpenAIProvider(**openai_options(p)))),
        PYDANTIC_AI,
        "openai.responses",
        RESPONSE,
    ),
    "pydantic-ai anthropic": Framework(
        "anthropic",
        lambda p: Agent(AnthropicModel(CLAUDE, provider=AnthropicProvider(**anthropic_options(p)))),
        PYDANTIC_AI,
        "anthropic.messages",
        MESSAGE,
    ),
    # Two layers are followed here, of which the upper one makes the row.
    "openai, httpx over aiohttp": Framework(
        "openai",
        lambda p: openai.AsyncOpenAI(
            **openai_options(p), http_client=httpx_aiohttp.HttpxAiohttpClient()
        ),
        CHATS,
        "openai.chat",
        CHAT,
    ),
    "openai, httpx2 over aiohttp": Framework(
        "openai",
        lambda p: openai.AsyncOpenAI(
            **openai_options(p), http_client=openai.DefaultAioHttpClient()
        ),
        CHATS,
        "openai.chat",
        CHAT,
    ),
    "anthropic, httpx2 over aiohttp": Framework(
        "anthropic",
        lambda p: anthropic.AsyncAnthropic(
            **anthropic_options(p), http_client=anthropic.DefaultAioHttpClient()
        ),
        MESSAGES,
        "anthropic.messages",
        MESSAGE,
    ),
}


@pytest.fixture
def following(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> Iterator[Callable[[str], Meter]]:
    """Follows all clients, with this name for the fake provider."""
    meters: list[Meter] = []

    def follow(name: str) -> Meter:
        hosts = {provider.url.removeprefix("http://"): name}
        meters.append(make_meter(config=Config(ack_timeout=30.0, hosts=hosts)))
        meters[-1].instrument_all()
        return meters[-1]

    yield follow
    for meter in meters:
        meter.uninstrument_all()


@pytest.mark.parametrize(
    ("name", "way"),
    [(name, way) for name, framework in FRAMEWORKS.items() for way in framework.ways],
)
def test_every_call_is_one_exact_row_with_the_tags_around_it(
    name: str,
    way: str,
    following: Callable[[str], Meter],
    provider: FakeProvider,
    table: list[str],
) -> None:
    framework, calls = FRAMEWORKS[name], CALLS.get(way, 1)
    provider.responder = stated
    with asyncio.Runner() as runner:

        def settled(answer: Any) -> Any:
            if inspect.isawaitable(answer):
                return runner.run(awaited(answer), context=contextvars.copy_context())
            return answer

        older = framework.make(provider)
        unfollowed = settled(framework.ways[way](older))
        assert provider.served == calls
        meter = following(framework.provider)
        for made, client in (("before", older), ("after", framework.make(provider))):
            with tag(feature=name, made=made):
                assert settled(framework.ways[way](client)) == unfollowed
            if hasattr(client, "close"):
                settled(client.close())

    events = events_of(meter)
    table.append(f"{name:<34}{way:<18}{counted(map(row, events))}")
    assert [event.tags for event in events] == [
        {"feature": name, "made": made} for made in ("before", "after") for _ in range(calls)
    ]
    for event in events:
        assert row(event) == framework.row
        assert (event.status, event.reason) == ("ok", None)
        assert (event.provider, event.api) == (framework.provider, framework.api)
    assert provider.served == calls + len(events)
    assert outcomes_of(meter) == {}
    assert meter.status().faults == 0


async def awaited(answer: Any) -> Any:
    return await answer
