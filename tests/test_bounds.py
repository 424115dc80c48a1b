"""What a call may cost at most: never less than what it then costs, and not far more."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from costmw.bounds import NO_PRICE_OF_TOOL, Bound, Bounds
from costmw.events import Usage
from costmw.money import MAX_PICO
from costmw.price_list import PriceList
from costmw.price_overrides import PriceOverride
from costmw.pricing import Pricing
from costmw.providers.base import Match, WireFormat
from costmw.providers.known import PROVIDERS, find_provider
from costmw.providers.most_used import (
    CLAUDE_TOOLS_TOKENS,
    CONTEXT_ASSUMED,
    LARGE_PICTURE_TOKENS,
    PICTURE_TOKENS,
    SHORT_RESULT_TOKENS,
    TEMPLATE_TOKENS,
    TOOLS_TOKENS,
)
from costmw.providers.registry import FAMILIES, match

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
SIZE = 1_000
TEXT = SIZE + TEMPLATE_TOKENS
"""Tokens that are held for a text of this size."""


def matched(host: str, path: str, method: str = "POST", api: str | None = None) -> Match:
    found = match(method, host, path, api)
    assert found is not None
    return found


OPENAI = matched("api.openai.com", "/v1/chat/completions")
RESPONSES = matched("api.openai.com", "/v1/responses")
EMBEDDINGS = matched("api.openai.com", "/v1/embeddings")
ANTHROPIC = matched("api.anthropic.com", "/v1/messages")
BATCHES = matched("api.anthropic.com", "/v1/messages/batches")
GEMINI = matched(
    "generativelanguage.googleapis.com", "/v1beta/models/gemini-2.5-flash:generateContent"
)
AZURE = matched("acme.openai.azure.com", "/openai/deployments/prod/chat/completions")
OPENROUTER = matched("openrouter.ai", "/api/v1/chat/completions")


def usd(*terms: tuple[int, str]) -> int:
    """Units times USD for a million, in pico-USD."""
    return int(sum(units * Decimal(price) for units, price in terms) * 10**6)


def bound(
    found: Match,
    model: str | None,
    body: dict[str, Any],
    *,
    size: int = SIZE,
    pricing: Pricing | None = None,
    **options: Any,
) -> Bound:
    return Bounds(pricing or Pricing()).bound(found, model, body, size, AT, **options)


def held(found: Match, model: str | None, body: dict[str, Any], **options: Any) -> int | None:
    return bound(found, model, body, **options).pico_usd


# Text.


def test_bytes_and_the_limit_of_the_answer_are_held_at_the_list_price() -> None:
    expected = Bound(usd((TEXT, "0.25"), (800, "2")))
    body = {"model": "gpt-5-mini", "messages": [], "max_completion_tokens": 800}
    assert expected == bound(OPENAI, "gpt-5-mini", body)


def test_a_hold_is_close_to_a_call_that_uses_its_limit() -> None:
    """Prose of 4.3 bytes a token: within 1.5 times what it costs."""
    pricing = Pricing()
    body = {"messages": [{"role": "user"}], "max_completion_tokens": 800}
    most = held(OPENAI, "gpt-5-mini", body, size=4_000, pricing=pricing)
    cost = _cost(pricing, "openai", "gpt-5-mini", Usage(930, 800))
    assert most is not None
    assert cost <= most <= 1.5 * cost


def test_a_cache_is_held_at_the_price_of_writing_to_it_when_it_is_asked_for() -> None:
    """Claude Haiku 4.5: input 1, written for 5 minutes 1.25, for an hour 2, output 5."""
    plain: dict[str, Any] = {"max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    for control, price in (
        (None, "1"),
        ({"type": "ephemeral"}, "1.25"),
        ({"type": "ephemeral", "ttl": "1h"}, "2"),
    ):
        body = {**plain, "system": [{"text": "x", "cache_control": control}]}
        assert usd((TEXT, price), (100, "5")) == held(ANTHROPIC, "claude-haiku-4-5", body)


def test_a_cache_that_the_provider_writes_to_unasked_counts_too() -> None:
    body = {"max_completion_tokens": 100, "messages": [{}]}
    assert usd((TEXT, "2.5"), (100, "10")) == held(OPENAI, "gpt-6-sol", body)


def test_a_long_context_is_held_at_its_own_price_once_the_input_may_reach_it() -> None:
    body = {"max_completion_tokens": 100, "messages": [{}]}
    for size, prices in ((200_000, ("2.5", "15")), (300_000, ("5", "22.5"))):
        expected = usd((size + TEMPLATE_TOKENS, prices[0]), (100, prices[1]))
        assert expected == held(OPENAI, "gpt-5.4", body, size=size)


def test_descriptions_of_tools_add_what_providers_say_about_them() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"max_completion_tokens": 1, "tools": [tool]}
    expected = usd((TEXT + TOOLS_TOKENS, "0.25"), (1, "2"))
    assert expected == held(OPENAI, "gpt-5-mini", body)
    claude = {"max_tokens": 1, "tools": [{"name": "f", "input_schema": {}}]}
    expected = usd((TEXT + CLAUDE_TOOLS_TOKENS, "1"), (1, "5"))
    assert expected == held(ANTHROPIC, "claude-haiku-4-5", claude)


def test_more_tool_uses_than_anyone_counts_fill_the_context_each_time() -> None:
    body = {"max_output_tokens": 1, "tools": [{"type": "web_search"}], "max_tool_calls": 500}
    found = held(RESPONSES, "gpt-4o", body)
    # The price list has 10 USD for a thousand searches.
    assert usd((501 * 134_400, "2.5"), (1, "10"), (500, "10000")) == found


@pytest.mark.parametrize(
    "body", [{"functions": [{}]}, {"toolConfig": {"tools": [{"toolSpec": {}}]}}]
)
def test_tools_are_told_wherever_they_stand(body: dict[str, Any]) -> None:
    expected = usd((TEXT + TOOLS_TOKENS, "0.25"), (1, "2"))
    assert expected == held(OPENAI, "gpt-5-mini", {**body, "max_completion_tokens": 1})


def test_a_part_of_a_pico_usd_counts_as_a_whole_one() -> None:
    price = PriceOverride(model="m", usd={"input": "0.0000005"}, provider="openai")
    body = {"messages": [{}], "max_completion_tokens": 1}
    assert TEXT == held(OPENAI, "m", body, pricing=Pricing([price]))


def test_a_request_that_is_compacted_first_is_read_and_answered_twice() -> None:
    edits = {"edits": [{"type": "compact_20260112"}]}
    body = {"max_tokens": 100, "messages": [{}], "context_management": edits}
    assert usd((2 * TEXT, "1"), (200, "5")) == held(ANTHROPIC, "claude-haiku-4-5", body)


def test_one_region_costs_a_tenth_more() -> None:
    body = {"max_tokens": 100, "messages": [{}], "inference_geo": "us"}
    expected = usd((TEXT, "1"), (100, "5"))
    assert expected + expected // 10 + 1 == held(ANTHROPIC, "claude-haiku-4-5", body)


# No limit.


def test_an_answer_without_a_limit_is_held_at_the_longest_and_the_remedy_is_named() -> None:
    found = bound(OPENAI, "gpt-4o-mini", {"messages": [{}]})
    assert usd((TEXT, "0.15"), (16_384, "0.6")) == found.pico_usd
    assert (
        "the answer of gpt-4o-mini has no limit, so 16,384 tokens are held for it: set "
        "max_completion_tokens in the call, or Budget(max_output_tokens=...)"
    ) == found.warning


def test_an_answer_whose_longest_is_not_known_may_fill_the_context() -> None:
    context = 1_050_000 + 1_050_000 // 20
    found = held(OPENAI, "gpt-6-sol", {"messages": [{}], "n": 2})
    assert usd((TEXT, "2.5"), (2 * context, "10")) == found


def test_a_limit_that_is_put_in_is_held_for_each_answer_without_a_warning() -> None:
    expected = Bound(usd((TEXT, "0.25"), (2 * 500, "2")))
    body = {"messages": [{}], "n": 2}
    assert expected == bound(OPENAI, "gpt-5-mini", body, max_output_tokens=500)
    own = {"messages": [{}], "max_completion_tokens": 30}
    expected = Bound(usd((TEXT, "0.25"), (30, "2")))
    assert expected == bound(OPENAI, "gpt-5-mini", own, max_output_tokens=500)


def test_a_model_whose_context_nobody_tells_is_taken_to_hold_much() -> None:
    price = PriceOverride(model="house", usd={"input": 1, "output": 2}, provider="openai")
    found = held(OPENAI, "house", {"messages": [{}]}, pricing=Pricing([price]))
    assert usd((TEXT, "1"), (CONTEXT_ASSUMED, "2")) == found


# Beside the text.


def test_input_that_is_elsewhere_is_held_as_the_whole_context() -> None:
    body = {"previous_response_id": "resp_1", "max_output_tokens": 10}
    found = bound(RESPONSES, "gpt-4o-mini", body)
    assert usd((134_400, "0.15"), (10, "0.6")) == found.pico_usd
    assert "all 134,400 tokens that gpt-4o-mini takes are held" in str(found.warning)


def test_input_that_is_elsewhere_may_be_of_the_dearest_kind() -> None:
    """Gemini 2.5 Flash reads text for 0.3 and sound for 1."""
    body = {"cachedContent": "cachedContents/1", "generationConfig": {"maxOutputTokens": 10}}
    context = 1_048_576 + 1_048_576 // 20
    assert usd((context, "1"), (10, "2.5")) == held(GEMINI, "gemini-2.5-flash", body)


def test_the_dearest_of_a_provider_is_held_in_the_units_of_the_request_alone() -> None:
    """OpenAI has prices for hours of sound too, which a response is not billed by."""
    body = {"previous_response_id": "resp_1", "max_output_tokens": 10}
    context = 1_050_000 + 1_050_000 // 20
    assert usd((context, "150"), (10, "600")) == held(RESPONSES, "gpt-nobody-knows", body)


def test_a_body_that_cannot_be_read_may_refer_to_anything() -> None:
    found = held(OPENAI, "gpt-4o-mini", {}, max_output_tokens=10)
    assert usd((134_400, "0.15"), (10, "0.6")) == found


@pytest.mark.parametrize(
    ("tokens", "found", "model", "prices"),
    [
        (PICTURE_TOKENS, OPENAI, "gpt-4o", ("2.5", "10")),
        (LARGE_PICTURE_TOKENS, OPENAI, "gpt-4o-mini", ("0.15", "0.6")),
        (PICTURE_TOKENS, ANTHROPIC, "claude-haiku-4-5", ("1", "5")),
    ],
)
def test_pictures_are_held_by_their_number_and_not_their_bytes(
    tokens: int, found: Match, model: str, prices: tuple[str, str]
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_978}}
    body = {"messages": [{"content": [picture, picture]}], "max_tokens": 10}
    expected = usd((TEXT + 2 * tokens, prices[0]), (10, prices[1]))
    assert expected == held(found, model, body, size=SIZE + 20_000)


def test_sound_is_held_by_its_bytes_at_its_own_price() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 5_000, "format": "mp3"}}
    body = {
        "messages": [{"content": [sound]}],
        "modalities": ["text", "audio"],
        "max_completion_tokens": 10,
    }
    expected = usd((TEXT + 5_000, "32"), (10, "64"))
    assert expected == held(OPENAI, "gpt-audio", body, size=SIZE + 5_000)
    del body["modalities"]
    expected = usd((TEXT + 5_000, "32"), (10, "10"))
    assert expected == held(OPENAI, "gpt-audio", body, size=SIZE + 5_000)


def test_searches_are_held_by_their_number_with_what_they_find_read_each_round() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    body = {"max_tokens": 100, "messages": [{}], "tools": [search]}
    once = TEXT + CLAUDE_TOOLS_TOKENS
    read = 3 * once + 2 * 100 + 3 * SHORT_RESULT_TOKENS
    # The price list has 10 USD for a thousand searches.
    expected = usd((read, "1"), (100, "5"), (2, "10000"))
    found = bound(ANTHROPIC, "claude-haiku-4-5", body)
    assert expected == found.pico_usd
    assert found.warning is None


def test_pages_that_are_fetched_may_fill_the_context() -> None:
    fetch = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 1}
    body = {"max_tokens": 100, "messages": [{}], "tools": [fetch]}
    read = TEXT + CLAUDE_TOOLS_TOKENS + 210_000
    assert usd((read, "1"), (100, "5")) == held(ANTHROPIC, "claude-haiku-4-5", body)


def test_a_run_reads_its_thread_at_every_step() -> None:
    runs = matched("api.openai.com", "/v1/threads/thread_1/runs")
    body = {"assistant_id": "asst_1", "max_completion_tokens": 10}
    found = bound(runs, "gpt-4o-mini", body)
    assert usd((11 * 134_400, "0.15"), (10, "0.6")) == found.pico_usd
    assert "set max_prompt_tokens in the call" in str(found.warning)
    limited = held(runs, "gpt-4o-mini", {**body, "max_prompt_tokens": 2_000})
    assert usd((2_000, "0.15"), (10, "0.6")) == limited


def test_a_conversation_that_goes_on_is_held_as_the_whole_context() -> None:
    """What is appended to is named in the path, and the body names no model."""
    conversation = matched("api.mistral.ai", "/v1/conversations/conv_1")
    body = {"inputs": "and then?", "completion_args": {"max_tokens": 10}}
    context = 1_048_576 + 1_048_576 // 20
    # The dearest that Mistral has: 2.7 for input, 8.1 for output.
    assert usd((context, "2.7"), (10, "8.1")) == _without_seconds(conversation, body)
    begun = {**body, "model": "mistral-small-2603"}
    new = matched("api.mistral.ai", "/v1/conversations")
    assert usd((TEXT, "0.15"), (10, "0.6")) == held(new, "mistral-small-2603", begun)


def _without_seconds(found: Match, body: dict[str, Any]) -> int | None:
    most = held(found, None, body)
    # Unknown input may be sound too, 0.48 USD an hour at most.
    return most and most - 4 * 3600 * 133_333_334


def test_sound_in_a_chat_is_billed_by_the_second_where_that_is_its_price() -> None:
    """Voxtral Small: 0.24 USD an hour."""
    chat = matched("api.mistral.ai", "/v1/chat/completions")
    sound = {"type": "input_audio", "input_audio": "A" * 80_000}
    body = {"messages": [{"content": [sound]}], "max_tokens": 10}
    seconds = 60_000 // 600 + 1
    expected = usd((TEXT + 80_000, "0.1"), (10, "0.4")) + seconds * 66_666_667
    assert expected == held(chat, "voxtral-small-24b-2507", body, size=SIZE + 80_000)


def test_a_model_of_pictures_may_answer_with_one_unasked() -> None:
    model = "gemini-3-pro-image-preview"
    generate = matched(
        "generativelanguage.googleapis.com", f"/v1beta/models/{model}:generateContent"
    )
    config: dict[str, Any] = {"maxOutputTokens": 100}
    body = {"contents": [{}], "generationConfig": config}
    assert usd((TEXT, "2"), (100, "120")) == held(generate, model, body)
    config["responseModalities"] = ["TEXT"]
    assert usd((TEXT, "2"), (100, "12")) == held(generate, model, body)


def test_searches_without_a_limit_are_assumed_and_the_remedy_is_named() -> None:
    body = {"max_output_tokens": 100, "input": "hi", "tools": [{"type": "web_search"}]}
    found = bound(RESPONSES, "gpt-4o", body)
    assert "10 uses of the provider's tools are assumed: set max_uses" in str(found.warning)
    limited = held(RESPONSES, "gpt-4o", {**body, "max_tool_calls": 1})
    assert limited is not None
    assert found.pico_usd is not None
    assert limited < found.pico_usd


def test_a_search_whose_price_nobody_tells_is_held_at_more_than_any_costs() -> None:
    body = {"max_completion_tokens": 100, "messages": [{}]}
    read = 2 * TEXT + 100 + SHORT_RESULT_TOKENS
    expected = usd((read, "2.5"), (100, "10")) + NO_PRICE_OF_TOOL
    assert expected == held(OPENAI, "gpt-4o-search-preview", body)


def test_what_other_models_do_on_behalf_of_one_is_held_at_their_prices() -> None:
    """Claude Opus 4.8 as an advisor: its input may be written to a cache for an hour at 10."""
    advisor = {"type": "advisor_20260301", "model": "claude-opus-4-8", "max_uses": 1}
    body = {
        "max_tokens": 100,
        "messages": [{}],
        "tools": [{**advisor, "max_tokens": 2_048}],
    }
    once = TEXT + CLAUDE_TOOLS_TOKENS
    read = 2 * once + 100 + SHORT_RESULT_TOKENS
    expected = usd((read, "1"), (100, "5"), (read + 100, "10"), (2_048, "25"))
    assert expected == held(ANTHROPIC, "claude-haiku-4-5", body)


# Which price.


@pytest.mark.parametrize(
    ("tier", "prices"),
    [
        (None, ("0.25", "2")),
        ("default", ("0.25", "2")),
        ("flex", ("0.25", "2")),
        ("priority", ("0.45", "3.6")),
        ("auto", ("0.45", "3.6")),
    ],
)
def test_a_tier_is_held_at_the_dearest_that_may_be_charged(
    tier: str | None, prices: tuple[str, str]
) -> None:
    """A request for flex may be processed, and charged, as any other."""
    body = {"max_completion_tokens": 100, "messages": [{}], "service_tier": tier}
    assert usd((TEXT, prices[0]), (100, prices[1])) == held(OPENAI, "gpt-5-mini", body)


def test_a_tier_that_was_charged_unasked_is_held_from_then_on() -> None:
    """An OpenAI project can be set to priority: then no request names it."""
    pricing = Pricing()
    body = {"max_completion_tokens": 100, "messages": [{}]}
    assert usd((TEXT, "0.25"), (100, "2")) == held(OPENAI, "gpt-5-mini", body, pricing=pricing)
    _cost(pricing, "openai", "gpt-4o", Usage(1, 1), {"service_tier": "priority"})
    assert usd((TEXT, "0.45"), (100, "3.6")) == held(OPENAI, "gpt-5-mini", body, pricing=pricing)
    named = {**body, "service_tier": "default"}
    assert usd((TEXT, "0.25"), (100, "2")) == held(OPENAI, "gpt-5-mini", named, pricing=pricing)


def test_speed_is_held_at_its_price_when_it_is_asked_for() -> None:
    body = {"max_tokens": 100, "messages": [{}]}
    assert usd((TEXT, "5"), (100, "25")) == held(ANTHROPIC, "claude-opus-4-8", body)
    fast = {**body, "speed": "fast"}
    assert usd((TEXT, "10"), (100, "50")) == held(ANTHROPIC, "claude-opus-4-8", fast)


@pytest.mark.parametrize(
    "others", [{"models": ["openai/gpt-4o"]}, {"fallbacks": ["openai/gpt-4o"]}]
)
def test_of_several_models_that_may_answer_the_dearest_is_held(others: dict[str, Any]) -> None:
    body = {"max_tokens": 100, "messages": [{}], **others}
    alone = held(OPENROUTER, "openai/gpt-4o", {"max_tokens": 100, "messages": [{}]})
    assert alone == held(OPENROUTER, "openai/gpt-4o-mini", body)


def test_prices_of_ones_own_come_first() -> None:
    price = PriceOverride(
        model="gpt-5-mini", usd={"input": 7, "output": 11, "request": 3}, provider="openai"
    )
    body = {"max_completion_tokens": 100, "messages": [{}]}
    expected = usd((TEXT, "7"), (100, "11"), (1, "3000"))
    assert expected == held(OPENAI, "gpt-5-mini", body, pricing=Pricing([price]))


def test_a_name_of_ones_own_stands_for_the_model_that_answers_to_it() -> None:
    pricing = Pricing()
    body = {"max_completion_tokens": 100, "messages": [{}]}
    first = bound(AZURE, "prod", body, pricing=pricing)
    assert (True, "azure/prod is not in the price list: add a price override") == (
        first.unpriced,
        first.reason,
    )
    pricing.price(
        Usage(1, 1),
        provider="azure.ai.openai",
        model="gpt-4o-mini-2024-07-18",
        request_model="prod",
        at=AT,
        context={},
    )
    expected = Bound(usd((TEXT, "0.15"), (100, "0.6")))
    assert expected == bound(AZURE, "prod", body, pricing=pricing)


def test_prices_change_with_the_time() -> None:
    price = PriceOverride(
        model="m", usd={"input": 1, "output": 1}, provider="openai", start=AT.date()
    )
    later = PriceOverride(
        model="m",
        usd={"input": 2, "output": 2},
        provider="openai",
        start=AT.date() + timedelta(days=1),
    )
    bounds = Bounds(Pricing([price, later]))
    body = {"max_completion_tokens": 0, "max_tokens": 1, "messages": [{}]}
    days = [
        bounds.bound(OPENAI, "m", body, SIZE, AT + timedelta(days=day)).pico_usd for day in (0, 1)
    ]
    assert [usd((TEXT + 1, "1")), usd((TEXT + 1, "2"))] == days


def test_models_that_take_turns_under_a_listed_name_change_nothing() -> None:
    pricing = Pricing()
    body = {"max_completion_tokens": 100, "messages": [{}]}
    for answering in ("gpt-4o-2024-05-13", "gpt-4o-mini"):
        pricing.price(
            Usage(1, 1),
            provider="openai",
            model=answering,
            request_model="gpt-5-mini",
            at=AT,
            context={},
        )
        expected = Bound(usd((TEXT, "0.25"), (100, "2")))
        assert expected == bound(OPENAI, "gpt-5-mini", body, pricing=pricing)


# No price, or no bound.


def test_a_model_without_a_price_is_held_at_the_dearest_of_its_provider() -> None:
    """OpenAI's dearest is o1-pro: 150 for input, 600 for output."""
    body = {"max_completion_tokens": 100, "messages": [{}]}
    expected = Bound(
        usd((TEXT, "150"), (100, "600")),
        unpriced=True,
        reason="openai/gpt-nobody-knows is not in the price list: add a price override",
    )
    assert expected == bound(OPENAI, "gpt-nobody-knows", body)


def test_a_request_that_names_no_model_is_held_at_the_dearest_too() -> None:
    found = bound(OPENAI, None, {"max_completion_tokens": 100, "messages": [{}]})
    assert Bound(usd((TEXT, "150"), (100, "600")), True, "the request names no model") == found


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (
            "m runs on a server of your own: add a price override, 0 if it is free",
            matched("localhost:11434", "/api/chat"),
        ),
        (
            "unknown host: pass provider= to instrument()",
            matched("llm.example.org", "/v1/chat/completions", api="openai"),
        ),
    ],
)
def test_without_any_price_there_is_no_figure(expected: str, found: Match) -> None:
    assert Bound(None, unpriced=True, reason=expected) == bound(found, "m", {"messages": [{}]})


def test_a_server_of_ones_own_with_a_price_of_zero_costs_nothing() -> None:
    free = Pricing([PriceOverride(model="m", usd={"input": 0}, provider="ollama")])
    ollama = matched("localhost:11434", "/api/chat")
    assert 0 == held(ollama, "m", {"messages": [{}]}, pricing=free)


def test_asking_for_a_result_costs_nothing() -> None:
    polled = matched("api.openai.com", "/v1/responses/resp_1", "GET")
    assert Bound(0) == bound(polled, None, {}, size=0)


@pytest.mark.parametrize(
    ("found", "body"),
    [
        (matched("api.openai.com", "/v1/batches"), {"input_file_id": "file-1"}),
        (
            matched(
                "bedrock-agent-runtime.eu-west-1.amazonaws.com",
                "/agents/1/agentAliases/2/sessions/3/text",
            ),
            {},
        ),
        (
            matched("generativelanguage.googleapis.com", "/v1beta/interactions"),
            {"agent": "deep-research-pro"},
        ),
    ],
)
def test_what_nothing_bounds_says_what_to_do(found: Match, body: dict[str, Any]) -> None:
    unbounded = bound(found, None, body)
    assert (None, False) == (unbounded.pico_usd, unbounded.unpriced)
    assert "of the budget by a tag of their own and its where=" in str(unbounded.reason)


# Batches, embeddings, pictures, sound, pages.


def test_a_batch_is_the_sum_of_its_requests_at_half_the_price() -> None:
    params = [
        {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"content": "hi"}]},
        {"model": "claude-opus-4-8", "max_tokens": 50, "messages": [{"content": "hello"}]},
    ]
    body = {"requests": [{"custom_id": str(i), "params": p} for i, p in enumerate(params)]}
    sizes = [len(to_json(p)) + TEMPLATE_TOKENS for p in params]
    expected = usd((sizes[0], "0.5"), (100, "2.5"), (sizes[1], "2.5"), (50, "12.5"))
    assert Bound(expected) == bound(BATCHES, None, body)


def test_a_batch_with_a_model_without_a_price_is_unpriced() -> None:
    params = {"model": "claude-nobody-knows", "max_tokens": 1, "messages": [{}]}
    found = bound(BATCHES, None, {"requests": [{"params": params}]})
    assert found.unpriced
    assert "anthropic/claude-nobody-knows is not in the price list" in str(found.reason)


def test_an_embedding_has_no_answer() -> None:
    body = {"model": "text-embedding-3-small", "input": ["a", "b"]}
    assert Bound(usd((TEXT, "0.02"))) == bound(EMBEDDINGS, "text-embedding-3-small", body)


def test_a_rerank_reads_its_query_once_for_each_document() -> None:
    rerank = matched("api.voyageai.com", "/v1/rerank")
    body = {"query": "ten bytes.", "documents": ["a", "b", "c"], "model": "rerank-2"}
    price = PriceOverride(model="rerank-2", usd={"input": "0.05"}, provider="voyageai")
    expected = usd((TEXT + 3 * 10, "0.05"))
    assert expected == held(rerank, "rerank-2", body, pricing=Pricing([price]))


def test_pictures_are_bounded_by_their_number_and_size() -> None:
    """High quality is 4,160 tokens for 1024x1024, of 40 USD for a million."""
    images = matched("api.openai.com", "/v1/images/generations")
    body = {"prompt": "a cat", "n": 2, "size": "1024x1024", "model": "gpt-image-1"}
    most = held(images, "gpt-image-1", body)
    assert usd((TEXT, "10"), (2 * (8_192 + 100), "40")) == most
    assert most > usd((2 * 4_160, "40"))
    partial = {**body, "n": 1, "partial_images": 3, "size": "auto"}
    assert usd((TEXT, "10"), (12_288 + 400, "40")) == held(images, "gpt-image-1", partial)


def test_pictures_that_are_edited_count_as_many_as_may_be_sent() -> None:
    """The fields of a form are text."""
    edits = matched("api.openai.com", "/v1/images/edits")
    body = {"prompt": "a cat", "n": "2", "size": "1024x1024"}
    read = len("a cat") + TEMPLATE_TOKENS + 16 * PICTURE_TOKENS
    expected = usd((read, "10"), (2 * (8_192 + 100), "40"))
    assert expected == held(edits, "gpt-image-1", body, size=2_000_000)


def test_sound_that_is_sent_lasts_no_longer_than_its_bytes_allow() -> None:
    """Whisper costs 0.36 USD an hour; MP3 of 32 kbit/s has 4,000 bytes a second."""
    transcription = matched("api.openai.com", "/v1/audio/transcriptions")
    most = held(transcription, "whisper-1", {"model": "whisper-1"}, size=4_000 * 60)
    assert 401 * 10**8 == most
    assert most > 60 * 10**8


def test_sound_that_is_billed_by_tokens_has_so_many_a_second() -> None:
    transcription = matched("api.openai.com", "/v1/audio/transcriptions")
    most = held(transcription, "gpt-4o-transcribe", {}, size=599_999)
    expected = usd((1_000 * 32 + TEMPLATE_TOKENS, "6"), (1_000 * 10, "10"))
    assert expected == most


def test_sound_that_is_elsewhere_is_held_at_the_longest_there_can_be() -> None:
    transcription = matched("api.mistral.ai", "/v1/audio/transcriptions")
    body = {"file_id": "1", "model": "voxtral-mini-2602"}
    # 0.18 USD an hour, for four.
    assert 4 * 180 * 10**9 == held(transcription, "voxtral-mini-2602", body)


def test_speech_that_is_billed_by_tokens_has_eight_a_byte_at_its_slowest() -> None:
    speech = matched("api.openai.com", "/v1/audio/speech")
    expected = usd((SIZE, "0.6"), (8 * SIZE, "12"))
    assert expected == held(speech, "gpt-4o-mini-tts", {"input": "x"})


def test_speech_is_billed_by_its_characters() -> None:
    speech = matched("api.openai.com", "/v1/audio/speech")
    assert usd((SIZE, "15")) == held(speech, "tts-1", {"input": "x", "model": "tts-1"})


@pytest.mark.parametrize(
    ("pages", "document"),
    [
        (1_000, {"type": "document_url", "document_url": "https://example.org/a.pdf"}),
        (1, {"type": "image_url", "image_url": "https://example.org/a.png"}),
    ],
)
def test_pages_are_held_at_the_price_of_annotated_ones(
    pages: int, document: dict[str, Any]
) -> None:
    ocr = matched("api.mistral.ai", "/v1/ocr")
    found = bound(ocr, "mistral-ocr-4-1", {"document": document})
    assert usd((pages, "5000")) == found.pico_usd
    assert (pages == 1_000) == (found.warning is not None)


def test_named_pages_are_those_that_are_held() -> None:
    ocr = matched("api.mistral.ai", "/v1/ocr")
    body = {"document": {"type": "document_url"}, "pages": [0, 4]}
    assert Bound(usd((2, "5000"))) == bound(ocr, "mistral-ocr-4-1", body)


# Anything.

_NAMES = st.sampled_from(
    [
        *("messages", "content", "type", "tools", "toolConfig", "model", "models", "prompt", "n"),
        *("max_tokens", "generationConfig", "maxOutputTokens", "prediction", "service_tier"),
        *("image_url", "images", "source", "inlineData", "input_audio", "audio", "data", "uri"),
        *("cache_control", "ttl", "max_uses", "requests", "params", "query", "documents"),
        *("context_management", "edits", "modalities", "size", "pages", "document", "plugins"),
    ]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(), max_size=5)
    | st.sampled_from(["image", "audio", "web_search", "advisor", "auto", "1024x1024", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=12,
)
_POSTED = [wire for wires in FAMILIES.values() for wire in wires if wire.method == "POST"]
_ONE_FOR_ALL = Bounds(Pricing())


@settings(max_examples=300, deadline=None)
@given(wire=st.sampled_from(_POSTED), body=st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_no_request_is_too_strange_to_bound(wire: WireFormat, body: dict[str, Any]) -> None:
    found = _ONE_FOR_ALL.bound(Match(wire, find_provider("openai")), "gpt-4o", body, SIZE, AT)
    assert found.pico_usd is None or 0 <= found.pico_usd <= MAX_PICO
    assert (found.pico_usd is None or found.unpriced) == (found.reason is not None)


# Tokens and amounts.


def test_tokens_that_fit_an_amount() -> None:
    bounds = Bounds(Pricing())
    what: dict[str, Any] = {"provider": "openai", "model": "gpt-5-mini", "at": AT}
    cost = usd((1_000, "0.25"), (300, "2"))
    assert 300 == bounds.affordable_tokens(cost, input_tokens=1_000, **what)
    assert 299 == bounds.affordable_tokens(cost - 1, input_tokens=1_000, **what)
    assert 0 == bounds.affordable_tokens(1, input_tokens=1_000, **what)


@pytest.mark.parametrize(
    ("provider", "model", "prices"),
    [("openai", "gpt-6-sol", ("2.5", "10")), ("anthropic", "claude-haiku-4-5", ("1", "5"))],
)
def test_a_cache_counts_for_tokens_where_it_is_written_to_unasked(
    provider: str, model: str, prices: tuple[str, str]
) -> None:
    affordable = Bounds(Pricing()).affordable_tokens(
        usd((1_000, prices[0]), (300, prices[1])),
        provider=provider,
        model=model,
        input_tokens=1_000,
        at=AT,
    )
    assert 300 == affordable


def test_of_a_model_without_a_price_nobody_tells_how_many_tokens_fit() -> None:
    bounds = Bounds(Pricing())
    what: dict[str, Any] = {"provider": "openai", "model": "nobody-knows", "at": AT}
    assert bounds.affordable_tokens(10**12, input_tokens=1, **what) is None


# Every model.


@pytest.mark.parametrize("provider", [p.name for p in PROVIDERS if not p.self_hosted])
def test_no_usage_within_its_tokens_costs_more_than_the_bound(provider: str) -> None:
    """Every listed model, with random parts of the tokens cached, written, reasoned, at any tier.

    The body asks for everything: an hour's cache, any tier, and an answer in any form.
    """
    chance = random.Random(6)
    pricing = Pricing()
    bounds = Bounds(pricing)
    found = Match(OPENAI.format, find_provider(provider))
    limit = 5_000
    body = {
        "messages": [{"role": "user", "cache_control": {"ttl": "1h"}}],
        "max_tokens": limit,
        "service_tier": "auto",
    }
    prices = PriceList()
    price_id = find_provider(provider).price_id
    names = [
        name
        for info in prices.models(price_id)
        for name in (info.id, f"accounts/fireworks/models/{info.id}")
    ]
    models = [name for name in names if prices.model(price_id, name)]
    compared = 0
    for model in models:
        for size in (2_000, 190_000, 900_000):
            most = bounds.bound(found, model, body, size, AT)
            used = _random_usage(chance, size, limit)
            tier = chance.choice(("default", "priority", "flex", "fast"))
            price = pricing.price(
                used, provider=provider, model=model, at=AT, context={"service_tier": tier}
            )
            if price.cost_pico_usd is None or most.pico_usd is None:
                continue
            compared += 1
            assert price.cost_pico_usd <= most.pico_usd, (model, size, used, tier)
    assert compared >= len(models)


def _random_usage(chance: random.Random, most_input: int, most_output: int) -> Usage:
    """As much as may be, or less, in parts that fit."""
    tokens = chance.choice((most_input, most_input, chance.randint(0, most_input)))
    read = chance.randint(0, tokens)
    written = chance.choice((0, tokens - read))
    hour = chance.choice((0, written))
    output = chance.choice((most_output, chance.randint(0, most_output)))
    detail = {"cache_write_5m_tokens": written - hour, "cache_write_1h_tokens": hour}
    return Usage(
        tokens,
        output,
        cache_read_input_tokens=read,
        cache_write_input_tokens=written,
        reasoning_output_tokens=chance.randint(0, output),
        detail={key: n for key, n in detail.items() if n},
    )


def _cost(
    pricing: Pricing,
    provider: str,
    model: str,
    usage: Usage,
    context: dict[str, str] | None = None,
) -> int:
    price = pricing.price(usage, provider=provider, model=model, at=AT, context=context or {})
    assert price.cost_pico_usd is not None
    return price.cost_pico_usd
