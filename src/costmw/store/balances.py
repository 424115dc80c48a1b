"""Balances of blocking budgets as rows, and what they have to be by the ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from costmw.budgets import MISSING
from costmw.caps.book import Balance, Book
from costmw.caps.rules import BalanceKey, KeptRule, Rules, Scope
from costmw.store.base import Found, Query
from costmw.store.caps_sql import ROWS_AT_ONCE, Ledger, Readable, insert, marks, padded
from costmw.store.holds import all_amounts
from costmw.store.micros import from_micros, micros

_READ = (
    "WITH wanted (budget, scope, period_start) AS (VALUES {}) "
    "SELECT b.budget, b.scope, b.period_start, b.spent, b.assumed, b.held "
    # The order of the join, for SQLite: it would read all balances otherwise.
    "FROM wanted w CROSS JOIN balances b "
    "WHERE b.budget = w.budget AND b.scope = w.scope AND b.period_start = w.period_start"
)

_REPLACE = (
    "ON CONFLICT (budget, scope, period_start) "
    "DO UPDATE SET spent = excluded.spent, assumed = excluded.assumed, held = excluded.held"
)


def read_balances(ledger: Readable, keys: Iterable[BalanceKey]) -> dict[BalanceKey, Balance]:
    """Balances by their keys; those that there are none of are left out."""
    balances: dict[BalanceKey, Balance] = {}
    by_values = {_key_values(key): key for key in keys}
    for some in padded(list(by_values), ROWS_AT_ONCE):
        sql = _READ.format(marks("(?, ?, CAST(? AS BIGINT))", len(some)))
        values = [value for key_values in some for value in key_values]
        for budget, scope, start, *amounts in ledger.ask(sql, values):
            balances[by_values[budget, scope, int(start)]] = Balance(*map(int, amounts))
    return balances


def all_balances(ledger: Readable) -> dict[BalanceKey, Balance]:
    """All balances."""
    rows = ledger.ask("SELECT budget, scope, period_start, spent, assumed, held FROM balances")
    return {_key_of(*row[:3]): Balance(*map(int, row[3:])) for row in rows}


def write_balances(ledger: Ledger, balances: Mapping[BalanceKey, Balance]) -> None:
    """Keep balances, in one order whoever writes."""
    insert(
        ledger,
        "balances (budget, scope, period_start, spent, assumed, held)",
        [
            # As text: sums have no end, and neither database has an integer of that kind.
            (*_key_values(key), str(balance.spent), str(balance.assumed), str(balance.held))
            for key, balance in sorted(balances.items())
        ],
        _REPLACE,
    )


def _key_values(key: BalanceKey) -> tuple[str, str, int]:
    return (key.budget, _scope_text(key.scope), micros(key.period_start))


@lru_cache(maxsize=10_000)
def _scope_text(scope: Scope) -> str:
    return json.dumps(scope)


def _key_of(budget: str, scope: str, period_start: int) -> BalanceKey:
    return BalanceKey(budget, tuple(json.loads(scope)), from_micros(int(period_start)))


def balances_from_ledger(
    ledger: Readable, rules: Rules, now: datetime
) -> dict[BalanceKey, Balance]:
    """What balances have to be, by the rows, holds and assumed charges of a ledger."""
    balances: dict[BalanceKey, Balance] = {}
    for kept in rules.kept.values():
        for key, spent in _spent(ledger.totals, kept, rules.zone, now):
            balances.setdefault(key, Balance()).spent += spent
    book = Book(balances, rules.zone)
    for hold in all_amounts(ledger, "holds"):
        book.hold(hold, rules.places_of(hold.tags, hold.at))
    for charged in all_amounts(ledger, "assumed_charges"):
        book.assume(charged, rules.places_of(charged.tags, charged.at))
    return balances


def _spent(
    totals: Callable[[Query], Found], kept: KeptRule, zone: ZoneInfo, now: datetime
) -> Iterator[tuple[BalanceKey, int]]:
    rule = kept.rule
    for start, stop in rule.spans_since(kept.since, now, zone):
        group_by = tuple(f"tag:{key}" for key in rule.keys)
        found = totals(Query(start, stop, group_by=group_by, where=dict(rule.where)))
        for group, sums in found.groups.items():
            scope = tuple(MISSING if value is None else str(value) for value in group)
            cost = sums.cost_pico_usd + sums.estimated_cost_pico_usd
            if cost:
                yield BalanceKey(rule.name, scope, start), cost


@dataclass(frozen=True, slots=True)
class BalanceDifference:
    """A balance that is not what the ledger says; amounts in pico-USD."""

    key: BalanceKey
    kept: Balance
    found: Balance


def differences(ledger: Readable, rules: Rules, now: datetime) -> list[BalanceDifference]:
    """Compare the balances with the rows, holds and assumed charges; nothing is changed."""
    kept = all_balances(ledger)
    found = balances_from_ledger(ledger, rules, now)
    return [
        BalanceDifference(key, kept.get(key, Balance()), found.get(key, Balance()))
        for key in sorted(kept.keys() | found.keys())
        if kept.get(key, Balance()) != found.get(key, Balance())
    ]
