"""Blocking budgets as the ledger keeps them, and which limit of theirs a call counts against."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from costmw.budgets import MISSING, Action, Budget, BudgetPeriod, Fail, OnUnpriced
from costmw.money import from_pico
from costmw.periods import period_span

Scope = tuple[str, ...]
"""The values of the tags that a budget is split by; empty where it is not."""

_KEPT = {"day": timedelta(40), "week": timedelta(280), "month": timedelta(1200)}

_MOMENT = timedelta(microseconds=1)


class BalanceKey(NamedTuple):
    """One limit in one period: what a balance is kept of."""

    budget: str
    scope: Scope
    period_start: datetime


@dataclass(frozen=True, slots=True)
class Rule:
    """A budget that balances are kept of; limits are in pico-USD, `wait` is in seconds.

    One that only alerts is kept when it was made on the page: it bars nobody.
    """

    name: str
    keys: tuple[str, ...]
    where: tuple[tuple[str, str], ...]
    period: BudgetPeriod
    limit: int
    limits: tuple[tuple[Scope, int], ...]
    max_output_tokens: int | None
    on_unpriced: OnUnpriced
    wait: float
    fail: Fail
    action: Action
    alert_at: tuple[float, ...]
    _limit_by_scope: dict[Scope, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_limit_by_scope", dict(self.limits))

    @classmethod
    def of(cls, budget: Budget) -> Rule:
        """The rule of a budget."""
        return cls(
            name=budget.name,
            keys=budget.tag_keys,
            where=tuple(sorted(budget.where.items())),
            period=budget.period,
            limit=budget.limit_pico_usd,
            limits=tuple(sorted(budget.limits_pico_usd.items())),
            max_output_tokens=budget.max_output_tokens,
            on_unpriced=budget.on_unpriced,
            wait=budget.wait,
            fail=budget.fail,
            action=budget.action,
            alert_at=tuple(budget.alert_at),
        )

    def budget(self) -> Budget:
        """The budget that it is the rule of."""
        return Budget(
            self.name,
            limit=from_pico(self.limit),
            per=self.keys or None,
            where=dict(self.where),
            period=self.period,
            action=self.action,
            alert_at=self.alert_at,
            limits={scope: from_pico(limit) for scope, limit in self.limits},
            max_output_tokens=self.max_output_tokens,
            on_unpriced=self.on_unpriced,
            wait=self.wait,
            fail=self.fail,
        )

    @property
    def counts_as(self) -> tuple[object, ...]:
        """What decides which calls count where: with another one, balances are made anew."""
        return (self.keys, self.where, self.period, self.on_unpriced)

    def scope_of(self, tags: Mapping[str, str]) -> Scope | None:
        """Which limit a call with these tags counts against; None when it does not count.

        A tag that is missing counts under a name of its own: absence is no way round a cap.
        """
        for key, value in self.where:
            if tags.get(key) != value:
                return None
        return tuple([tags.get(key, MISSING) for key in self.keys])

    def tags_of(self, scope: Scope) -> dict[str, str]:
        """A scope as tags."""
        return dict(zip(self.keys, scope, strict=True))

    def limit_of(self, scope: Scope) -> int:
        """The limit in pico-USD, one of its own where the scope has one."""
        return self._limit_by_scope.get(scope, self.limit)

    def amount_of(self, pico_usd: int, *, unpriced: bool) -> int:
        """What a hold counts here: nothing for a model without a price that is let pass."""
        return 0 if unpriced and self.on_unpriced == "allow" else pico_usd

    def span(self, at: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """The period that a moment falls in, in UTC."""
        return period_span(self.period, at, zone)

    def first_counted(self, now: datetime, zone: ZoneInfo) -> datetime:
        """From when on calls count in a new budget: the period before, if a clock is behind."""
        start, _ = self.span(now, zone)
        return start if self.period == "total" else self.span(start - _MOMENT, zone)[0]

    def spans_since(
        self, since: datetime, now: datetime, zone: ZoneInfo
    ) -> Iterator[tuple[datetime, datetime]]:
        """The periods from `since` to the one after the present, if a clock is ahead."""
        last = self.span(now, zone)[1]
        start, stop = self.span(since, zone)
        yield start, stop
        while self.period != "total" and stop <= last:
            start, stop = self.span(stop, zone)
            yield start, stop

    def kept_since(self, now: datetime, zone: ZoneInfo) -> datetime:
        """From when on balances are kept; long, so that a wrong clock does not lose any."""
        if self.period == "total":
            return self.span(now, zone)[0]
        return self.span(now - _KEPT[self.period], zone)[0]

    def resets_at(self, period_start: datetime, zone: ZoneInfo) -> datetime | None:
        """When a period ends; None for a budget that has no end."""
        return None if self.period == "total" else self.span(period_start, zone)[1]

    def with_tags(self, renamed: Mapping[tuple[str, str], str]) -> Rule:
        """The same rule, where values of tags have another name: by key and value."""
        return replace(
            self,
            where=tuple((key, renamed.get((key, value), value)) for key, value in self.where),
            limits=tuple(
                (
                    tuple(
                        renamed.get(found, found[1]) for found in zip(self.keys, scope, strict=True)
                    ),
                    limit,
                )
                for scope, limit in self.limits
            ),
        )

    def to_json(self) -> str:
        """The rule as it is stored; equal for equal rules."""
        return json.dumps({name: getattr(self, name) for name in _FIELDS}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Rule:
        """The rule that was stored; what a newer version has added is left out."""
        stored = json.loads(text)
        stored["keys"] = tuple(stored["keys"])
        stored["where"] = tuple((key, value) for key, value in stored["where"])
        stored["alert_at"] = tuple(stored["alert_at"])
        stored["limits"] = tuple((tuple(scope), limit) for scope, limit in stored["limits"])
        return cls(**{name: stored[name] for name in _FIELDS})


_FIELDS = tuple(stored.name for stored in fields(Rule) if stored.init)


@dataclass(frozen=True, slots=True)
class KeptRule:
    """A rule in a ledger: since when it counts there, and where it was written.

    `source` is "code" for one that an app declares as it starts, "page" for one that was made
    on the page.
    """

    rule: Rule
    since: datetime
    source: str


Places = Sequence[tuple[Rule, BalanceKey]]
"""Where a call counts: balances, and the rules that they are of."""


class Rules:
    """All budgets of a ledger that balances are kept of, in its accounting time zone."""

    def __init__(self, kept: Iterable[KeptRule], zone: ZoneInfo) -> None:
        self.kept = {one.rule.name: one for one in sorted(kept, key=lambda k: k.rule.name)}
        self.zone = zone
        self._spans: dict[str, tuple[datetime, datetime]] = {}

    def __bool__(self) -> bool:
        return bool(self.kept)

    def rule(self, name: str) -> Rule | None:
        """The rule of this name; None when there is none."""
        kept = self.kept.get(name)
        return None if kept is None else kept.rule

    def places_of(self, tags: Mapping[str, str], at: datetime) -> Places:
        """The balances that a call with these tags counts in, with their rules, by name.

        What was before a budget began to count does not count in it.
        """
        places = []
        for kept in self.kept.values():
            rule = kept.rule
            scope = rule.scope_of(tags)
            if scope is not None:
                start = self._period_start(rule, at)
                if start >= kept.since:
                    places.append((rule, BalanceKey(rule.name, scope, start)))
        return places

    def _period_start(self, rule: Rule, at: datetime) -> datetime:
        # Nearly all calls are of the present period, and time zones take their time.
        known = self._spans.get(rule.name)
        if known is None or not known[0] <= at < known[1]:
            start, stop = rule.span(at, self.zone)
            known = self._spans[rule.name] = (start.astimezone(UTC), stop)
        return known[0]
