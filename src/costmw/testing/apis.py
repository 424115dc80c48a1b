"""The APIs that are served: where, by what, and how each says that something is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costmw.testing import (
    anthropic,
    bedrock,
    cohere,
    google,
    groq,
    mistral,
    ollama,
    openai,
    responses,
)
from costmw.testing.framing import AWS_TYPE, COHERE_LINES_TYPE, EVENTS_TYPE, LINES_TYPE
from costmw.testing.wire import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costmw.testing.reply import RequestRecord
    from costmw.testing.wire import Answer, Call

    StreamType = Callable[[dict[str, Any], Mapping[str, str]], str | None]


def _if_asked(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return EVENTS_TYPE if payload.get("stream") is True else None


def _cohere_lines(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return COHERE_LINES_TYPE if payload.get("stream") is True else None


def _unless_refused(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return None if payload.get("stream") is False else LINES_TYPE


def _events_or_array(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return EVENTS_TYPE if query.get("alt") == "sse" else JSON_TYPE


def _aws_stream(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return AWS_TYPE


def _never(payload: dict[str, Any], query: Mapping[str, str]) -> str | None:
    return None


@dataclass(frozen=True)
class Endpoint:
    """One thing that can be asked for by POST.

    path: Pattern of its whole path; named groups are what a `Call` finds in the path.
    stream_type: Returns the content type of the stream that a body and a query ask for.
    """

    path: str
    answer: Callable[[Call], Answer]
    stream_type: StreamType = _if_asked


@dataclass(frozen=True, kw_only=True)
class Api:
    """The endpoints of a provider, and what all of them have in common.

    models: What lists the models, by the path that it is asked at by GET.
    error: Returns the error body for a status and, if there is more to say, a message.
    request_id: The response header that names the request.
    """

    endpoints: tuple[Endpoint, ...]
    models: Mapping[str, Callable[[], Answer]]
    error: Callable[[int, str | None], Answer]
    request_id: str | None = None

    def find(self, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """Return the endpoint at a path, with what the path names."""
        for endpoint in self.endpoints:
            match = re.fullmatch(endpoint.path, path)
            if match is not None:
                return endpoint, {k: v for k, v in match.groupdict().items() if v}
        return None


_AZURE = r"/openai(?:/v1|/deployments/(?P<deployment>[^/]+))"
_GEMINI = (
    r"/v1(?:alpha|beta1?)?/(?P<vertex>(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/google/)?)"
    r"(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):"
)
_VERTEX_CLAUDE = r"/v1(?:beta1)?/projects/.+/publishers/anthropic/models/(?P<model>[^/:]+):"
_BEDROCK = r"/model/(?P<model>.+)/"

_OPENAI = Api(
    endpoints=(
        Endpoint("/v1/chat/completions", openai.chat),
        Endpoint("/v1/embeddings", openai.embeddings),
        Endpoint("/v1/responses", responses.respond),
    ),
    models={"/v1/models": openai.models},
    error=openai.error,
    request_id="x-request-id",
)
_ANTHROPIC = Api(
    endpoints=(Endpoint("/v1/messages", anthropic.messages),),
    models={"/v1/models": anthropic.models},
    error=anthropic.error,
    request_id="request-id",
)

# By the first segment of the path; what comes after is the provider's own path.
_BELOW = {
    "openai": Api(
        endpoints=(
            Endpoint(_AZURE + "/chat/completions", openai.chat),
            Endpoint(_AZURE + "/embeddings", openai.embeddings),
            Endpoint("/openai(?:/v1)?/responses", responses.respond),
        ),
        models={"/openai/v1/models": openai.models},
        error=openai.azure_error,
        request_id="x-request-id",
    ),
    "google": Api(
        endpoints=(
            Endpoint(_GEMINI + "generateContent", google.generate, _never),
            Endpoint(_GEMINI + "streamGenerateContent", google.generate, _events_or_array),
            Endpoint(_GEMINI + "countTokens", google.count_tokens, _never),
            Endpoint(_GEMINI + "embedContent", google.embed, _never),
            Endpoint(_GEMINI + "batchEmbedContents", google.embed_batch, _never),
            Endpoint(_GEMINI + "predict", google.predict, _never),
            Endpoint(_VERTEX_CLAUDE + "(?:streamRawPredict|rawPredict)", anthropic.messages),
        ),
        models={
            "/v1/models": google.models,
            "/v1beta/models": google.models,
            "/v1beta1/publishers/google/models": google.publisher_models,
        },
        error=google.error,
    ),
    "mistral": Api(
        endpoints=(
            Endpoint("/v1/(?:chat|fim|agents)/completions", mistral.complete),
            Endpoint("/v1/embeddings", mistral.embeddings),
        ),
        models={"/v1/models": mistral.models},
        error=mistral.error,
        request_id="mistral-correlation-id",
    ),
    "groq": Api(
        endpoints=(Endpoint("/openai/v1/chat/completions", groq.chat),),
        models={"/openai/v1/models": groq.models},
        error=openai.error,
        request_id="x-request-id",
    ),
    "cohere": Api(
        endpoints=(
            Endpoint("/v2/chat", cohere.chat),
            Endpoint("/v1/chat", cohere.chat_v1, _cohere_lines),
            Endpoint("/v(?P<version>[12])/embed", cohere.embed, _never),
            Endpoint("/v(?P<version>[12])/rerank", cohere.rerank, _never),
        ),
        models={"/v1/models": cohere.models},
        error=cohere.error,
        request_id="x-debug-trace-id",
    ),
    "ollama": Api(
        endpoints=(
            Endpoint("/api/chat", ollama.chat, _unless_refused),
            Endpoint("/api/generate", ollama.generate, _unless_refused),
            Endpoint("/api/embed", ollama.embed, _never),
        ),
        models={"/api/tags": ollama.models},
        error=ollama.error,
    ),
    "bedrock": Api(
        endpoints=(
            Endpoint(_BEDROCK + "converse", bedrock.converse, _never),
            Endpoint(_BEDROCK + "converse-stream", bedrock.converse, _aws_stream),
            Endpoint(_BEDROCK + "invoke", bedrock.invoke, _never),
            Endpoint(_BEDROCK + "invoke-with-response-stream", bedrock.invoke, _aws_stream),
        ),
        models={},
        error=bedrock.error,
        request_id="x-amzn-requestid",
    ),
}


def api_of(record: RequestRecord) -> tuple[Api, str]:
    """Return the API that a request is for, and its path there."""
    name = record.path[1:].partition("/")[0]
    if name in _BELOW:
        # Azure's own path starts with the name.
        return _BELOW[name], record.path.removeprefix("" if name == "openai" else f"/{name}")
    is_anthropic = record.path.startswith("/v1/messages") or "anthropic-version" in record.headers
    return _ANTHROPIC if is_anthropic else _OPENAI, record.path
