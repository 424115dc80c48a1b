"""What a request may use at most, read from its JSON; and limits that are put into it."""

from __future__ import annotations

from typing import Any

import pytest

from costmw.providers.beyond_text import BeyondText, beyond_text
from costmw.providers.hosted_tools import NO_TOOLS, Advisor, HostedTools, hosted_tools
from costmw.providers.limits import limits_of, place_of_limit, with_output_limit
from costmw.providers.longest_answers import longest_answer
from costmw.providers.most_media import MOST_MEDIA
from costmw.providers.registry import FAMILIES

POSTED = sorted({f.api for fs in FAMILIES.values() for f in fs if f.method == "POST"})


@pytest.mark.parametrize(
    ("expected", "api", "body"),
    [
        (800, "openai.chat", {"max_completion_tokens": 800}),
        (800, "openai.chat", {"max_tokens": 800.0}),
        (2400, "openai.chat", {"max_tokens": 800, "n": 3}),
        (900, "openai.chat", {"max_tokens": 800, "max_completion_tokens": 900}),
        (811, "openai.chat", {"max_tokens": 800, "prediction": "print(1, 2)"}),
        (100, "openai.completions", {"max_tokens": 50, "prompt": ["one", "two"]}),
        (600, "openai.completions", {"max_tokens": 50, "prompt": [[1, 2], [3]], "best_of": 6}),
        (50, "openai.completions", {"max_tokens": 50, "prompt": [15496, 995]}),
        (64, "openai.responses", {"max_output_tokens": 64}),
        (1024, "anthropic.messages", {"max_tokens": 1024}),
        (0, "anthropic.messages", {"max_tokens": 0}),
        (20, "anthropic.complete", {"max_tokens_to_sample": 20}),
        (
            128,
            "google.generate",
            {"generationConfig": {"maxOutputTokens": 64, "candidateCount": 2}},
        ),
        (64, "google.generate", {"generation_config": {"max_output_tokens": 64}}),
        (5, "google.interactions", {"generation_config": {"max_output_tokens": 5}}),
        (30, "bedrock.converse", {"inferenceConfig": {"maxTokens": 30}}),
        (
            90,
            "bedrock.converse",
            {
                "inferenceConfig": {"maxTokens": 30},
                "additionalModelRequestFields": {"max_tokens": 90},
            },
        ),
        (7, "bedrock.invoke", {"max_gen_len": 7}),
        (9, "bedrock.invoke", {"textGenerationConfig": {"maxTokenCount": 9}}),
        (11, "mistral.conversations", {"completion_args": {"max_tokens": 11}}),
        (12, "cohere.generate", {"max_tokens": 4, "num_generations": 3}),
        (13, "ollama.chat", {"options": {"num_predict": 13}}),
        (14, "huggingface.generate", {"parameters": {"max_new_tokens": 14}}),
        (15, "openai.runs", {"max_completion_tokens": 15}),
        (0, "openai.embeddings", {"input": "hi"}),
        (0, "cohere.rerank", {}),
        (0, "google.predict.gemini", {}),
        (None, "openai.chat", {}),
        (None, "openai.chat", {"max_tokens": None}),
        (None, "openai.chat", {"max_tokens": 0}),
        (None, "openai.chat", {"max_tokens": True}),
        (None, "openai.chat", {"max_tokens": "800"}),
        (None, "ollama.chat", {"options": {"num_predict": -1}}),
        (None, "google.generate", {"generationConfig": ["maxOutputTokens"]}),
    ],
)
def test_the_limit_of_an_answer_is_read(
    expected: int | None, api: str, body: dict[str, Any]
) -> None:
    assert expected == limits_of(api, body).output_tokens


def test_formats_without_a_place_for_a_limit_are_known() -> None:
    """A new format has a place for a limit, or is added here and bounded otherwise."""
    without = {api for api in POSTED if place_of_limit(api, {}) is None}
    needs_none = {api for api in without if limits_of(api, {}).output_tokens == 0}
    assert {
        *("anthropic.batches", "openai.batches", "bedrock.agents"),
        *("bedrock.invoke", "huggingface.root", "cohere.summarize"),
        *(set(MOST_MEDIA) - {"mistral.ocr"}),
    } == without - needs_none


@pytest.mark.parametrize("api", [api for api in POSTED if place_of_limit(api, {})])
def test_a_limit_that_is_put_in_is_read_again(api: str) -> None:
    body = {"model": "m", "messages": []}
    changed = with_output_limit(api, body, 77)
    assert changed is not None
    assert 77 == limits_of(api, changed).output_tokens
    assert {"model": "m", "messages": []} == body
    assert with_output_limit(api, changed, 78) is None


@pytest.mark.parametrize(
    ("expected", "api", "provider", "body"),
    [
        ({"max_completion_tokens": 9}, "openai.chat", "openai", {}),
        ({"max_completion_tokens": 9}, "openai.chat", "azure.ai.openai", {"max_tokens": None}),
        ({"max_tokens": 9}, "openai.chat", "deepseek", {}),
        ({"max_tokens": 9}, "openai.chat", None, {}),
        (
            {"generation_config": {"top_k": 1, "max_output_tokens": 9}},
            "google.generate",
            None,
            {"generation_config": {"top_k": 1}},
        ),
        (
            {"generationConfig": {"topK": 1, "maxOutputTokens": 9}},
            "google.generate",
            None,
            {"generationConfig": {"topK": 1}},
        ),
        ({"inferenceConfig": {"maxTokens": 9}}, "bedrock.converse", None, {}),
        ({"options": {"num_predict": 9}}, "ollama.chat", None, {"options": {"num_predict": -1}}),
        (
            {"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 9}},
            "bedrock.invoke",
            None,
            {"inputText": "hi"},
        ),
    ],
)
def test_a_limit_stands_where_the_provider_reads_it(
    expected: dict[str, Any], api: str, provider: str | None, body: dict[str, Any]
) -> None:
    changed = with_output_limit(api, body, 9, provider)
    assert changed is not None
    assert expected == {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("bedrock.invoke", {"prompt": "whose format is this?"}),
        ("cohere.summarize", {"text": "long"}),
        ("openai.embeddings", {"input": "hi"}),
        ("openai.chat", {"max_tokens": 5}),
    ],
)
def test_a_request_without_a_place_or_with_a_limit_is_left(api: str, body: dict[str, Any]) -> None:
    assert with_output_limit(api, body, 9, "openai") is None


def test_an_outer_part_that_is_changed_is_a_copy() -> None:
    body = {"generationConfig": {"topK": 1}}
    with_output_limit("google.generate", body, 9)
    assert {"generationConfig": {"topK": 1}} == body


DATA = "A" * 1000


@pytest.mark.parametrize(
    ("expected", "content"),
    [
        (BeyondText(), {"type": "text", "text": "file_id image_url"}),
        (
            BeyondText(media_bytes=1022, pictures=1),
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
        ),
        (
            BeyondText(pictures=1),
            {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "high"},
        ),
        (
            BeyondText(media_bytes=1000, pictures=1),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": DATA},
            },
        ),
        (
            BeyondText(media_bytes=1000, pictures=1),
            {"inlineData": {"mimeType": "image/jpeg", "data": DATA}},
        ),
        (
            BeyondText(media_bytes=1000, pictures=1),
            {"image": {"format": "png", "source": {"bytes": DATA}}},
        ),
        (BeyondText(media_bytes=2000, pictures=2), {"images": [DATA, DATA]}),
        (BeyondText(media_bytes=1000, pictures=1), {"type": "image", "data": DATA}),
        (
            BeyondText(media_bytes=1000, sound_bytes=1000),
            {"type": "input_audio", "input_audio": {"format": "wav", "data": DATA}},
        ),
        (
            BeyondText(media_bytes=1000, sound_bytes=1000, is_outside=True),
            {"type": "input_audio", "input_audio": {"format": "flac", "data": DATA}},
        ),
        (
            BeyondText(media_bytes=1000, sound_bytes=1000),
            {"inline_data": {"mime_type": "audio/mp3", "data": DATA}},
        ),
        (BeyondText(is_outside=True), {"inlineData": {"mimeType": "video/mp4", "data": DATA}}),
        (BeyondText(is_outside=True), {"fileData": {"mimeType": "audio/mp3", "fileUri": "gs://a"}}),
        (BeyondText(pictures=1), {"fileData": {"mimeType": "image/png", "fileUri": "gs://a"}}),
        (BeyondText(is_outside=True), {"fileData": {"fileUri": "gs://a", "mimeType": "video/mp4"}}),
        (
            BeyondText(is_outside=True),
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf"}},
        ),
        (
            BeyondText(),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain"}},
        ),
        (BeyondText(), {"type": "search_result", "source": "https://example.org"}),
        (BeyondText(is_outside=True), {"document": {"format": "pdf", "source": {"bytes": DATA}}}),
        (BeyondText(is_outside=True), {"type": "file", "file": {"file_data": DATA}}),
        (BeyondText(is_outside=True), {"type": "input_file", "file_id": "file-1"}),
        (BeyondText(is_outside=True), {"type": "video_url", "video_url": {"url": "https://e.org"}}),
        (BeyondText(is_outside=True), {"role": "assistant", "audio": {"id": "audio_1"}}),
        (BeyondText(caches_for="5m"), {"text": "x", "cache_control": {"type": "ephemeral"}}),
        (BeyondText(caches_for="1h"), {"text": "x", "cache_control": {"ttl": "1h"}}),
        (BeyondText(caches_for="5m"), {"cachePoint": {"type": "default"}}),
        (BeyondText(), {"type": "tool_use", "input": {"file_id": "the app's own"}}),
        (BeyondText(), {"type": "function_call", "arguments": {"image_url": "https://e.org"}}),
    ],
)
def test_what_is_beside_the_text_is_found(expected: BeyondText, content: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [content]}]}
    assert expected == beyond_text(body)


@pytest.mark.parametrize(
    ("expected", "body"),
    [
        (BeyondText(is_outside=True), {"previous_response_id": "resp_1"}),
        (BeyondText(is_outside=True), {"prompt": {"id": "pmpt_1"}}),
        (BeyondText(is_outside=True), {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (BeyondText(is_outside=True), {"cachedContent": "cachedContents/1"}),
        (BeyondText(caches_for="5m"), {"cache_control": {"type": "ephemeral"}}),
        (
            BeyondText(caches_for="1h"),
            {
                "system": [{"text": "a", "cache_control": {"ttl": "1h"}}],
                "messages": [{"content": [{"text": "b", "cache_control": {"ttl": "5m"}}]}],
            },
        ),
        (
            BeyondText(caches_for="1h"),
            {
                "system": [{"text": "a", "cache_control": {"ttl": "5m"}}],
                "messages": [{"content": [{"text": "b", "cache_control": {"ttl": "1h"}}]}],
            },
        ),
        (BeyondText(caches_for="1h"), {"tools": [{"name": "f", "cache_control": {"ttl": "1h"}}]}),
        (BeyondText(), {"previous_response_id": None, "conversation": None}),
        (BeyondText(), {"audio": {"voice": "alloy", "format": "wav"}}),
        (BeyondText(), {"tools": [{"name": "f", "input_schema": {"file_id": {}}}]}),
        (BeyondText(), {"metadata": {"thread_id": "the app's own"}}),
    ],
)
def test_what_a_request_refers_to_is_found(expected: BeyondText, body: dict[str, Any]) -> None:
    assert expected == beyond_text(body)


LIMITED = HostedTools(uses=3, billed_uses=3)


@pytest.mark.parametrize(
    ("expected", "body", "model"),
    [
        (NO_TOOLS, {}, "gpt-5-mini"),
        (NO_TOOLS, {"tools": [{"type": "function", "function": {}}, {"type": "custom"}]}, None),
        (NO_TOOLS, {"tools": [{"name": "f", "input_schema": {}}]}, None),
        (NO_TOOLS, {"tools": [{"type": "bash_20250124", "name": "bash"}]}, None),
        (NO_TOOLS, {"tools": [{"functionDeclarations": []}]}, None),
        (NO_TOOLS, {"toolConfig": {"tools": [{"toolSpec": {}}, {"cachePoint": {}}]}}, None),
        (NO_TOOLS, {"search_parameters": {"mode": "off"}}, None),
        (LIMITED, {"tools": [{"type": "web_search_20250305", "max_uses": 3}]}, None),
        (LIMITED, {"tools": [{"type": "web_search"}], "max_tool_calls": 3}, None),
        (
            HostedTools(uses=10, billed_uses=10, is_limited=False),
            {"tools": [{"type": "web_search_preview"}]},
            None,
        ),
        (
            HostedTools(uses=10, billed_uses=10, is_limited=False),
            {"tools": [{"googleSearch": {}}]},
            None,
        ),
        (
            HostedTools(uses=10, billed_uses=10, is_limited=False),
            {"tools": [{"functionDeclarations": [], "googleSearch": {}}]},
            None,
        ),
        (
            HostedTools(uses=10, billed_uses=10, is_limited=False),
            {"toolConfig": {"tools": [{"systemTool": {"name": "nova_grounding"}}]}},
            None,
        ),
        (
            HostedTools(uses=300, billed_uses=300),
            {"web_search_options": {}, "max_tool_calls": 300},
            None,
        ),
        (
            HostedTools(uses=10, billed_uses=0, is_limited=False),
            {"tools": [{"codeExecution": {}}]},
            None,
        ),
        (
            HostedTools(uses=15, billed_uses=10, is_limited=False, results_are_short=False),
            {"tools": [{"type": "web_fetch_20250910", "max_uses": 5}, {"type": "web_search"}]},
            None,
        ),
        (
            HostedTools(uses=10, is_limited=False, results_are_short=False),
            {"mcp_servers": [{"url": "https://example.org", "name": "e"}]},
            None,
        ),
        (HostedTools(uses=1, billed_uses=1), {"plugins": [{"id": "web"}]}, "meta-llama/llama-4"),
        (HostedTools(uses=1, billed_uses=1), {}, "gpt-4o-search-preview"),
        (HostedTools(uses=1, billed_uses=1), {}, "sonar-pro"),
        (HostedTools(uses=10, billed_uses=10, is_limited=False), {}, "sonar-deep-research"),
        (
            HostedTools(uses=2, advisors=(Advisor("claude-opus-4-8", 2, 2048),)),
            {
                "tools": [
                    {
                        "type": "advisor_20260301",
                        "model": "claude-opus-4-8",
                        "max_uses": 2,
                        "max_tokens": 2048,
                    }
                ]
            },
            "claude-haiku-4-5",
        ),
    ],
)
def test_tools_that_the_provider_runs_are_counted(
    expected: HostedTools, body: dict[str, Any], model: str | None
) -> None:
    assert expected == hosted_tools(body, model)


@pytest.mark.parametrize(
    ("expected", "model"),
    [
        (16_384, "gpt-4o-mini-2024-07-18"),
        (16_384, "openai/gpt-4o"),
        (16_384, "ft:gpt-4o-mini-2024-07-18:acme::1"),
        (32_768, "gpt-4.1-nano"),
        (100_000, "o4-mini"),
        (128_000, "gpt-5-mini"),
        (128_000, "gpt-5.2-2026-01-01"),
        (8_192, "models/gemini-2.0-flash"),
        (98_304, "gemini-2.5-pro"),
        (None, "gpt-5-pro"),
        (None, "gpt-4o-64k-output-alpha"),
        (None, "gpt-6-sol"),
        (None, "not-gpt-4o-at-all"),
        (None, None),
    ],
)
def test_the_longest_answer_is_known_of_models_that_are_sure(
    expected: int | None, model: str | None
) -> None:
    assert expected == longest_answer(model)
