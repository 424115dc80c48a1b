"""Balances of blocking budgets, changed in the same transaction as the rows that they follow.

One implementation for both databases: what it asks is put so that SQLite and Postgres
understand it alike (`?` stands for a value), and the arithmetic is done here. That is safe
since writers take turns: nobody else changes a balance between reading and writing it.

`spent` of a balance is what the ledger says; `assumed` what was charged for calls whose cost
the ledger does not know; `held` what calls in flight may cost. `costmw verify` proves all three.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from costmw.budgets import MISSING
from costmw.caps.book import Amount, Balance, Book, Refusal
from costmw.caps.rules import BalanceKey, KeptRule, Rule, Rules
from costmw.errors import ConfigError
from costmw.events import Amendment, Record, Release, Renewal, Reservation, UsageEvent
from costmw.store.base import Found, Query
from costmw.store.record_json import decode, encode_row
from costmw.store.sqlite_sql import from_micros, micros

HOLDING = (Reservation, Release, Renewal)
"""Records that change holds, and make no row."""

Answers = Mapping[UUID, Refusal | Exception]
"""Reservations that were not granted, by their ids, and why."""

EPOCH = "budgets_epoch"
"""The setting that changes with the budgets of a ledger."""

EXPIRED = "the call did not come back: its budgets are charged with all that was held for it"
"""Why the cost of a row is not known that was made when its hold ended."""

LATE = "settled after its hold had ended"

_LATE_IDS = UUID("0a6e1f7c-6c83-5f0e-a1d5-9a2d0d1f6b11")
"""Namespace of the ids of corrections of rows whose call came back late (UUIDv5)."""

T = TypeVar("T")

EXPIRED_AT_ONCE = 100
_ASKED_AT_ONCE = 200


class Readable(Protocol):
    """A view of a ledger, as far as balances need it."""

    def ask(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """Run a statement; gives its rows."""

    def totals(self, query: Query) -> Found:
        """Sum rows, as this view or transaction sees them."""


class Ledger(Readable, Protocol):
    """A transaction of a ledger that has its turn."""

    def run(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row of values."""

    def booked(self, ids: Sequence[UUID]) -> Mapping[UUID, tuple[datetime, Mapping[str, str]]]:
        """When the calls of these rows began, and their tags."""

    def amended(self, ids: Sequence[UUID]) -> Mapping[UUID, tuple[int, int]]:
        """What amendments add to these rows: pico-USD, and to whether there is no price."""


@dataclass(slots=True)
class Written:
    """What a transaction writes, as far as balances go by it: rows that are new, rows whose ids
    are there already, new amendments."""

    new: list[UsageEvent] = field(default_factory=list)
    known: list[UsageEvent] = field(default_factory=list)
    amendments: list[Amendment] = field(default_factory=list)

    @classmethod
    def of(
        cls, records: Iterable[Record], known: Collection[UUID], known_amendments: Collection[UUID]
    ) -> Written:
        """Tell the records apart, by the ids that the ledger had before."""
        seen: set[UUID] = set()
        written = cls()
        for record in records:
            match record:
                case UsageEvent(id=event_id) if event_id in known:
                    written.known.append(record)
                case UsageEvent(id=event_id) if event_id not in seen:
                    written.new.append(record)
                    seen.add(event_id)
                case Amendment(id=amendment_id) if amendment_id not in known_amendments:
                    written.amendments.append(record)
        return written


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
        """The budgets of the page that a call with these tags counts in."""
        rules = self.rules
        return [
            kept.rule
            for kept in (rules.kept.values() if rules else ())
            if kept.source == "page" and kept.rule.scope_of(tags) is not None
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
        ledger.run("DELETE FROM balances WHERE budget = ?", [(name,) for name in rules.kept])
        write_balances(ledger, balances_from_ledger(ledger, rules, self.now()))
        self._change(ledger)

    def retag(self, ledger: Ledger, key: str, value: str, name: str) -> None:
        """Put `name` in the place of a tag's value, after it is there in the rows."""
        for table in ("holds", "assumed_charges"):
            rows = ledger.ask(f"SELECT tags, id FROM {table}")  # noqa: S608 - our own names
            ledger.run(
                f"UPDATE {table} SET tags = ? WHERE id = ?",  # noqa: S608 - our own names
                [
                    (json.dumps({**tags, key: name}), row_id)
                    for text, row_id in rows
                    if (tags := json.loads(text)).get(key) == value
                ],
            )
        for kept in read_rules(ledger):
            renamed = kept.rule.with_tags({(key, value): name})
            if kept.source == "page" and renamed != kept.rule:
                ledger.run(
                    "UPDATE budgets SET definition = ? WHERE name = ?",
                    [(renamed.to_json(), renamed.name)],
                )
        self.rebuild(ledger)

    def _change(self, ledger: Ledger) -> None:
        begin_epoch(ledger, read_epoch(ledger))

    def apply(self, ledger: Ledger, records: Iterable[Record], written: Written) -> Applied:
        """Change the balances by what was written, and grant what is asked for."""
        assert self.rules is not None  # heeded before
        renewals: list[Renewal] = []
        ended: dict[UUID, None] = {}
        reservations: dict[UUID, Reservation] = {}
        for record in records:
            match record:
                case Reservation():
                    reservations[record.id] = record
                case Release():
                    ended[record.id] = None
                case Renewal():
                    renewals.append(record)
        _renew(ledger, renewals)
        released = list(ended)
        ended |= dict.fromkeys(event.id for event in (*written.new, *written.known))
        holds = read_amounts(ledger, "holds", [*ended, *reservations])
        applied = Applied()
        changes = list(_changes_of(ledger, written, holds, applied))
        changes += _given_back(ledger, [one for one in released if one not in holds])
        asked = [
            (reservation, Amount(reservation.pico_usd, reservation.unpriced, at, reservation.tags))
            for reservation in reservations.values()
            # Handed in twice, or given up while it waited here.
            if reservation.id not in holds
            and reservation.id not in ended
            and (at := reservation.event.created_at)
        ]
        settled = [hold for hold_id, hold in holds.items() if hold_id in ended]
        places = {
            key
            for amount in (*settled, *(c.amount for c in changes), *(a for _, a in asked))
            for _, key in self.rules.places_of(amount.tags, amount.at)
        }
        book = Book(self.rules, read_balances(ledger, places))
        for hold in settled:
            book.release(hold)
        for change in changes:
            if change.is_spent:
                book.charge(change.amount.tags, change.amount.at, change.amount.pico_usd)
            else:
                book.assume(change.amount, change.sign)
        granted: list[Reservation] = []
        for reservation, amount in asked:
            refusal = book.reserve(amount, reservation.checked)
            if refusal is None:
                granted.append(reservation)
            else:
                applied.refusals[reservation.id] = refusal
        _drop(ledger, "holds", [hold_id for hold_id in holds if hold_id in ended])
        _insert_holds(ledger, granted)
        write_balances(ledger, book.changes())
        return applied


@dataclass(slots=True)
class _Change:
    amount: Amount
    is_spent: bool
    sign: int = 1


def _changes_of(
    ledger: Ledger, written: Written, holds: Mapping[UUID, Amount], applied: Applied
) -> Iterator[_Change]:
    """What rows change: first what they cost, then what is assumed where that is not known."""
    yield from _charges_of_new(ledger, written.new, holds)
    new = {event.id for event in written.new}
    amendments = [a for a in written.amendments if a.event_id not in new]
    ids = {a.event_id for a in amendments} | {event.id for event in written.known}
    if not ids:
        return
    assumed = read_amounts(ledger, "assumed_charges", list(ids))
    for event in written.known:
        if event.id in assumed and event.reason != EXPIRED:
            applied.late.append(_late(event))
    booked = ledger.booked([a.event_id for a in amendments])
    priced: list[UUID] = []
    for amendment in amendments:
        if amendment.event_id not in booked:
            continue  # its row is still to come, and takes it in then
        at, tags = booked[amendment.event_id]
        cost = amendment.cost_pico_usd + amendment.estimated_cost_pico_usd
        if cost:
            yield _Change(Amount(cost, False, at, tags), is_spent=True)
        if amendment.unpriced < 0 and amendment.event_id in assumed:
            yield _Change(assumed.pop(amendment.event_id), is_spent=False, sign=-1)
            priced.append(amendment.event_id)
    _drop(ledger, "assumed_charges", priced)


def _given_back(ledger: Ledger, ids: Sequence[UUID]) -> list[_Change]:
    """What is not charged after all, of calls that were held to be lost."""
    if not ids:
        return []
    assumed = read_amounts(ledger, "assumed_charges", ids)
    _drop(ledger, "assumed_charges", list(assumed))
    return [_Change(amount, is_spent=False, sign=-1) for amount in assumed.values()]


def _charges_of_new(
    ledger: Ledger, events: Sequence[UsageEvent], holds: Mapping[UUID, Amount]
) -> Iterator[_Change]:
    if not events:
        return
    # Who asked for a result that came later is what its submission says.
    later = [event.id for event in events if event.submitted_as]
    booked = ledger.booked(later) if later else {}
    amended = ledger.amended([event.id for event in events])
    assumed: list[tuple[UUID, Amount]] = []
    for event in events:
        at, tags = booked.get(event.id) or (event.created_at, event.tags)
        added, unpriced = amended.get(event.id, (0, 0))
        cost = event.price.cost_pico_usd
        if cost is not None or unpriced < 0:
            yield _Change(Amount((cost or 0) + added, False, at, tags), is_spent=True)
        elif hold := holds.get(event.id):
            charged = Amount(hold.pico_usd, hold.unpriced, at, tags)
            yield _Change(charged, is_spent=False)
            assumed.append((event.id, charged))
    ledger.run(
        "INSERT INTO assumed_charges (id, pico_usd, unpriced, at, tags) VALUES (?, ?, ?, ?, ?)",
        [(event_id.hex, *_values_of(amount)) for event_id, amount in assumed],
    )


def _late(event: UsageEvent) -> Amendment:
    """The correction of a row that was made as its hold ended, by what the call came to."""
    cost, usage = event.price.cost_pico_usd, event.usage
    return Amendment(
        event_id=event.id,
        id=uuid5(_LATE_IDS, event.id.hex),
        reason=f"{LATE}; {event.reason}" if event.reason else LATE,
        status=event.status,
        price=event.price if cost is not None else None,
        cost_pico_usd=(cost or 0) if event.status == "ok" else 0,
        estimated_cost_pico_usd=0 if event.status == "ok" else (cost or 0),
        unpriced=0 if cost is None else -1,
        input_tokens=usage.input_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_write_input_tokens=usage.cache_write_input_tokens,
        reasoning_output_tokens=usage.reasoning_output_tokens,
    )


# Holds.


def _renew(ledger: Ledger, renewals: Sequence[Renewal]) -> None:
    ledger.run(
        "UPDATE holds SET id = ?, expires_at = ? WHERE id = ?",
        [(((r.as_id or r.id).hex), micros(r.expires_at), r.id.hex) for r in renewals],
    )


def _insert_holds(ledger: Ledger, granted: Sequence[Reservation]) -> None:
    ledger.run(
        "INSERT INTO holds (id, pico_usd, unpriced, at, tags, expires_at, call) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                r.id.hex,
                *_values_of(Amount(r.pico_usd, r.unpriced, r.event.created_at, r.tags)),
                micros(r.expires_at),
                encode_row(r.event),
            )
            for r in granted
        ],
    )


def expired(ledger: Readable, now: datetime) -> list[UsageEvent]:
    """The rows that are to be made of calls nobody has heard of, at most some of them."""
    found = ledger.ask(
        f"SELECT id, tags, call FROM holds WHERE expires_at < ? ORDER BY expires_at "  # noqa: S608
        f"LIMIT {EXPIRED_AT_ONCE}",
        (micros(now),),
    )
    return [_row_of(UUID(hold_id), json.loads(tags), call) for hold_id, tags, call in found]


def _row_of(hold_id: UUID, tags: Mapping[str, str], call: str) -> UsageEvent:
    event = decode("event", call)
    assert isinstance(event, UsageEvent)
    return UsageEvent(
        id=hold_id,
        created_at=event.created_at,
        operation=event.operation,
        provider=event.provider,
        request_model=event.request_model,
        response_model=None,
        usage=event.usage,
        price=event.price,
        status="incomplete",
        tags=tags,
        api=event.api,
        reason=EXPIRED,
        request_id=event.request_id,
        api_key_id=event.api_key_id,
        trace_id=event.trace_id,
    )


def read_amounts(ledger: Readable, table: str, ids: Sequence[UUID]) -> dict[UUID, Amount]:
    """What is held (`holds`) or assumed (`assumed_charges`) under these ids."""
    found: dict[UUID, Amount] = {}
    for some in _parts(ids):
        rows = ledger.ask(
            f"SELECT id, pico_usd, unpriced, at, tags FROM {table} "  # noqa: S608 - our own names
            f"WHERE id IN ({', '.join('?' * len(some))})",
            [one.hex for one in some],
        )
        found.update((UUID(hold_id), _amount_of(*values)) for hold_id, *values in rows)
    return found


def all_amounts(ledger: Readable, table: str) -> list[Amount]:
    """All that is held, or assumed."""
    rows = ledger.ask(f"SELECT pico_usd, unpriced, at, tags FROM {table}")  # noqa: S608
    return [_amount_of(*row) for row in rows]


def _amount_of(pico_usd: int, unpriced: int, at: int, tags: str) -> Amount:
    return Amount(int(pico_usd), bool(unpriced), from_micros(int(at)), json.loads(tags))


def _values_of(amount: Amount) -> tuple[int, int, int, str]:
    return (amount.pico_usd, int(amount.unpriced), micros(amount.at), json.dumps(dict(amount.tags)))


def _drop(ledger: Ledger, table: str, ids: Sequence[UUID]) -> None:
    ledger.run(f"DELETE FROM {table} WHERE id = ?", [(one.hex,) for one in ids])  # noqa: S608


# Balances.

_READ = (
    "WITH wanted (budget, scope, period_start) AS (VALUES {}) "
    "SELECT b.budget, b.scope, b.period_start, b.spent, b.assumed, b.held "
    # The order of the join, for SQLite: it would read all balances otherwise.
    "FROM wanted w CROSS JOIN balances b "
    "WHERE b.budget = w.budget AND b.scope = w.scope AND b.period_start = w.period_start"
)

_WRITE = (
    "INSERT INTO balances (budget, scope, period_start, spent, assumed, held) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (budget, scope, period_start) "
    "DO UPDATE SET spent = excluded.spent, assumed = excluded.assumed, held = excluded.held"
)


def read_balances(ledger: Readable, keys: Iterable[BalanceKey]) -> dict[BalanceKey, Balance]:
    """Balances by their keys; those that there are none of are left out."""
    balances: dict[BalanceKey, Balance] = {}
    for some in _parts(list(keys)):
        marks = ", ".join(["(?, ?, CAST(? AS BIGINT))"] * len(some))
        values = [value for key in some for value in _key_values(key)]
        for row in ledger.ask(_READ.format(marks), values):
            balances[_key_of(*row[:3])] = Balance(*map(int, row[3:]))
    return balances


def all_balances(ledger: Readable) -> dict[BalanceKey, Balance]:
    """All balances."""
    rows = ledger.ask("SELECT budget, scope, period_start, spent, assumed, held FROM balances")
    return {_key_of(*row[:3]): Balance(*map(int, row[3:])) for row in rows}


def write_balances(ledger: Ledger, balances: Mapping[BalanceKey, Balance]) -> None:
    """Keep balances, in one order whoever writes."""
    ledger.run(
        _WRITE,
        [
            # As text: sums have no end, and neither database has an integer of that kind.
            (*_key_values(key), str(balance.spent), str(balance.assumed), str(balance.held))
            for key, balance in sorted(balances.items())
        ],
    )


def _key_values(key: BalanceKey) -> tuple[str, str, int]:
    return (key.budget, json.dumps(key.scope), micros(key.period_start))


def _key_of(budget: str, scope: str, period_start: int) -> BalanceKey:
    return BalanceKey(budget, tuple(json.loads(scope)), from_micros(int(period_start)))


# Rules.


def read_rules(ledger: Readable) -> list[KeptRule]:
    """The budgets of a ledger."""
    return [
        KeptRule(Rule.from_json(definition), from_micros(int(since)), source)
        for definition, since, source in ledger.ask("SELECT definition, since, source FROM budgets")
    ]


READ_EPOCH = "SELECT value FROM settings WHERE key = ?"


def read_epoch(ledger: Readable) -> str:
    """What changes with the budgets of a ledger; empty when it never had any."""
    found = ledger.ask(READ_EPOCH, (EPOCH,))
    return str(found[0][0]) if found else ""


def begin_epoch(ledger: Ledger, present: str) -> str:
    """Have all processes learn the budgets anew; gives the new epoch."""
    epoch = str(int(present or 0) + 1)
    ledger.run(
        "INSERT INTO settings (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(EPOCH, epoch)],
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
            [(rule.name, micros(since))],
        )
    else:
        since = rule.first_counted(now, zone)
        ledger.run("DELETE FROM balances WHERE budget = ?", [(rule.name,)])
        kept = Rules([KeptRule(rule, since, source)], zone)
        write_balances(ledger, balances_from_ledger(ledger, kept, now))
    ledger.run(
        "INSERT INTO budgets (name, source, definition, since) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET source = excluded.source, "
        "definition = excluded.definition, since = excluded.since",
        [(rule.name, source, rule.to_json(), micros(since))],
    )


def drop_rule(ledger: Ledger, name: str) -> None:
    """Take a budget away, with its balances."""
    ledger.run("DELETE FROM balances WHERE budget = ?", [(name,)])
    ledger.run("DELETE FROM budgets WHERE name = ?", [(name,)])


def balances_from_ledger(
    ledger: Readable, rules: Rules, now: datetime
) -> dict[BalanceKey, Balance]:
    """What balances have to be, by the rows, holds and assumed charges of a ledger."""
    balances: dict[BalanceKey, Balance] = {}
    for kept in rules.kept.values():
        for key, spent in _spent(ledger.totals, kept, rules.zone, now):
            balances.setdefault(key, Balance()).spent += spent
    book = Book(rules, balances)
    for hold in all_amounts(ledger, "holds"):
        book.hold(hold)
    for charged in all_amounts(ledger, "assumed_charges"):
        book.assume(charged)
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


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), _ASKED_AT_ONCE):
        yield items[first : first + _ASKED_AT_ONCE]
