"""What usage costs: against numbers written down by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter, PriceOverride
from costmw.errors import ConfigError
from costmw.events import Price, Usage
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def price(
    usage: Usage,
    model: str | None = "gpt-5-mini",
    provider: str | None = "openai",
    overrides: tuple[PriceOverride, ...] = (),
    at: datetime = NOON,
    **options: Any,
) -> Price:
    options.setdefault("context", {})
    return Pricing(overrides).price(usage, provider=provider, model=model, at=at, **options)


@pytest.mark.parametrize(
    ("usd", "provider", "model", "usage"),
    [
        # 1,000 at $0.25, 500 at $2 for a million
        ("0.00125", "openai", "gpt-5-mini", Usage(1000, 500)),
        # 400 of the 1,000 read from the cache at $0.025
        ("0.00116", "openai", "gpt-5-mini-2025-08-07", Usage(1000, 500, 400)),
        # reasoning is part of the output and billed as such
        ("0.00125", "openai", "gpt-5-mini", Usage(1000, 500, reasoning_output_tokens=300)),
        ("0.00002", "openai", "text-embedding-3-small", Usage(1000, 0)),
        # 100 at $1, 200 read at $0.10, 300 written for 5 minutes at $1.25, 50 at $5
        (
            "0.000745",
            "anthropic",
            "claude-haiku-4-5-20251001",
            Usage(600, 50, 200, 300, detail={"cache_write_5m_tokens": 300}),
        ),
        # the same written for an hour, at $2
        (
            "0.00097",
            "anthropic",
            "claude-haiku-4-5",
            Usage(600, 50, 200, 300, detail={"cache_write_1h_tokens": 300}),
        ),
        ("0.00", "openai", "gpt-5-mini", Usage(0, 0)),
    ],
)
def test_the_price_list_gives(usd: str, provider: str, model: str, usage: Usage) -> None:
    found = price(usage, model, provider)
    assert found.cost_pico_usd == int(Decimal(usd) * 10**12)
    assert found.source == "list"
    assert str(found.ref).startswith("genai-prices ")
    assert str(found.ref).split(" ")[2].startswith(provider)


def test_a_service_tier_has_its_own_price() -> None:
    standard = price(Usage(1000, 500), context={"service_tier": "default"})
    flex = price(Usage(1000, 500), context={"service_tier": "flex"})
    priority = price(Usage(1000, 500), context={"service_tier": "priority"})
    assert standard.cost_pico_usd == 1_250_000_000
    assert flex.cost_pico_usd == 625_000_000
    assert (priority.cost_pico_usd or 0) > 1_250_000_000
    assert [p.reason for p in (standard, flex, priority)] == [None] * 3


def test_a_fact_that_chooses_no_price_is_said_and_not_passed_over() -> None:
    found = price(Usage(1000, 500), context={"service_tier": "turbo"})
    assert found.cost_pico_usd == 1_250_000_000
    assert found.reason == "no price for service_tier=turbo: priced as standard"


def test_what_no_unit_price_covers_is_said() -> None:
    found = price(Usage(10, 10), "text-embedding-3-small")
    assert found.cost_pico_usd == 200_000
    assert found.reason == "no price for output_tokens"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "gpt-99"}, "openai/gpt-99 is not in the price list: add a price override"),
        ({"provider": "acme"}, "acme/gpt-5-mini is not in the price list"),
        ({"provider": None}, "unknown host: pass provider="),
        ({"model": None}, "neither request nor response names a model"),
        ({"usage": Usage(10, None)}, "usage is not fully known"),
        ({"usage": Usage()}, "usage is not fully known"),
        ({"usage": Usage(10**12, 10**12), "model": "gpt-4"}, "beyond what a row can hold"),
        (
            {"usage": Usage(10, 10, 20)},
            "openai/gpt-5-mini cannot price this usage: cache_read_tokens 20 exceed",
        ),
    ],
)
def test_an_unknown_price_is_none_with_a_reason(arguments: Any, words: str) -> None:
    import re

    found = price(**{"usage": Usage(1, 1), **arguments})
    assert (found.cost_pico_usd, found.source) == (None, "none")
    assert re.search(words, str(found.reason))


def test_the_providers_own_cost_wins() -> None:
    found = Pricing().own(Decimal("0.0042"))
    assert (found.cost_pico_usd, found.source) == (4_200_000_000, "provider")
    assert Pricing().own(Decimal(-1)).cost_pico_usd is None


def test_an_override_wins_over_the_list_and_its_newest_start_that_has_begun_holds() -> None:
    overrides = (
        PriceOverride("gpt-5-mini", {"input": "0.20", "output": "1"}, provider="openai"),
        PriceOverride("gpt-5-mini", {"input": "0.10", "output": 1}, start=date(2026, 10, 1)),
        PriceOverride("gpt-5-mini", {"input": "0.01", "output": 1}, start=date(2026, 12, 1)),
    )
    before = datetime(2026, 9, 30, 23, 59, tzinfo=UTC)
    found = price(Usage(1_000_000, 0), overrides=overrides)
    assert (found.cost_pico_usd, found.source) == (100_000_000_000, "override")
    assert found.ref == "override gpt-5-mini from 2026-10-01"
    assert found.units == {"input_mtok": "0.10"}
    assert price(Usage(1_000_000, 0), overrides=overrides, at=before).cost_pico_usd == 2 * 10**11
    other = price(Usage(1_000_000, 0), provider="azure.ai.openai", overrides=overrides, at=before)
    assert other.source == "list"


def test_an_override_prices_a_model_of_an_unknown_host_and_can_be_free() -> None:
    free = (PriceOverride("llama", {"input": 0, "output": 0}),)
    assert price(Usage(5, 5), "llama", None, free).cost_pico_usd == 0
    assert price(Usage(5, 5), "llama", "vllm", free).source == "override"


def test_overrides_come_from_a_toml_file_as_decimals(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        """
        [[price]]
        model = "acme-tuned-1"
        provider = "openai"
        start = 2026-10-01
        input = 0.1
        output = "0.3"
        cache_read = 0.01
        """
    )
    (override,) = load_overrides(path)
    assert override.prices["input_mtok"] == Decimal("0.1")
    meter = Meter("sqlite:///unused.db", config=Config(price_file=path))
    event = meter.priced(
        provider="openai",
        model="acme-tuned-1",
        input_tokens=3,
        cache_read_input_tokens=1,
        output_tokens=1,
    )
    assert event.price.cost_pico_usd == 2 * 100_000 + 10_000 + 300_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[price]]\ninput = 1", "needs model"),
        ("[[price]]\nmodel = 'm'", "has no amounts"),
        ("[[price]]\nmodel = 'm'\ninputs = 1", "has 'inputs'; use one of input, output"),
        ("[[price]]\nmodel = 'm'\ninput = -1", "is negative"),
        ("[[price]]\nmodel = 'm'\ninput = 'x'", "not a decimal number"),
        ("[[price]]\nmodel = 'm'\ninput = nan", "finite"),
        ("[[price]]\nmodel = 'm'\ninput = 1\nstart = 'soon'", "must be a date"),
        ("[price]\nmodel = 'm'", "may only have"),
        ("[[prices]]\nmodel = 'm'", "may only have"),
        ("nothing", "is not TOML"),
    ],
)
def test_a_wrong_price_file_is_a_clear_error(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_overrides(path)
    assert str(path) in str(caught.value)


def test_a_missing_price_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the price file .*: No such file"):
        Meter("sqlite:///x.db", config=Config(price_file=tmp_path / "no.toml"))


@pytest.mark.parametrize("amount", [0.5, True, None, "1e400000000"])
def test_money_in_an_override_is_never_a_float(amount: Any) -> None:
    with pytest.raises(ConfigError):
        PriceOverride("m", {"input": amount})


USAGES = [
    {"input_tokens": 1234, "output_tokens": 567},
    {"input_tokens": 1234, "output_tokens": 567, "cache_read_tokens": 1000},
    {
        "input_tokens": 5000,
        "output_tokens": 5,
        "cache_read_tokens": 900,
        "cache_write_tokens": 400,
        "cache_write_5m_tokens": 150,
        "cache_write_1h_tokens": 250,
    },
    {"input_tokens": 900_000, "output_tokens": 70, "output_reasoning_tokens": 60},
    {"input_tokens": 201_000, "output_tokens": 70, "input_audio_tokens": 77},
    {"input_tokens": 90, "web_searches": 3},
]


def test_rates_give_what_the_list_itself_calculates_for_every_model() -> None:
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import Usage as ListUsage

    from costmw.price_list import UnitPrices

    compared = 0
    models = [info for provider in get_snapshot().providers for info in provider.models]
    different = {repr(info.get_prices(NOON)): info for info in models}
    for info in different.values():
        prices = info.get_prices(NOON)
        unit_prices = UnitPrices(prices)
        for counts in USAGES:
            try:
                expected = prices.calc_price(ListUsage(**counts))["total_price"]
            except ValueError:
                continue
            assert unit_prices.rates(counts).cost_usd(counts) == expected, (info.id, counts)
            compared += 1
    assert compared > 5_000


@pytest.mark.parametrize("context", [{}, {"processing": "batch"}])
def test_prices_that_are_remembered_are_those_of_the_day(context: dict[str, str]) -> None:
    """One that has priced other days before says what one says that begins with this day."""
    remembering, usage = Pricing(), Usage(input_tokens=1000, output_tokens=100)

    def cost(pricing: Pricing, at: datetime) -> int | None:
        return pricing.price(
            usage, provider="mistral_ai", model="mistral-large-4", at=at, context=context
        ).cost_pico_usd

    days = [datetime(2026, 10, day, tzinfo=UTC) for day in (1, 25, 31, 2, 26)]
    costs = [cost(remembering, day) for day in days]
    assert costs == [cost(Pricing(), day) for day in days]
    assert 1 < len(set(costs))
