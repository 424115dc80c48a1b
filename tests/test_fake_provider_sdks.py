"""The fake provider against the real SDKs of Google, Mistral, Groq, Cohere, Ollama and AWS."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.exceptions
import cohere
import groq
import mistralai.client as mistralai
import ollama
import pytest
from anthropic import AnthropicBedrock, AnthropicVertex
from botocore.config import Config
from google import genai
from google.genai import errors as genai_errors
from google.oauth2.credentials import Credentials
from pydantic import BaseModel

from costmw.testing import FakeProvider, Reply

pytestmark = [
    # google-genai derives a class from aiohttp's session; cohere uses pydantic in old ways.
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning"),
]

PROMPT = "abcd" * 10
TEXT = "a" * 9 + " " + "b" * 10
WEATHER = ("get_weather", {"city": "Kraków", "days": 3})
ASK = [{"role": "user", "content": PROMPT}]
CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
ARN = f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{CLAUDE}"
INVOKE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "messages": ASK}
NOVA = {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]}


@dataclass(frozen=True)
class Sdk:
    """How an SDK is used: each function gets a client, or what the one before returned.

    tokens: Input and output tokens of a response or of the last piece of a stream.
    tool: Name and arguments of the tool in a response.
    error, says: What a refusal for too many requests raises, and what is in its text.
    """

    open: Callable[[FakeProvider], Any]
    ask: Callable[[Any], Any]
    stream: Callable[[Any], Any]
    text: Callable[[Any], str]
    piece: Callable[[Any], str | None]
    tokens: Callable[[Any], tuple[int, int]]
    tool: Callable[[Any], tuple[str, Any]]
    error: type[Exception]
    says: str = "429"
    last_tokens: Callable[[Any], tuple[int, int]] | None = None


def google(**options: Any) -> Callable[[FakeProvider], Any]:
    return lambda provider: genai.Client(**options, http_options={"base_url": provider.google_url})


def google_sdk(client: Callable[[FakeProvider], Any], *, part: Callable[[Any], Any]) -> Sdk:
    asked = {"model": "gemini-2.5-flash", "contents": PROMPT}
    return Sdk(
        open=client,
        ask=lambda c: part(c).models.generate_content(**asked),
        stream=lambda c: part(c).models.generate_content_stream(**asked),
        text=lambda answer: answer.text,
        piece=lambda chunk: chunk.text,
        tokens=lambda answer: (
            answer.usage_metadata.prompt_token_count,
            answer.usage_metadata.candidates_token_count,
        ),
        tool=lambda answer: (answer.function_calls[0].name, answer.function_calls[0].args),
        error=genai_errors.ClientError,
    )


def chat_sdk(**more: Any) -> Sdk:
    """One that speaks much like OpenAI."""
    usual: dict[str, Any] = {
        "text": lambda answer: answer.choices[0].message.content,
        "tokens": lambda answer: (answer.usage.prompt_tokens, answer.usage.completion_tokens),
        "tool": lambda answer: function_of(answer.choices[0].message.tool_calls[0]),
    }
    return Sdk(**usual | more)


def function_of(call: Any) -> tuple[str, Any]:
    return call.function.name, json.loads(call.function.arguments)


def groq_sdk(client: Any) -> Sdk:
    asked = {"model": "llama-3.1-8b-instant", "messages": ASK}
    return chat_sdk(
        open=lambda provider: client(base_url=provider.groq_url, api_key="k", max_retries=0),
        ask=lambda c: c.chat.completions.create(**asked),
        stream=lambda c: c.chat.completions.create(**asked, stream=True),
        piece=lambda chunk: chunk.choices[0].delta.content,
        last_tokens=lambda chunk: (
            chunk.x_groq.usage.prompt_tokens,
            chunk.x_groq.usage.completion_tokens,
        ),
        error=groq.RateLimitError,
    )


def mistral_sdk(suffix: str) -> Sdk:
    asked = {"model": "mistral-small-latest", "messages": ASK}
    return chat_sdk(
        open=lambda provider: mistralai.Mistral(api_key="k", server_url=provider.mistral_url),
        ask=lambda c: getattr(c.chat, f"complete{suffix}")(**asked),
        stream=lambda c: getattr(c.chat, f"stream{suffix}")(**asked),
        piece=lambda event: event.data.choices[0].delta.content,
        last_tokens=lambda event: (
            event.data.usage.prompt_tokens,
            event.data.usage.completion_tokens,
        ),
        error=mistralai.errors.SDKError,
    )


def cohere_sdk(client: Any) -> Sdk:
    asked = {
        "model": "command-a-03-2025",
        "messages": ASK,
        "request_options": {"max_retries": 0},
    }
    return Sdk(
        open=lambda provider: client("k", base_url=provider.cohere_url),
        ask=lambda c: c.chat(**asked),
        stream=lambda c: c.chat_stream(**asked),
        text=lambda answer: answer.message.content[0].text,
        piece=lambda event: (
            event.delta.message.content.text if event.type == "content-delta" else None
        ),
        tokens=lambda answer: billed(answer.usage),
        last_tokens=lambda event: billed(event.delta.usage),
        tool=lambda answer: function_of(answer.message.tool_calls[0]),
        error=cohere.TooManyRequestsError,
    )


def billed(usage: Any) -> tuple[int, int]:
    return usage.billed_units.input_tokens, usage.billed_units.output_tokens


def cohere_v1_sdk(client: Any) -> Sdk:
    asked = {"message": PROMPT, "request_options": {"max_retries": 0}}
    return Sdk(
        open=lambda provider: client("k", base_url=provider.cohere_url),
        ask=lambda c: c.chat(**asked),
        stream=lambda c: c.chat_stream(**asked),
        text=lambda answer: answer.text,
        piece=lambda event: event.text if event.event_type == "text-generation" else None,
        tokens=lambda answer: billed(answer.meta),
        last_tokens=lambda event: billed(event.response.meta),
        tool=lambda answer: (answer.tool_calls[0].name, answer.tool_calls[0].parameters),
        error=cohere.TooManyRequestsError,
    )


def ollama_sdk(client: Any) -> Sdk:
    asked = {"model": "llama3.2", "messages": ASK}
    return Sdk(
        open=lambda provider: client(host=provider.ollama_url),
        ask=lambda c: c.chat(**asked),
        stream=lambda c: c.chat(**asked, stream=True),
        text=lambda answer: answer.message.content,
        piece=lambda chunk: chunk.message.content,
        tokens=lambda answer: (answer.prompt_eval_count, answer.eval_count),
        tool=lambda answer: (
            answer.message.tool_calls[0].function.name,
            answer.message.tool_calls[0].function.arguments,
        ),
        error=ollama.ResponseError,
    )


def bedrock_client(provider: FakeProvider) -> Any:
    return boto3.client(
        "bedrock-runtime",
        endpoint_url=provider.bedrock_url,
        region_name="us-east-1",
        aws_access_key_id="k",
        aws_secret_access_key="k",
        config=Config(retries={"total_max_attempts": 1}),
    )


def invoke_sdk(model: str, body: dict[str, Any], **more: Any) -> Sdk:
    asked = {"modelId": model, "body": json.dumps(body)}
    usual: dict[str, Any] = {
        "open": bedrock_client,
        "ask": lambda c: c.invoke_model(**asked),
        "stream": lambda c: (
            json.loads(event["chunk"]["bytes"])
            for event in c.invoke_model_with_response_stream(**asked)["body"]
        ),
        "tokens": lambda answer: tuple(
            int(answer["ResponseMetadata"]["HTTPHeaders"][f"x-amzn-bedrock-{name}-token-count"])
            for name in ("input", "output")
        ),
        "last_tokens": lambda chunk: tuple(
            chunk["amazon-bedrock-invocationMetrics"][name]
            for name in ("inputTokenCount", "outputTokenCount")
        ),
        "error": botocore.exceptions.ClientError,
        "says": "ThrottlingException",
    }
    return Sdk(**usual | more)


def first_block(answer: Any) -> Any:
    body = answer if "output" in answer else json.load(answer["body"])
    return body["output"]["message"]["content"][0]


def use(block: Any) -> tuple[str, Any]:
    return block["name"], block["input"]


NOVA_PARTS: dict[str, Any] = {
    "text": lambda answer: first_block(answer)["text"],
    "piece": lambda event: event.get("contentBlockDelta", {}).get("delta", {}).get("text"),
    "tool": lambda answer: use(first_block(answer)["toolUse"]),
}

SDKS = {
    "gemini": google_sdk(google(api_key="k"), part=lambda c: c),
    "vertex": google_sdk(
        google(
            vertexai=True, credentials=Credentials("token"), project="p", location="us-central1"
        ),
        part=lambda c: c,
    ),
    "vertex express": google_sdk(google(vertexai=True, api_key="k"), part=lambda c: c),
    "mistral": mistral_sdk(""),
    "groq": groq_sdk(groq.Groq),
    "cohere": cohere_sdk(cohere.ClientV2),
    "cohere v1": cohere_v1_sdk(cohere.Client),
    "ollama": ollama_sdk(ollama.Client),
    "converse": Sdk(
        open=bedrock_client,
        ask=lambda c: c.converse(modelId=ARN, **NOVA),
        stream=lambda c: c.converse_stream(modelId=ARN, **NOVA)["stream"],
        tokens=lambda answer: (answer["usage"]["inputTokens"], answer["usage"]["outputTokens"]),
        last_tokens=lambda event: (
            event["metadata"]["usage"]["inputTokens"],
            event["metadata"]["usage"]["outputTokens"],
        ),
        error=botocore.exceptions.ClientError,
        says="ThrottlingException",
        **NOVA_PARTS,
    ),
    "invoke nova": invoke_sdk("amazon.nova-lite-v1:0", NOVA, **NOVA_PARTS),
    "invoke claude": invoke_sdk(
        ARN,
        INVOKE,
        text=lambda answer: json.load(answer["body"])["content"][0]["text"],
        piece=lambda event: event.get("delta", {}).get("text"),
        tool=lambda answer: use(json.load(answer["body"])["content"][0]),
    ),
}
ASYNC_SDKS = {
    "gemini": google_sdk(google(api_key="k"), part=lambda c: c.aio),
    "mistral": mistral_sdk("_async"),
    "groq": groq_sdk(groq.AsyncGroq),
    "cohere": cohere_sdk(cohere.AsyncClientV2),
    "cohere v1": cohere_v1_sdk(cohere.AsyncClient),
    "ollama": ollama_sdk(ollama.AsyncClient),
}
sdks = pytest.mark.parametrize("sdk", SDKS.values(), ids=SDKS.keys())


@contextmanager
def opened(sdk: Sdk, provider: FakeProvider) -> Iterator[Any]:
    client = sdk.open(provider)
    with client if hasattr(client, "__exit__") else closing(client):
        yield client


async def shut(client: Any) -> None:
    """Close an async client; no two SDKs agree on how."""
    if isinstance(client, genai.Client):
        await client.aio.aclose()
    elif hasattr(client, "__aexit__"):
        await client.__aexit__(None, None, None)
    else:
        await client.close()


def check(sdk: Sdk, answer: Any, pieces: list[Any]) -> None:
    assert sdk.tokens(answer) == (10, 5)
    assert sdk.text(answer) == TEXT
    said = [sdk.piece(piece) for piece in pieces]
    assert [piece for piece in said if piece] == [TEXT[:10], TEXT[10:]]
    assert (sdk.last_tokens or sdk.tokens)(pieces[-1]) == (10, 5)


@sdks
def test_text_and_tokens_plain_and_streamed(provider: FakeProvider, sdk: Sdk) -> None:
    provider.default = Reply(text=TEXT)
    with opened(sdk, provider) as client:
        check(sdk, sdk.ask(client), list(sdk.stream(client)))


@pytest.mark.parametrize("sdk", ASYNC_SDKS.values(), ids=ASYNC_SDKS.keys())
def test_text_and_tokens_through_the_async_clients(provider: FakeProvider, sdk: Sdk) -> None:
    async def main() -> None:
        client = sdk.open(provider)
        answer = await sdk.ask(client)
        stream = sdk.stream(client)
        stream = await stream if inspect.isawaitable(stream) else stream
        check(sdk, answer, [piece async for piece in stream])
        await shut(client)

    provider.default = Reply(text=TEXT)
    asyncio.run(main())


@sdks
def test_an_error_is_the_sdks_own(provider: FakeProvider, sdk: Sdk) -> None:
    provider.default = Reply(status=429)
    with opened(sdk, provider) as client:
        for ask in (sdk.ask, lambda c: list(sdk.stream(c))):
            with pytest.raises(sdk.error, match=sdk.says):
                ask(client)


@sdks
def test_tool_call_plain_and_streamed(provider: FakeProvider, sdk: Sdk) -> None:
    provider.default = Reply(tool_call=WEATHER)
    with opened(sdk, provider) as client:
        assert sdk.tool(sdk.ask(client)) == WEATHER
        assert "get_weather" in repr(
            [
                piece.model_dump() if isinstance(piece, BaseModel) else piece
                for piece in sdk.stream(client)
            ]
        )


# --- what else the SDKs ask for ---


def test_models_are_listed(provider: FakeProvider) -> None:
    for name, models in {
        "gemini": lambda c: [model.name for model in c.models.list()],
        "vertex": lambda c: [model.name for model in c.models.list()],
        "mistral": lambda c: [model.id for model in c.models.list().data],
        "groq": lambda c: [model.id for model in c.models.list().data],
        "cohere": lambda c: [model.name for model in c.models.list().models],
        "ollama": lambda c: [model.model for model in c.list().models],
    }.items():
        with opened(SDKS[name], provider) as client:
            assert len(models(client)) >= 3


@pytest.mark.parametrize("name", ["gemini", "vertex", "vertex express"])
@pytest.mark.parametrize("model", ["gemini-embedding-001", "gemini-embedding-2", "text-embedding"])
def test_google_embeds_and_counts(provider: FakeProvider, name: str, model: str) -> None:
    with opened(SDKS[name], provider) as client:
        assert client.models.count_tokens(model="m", contents=PROMPT).total_tokens == 10
        asked = {"model": model, "contents": PROMPT, "config": {"output_dimensionality": 8}}
        found = client.models.embed_content(**asked)
        (embedding,) = found.embeddings
        assert len(embedding.values) == 8
        if model == "gemini-embedding-2":
            assert found.usage_metadata.prompt_token_count == 10
        if (model, name) == ("gemini-embedding-001", "gemini"):
            assert found.usage_metadata is None
        if provider.requests[-1].path.endswith(":predict"):
            assert name != "gemini"
            assert embedding.statistics.token_count == 10
            assert found.metadata.billable_character_count == 40


def test_mistral_embeds_and_fills_in(provider: FakeProvider) -> None:
    with opened(SDKS["mistral"], provider) as client:
        found = client.embeddings.create(model="mistral-embed", inputs=["abcd" * 3, "b"])
        filled = client.fim.complete(model="codestral-latest", prompt=PROMPT, suffix="abcd")
        provider.reply(Reply(status=422))
        with pytest.raises(mistralai.errors.HTTPValidationError) as refused:
            client.embeddings.create(model="mistral-embed", inputs=[])
    assert [len(item.embedding) for item in found.data] == [1024, 1024]
    assert found.usage.prompt_tokens == 4
    assert refused.value.data.detail[0].msg == "Field required"
    assert filled.usage.prompt_tokens == 11


@pytest.mark.parametrize("client_class", [cohere.ClientV2, cohere.Client])
def test_cohere_embeds_and_reranks(provider: FakeProvider, client_class: Any) -> None:
    asked = {"model": "embed-v4.0", "texts": ["abcd" * 3, "b"], "input_type": "search_query"}
    with opened(cohere_sdk(client_class), provider) as client:
        typed = client.embed(**asked, embedding_types=["float", "int8", "base64"])
        if client_class is cohere.Client:
            assert len(client.embed(**asked).embeddings) == 2
        ranked = client.rerank(model="m", query="q", documents=["d"] * 101, top_n=3)
    assert [len(v) for v in typed.embeddings.float_ + typed.embeddings.int8] == [1536] * 4
    assert isinstance(typed.embeddings.base64[0], str)
    assert typed.meta.billed_units.input_tokens == 4
    assert [result.index for result in ranked.results] == [0, 1, 2]
    assert ranked.meta.billed_units.search_units == 2


def test_ollama_generates_and_embeds(provider: FakeProvider) -> None:
    provider.default = Reply(text=TEXT)
    with opened(SDKS["ollama"], provider) as client:
        whole = client.generate(model="llama3.2", prompt=PROMPT, options={"num_predict": 3})
        *pieces, last = client.generate(model="llama3.2", prompt=PROMPT, stream=True)
        found = client.embed(model="nomic-embed-text", input=["abcd" * 3, "b"])
    assert whole.response == "".join(piece.response for piece in pieces) == TEXT
    assert (whole.eval_count, last.eval_count) == (3, 5)
    assert [piece.done for piece in [*pieces, last]] == [False, False, True]
    assert (len(found.embeddings), found.prompt_eval_count) == (2, 4)


def test_titan_embeds(provider: FakeProvider) -> None:
    asked = json.dumps({"inputText": PROMPT, "dimensions": 256})
    with opened(SDKS["converse"], provider) as client:
        answer = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=asked)
        body = json.load(answer["body"])
    assert (len(body["embedding"]), body["inputTextTokenCount"]) == (256, 10)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == "10"


def test_claude_on_vertex_and_bedrock(provider: FakeProvider) -> None:
    provider.default = Reply(text=TEXT)
    asked = {"max_tokens": 99, "messages": ASK}
    vertex = AnthropicVertex(
        base_url=f"{provider.google_url}/v1", region="us-east5", project_id="p", access_token="t"
    )
    bedrock = AnthropicBedrock(
        base_url=provider.bedrock_url,
        aws_region="us-east-1",
        aws_access_key="k",
        aws_secret_key="k",
    )
    for client, model in ((vertex, "claude-sonnet-4@20250514"), (bedrock, CLAUDE)):
        with client, client.messages.stream(model=model, **asked) as stream:
            plain = client.messages.create(model=model, **asked)
            assert stream.get_final_message().usage == plain.usage
            assert plain.content[0].text == TEXT
            assert plain.usage.output_tokens == 5
    # The answer of Bedrock names the model as Anthropic does.
    assert plain.model == "claude-sonnet-4-20250514"
