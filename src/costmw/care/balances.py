"""What balances of budgets say beside what rows and holds say, in words and as JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from zoneinfo import ZoneInfo

from costmw.caps.book import Balance
from costmw.caps.rules import BalanceKey
from costmw.money import format_usd
from costmw.store.balances import BalanceDifference

HEAD = ("budget", "of", "period from", "amount", "balance says", "ledger says")


@dataclass(frozen=True, slots=True)
class Line:
    """One amount that differs, in pico-USD: `spent`, `assumed` or `held`."""

    key: BalanceKey
    amount: str
    balance: int
    ledger: int


def lines_of(differences: Sequence[BalanceDifference]) -> list[Line]:
    """The amounts that differ."""
    return [
        Line(one.key, field.name, kept, found)
        for one in differences
        for field in fields(Balance)
        if (kept := getattr(one.kept, field.name)) != (found := getattr(one.found, field.name))
    ]


def rows_of(lines: Sequence[Line], zone: ZoneInfo) -> Iterator[tuple[str, ...]]:
    """Rows of a table; money in USD, times in the store's zone."""
    for line in lines:
        start = line.key.period_start.astimezone(zone)
        scope = ", ".join(line.key.scope) or "all"
        amounts = [format_usd(line.balance), format_usd(line.ledger)]
        yield line.key.budget, scope, f"{start:%Y-%m-%d}", line.amount, *amounts


def objects_of(lines: Sequence[Line]) -> Iterator[dict[str, object]]:
    """Objects for JSON; money in pico-USD, times in UTC."""
    for line in lines:
        yield {
            "budget": line.key.budget,
            "scope": list(line.key.scope),
            "period_start": line.key.period_start.isoformat().replace("+00:00", "Z"),
            "column": line.amount,
            "balance": line.balance,
            "ledger": line.ledger,
        }
