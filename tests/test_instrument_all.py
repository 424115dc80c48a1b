"""`instrument_all()` for the whole process, whatever its threads and tasks are doing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import httpx_aiohttp
import openai
import requests

from conftest import events_of
from costmw import Config, Meter, tag
from costmw.testing import FakeProvider, Reply
from prices import CHAT, CHAT_USAGE, row
from test_sdk_matrix import HELLO

THREADS = TASKS = 300
AT_ONCE = 8
"""Of either."""


def body(*, stream: bool) -> Any:
    return {"model": "gpt-5-mini", "messages": HELLO, "stream": stream}


def by_openai(url: str, *, stream: bool) -> bytes:
    http = openai.DefaultHttpxClient(verify=False)
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0, http_client=http) as client:
        answer = client.chat.completions.create(**body(stream=stream))
        return repr(list(answer) if stream else answer).encode()


def by_httpx(make: Callable[..., Any]) -> Callable[..., bytes]:
    def call(url: str, *, stream: bool) -> bytes:
        options = {"url": f"{url}/chat/completions", "json": body(stream=stream)}
        with make() as client:
            if not stream:
                return client.post(**options).raise_for_status().content
            with client.stream("POST", **options) as response:
                return b"".join(response.raise_for_status().iter_bytes())

    return call


def by_requests(url: str, *, stream: bool) -> bytes:
    with requests.Session() as session:
        options = {"json": body(stream=stream), "stream": stream}
        response = session.post(f"{url}/chat/completions", **options)
        response.raise_for_status()
        return response.content


async def by_async_openai(url: str, *, stream: bool) -> bytes:
    http = openai.DefaultAsyncHttpxClient(verify=False)
    async with openai.AsyncOpenAI(
        base_url=url, api_key="k", max_retries=0, http_client=http
    ) as client:
        answer = await client.chat.completions.create(**body(stream=stream))
        return repr([chunk async for chunk in answer] if stream else answer).encode()


def by_async_httpx(make: Callable[..., Any]) -> Callable[..., Any]:
    async def call(url: str, *, stream: bool) -> bytes:
        options = {"url": f"{url}/chat/completions", "json": body(stream=stream)}
        async with make() as client:
            if not stream:
                return (await client.post(**options)).raise_for_status().content
            async with client.stream("POST", **options) as response:
                return b"".join(
                    [chunk async for chunk in response.raise_for_status().aiter_bytes()]
                )

    return call


async def by_aiohttp(url: str, *, stream: bool) -> bytes:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        async with session.post(f"{url}/chat/completions", json=body(stream=stream)) as response:
            return await response.read()


SYNC = [
    by_openai,
    by_httpx(lambda: httpx.Client(verify=False)),
    by_httpx(lambda: httpx2.Client(verify=False)),
    by_requests,
]
ASYNC = [
    by_async_openai,
    by_async_httpx(lambda: httpx.AsyncClient(verify=False)),
    by_async_httpx(lambda: httpx2.AsyncClient(verify=False)),
    by_async_httpx(httpx_aiohttp.HttpxAiohttpClient),
    by_aiohttp,
]


class Switch(threading.Thread):
    """Follows all clients, and follows them no more, again and again.

    It turns after so many answers of the provider, and so at any speed of the machine.
    `steps` counts before each turn and after it.
    """

    def __init__(self, meter: Meter, provider: FakeProvider) -> None:
        super().__init__()
        self.steps = 0
        self._meter = meter
        self._provider = provider
        self._ended = threading.Event()

    def run(self) -> None:
        chance = random.Random(7)
        while not self._ended.is_set():
            turn = self._meter.uninstrument_all if self.steps % 4 else self._meter.instrument_all
            self.steps += 1
            turn()
            self.steps += 1
            until = self._provider.served + chance.choice([0, 1, 1, 2, 2, 3, 3, 60])
            while self._provider.served < until and not self._ended.is_set():
                time.sleep(0.001)

    def end(self) -> None:
        self._ended.set()
        self.join()
        self._meter.uninstrument_all()

    def since(self, steps: int) -> str:
        """Whether clients have been followed all the time, or never."""
        if steps != self.steps or steps % 2:
            return "now and then"
        return "followed" if steps % 4 else "not followed"


def test_switched_on_and_off_while_clients_are_made_and_used(
    make_meter: Callable[..., Meter], provider: FakeProvider, table: list[str]
) -> None:
    provider.default = Reply(usage=CHAT_USAGE, text="one two three", pace=0.001)
    url, hosts = provider.openai_url, {provider.url.removeprefix("http://"): "openai"}
    meter = make_meter(config=Config(ack_timeout=30.0, hosts=hosts))
    switch = Switch(meter, provider)
    kinds: dict[str, str] = {}
    errors: list[BaseException] = []
    some_threads = threading.Semaphore(AT_ONCE)

    def answered(name: str, steps: int, answer: bytes, *, stream: bool) -> None:
        kinds[name] = switch.since(steps)
        # Nobody asks for the usage of a stream, and nobody sees that costmw does.
        assert (b"prompt_tokens" in answer) is not stream

    def in_thread(n: int) -> None:
        with some_threads, tag(call=f"thread {n}"):
            steps, stream = switch.steps, bool(n // len(SYNC) % 2)
            try:
                answer = SYNC[n % len(SYNC)](url, stream=stream)
                answered(f"thread {n}", steps, answer, stream=stream)
            except BaseException as error:
                errors.append(error)

    async def in_task(n: int, some_tasks: asyncio.Semaphore) -> None:
        async with some_tasks:
            with tag(call=f"task {n}"):
                steps, stream = switch.steps, bool(n // len(ASYNC) % 2)
                try:
                    answer = await ASYNC[n % len(ASYNC)](url, stream=stream)
                    answered(f"task {n}", steps, answer, stream=stream)
                except BaseException as error:
                    errors.append(error)

    async def in_tasks() -> None:
        some_tasks = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(in_task(n, some_tasks) for n in range(TASKS)))

    threads = [threading.Thread(target=in_thread, args=(n,)) for n in range(THREADS)]
    switch.start()
    for thread in threads:
        thread.start()
    try:
        asyncio.run(in_tasks())
    finally:
        for thread in threads:
            thread.join()
        switch.end()

    assert errors == []
    assert provider.served == len(kinds) == THREADS + TASKS
    events = events_of(meter)
    rows = Counter(event.tags["call"] for event in events)
    seen = {
        kind: Counter(rows[name] for name in kinds if kinds[name] == kind)
        for kind in ("followed", "not followed", "now and then")
    }
    table.append(
        f"{len(kinds)} calls, {switch.steps // 2} turns; calls by their number of rows: "
        + "; ".join(f"{kind} {dict(sorted(counts.items()))}" for kind, counts in seen.items())
    )
    assert set(seen["followed"]) == {1}
    assert set(seen["not followed"]) == {0}
    assert set(seen["now and then"]) <= {0, 1}
    assert min(seen["followed"][1], seen["not followed"][0]) > 15
    assert {(event.status, *row(event)) for event in events} == {("ok", *CHAT)}
    assert meter.status().faults == 0
