"""Figures as people read them: amounts, changes, counts."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from costmw.answering import cost_of
from costmw.money import from_pico
from costmw.store.base import Totals

NOTHING = "-"

ESTIMATED = 0.01
"""The part of a cost that may be estimated without a mark."""


def dollars(pico: int) -> str:
    """An amount: to the cent from 1 USD on, else three digits that count; `$0.00412`."""
    usd = from_pico(abs(pico))
    places = Decimal("0.01")
    if 0 < usd < 1:
        places = min(places, Decimal(1).scaleb(usd.adjusted() - 2))
    sign = "-" if pico < 0 else ""
    return f"{sign}${usd.quantize(places, ROUND_HALF_EVEN):,f}"


def usd_dollars(usd: Decimal) -> str:
    """The same of an amount in USD."""
    return f"${usd.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,f}"


def average(pico: int, count: int) -> str:
    """An amount for each of so many; a dash for none."""
    return dollars((2 * pico + count) // (2 * count)) if count else NOTHING


def percent(share: float) -> str:
    """A share, as in `12.5%`; one that rounds to nothing is not shown as nothing."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share:.1%}"


def change(now: int, before: int) -> str:
    """How an amount has changed: `+12.5%`, or `new` where there was none."""
    if not before:
        return "new" if now else NOTHING
    part = (now - before) / before
    return f"{part:+.1%}" if abs(part) < 10 else f"{part + 1:,.0f}x"


def signed(pico: int) -> str:
    """A difference, with its sign."""
    return f"{'+' if pico > 0 else ''}{dollars(pico)}"


def count(number: int, what: str) -> str:
    """As in `1 call`, `2,345 calls`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def cost(totals: Totals) -> str:
    """What a group cost; marked where enough of it is estimated. Unknown is not nothing."""
    if totals.calls and totals.unpriced == totals.calls:
        return "unknown"
    estimated = totals.estimated_cost_pico_usd
    about = "≈ " if estimated and estimated >= cost_of(totals) * ESTIMATED else ""
    return about + dollars(cost_of(totals))
