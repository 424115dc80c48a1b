"""The real SDKs against the fake provider: every scenario, sync and async, exact or marked.

Prints a table of what was recorded.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from conftest import events_of, outcomes_of
from costmw import Meter
from costmw.events import UsageEvent
from costmw.testing import FakeProvider, Reply
from prices import (
    CHAT,
    CHAT_USAGE,
    EMBEDDING,
    EMBEDDING_USAGE,
    MESSAGE,
    MESSAGE_USAGE,
    RESPONSE,
    RESPONSE_USAGE,
    Row,
    row,
)
from prices import pico as pico

HELLO: Any = [{"role": "user", "content": "hello"}]


async def settled(value: Any) -> Any:
    """The value of either kind of client: awaited when it has to be."""
    return await value if inspect.isawaitable(value) else value


async def drained(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


class entered:
    """Enter a sync or an async context manager alike."""

    def __init__(self, manager: Any) -> None:
        self.manager = manager

    async def __aenter__(self) -> Any:
        if hasattr(self.manager, "__aenter__"):
            return await self.manager.__aenter__()
        return self.manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        if hasattr(self.manager, "__aexit__"):
            return await self.manager.__aexit__(*error)
        return self.manager.__exit__(*error)


async def chat(client: Any, **options: Any) -> Any:
    return await settled(
        client.chat.completions.create(model="gpt-5-mini", messages=HELLO, **options)
    )


async def chat_plain(client: Any) -> None:
    await chat(client)


async def chat_streamed(client: Any) -> None:
    await drained(await chat(client, stream=True))


async def chat_streamed_with_usage(client: Any) -> None:
    stream = await chat(client, stream=True, stream_options={"include_usage": True})
    assert (await drained(stream))[-1].usage.prompt_tokens == 1210


async def chat_raw(client: Any) -> None:
    raw = await settled(
        client.chat.completions.with_raw_response.create(model="gpt-5-mini", messages=HELLO)
    )
    await settled(raw.parse())


async def chat_streaming_response(client: Any) -> None:
    manager = client.chat.completions.with_streaming_response.create(
        model="gpt-5-mini", messages=HELLO
    )
    async with entered(manager) as response:
        await settled(response.parse())


async def chat_helper(client: Any) -> None:
    manager = client.chat.completions.stream(model="gpt-5-mini", messages=HELLO)
    async with entered(manager) as stream:
        await drained(stream)
        await settled(stream.get_final_completion())


async def chat_tool_call(client: Any) -> None:
    await drained(await chat(client, stream=True, tools=[]))


async def respond(client: Any, **options: Any) -> Any:
    return await settled(client.responses.create(model="gpt-5-mini", input="hello", **options))


async def response_plain(client: Any) -> None:
    await respond(client)


async def response_streamed(client: Any) -> None:
    await drained(await respond(client, stream=True))


async def response_raw(client: Any) -> None:
    raw = await settled(
        client.responses.with_raw_response.create(model="gpt-5-mini", input="hello")
    )
    await settled(raw.parse())


async def response_streaming_response(client: Any) -> None:
    manager = client.responses.with_streaming_response.create(model="gpt-5-mini", input="hello")
    async with entered(manager) as response:
        await settled(response.parse())


async def response_helper(client: Any) -> None:
    async with entered(client.responses.stream(model="gpt-5-mini", input="hello")) as stream:
        await drained(stream)
        await settled(stream.get_final_response())


async def embedding_plain(client: Any) -> None:
    await settled(client.embeddings.create(model="text-embedding-3-small", input="hello"))


async def embedding_raw(client: Any) -> None:
    await settled(
        client.embeddings.with_raw_response.create(model="text-embedding-3-small", input="hello")
    )


MESSAGE_REQUEST: Any = {"model": "claude-haiku-4-5", "max_tokens": 500, "messages": HELLO}


async def message_plain(client: Any) -> None:
    await settled(client.messages.create(**MESSAGE_REQUEST))


async def message_streamed(client: Any) -> None:
    await drained(await settled(client.messages.create(**MESSAGE_REQUEST, stream=True)))


async def message_raw(client: Any) -> None:
    await settled(client.messages.with_raw_response.create(**MESSAGE_REQUEST))


async def message_streaming_response(client: Any) -> None:
    manager = client.messages.with_streaming_response.create(**MESSAGE_REQUEST)
    async with entered(manager) as response:
        await settled(response.parse())


async def message_helper(client: Any) -> None:
    async with entered(client.messages.stream(**MESSAGE_REQUEST)) as stream:
        await drained(stream)
        await settled(stream.get_final_message())


async def abandon(stream: Any) -> None:
    """Take two items, then leave the stream without closing it."""
    if hasattr(stream, "__aiter__"):
        steps = stream.__aiter__()
        await anext(steps), await anext(steps)
        await stream.close()
    else:
        steps = iter(stream)
        next(steps), next(steps)
        steps.close()
        del steps, stream


async def chat_abandoned(client: Any) -> None:
    await abandon(await chat(client, stream=True))


async def response_abandoned(client: Any) -> None:
    await abandon(await respond(client, stream=True))


async def message_abandoned(client: Any) -> None:
    await abandon(await settled(client.messages.create(**MESSAGE_REQUEST, stream=True)))


async def failing(error: type[Exception], work: Awaitable[Any]) -> None:
    with pytest.raises(error):
        await work


async def chat_500(client: Any) -> None:
    await failing(openai.InternalServerError, chat(client.with_options(max_retries=0)))


async def message_500(client: Any) -> None:
    client = client.with_options(max_retries=0)
    await failing(
        anthropic.InternalServerError,
        settled_call(lambda: client.messages.create(**MESSAGE_REQUEST)),
    )


async def settled_call(call: Callable[[], Any]) -> Any:
    return await settled(call())


async def chat_refused(client: Any) -> None:
    client = client.with_options(max_retries=0, base_url=f"http://127.0.0.1:{closed_port()}/v1")
    await failing(openai.APIConnectionError, chat(client))


async def message_refused(client: Any) -> None:
    client = client.with_options(max_retries=0, base_url=f"http://127.0.0.1:{closed_port()}")
    await failing(
        anthropic.APIConnectionError,
        settled_call(lambda: client.messages.create(**MESSAGE_REQUEST)),
    )


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Scenario:
    """What to do, what the provider answers, and the rows that must come of it."""

    run: Callable[[Any], Awaitable[None]]
    replies: tuple[Reply, ...]
    exact: Row | None = None
    incomplete: bool = False
    outcomes: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return self.run.__name__ + ("_retried" if len(self.replies) > 1 else "")

    @property
    def sdk(self) -> str:
        return "anthropic" if self.name.startswith("message") else "openai"


NOT_NOW = Reply(status=429, headers={"retry-after-ms": "1", "retry-after": "0.001"})
PACED = "one two three four five six seven eight"

CHAT_REPLY = Reply(usage=CHAT_USAGE)
RESPONSE_REPLY = Reply(usage=RESPONSE_USAGE)
EMBEDDING_REPLY = Reply(usage=EMBEDDING_USAGE)
MESSAGE_REPLY = Reply(usage=MESSAGE_USAGE)

SCENARIOS = [
    *(
        Scenario(run, (CHAT_REPLY,), exact=CHAT)
        for run in (
            chat_plain,
            chat_streamed,
            chat_streamed_with_usage,
            chat_raw,
            chat_streaming_response,
            chat_helper,
        )
    ),
    Scenario(chat_tool_call, (Reply(usage=CHAT_USAGE, tool_call=("f", {"a": 1})),), exact=CHAT),
    *(
        Scenario(run, (RESPONSE_REPLY,), exact=RESPONSE)
        for run in (
            response_plain,
            response_streamed,
            response_raw,
            response_streaming_response,
            response_helper,
        )
    ),
    *(
        Scenario(run, (EMBEDDING_REPLY,), exact=EMBEDDING)
        for run in (embedding_plain, embedding_raw)
    ),
    *(
        Scenario(run, (MESSAGE_REPLY,), exact=MESSAGE)
        for run in (
            message_plain,
            message_streamed,
            message_raw,
            message_streaming_response,
            message_helper,
        )
    ),
    *(
        Scenario(run, (NOT_NOW, NOT_NOW, reply), exact=exact, outcomes=(("error", 2), ("retry", 1)))
        for run, reply, exact in (
            (chat_plain, CHAT_REPLY, CHAT),
            (chat_streamed, CHAT_REPLY, CHAT),
            (response_plain, RESPONSE_REPLY, RESPONSE),
            (embedding_plain, EMBEDDING_REPLY, EMBEDDING),
            (message_plain, MESSAGE_REPLY, MESSAGE),
            (message_streamed, MESSAGE_REPLY, MESSAGE),
        )
    ),
    Scenario(chat_abandoned, (Reply(text=PACED, pace=0.01),), incomplete=True),
    Scenario(response_abandoned, (Reply(text=PACED, pace=0.01),), incomplete=True),
    Scenario(message_abandoned, (Reply(text=PACED, pace=0.01),), incomplete=True),
    Scenario(chat_500, (Reply(status=500),), outcomes=(("error", 1),)),
    Scenario(message_500, (Reply(status=500),), outcomes=(("error", 1),)),
    Scenario(chat_refused, (), outcomes=(("error", 1),)),
    Scenario(message_refused, (), outcomes=(("error", 1),)),
]

CLIENTS: dict[tuple[str, str], Callable[[FakeProvider], Any]] = {
    ("openai", "sync"): lambda p: openai.OpenAI(base_url=p.openai_url, api_key="k"),
    ("openai", "async"): lambda p: openai.AsyncOpenAI(base_url=p.openai_url, api_key="k"),
    ("anthropic", "sync"): lambda p: anthropic.Anthropic(base_url=p.anthropic_url, api_key="k"),
    ("anthropic", "async"): lambda p: anthropic.AsyncAnthropic(
        base_url=p.anthropic_url, api_key="k"
    ),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_sdk(
    scenario: Scenario,
    kind: str,
    meter: Meter,
    provider: FakeProvider,
    table: list[str],
) -> None:
    provider.reply(*scenario.replies)

    async def run() -> None:
        client = CLIENTS[scenario.sdk, kind](provider)
        meter.instrument(client, provider=scenario.sdk)
        try:
            await scenario.run(client)
        finally:
            await settled(client.close())

    asyncio.run(run())
    if scenario.incomplete:
        gc.collect()  # a stream that is dropped unread says nothing before

    events = events_of(meter)
    table.append(line(scenario, kind, events))
    rows = [row(e) for e in events if e.status == "ok"]
    assert rows == ([scenario.exact] if scenario.exact else [])
    unfinished = [e for e in events if e.status == "incomplete"]
    assert len(unfinished) == (1 if scenario.incomplete else 0)
    assert all(e.price.cost_pico_usd != 0 and e.reason for e in unfinished)
    assert len(events) == len(rows) + len(unfinished)
    assert outcomes_of(meter) == dict(scenario.outcomes)
    assert meter.status().faults == 0


def line(scenario: Scenario, kind: str, events: list[UsageEvent]) -> str:
    cells = [
        f"{e.status} {e.usage.input_tokens} in, {e.usage.output_tokens} out, "
        f"{e.price.cost_pico_usd} pico-USD"
        for e in events
    ]
    return f"{scenario.sdk:<10}{scenario.name:<32}{kind:<7}{'; '.join(cells) or 'no row'}"
