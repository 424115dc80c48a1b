"""The blocking budgets of a ledger as rows."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from costmw.caps.rules import KeptRule, Rule, Rules
from costmw.store.balances import balances_from_ledger, write_balances
from costmw.store.caps_sql import Ledger, Readable
from costmw.store.micros import from_micros, micros

EPOCH = "budgets_epoch"
"""The setting that changes with the budgets of a ledger."""


def read_rules(ledger: Readable) -> list[KeptRule]:
    """The budgets of a ledger."""
    return [
        KeptRule(Rule.from_json(definition), from_micros(int(since)), source)
        for definition, since, source in ledger.ask("SELECT definition, since, source FROM budgets")
    ]


def read_epoch(ledger: Readable) -> str:
    """What changes with the budgets of a ledger; empty when it never had any."""
    found = ledger.ask("SELECT value FROM settings WHERE key = ?", (EPOCH,))
    return str(found[0][0]) if found else ""


def begin_epoch(ledger: Ledger, present: str) -> str:
    """Have all processes learn the budgets anew; gives the new epoch."""
    epoch = str(int(present or 0) + 1)
    ledger.run(
        "INSERT INTO settings (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (EPOCH, epoch),
    )
    return epoch


def keep_rule(
    ledger: Ledger, rule: Rule, source: str, before: KeptRule | None, zone: ZoneInfo, now: datetime
) -> None:
    """Write a budget down; one that counts otherwise than before starts from the ledger."""
    if before is not None and before.rule.counts_as == rule.counts_as:
        since = max(before.since, rule.kept_since(now, zone))
        ledger.run(
            "DELETE FROM balances WHERE budget = ? AND period_start < ?",
            (rule.name, micros(since)),
        )
    else:
        since = rule.first_counted(now, zone)
        ledger.run("DELETE FROM balances WHERE budget = ?", (rule.name,))
        kept = Rules([KeptRule(rule, since, source)], zone)
        write_balances(ledger, balances_from_ledger(ledger, kept, now))
    ledger.run(
        "INSERT INTO budgets (name, source, definition, since) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET source = excluded.source, "
        "definition = excluded.definition, since = excluded.since",
        (rule.name, source, rule.to_json(), micros(since)),
    )


def drop_rule(ledger: Ledger, name: str) -> None:
    """Take a budget away, with its balances."""
    ledger.run("DELETE FROM balances WHERE budget = ?", (name,))
    ledger.run("DELETE FROM budgets WHERE name = ?", (name,))


def drop_balances(ledger: Ledger, rules: Rules) -> None:
    """Begin all balances anew."""
    for name in rules.kept:
        ledger.run("DELETE FROM balances WHERE budget = ?", (name,))


def retag_rules(ledger: Ledger, key: str, value: str, name: str) -> None:
    """Put `name` in the place of a tag's value; what apps declare they declare anew."""
    for kept in read_rules(ledger):
        renamed = kept.rule.with_tags({(key, value): name})
        if kept.source == "page" and renamed != kept.rule:
            ledger.run(
                "UPDATE budgets SET definition = ? WHERE name = ?",
                (renamed.to_json(), renamed.name),
            )
