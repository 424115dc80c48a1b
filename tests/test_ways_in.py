"""Every SDK, plain and streamed, sync and async, through both ways in: one exact row each.

Prints a table. Unit prices are written down here by hand, from the providers' price pages.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import boto3
import cohere
import groq
import httpx
import httpx2
import mistralai.client as mistralai
import ollama
import openai
import pytest
from botocore.config import Config as BotoConfig
from google import genai
from google.genai.types import HttpOptions
from google.oauth2.credentials import Credentials

from conftest import events_of
from costmw import Config, Meter, tag
from costmw.capture.clients.sdk import find_http_clients
from costmw.errors import ConfigError
from costmw.price_overrides import PriceOverride
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import (
    CHAT,
    CHAT_USAGE,
    EMBEDDING,
    EMBEDDING_USAGE,
    HELLO,
    MESSAGE,
    MESSAGE_REQUEST,
    MESSAGE_USAGE,
    RESPONSE,
    RESPONSE_USAGE,
    Row,
    drained,
    pico,
    settled,
)

pytestmark = [
    # google-genai derives a class from aiohttp's session, cohere reads fields by an old name.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute:DeprecationWarning"),
]

assert importlib.util.find_spec("aiohttp"), "google-genai is to be tested above aiohttp"

CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
SONNET = {"input": "3", "read": "0.30", "write_5m": "3.75", "write_1h": "6", "output": "15"}

GEMINI_USAGE = {
    "promptTokenCount": 1200,
    "cachedContentTokenCount": 1000,
    "candidatesTokenCount": 300,
    "thoughtsTokenCount": 50,
    "totalTokenCount": 1550,
}
GEMINI = (1200, 350, pico((200, "0.30"), (1000, "0.03"), (350, "2.50")))
MISTRAL_USAGE = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
MISTRAL = (1000, 200, pico((1000, "0.15"), (200, "0.6")))
GROQ = (1000, 200, pico((1000, "0.05"), (200, "0.08")))
COHERE_USAGE = {
    "billed_units": {"input_tokens": 500, "output_tokens": 60},
    "tokens": {"input_tokens": 620, "output_tokens": 61},
}
COHERE = (500, 60, pico((500, "2.5"), (60, "10")))
OLLAMA_USAGE = {"prompt_eval_count": 26, "eval_count": 290}
OLLAMA = (26, 290, pico((26, "0.01"), (290, "0.02")))
CONVERSE_USAGE = {
    "inputTokens": 200,
    "outputTokens": 55,
    "totalTokens": 2455,
    "cacheReadInputTokens": 1500,
    "cacheWriteInputTokens": 700,
}
CONVERSE = (
    2400,
    55,
    pico(
        (200, SONNET["input"]),
        (1500, SONNET["read"]),
        (700, SONNET["write_5m"]),
        (55, SONNET["output"]),
    ),
)
INVOKE_USAGE = {"input_tokens": 200, "output_tokens": 55}
INVOKE = (200, 55, pico((200, SONNET["input"]), (55, SONNET["output"])))


def key(provider: FakeProvider) -> str:
    return provider.url.removeprefix("http://")


@dataclass(frozen=True)
class Way:
    """How an SDK is used. `usual` False: the SDK is used with many, so the user says which."""

    name: str
    provider: str
    open: Callable[[FakeProvider], Any]
    plain: Callable[[Any], Any] | None
    stream: Callable[[Any], Any] | None
    usage: dict[str, Any]
    row: Row
    usual: bool = True
    options: dict[str, Any] = field(default_factory=dict)


CHAT_REQUEST: dict[str, Any] = {"model": "gpt-5-mini", "messages": HELLO}
RESPONSE_REQUEST: dict[str, Any] = {"model": "gpt-5-mini", "input": "hello"}
GEMINI_REQUEST = {"model": "gemini-2.5-flash", "contents": "hello"}
MISTRAL_REQUEST = {"model": "mistral-small-latest", "messages": HELLO}
GROQ_REQUEST = {"model": "llama-3.1-8b-instant", "messages": HELLO}
COHERE_REQUEST = {"model": "command-a-03-2025", "messages": HELLO}
OLLAMA_REQUEST = {"model": "llama3.2", "messages": HELLO}
CONVERSE_REQUEST = {
    "modelId": CLAUDE,
    "messages": [{"role": "user", "content": [{"text": "hello"}]}],
}
INVOKE_REQUEST = {
    "modelId": CLAUDE,
    "body": json.dumps(
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": HELLO}
    ),
}


def openai_ways(kind: str, client: type[Any], **options: Any) -> list[Way]:
    def open_client(provider: FakeProvider) -> Any:
        address = (
            {"azure_endpoint": provider.url, "api_version": "2025-01-01-preview"}
            if "Azure" in client.__name__
            else {"base_url": provider.openai_url}
        )
        return client(**address, api_key="k")

    billed = "azure.ai.openai" if "Azure" in client.__name__ else "openai"
    common = {"provider": billed, "open": open_client, "usual": False}
    name = "azure openai" if "Azure" in client.__name__ else "openai"
    return [
        Way(
            f"{name} chat {kind}",
            plain=lambda c: c.chat.completions.create(**CHAT_REQUEST),
            stream=lambda c: c.chat.completions.create(**CHAT_REQUEST, stream=True),
            usage=CHAT_USAGE,
            row=CHAT,
            **common,
        ),
        Way(
            f"{name} responses {kind}",
            plain=lambda c: c.responses.create(**RESPONSE_REQUEST),
            stream=lambda c: c.responses.create(**RESPONSE_REQUEST, stream=True),
            usage=RESPONSE_USAGE,
            row=RESPONSE,
            **common,
        ),
        Way(
            f"{name} embeddings {kind}",
            plain=lambda c: c.embeddings.create(model="text-embedding-3-small", input="hello"),
            stream=None,
            usage=EMBEDDING_USAGE,
            row=EMBEDDING,
            **common,
        ),
    ]


def anthropic_way(kind: str, client: type[Any]) -> Way:
    return Way(
        f"anthropic {kind}",
        "anthropic",
        lambda p: client(base_url=p.anthropic_url, api_key="k"),
        lambda c: c.messages.create(**MESSAGE_REQUEST),
        lambda c: c.messages.create(**MESSAGE_REQUEST, stream=True),
        MESSAGE_USAGE,
        MESSAGE,
        usual=False,
    )


def google_ways(name: str, billed: str, **options: Any) -> list[Way]:
    def open_with(**more: Any) -> Callable[[FakeProvider], Any]:
        return lambda p: genai.Client(
            **options,
            http_options=HttpOptions(
                base_url=p.google_url, **{key: make() for key, make in more.items()}
            ),
        )

    sync = Way(
        f"{name} sync",
        billed,
        open_with(),
        lambda c: c.models.generate_content(**GEMINI_REQUEST),
        lambda c: c.models.generate_content_stream(**GEMINI_REQUEST),
        GEMINI_USAGE,
        GEMINI,
    )

    def async_way(kind: str, opened: Callable[[FakeProvider], Any]) -> Way:
        return Way(
            f"{name} async {kind}",
            billed,
            opened,
            lambda c: c.aio.models.generate_content(**GEMINI_REQUEST),
            lambda c: c.aio.models.generate_content_stream(**GEMINI_REQUEST),
            GEMINI_USAGE,
            GEMINI,
        )

    return [
        sync,
        async_way("aiohttp", open_with()),
        async_way("httpx2", open_with(httpx_async_client=httpx2.AsyncClient)),
        async_way("httpx", open_with(httpx_async_client=httpx.AsyncClient)),
    ]


def mistral_way(kind: str, suffix: str) -> Way:
    return Way(
        f"mistralai {kind}",
        "mistral_ai",
        lambda p: mistralai.Mistral(api_key="k", server_url=p.mistral_url),
        lambda c: getattr(c.chat, f"complete{suffix}")(**MISTRAL_REQUEST),
        lambda c: getattr(c.chat, f"stream{suffix}")(**MISTRAL_REQUEST),
        MISTRAL_USAGE,
        MISTRAL,
    )


def groq_way(kind: str, client: type[Any]) -> Way:
    return Way(
        f"groq {kind}",
        "groq",
        lambda p: client(base_url=p.groq_url, api_key="k"),
        lambda c: c.chat.completions.create(**GROQ_REQUEST),
        lambda c: c.chat.completions.create(**GROQ_REQUEST, stream=True),
        MISTRAL_USAGE,
        GROQ,
    )


def cohere_way(kind: str, client: type[Any]) -> Way:
    return Way(
        f"cohere {kind}",
        "cohere",
        lambda p: client("k", base_url=p.cohere_url),
        lambda c: c.chat(**COHERE_REQUEST),
        lambda c: c.chat_stream(**COHERE_REQUEST),
        COHERE_USAGE,
        COHERE,
    )


def ollama_way(kind: str, client: type[Any]) -> Way:
    return Way(
        f"ollama {kind}",
        "ollama",
        lambda p: client(host=p.ollama_url),
        lambda c: c.chat(**OLLAMA_REQUEST),
        lambda c: c.chat(**OLLAMA_REQUEST, stream=True),
        OLLAMA_USAGE,
        OLLAMA,
    )


def bedrock(provider: FakeProvider) -> Any:
    return boto3.client("bedrock-runtime", **boto_options(provider))


def boto_options(provider: FakeProvider) -> dict[str, Any]:
    return {
        "endpoint_url": provider.bedrock_url,
        "region_name": "us-east-1",
        "aws_access_key_id": "AKIDEXAMPLE",
        "aws_secret_access_key": "k",
        "config": BotoConfig(retries={"max_attempts": 1}),
    }


WAYS = [
    *openai_ways("sync", openai.OpenAI),
    *openai_ways("async", openai.AsyncOpenAI),
    *openai_ways("sync", openai.AzureOpenAI),
    *openai_ways("async", openai.AsyncAzureOpenAI),
    anthropic_way("sync", anthropic.Anthropic),
    anthropic_way("async", anthropic.AsyncAnthropic),
    *google_ways("google-genai", "gcp.gemini", api_key="k"),
    *google_ways(
        "google-genai vertex",
        "gcp.vertex_ai",
        vertexai=True,
        project="p",
        location="us-central1",
        credentials=Credentials("token"),
    ),
    mistral_way("sync", ""),
    mistral_way("async", "_async"),
    groq_way("sync", groq.Groq),
    groq_way("async", groq.AsyncGroq),
    cohere_way("sync", cohere.ClientV2),
    cohere_way("async", cohere.AsyncClientV2),
    ollama_way("sync", ollama.Client),
    ollama_way("async", ollama.AsyncClient),
    Way(
        "boto3 converse",
        "aws.bedrock",
        bedrock,
        lambda c: c.converse(**CONVERSE_REQUEST),
        lambda c: c.converse_stream(**CONVERSE_REQUEST)["stream"],
        CONVERSE_USAGE,
        CONVERSE,
    ),
    Way(
        "boto3 invoke",
        "aws.bedrock",
        bedrock,
        lambda c: c.invoke_model(**INVOKE_REQUEST)["body"].read(),
        lambda c: c.invoke_model_with_response_stream(**INVOKE_REQUEST)["body"],
        INVOKE_USAGE,
        INVOKE,
    ),
]
CASES = [
    pytest.param(way, streamed, id=f"{way.name} {'stream' if streamed else 'plain'}")
    for way in WAYS
    for streamed in (False, True)
    if (way.stream if streamed else way.plain)
]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    terminal = request.config.get_terminal_writer()
    terminal.write("\n" + "\n".join(lines) + "\n")


async def close(client: Any) -> None:
    """Close what an SDK may leave open: the clients that it was given, or all."""
    inner = [http.client for http in find_http_clients(client)]
    for holder in (getattr(client, "aio", None), client, *inner):
        end = getattr(holder, "aclose", None) or getattr(holder, "close", None)
        if callable(end):
            await settled(end())


@pytest.mark.parametrize("everything", [False, True], ids=["instrument", "instrument_all"])
@pytest.mark.parametrize(("way", "streamed"), CASES)
def test_way_in(
    way: Way,
    streamed: bool,
    everything: bool,
    make_meter: Callable[..., Meter],
    provider: FakeProvider,
    table: list[str],
) -> None:
    provider.default = Reply(usage=way.usage, text="one two three")
    own_price = PriceOverride("llama3.2", {"input": "0.01", "output": "0.02"})
    hosts = {key(provider): way.provider} if everything else {}
    meter = make_meter(config=Config(ack_timeout=30, hosts=hosts, prices=(own_price,)))

    async def run() -> None:
        before = way.open(provider) if everything else None
        if everything:
            meter.instrument_all()
        try:
            client = way.open(provider)
            if not everything:
                named = {} if way.usual else {"provider": way.provider}
                assert meter.instrument(client, **named) is client
            with tag(feature=way.name):
                for used in filter(None, (before, client)):
                    call = way.stream if streamed else way.plain
                    answer = call(used)
                    answer = await answer if inspect.isawaitable(answer) else answer
                    if streamed:
                        assert len(await drained(answer)) > 2
                    await close(used)
        finally:
            meter.uninstrument_all()

    asyncio.run(run())
    found = [
        (
            event.provider,
            event.usage.input_tokens,
            event.usage.output_tokens,
            event.price.cost_pico_usd,
            event.status,
            event.reason,
            event.tags["feature"],
        )
        for event in events_of(meter)
    ]
    table.append(
        f"{way.name:<34}{'stream' if streamed else 'plain':<8}"
        f"{'instrument_all' if everything else 'instrument':<16}{len(found)} "
        f"{way.row[0]:>6}{way.row[1]:>5}  {way.row[2]:>12} pUSD"
    )
    assert [(way.provider, *way.row, "ok", None, way.name)] * len(found) == found
    assert len(found) == len(provider.requests) == (2 if everything else 1)
    assert meter.status().faults == 0


def test_a_session_of_boto3_follows_the_clients_that_it_makes(
    meter: Meter, provider: FakeProvider
) -> None:
    provider.default = Reply(usage=CONVERSE_USAGE)
    session = boto3.Session()
    meter.instrument(session)
    meter.instrument(session)
    client = session.client("bedrock-runtime", **boto_options(provider))
    client.converse(**CONVERSE_REQUEST)
    meter.instrument(client)
    list(client.converse_stream(**CONVERSE_REQUEST)["stream"])
    session.client("s3", **boto_options(provider))
    boto3.client("bedrock-runtime", **boto_options(provider)).converse(**CONVERSE_REQUEST)
    assert [CONVERSE] * 2 == [
        (event.usage.input_tokens, event.usage.output_tokens, event.price.cost_pico_usd)
        for event in events_of(meter)
    ]
    assert all(event.api_key_id for event in events_of(meter))


class Stranger:
    pass


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Stranger(), "test_ways_in.Stranger"),
        (openai.OpenAI, "the class openai.OpenAI; pass an instance"),
        (httpx.Client, "pass an instance"),
        (boto3.client("s3", region_name="us-east-1"), "a boto3 client of s3"),
        (None, "NoneType"),
    ],
    ids=["stranger", "class of an SDK", "class of a library", "other service", "nothing"],
)
def test_an_unknown_object_is_told_what_is_known(meter: Meter, target: Any, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        meter.instrument(target)
    message = str(error.value)
    assert said in message
    if "s3" not in said:
        assert "instrument_all()" in message
        for known in ("openai", "google-genai", "boto3", "requests", "aiohttp", "httpx2"):
            assert known in message
