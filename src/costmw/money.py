"""Money: `Decimal` US dollars at the edges, integer pico-USD inside.

One pico-USD is 1e-12 USD. Unit prices go down to fractions of a cent for a
million tokens ($0.0375 is 37,500 pico-USD a token), so that sums of integers
stay exact where floats drift.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, localcontext

from costmw.errors import ConfigError

PICO = 10**12
"""Pico-USD in one USD."""

MAX_PICO = 2**63 - 1
"""The largest amount one row can hold, about 9.2 million USD: SQLite's integers have 64 bits."""

# Not the app's own context, which may have few digits or traps.
_EXACT = Context(prec=60, traps=[InvalidOperation])
_LARGEST_EXPONENT = 12


def exact() -> AbstractContextManager[Context]:
    """Decimal arithmetic with digits enough for any cost, whatever the app has set."""
    return localcontext(_EXACT)


def to_pico(usd: Decimal) -> int:
    """Convert USD to pico-USD, rounding half to even at 1e-12 USD."""
    with exact():
        return int((usd * PICO).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_pico(pico: int) -> Decimal:
    """Convert pico-USD to USD, exactly."""
    with localcontext(_EXACT) as context:
        context.prec = max(context.prec, len(str(pico)))
        return Decimal(pico).scaleb(-12)


def plain_usd(pico: int) -> Decimal:
    """Convert pico-USD to USD, exactly, with no more places than it takes to read: `0.00325`."""
    return Decimal(format_usd(pico))


def format_usd(pico: int) -> str:
    """Write pico-USD as a plain decimal string in USD, at least two places: `"0.00325"`."""
    sign = "-" if pico < 0 else ""
    whole, fraction = divmod(abs(pico), PICO)
    return f"{sign}{whole}.{f'{fraction:012d}'.rstrip('0').ljust(2, '0')}"


def parse_usd(value: Decimal | int | str, what: str) -> Decimal:
    """Read an amount of USD, naming it as `what` when it cannot be used.

    Floats are refused, since `0.1` is not a tenth of a dollar.

    Raises:
        ConfigError: for a float, something that is not a number, infinity or NaN.
    """
    if isinstance(value, bool | float) or not isinstance(value, Decimal | int | str):
        raise ConfigError(
            f"{what} is {value!r}: give money as a string or Decimal, as in {what}='12.50'"
        )
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ConfigError(f"{what} is {value!r}, which is not a decimal number") from None
    if not amount.is_finite():
        raise ConfigError(f"{what} is {value!r}: it must be a finite amount of USD")
    if amount.adjusted() > _LARGEST_EXPONENT:
        raise ConfigError(f"{what} is {value!r}: so many USD cannot be meant")
    return amount
