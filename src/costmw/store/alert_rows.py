"""Alerts in the ledger: each there once, whoever finds it, and how far each channel has them.

The statements are the same for every database. A channel is behind by the alerts after its
`delivered_seq`: it gets them one by one, in the order in which they were raised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

from costmw.events import new_id
from costmw.store.claims import Execute, claim
from costmw.store.micros import from_micros, micros

ALL_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""The period of what is told once and never again."""


@dataclass(frozen=True, slots=True)
class AlertRow:
    """Something worth an alert.

    `kind`, `budget`, `scope`, `period_start` and `threshold` say what it is: there is one row of
    each, for ever. `scope` are the tags of a budget's split, or the model. `details` are what
    is told of it. Nobody finds it again from `forget_at` on. A `quiet` one is known, and not
    told.
    """

    kind: str
    budget: str = ""
    scope: Mapping[str, str] = field(default_factory=dict)
    period_start: datetime = ALL_TIME
    threshold: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    forget_at: datetime | None = None
    quiet: bool = False
    raised_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    id: UUID = field(default_factory=new_id)

    @property
    def digest(self) -> str:
        """The same for the same alert, whoever finds it."""
        told = (
            self.kind,
            self.budget,
            _json(self.scope),
            micros(self.period_start),
            self.threshold,
        )
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class NextAlert:
    """The alert that a channel gets next, and how its delivery has gone so far.

    `after` is the position of the one before it; `due_in` is in seconds, None for a channel
    that is closed.
    """

    row: AlertRow
    position: int
    after: int
    attempts: int
    due_in: float | None


class AlertRows:
    """The alerts of a ledger.

    `transaction` opens one during which nobody else changes them; `clock` gives seconds since
    1970, the same for all processes.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Execute]],
        clock: Callable[[Execute], float],
    ) -> None:
        self._transaction = transaction
        self._clock = clock

    def claim(self, task: str, owner: str, seconds: float) -> bool:
        """Have a task for so long, among all processes; False while another owner has it."""
        with self._transaction() as execute:
            return claim(execute, task, owner, seconds, self._clock(execute))

    def add(self, rows: Sequence[AlertRow]) -> list[AlertRow]:
        """Keep those that are not there yet, and give them."""
        with self._transaction() as execute:
            return [row for row in rows if execute(_INSERT, _values_of(row))]

    def known(self, rows: Sequence[AlertRow]) -> set[str]:
        """The digests of those that are there."""
        with self._transaction() as execute:
            return {
                row.digest
                for row in rows
                if execute("SELECT 1 FROM alerts WHERE digest = ?", (row.digest,))
            }

    def drop_forgotten(self) -> None:
        """Drop alerts that nobody could find again."""
        with self._transaction() as execute:
            execute(
                "DELETE FROM alerts WHERE forget_at < ?", (round(self._clock(execute) * 1_000_000),)
            )

    # What channels have.

    def register(self, channel: str, address: str) -> None:
        """Have a channel get what is raised from now on, or go on where it was.

        One that was closed, or failed, gets another try when its `address` is a new one.
        """
        with self._transaction() as execute:
            execute(
                "INSERT INTO alert_channels (name, address, delivered_seq, attempts, retry_at) "
                "VALUES (?, ?, (SELECT coalesce(max(seq), 0) FROM alerts), 0, 0) "
                "ON CONFLICT (name) DO UPDATE SET address = excluded.address, attempts = 0, "
                "retry_at = 0 WHERE alert_channels.address <> excluded.address",
                (channel, address),
            )

    def next_for(self, channel: str) -> NextAlert | None:
        """What a channel gets next; None when it has all there is."""
        with self._transaction() as execute:
            state = execute(
                "SELECT delivered_seq, attempts, retry_at FROM alert_channels WHERE name = ?",
                (channel,),
            )
            if not state:
                return None
            after, attempts, retry_at = state[0]
            found = execute(f"{_SELECT} WHERE seq > ? AND quiet = 0 ORDER BY seq LIMIT 1", (after,))
            if not found:
                return None
            position, *columns = found[0]
            due_in = (
                None if retry_at is None else max(retry_at / 1_000_000 - self._clock(execute), 0.0)
            )
            return NextAlert(_row_of(columns), position, after, attempts, due_in)

    def delivered(self, channel: str, given: NextAlert) -> None:
        """A channel has it; the next one follows."""
        with self._transaction() as execute:
            execute(
                "UPDATE alert_channels SET delivered_seq = ?, attempts = 0, retry_at = 0 "
                "WHERE name = ? AND delivered_seq = ?",
                (given.position, channel, given.after),
            )

    def failed(self, channel: str, given: NextAlert, retry_in: float | None) -> None:
        """A channel does not have it: try again in so many seconds, or None for never."""
        with self._transaction() as execute:
            retry_at = (
                None if retry_in is None else round((self._clock(execute) + retry_in) * 1_000_000)
            )
            execute(
                "UPDATE alert_channels SET attempts = attempts + 1, retry_at = ? "
                "WHERE name = ? AND delivered_seq = ?",
                (retry_at, channel, given.after),
            )

    def try_again(self, channel: str) -> None:
        """A channel works: what waits for it is due, even if it was closed."""
        with self._transaction() as execute:
            execute(
                "UPDATE alert_channels SET attempts = 0, retry_at = 0 WHERE name = ?", (channel,)
            )


@runtime_checkable
class KeepsAlerts(Protocol):
    """A ledger that alerts can be kept in."""

    @property
    def alerts(self) -> AlertRows:
        """Its alerts."""


def retag(execute: Execute, key: str, value: str, substitute: str) -> None:
    """Put something else in the place of a tag's value, in all alerts of budgets."""
    for position, *columns in execute(f"{_SELECT} WHERE budget <> ''", ()):
        row = _row_of(columns)
        if row.scope.get(key) != value:
            continue
        changed = replace(row, scope={**row.scope, key: substitute})
        if execute("SELECT 1 FROM alerts WHERE digest = ?", (changed.digest,)):
            execute("DELETE FROM alerts WHERE seq = ?", (position,))
        else:
            execute(
                "UPDATE alerts SET scope = ?, digest = ? WHERE seq = ?",
                (_json(changed.scope), changed.digest, position),
            )


_COLUMNS = "id, kind, budget, scope, period_start, threshold, details, forget_at, quiet, raised_at"

_SELECT = f"SELECT seq, {_COLUMNS} FROM alerts"  # noqa: S608 - our own names

_INSERT = f"""
INSERT INTO alerts ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (digest) DO NOTHING RETURNING seq
"""  # noqa: S608 - our own names


def _values_of(row: AlertRow) -> Sequence[object]:
    return (
        row.id.hex,
        row.kind,
        row.budget,
        _json(row.scope),
        micros(row.period_start),
        row.threshold,
        _json(row.details),
        None if row.forget_at is None else micros(row.forget_at),
        int(row.quiet),
        micros(row.raised_at),
        row.digest,
    )


def _row_of(columns: Sequence[object]) -> AlertRow:
    (
        row_id,
        kind,
        budget,
        scope,
        period_start,
        threshold,
        details,
        forget_at,
        quiet,
        raised_at,
    ) = columns
    return AlertRow(
        kind=str(kind),
        budget=str(budget),
        scope=json.loads(str(scope)),
        period_start=_moment(period_start),
        threshold=str(threshold),
        details=json.loads(str(details)),
        forget_at=None if forget_at is None else _moment(forget_at),
        quiet=bool(quiet),
        raised_at=_moment(raised_at),
        id=UUID(str(row_id)),
    )


def _moment(stored: object) -> datetime:
    assert isinstance(stored, int)
    return from_micros(stored)


def _json(values: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(values.items())), ensure_ascii=False)
