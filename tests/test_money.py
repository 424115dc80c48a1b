"""Money: exact from the edge to the row and back, whatever the app's decimal context."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw.errors import ConfigError
from costmw.money import MAX_PICO, PICO, format_usd, from_pico, parse_usd, to_pico

PICOS = st.integers(-(10**30), 10**30)


@settings(deadline=None)
@given(PICOS)
def test_pico_to_decimal_and_back_is_the_same_amount(pico: int) -> None:
    assert pico == to_pico(from_pico(pico))
    assert Fraction(pico, PICO) == Fraction(from_pico(pico))


@settings(deadline=None)
@given(PICOS)
def test_written_money_reads_as_the_same_amount(pico: int) -> None:
    text = format_usd(pico)

    assert pico == to_pico(Decimal(text))
    assert set(text) <= set("-.0123456789")
    assert 2 <= len(text.partition(".")[2]) <= 12


@settings(deadline=None)
@given(st.lists(st.decimals(-(10**9), 10**9, places=12), max_size=200))
def test_sums_of_pico_usd_are_exact(amounts: list[Decimal]) -> None:
    expected = sum((Fraction(amount) for amount in amounts), Fraction())

    assert expected == Fraction(sum(to_pico(amount) for amount in amounts), PICO)


def test_a_million_tiny_amounts_sum_to_what_floats_miss() -> None:
    assert Decimal("0.1") * 3 == from_pico(sum([to_pico(Decimal("0.1"))] * 3))
    assert Decimal("37.5") == from_pico(sum([to_pico(Decimal("0.0000375"))] * 1_000_000))
    assert sum([0.1] * 3) != 0.3


@pytest.mark.parametrize(
    ("usd", "pico"),
    [
        ("0", 0),
        ("1", PICO),
        ("0.000000000001", 1),
        ("0.0000000000005", 0),  # half goes to even
        ("0.0000000000015", 2),
        ("0.0000000000025", 2),
        ("-0.0000000000015", -2),
        ("0.00000000000050000000000000001", 1),
        ("9223372.036854775807", MAX_PICO),
        ("1E-400000", 0),
        ("12345678901234567890.123456789012", 12345678901234567890123456789012),
    ],
)
def test_to_pico_rounds_half_to_even(usd: str, pico: int) -> None:
    assert pico == to_pico(Decimal(usd))


@pytest.mark.parametrize(
    ("pico", "text"),
    [
        (0, "0.00"),
        (1, "0.000000000001"),
        (-1, "-0.000000000001"),
        (PICO, "1.00"),
        (-PICO // 2, "-0.50"),
        (3_250_000_000, "0.00325"),
        (1_234_567 * PICO + 890_000_000_000, "1234567.89"),
        (MAX_PICO, "9223372.036854775807"),
        (10**40, "1" + "0" * 28 + ".00"),
    ],
)
def test_money_is_written_as_a_plain_decimal(pico: int, text: str) -> None:
    assert text == format_usd(pico)


@pytest.mark.parametrize(
    ("value", "amount"),
    [(12, "12"), ("12.50", "12.50"), (Decimal("0.1"), "0.1"), ("-3", "-3"), ("1e3", "1000")],
)
def test_money_is_read_from_text_integers_and_decimals(
    value: Decimal | int | str, amount: str
) -> None:
    assert Decimal(amount) == parse_usd(value, "cost")


@pytest.mark.parametrize("value", [0.1, 12.0, float("nan"), True, None, [], b"1", (0, (1,), 0)])
def test_what_is_no_exact_money_is_refused_by_name(value: object) -> None:
    with pytest.raises(ConfigError, match="the limit.*string or Decimal"):
        parse_usd(value, "the limit")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["", "ten", "1,50", "0x10", "$1", "1 2"])
def test_text_that_is_no_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(ConfigError, match="cost is .* not a decimal number"):
        parse_usd(value, "cost")


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-inf", Decimal("nan")])
def test_amounts_without_end_are_refused_by_name(value: Decimal | str) -> None:
    with pytest.raises(ConfigError, match="cost is .* finite"):
        parse_usd(value, "cost")


@pytest.mark.parametrize("value", ["1e30", "-1e30", "1e999999", "1e999999999", 10**30])
def test_amounts_beyond_all_money_are_refused_by_name(value: int | str) -> None:
    with pytest.raises(ConfigError, match="cost is .* cannot be meant"):
        parse_usd(value, "cost")


def test_the_decimal_context_of_the_app_changes_nothing() -> None:
    with decimal.localcontext() as context:
        context.prec = 3
        context.Emax = 5
        context.rounding = decimal.ROUND_UP
        for signal in context.traps:
            context.traps[signal] = True

        assert 1_234_567_890_123 == to_pico(Decimal("1.2345678901234"))
        assert 12345678901234567890 == to_pico(from_pico(12345678901234567890))
        assert Decimal("1234567.89") == parse_usd("1234567.89", "cost")
