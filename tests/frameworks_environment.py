"""Calls through litellm and llama-index, in the environment that `make test` sets up for them.

    python frameworks_environment.py STORE OPENAI_ADDRESS ANTHROPIC_ADDRESS

Makes every call three times: unfollowed, after `instrument_all()` with the same clients, and
with clients made after it. See `test_frameworks_environment.py`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from costmw import Config, Meter, tag

Way = Callable[[Any], Any]

HELLO = [{"role": "user", "content": "hello"}]


class LiteLLM:
    """The functions of litellm, which keeps the clients itself: it makes new ones from now on."""

    def __init__(self, model: str, api_base: str) -> None:
        import litellm

        litellm.in_memory_llm_clients_cache.flush_cache()
        self._litellm = litellm
        self._options = {"model": model, "api_base": api_base, "api_key": "k"}

    def completion(self, **options: Any) -> Any:
        return self._litellm.completion(**self._options, messages=HELLO, **options)

    def acompletion(self, **options: Any) -> Any:
        return self._litellm.acompletion(**self._options, messages=HELLO, **options)

    async def astream(self) -> None:
        assert [chunk async for chunk in await self.acompletion(stream=True)]

    def embedding(self) -> Any:
        return self._litellm.embedding(**self._options, input=["hello"])

    def aembedding(self) -> Any:
        return self._litellm.aembedding(**self._options, input=["hello"])


def llama_openai(address: str) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(model="gpt-5-mini", api_base=f"{address}/v1", api_key="k")


def llama_anthropic(address: str) -> Any:
    from llama_index.llms.anthropic import Anthropic

    return Anthropic(model="claude-haiku-4-5", base_url=address, api_key="k")


def hello() -> Any:
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(role="user", content="hello")]


async def astream_chat(model: Any) -> None:
    assert [chunk async for chunk in await model.astream_chat(hello())]


LITELLM: dict[str, Way] = {
    "completion": LiteLLM.completion,
    "completion, streamed": lambda llm: list(llm.completion(stream=True)),
    "acompletion": LiteLLM.acompletion,
    "acompletion, streamed": LiteLLM.astream,
}
LLAMA_INDEX: dict[str, Way] = {
    "complete": lambda model: model.complete("hello"),
    "chat": lambda model: model.chat(hello()),
    "stream_chat": lambda model: list(model.stream_chat(hello())),
    "achat": lambda model: model.achat(hello()),
    "astream_chat": astream_chat,
}

FRAMEWORKS: dict[str, tuple[str, Callable[[str], Any], Mapping[str, Way]]] = {
    "litellm openai": (
        "openai",
        lambda address: LiteLLM("openai/gpt-5-mini", f"{address}/v1"),
        LITELLM,
    ),
    "litellm openai, aiohttp alone": (
        "openai",
        lambda address: LiteLLM("aiohttp_openai/gpt-5-mini", f"{address}/v1"),
        {"acompletion": LiteLLM.acompletion},
    ),
    "litellm embeddings": (
        "openai",
        lambda address: LiteLLM("openai/text-embedding-3-small", f"{address}/v1"),
        {"embedding": LiteLLM.embedding, "aembedding": LiteLLM.aembedding},
    ),
    "litellm anthropic": (
        "anthropic",
        lambda address: LiteLLM("anthropic/claude-haiku-4-5", address),
        LITELLM,
    ),
    "llama-index openai": ("openai", llama_openai, LLAMA_INDEX),
    "llama-index anthropic": ("anthropic", llama_anthropic, LLAMA_INDEX),
}
"""By name: whose API it calls, how its client is made, and the ways to ask it."""


async def awaited(answer: Any) -> Any:
    return await answer


def main(store: str, addresses: Mapping[str, str]) -> None:
    def clients() -> dict[str, Any]:
        return {name: make(addresses[api]) for name, (api, make, _) in FRAMEWORKS.items()}

    def ask_all(clients: Mapping[str, Any], made: str) -> None:
        for name, client in clients.items():
            for way, ask in FRAMEWORKS[name][2].items():
                with tag(call=f"{name}, {way}", made=made):
                    answer = ask(client)
                    if inspect.isawaitable(answer):
                        runner.run(awaited(answer), context=contextvars.copy_context())

    hosts = {address.removeprefix("http://"): api for api, address in addresses.items()}
    meter = Meter(store, config=Config(ack_timeout=30.0, hosts=hosts))
    with asyncio.Runner() as runner:
        older = clients()
        ask_all(older, "unfollowed")
        meter.instrument_all()
        ask_all(older, "before")
        ask_all(clients(), "after")
    meter.close()
    print(json.dumps({"faults": meter.status().faults}))


if __name__ == "__main__":
    main(sys.argv[1], {"openai": sys.argv[2], "anthropic": sys.argv[3]})
