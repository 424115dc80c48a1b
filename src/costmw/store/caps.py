"""Balances of blocking budgets, changed in the same transaction as the rows that they follow.

One implementation for both databases: what it asks is put so that SQLite and Postgres
understand it alike (`?` stands for a value), and the arithmetic is done here. That is safe
since writers take turns: nobody else changes a balance between reading and writing it.

`spent` of a balance is what the ledger says; `assumed` what was charged for calls whose cost
the ledger does not know; `held` what calls in flight may cost. `costmw verify` proves all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from costmw.caps.book import Amount, Book, Refusal
from costmw.caps.rules import Rule, Rules
from costmw.errors import ConfigError
from costmw.events import Amendment, Record, Release, Renewal, Reservation, UsageEvent
from costmw.store.balances import balances_from_ledger, read_balances, write_balances
from costmw.store.budget_rows import (
    begin_epoch,
    drop_balances,
    drop_rule,
    keep_rule,
    read_epoch,
    read_rules,
    retag_rules,
)
from costmw.store.caps_sql import Ledger
from costmw.store.charges import Change, Written, changes_of, corrections, given_back
from costmw.store.holds import (
    drop_holds,
    insert_holds,
    read_amounts,
    renew_holds,
    retag_amounts,
)

HOLDING = (Reservation, Release, Renewal)
"""Records that change holds, and make no row."""

Answers = Mapping[UUID, Refusal | Exception]
"""Reservations that were not granted, by their ids, and why."""


@dataclass(slots=True)
class Applied:
    """What came of it: who was refused, and which rows have to be amended after it."""

    refusals: dict[UUID, Refusal | Exception] = field(default_factory=dict)
    late: list[Amendment] = field(default_factory=list)


class Caps:
    """The budgets of one ledger; remembers their rules between transactions."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self._declared: tuple[Rule, ...] = ()
        self._is_declared = True
        self._epoch: str | None = None
        self.rules: Rules | None = None
        """What counts, as the last transaction saw it; None before the first."""

    def declare(self, rules: Iterable[Rule]) -> None:
        """Say what the app's own budgets are; the next transaction takes it in."""
        self._declared = tuple(rules)
        self._is_declared = not self._declared

    def page_rules(self, tags: Mapping[str, str]) -> list[Rule]:
        """The blocking budgets of the page that a call with these tags counts in."""
        rules = self.rules
        return [
            kept.rule
            for kept in (rules.kept.values() if rules else ())
            if kept.source == "page"
            and kept.rule.action == "block"
            and kept.rule.scope_of(tags) is not None
        ]

    def forget(self) -> None:
        """Begin anew: it may be another ledger, or a transaction was undone."""
        self._epoch = None
        self._is_declared = not self._declared

    def heed(self, ledger: Ledger, epoch: str, zone: ZoneInfo) -> bool:
        """Learn what counts at present; gives whether anything does.

        `epoch` is what `read_epoch` says in this transaction.
        """
        if epoch != self._epoch or self.rules is None:
            self.rules = Rules(read_rules(ledger), zone) if epoch else Rules((), zone)
            self._epoch = epoch
        if not self._is_declared:
            if self._take_in(ledger, self.rules):
                self.rules = Rules(read_rules(ledger), zone)
                self._epoch = begin_epoch(ledger, epoch)
            self._is_declared = True
        return bool(self.rules)

    def _take_in(self, ledger: Ledger, rules: Rules) -> bool:
        changed, now = False, self.now()
        for rule in self._declared:
            kept = rules.kept.get(rule.name)
            if (
                kept is None
                or kept.rule != rule
                or kept.source != "code"
                or kept.since < rule.kept_since(now, rules.zone)
            ):
                keep_rule(ledger, rule, "code", kept, rules.zone, now)
                changed = True
        return changed

    def keep(self, ledger: Ledger, rule: Rule) -> None:
        """Make or change a budget of the page.

        Raises:
            ConfigError: when the app's code has one of that name.
        """
        assert self.rules is not None  # heeded before
        rules = self.rules
        before = rules.kept.get(rule.name)
        if before is not None and before.source == "code":
            raise ConfigError(f"budget {rule.name!r} is set in the app's code; change it there")
        keep_rule(ledger, rule, "page", before, rules.zone, self.now())
        self._change(ledger)

    def drop(self, ledger: Ledger, name: str) -> None:
        """Take a budget away, wherever it was made; an app that still declares it makes it anew."""
        drop_rule(ledger, name)
        self._change(ledger)

    def rebuild(self, ledger: Ledger) -> None:
        """Make all balances anew, from the rows, holds and assumed charges."""
        assert self.rules is not None  # heeded before
        rules = Rules(read_rules(ledger), self.rules.zone)
        drop_balances(ledger, rules)
        write_balances(ledger, balances_from_ledger(ledger, rules, self.now()))
        self._change(ledger)

    def retag(self, ledger: Ledger, key: str, value: str, name: str) -> None:
        """Put `name` in the place of a tag's value, after it is there in the rows."""
        retag_amounts(ledger, key, value, name)
        retag_rules(ledger, key, value, name)
        self.rebuild(ledger)

    def _change(self, ledger: Ledger) -> None:
        assert self.rules is not None  # heeded before
        self._epoch = begin_epoch(ledger, read_epoch(ledger))
        self.rules = Rules(read_rules(ledger), self.rules.zone)

    def holds_of(self, ledger: Ledger, records: Iterable[Record]) -> dict[UUID, Amount]:
        """What is held already under the ids of these records; renewals are made before."""
        renew_holds(ledger, [record for record in records if isinstance(record, Renewal)])
        asked = [r.id for r in records if isinstance(r, UsageEvent | Release | Reservation)]
        return read_amounts(ledger, "holds", asked)

    def apply(
        self,
        ledger: Ledger,
        records: Iterable[Record],
        written: Written,
        holds: Mapping[UUID, Amount],
    ) -> Applied:
        """Change the balances by what was written, and grant what is asked for."""
        assert self.rules is not None  # heeded before
        reservations = {one.id: one for one in records if isinstance(one, Reservation)}
        released = [record.id for record in records if isinstance(record, Release)]
        ended = {*released, *(event.id for event in (*written.new, *written.known))}
        applied = Applied(late=corrections(ledger, written.known))
        changes = list(changes_of(ledger, written, holds))
        changes += given_back(ledger, [one for one in released if one not in holds])
        changes += [Change(hold, "held", -1) for hold_id, hold in holds.items() if hold_id in ended]
        asked = [
            (one, Amount(one.pico_usd, one.unpriced, one.event.created_at, one.tags))
            for one in reservations.values()
            # Not what is handed in twice, or was given up while it waited here.
            if one.id not in holds and one.id not in ended
        ]
        places_of = self.rules.places_of
        changing = [(change, places_of(change.amount.tags, change.amount.at)) for change in changes]
        asking = [(one, amount, places_of(amount.tags, amount.at)) for one, amount in asked]
        keys = {key for _, places in changing for _, key in places}
        keys.update(key for _, _, places in asking for _, key in places)
        book = Book(read_balances(ledger, keys), self.rules.zone)
        for change, places in changing:
            change.make(book, places)
        granted: list[Reservation] = []
        for one, amount, places in asking:
            refusal = book.reserve(amount, places, one.checked)
            if refusal is None:
                granted.append(one)
            else:
                applied.refusals[one.id] = refusal
        drop_holds(ledger, [hold_id for hold_id in holds if hold_id in ended])
        insert_holds(ledger, granted)
        write_balances(ledger, book.changes())
        return applied
