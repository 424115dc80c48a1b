"""What calls could have cost less: found where the sums say so, and not otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from costmw.money import PICO
from costmw.price_overrides import PriceOverride
from costmw.pricing import Pricing
from costmw.savings import MonthOfUse, Saving, savings
from costmw.store.base import Totals

AT = datetime(2026, 10, 31, tzinfo=UTC)
OWN = ("own", "m")
PRICES = {"input": 10, "output": 30}
CACHED = {**PRICES, "cache_read": 1, "cache_write": Decimal("12.5")}

Kind = tuple[str | None, str | None, str | None]


def found(
    *,
    kinds: Mapping[Kind, Totals] | None = None,
    features: Mapping[Kind, Totals] | None = None,
    hours: Mapping[str | None, Sequence[int]] | None = None,
    prices: Mapping[str, Decimal | int] = CACHED,
) -> list[Saving]:
    """The savings of a month; the model `own/m` has such prices."""
    pricing = Pricing([PriceOverride("m", prices, provider="own")])
    return savings(MonthOfUse(AT, kinds or {}, features or {}, hours or {}), pricing)


class TestCutOff:
    def test_answers_that_nobody_read_to_the_end(self) -> None:
        one, other = (
            Totals(calls=9, incomplete=9, estimated_cost_pico_usd=2 * PICO),
            Totals(calls=1, incomplete=1, cost_pico_usd=3 * PICO),
        )
        (saving,) = found(
            kinds={
                (*OWN, "incomplete"): one,
                ("b", "n", "incomplete"): other,
                (*OWN, "ok"): Totals(calls=50, cost_pico_usd=90 * PICO),
            }
        )

        assert 5 * PICO == saving.most_pico_usd
        assert (
            "10 calls did not reach their end and cost 5.00 USD, 2.00 USD of it estimated: "
            "b/n (3.00 USD); own/m (2.00 USD)."
        ) == saving.how

    def test_cents_are_not_worth_a_line(self) -> None:
        kind = (*OWN, "incomplete")

        assert [] == found(kinds={kind: Totals(calls=9, cost_pico_usd=PICO - 1)})
        assert 1 == len(found(kinds={kind: Totals(calls=9, cost_pico_usd=PICO)}))

    def test_without_a_cost_nothing_is_said(self) -> None:
        assert [] == found(kinds={(*OWN, "incomplete"): Totals(calls=9, unpriced=9)})


class TestCaches:
    def test_one_that_is_written_more_than_it_is_read(self) -> None:
        """A million written costs 2.5 USD more than plain, a million read 9 USD less."""
        sums = Totals(
            calls=1000,
            input_tokens=9_000_000,
            cache_write_input_tokens=8_000_000,
            cache_read_input_tokens=1_000_000,
        )
        (saving,) = found(kinds={(*OWN, "ok"): sums})

        assert 11 * PICO == saving.most_pico_usd
        assert "high" == saving.confidence
        assert "for 20.00 USD more than plain input" in saving.how
        assert "for 9.00 USD less" in saving.how

    def test_one_that_pays(self) -> None:
        sums = Totals(
            calls=1000,
            input_tokens=12_000_000,
            cache_write_input_tokens=8_000_000,
            cache_read_input_tokens=3_000_000,
        )

        assert [] == found(kinds={(*OWN, "ok"): sums})

    def test_one_that_is_not_used(self) -> None:
        """A million read from it costs 9 USD less."""
        sums = Totals(calls=1000, input_tokens=4_000_000)
        (saving,) = found(features={(*OWN, "chat"): sums})

        assert ("Prompt caches that are not used", 36 * PICO, "low") == (
            saving.title,
            saving.most_pico_usd,
            saving.confidence,
        )
        assert "feature chat with own/m, 1,000 calls of 4,000 tokens" in saving.how

    @pytest.mark.parametrize(
        "changes",
        [
            {"cache_read_input_tokens": 1},
            {"cache_write_input_tokens": 1},
            {"calls": 99, "input_tokens": 99 * 10_000},
            {"input_tokens": 1000 * 2047},
        ],
    )
    def test_it_is_used_or_few_and_short_inputs_say_nothing(self, changes: dict[str, int]) -> None:
        sums = {"calls": 1000, "input_tokens": 4_000_000, **changes}

        assert [] == found(features={(*OWN, "chat"): Totals(**sums)})

    def test_models_without_one(self) -> None:
        sums = Totals(calls=1000, input_tokens=4_000_000, cache_write_input_tokens=9)

        assert [] == found(features={(*OWN, "chat"): sums}, prices=PRICES)
        assert [] == found(kinds={(*OWN, "ok"): sums}, prices=PRICES)
        assert [] == found(features={("own", "unknown", "chat"): sums})


NIGHT = [PICO] * 6 + [0] * 18


class TestBatches:
    HAIKU = ("anthropic", "claude-haiku-4-5")
    SUMS = Totals(calls=50, input_tokens=50_000, output_tokens=50_000, cost_pico_usd=6 * PICO)

    def test_a_job_at_night_could_be_one(self) -> None:
        """Anthropic asks half of the price for a batch."""
        (saving,) = found(
            features={(*self.HAIKU, "digest"): self.SUMS, (*self.HAIKU, "chat"): self.SUMS},
            hours={"digest": NIGHT, "chat": [PICO] * 24},
        )

        assert ("Batch prices for feature digest", 3 * PICO) == (
            saving.title,
            saving.most_pico_usd,
        )
        assert "100% of its cost falls between 0:00 and 6:00" in saving.how

    def test_what_also_runs_by_day_is_no_job(self) -> None:
        for by_day, count in ((1, 1), (2, 0)):
            hours = [PICO] * 6 + [0] * (18 - by_day) + [PICO] * by_day
            features = {(*self.HAIKU, None): self.SUMS}
            assert count == len(found(features=features, hours={None: hours}))

    def test_models_without_a_price_for_batches(self) -> None:
        features = {(*OWN, "digest"): self.SUMS}

        assert [] == found(features=features, hours={"digest": NIGHT})


def test_the_largest_is_the_first() -> None:
    kinds = {(*OWN, "incomplete"): Totals(calls=1, cost_pico_usd=9 * PICO)}
    features = {(*OWN, "chat"): Totals(calls=1000, input_tokens=4_000_000)}

    assert [36 * PICO, 9 * PICO] == [
        saving.most_pico_usd for saving in found(kinds=kinds, features=features)
    ]
