"""What a channel is handed: an alert in words, and its figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from costmw.events import new_id
from costmw.store.alert_rows import AlertRow

THRESHOLD = "budget.threshold"
ON_COURSE = "budget.on_course_to_exceed"
VELOCITY = "spend.velocity"
NEW_MODEL = "model.new"
UNPRICED_MODEL = "model.unpriced"
TEST = "test"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, the same for all channels and however often it is tried.

    `id` stays the same when it is delivered again. `kind` is `budget.threshold`,
    `budget.on_course_to_exceed`, `spend.velocity`, `model.new`, `model.unpriced` or `test`.
    `title` is one line, `message` a sentence. `budget` is its name, `scope` the tags of its
    split, or the model; `details` are figures, amounts in USD as decimals.
    """

    kind: str
    title: str
    message: str
    raised_at: datetime
    budget: str | None = None
    scope: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    id: UUID = field(default_factory=new_id)

    def as_json(self) -> str:
        """The body of a webhook: `type`, `timestamp` and `data`, as Standard Webhooks has it."""
        return json.dumps(
            {
                "type": self.kind,
                "timestamp": f"{self.raised_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
                "data": {
                    "id": str(self.id),
                    "title": self.title,
                    "message": self.message,
                    "budget": self.budget,
                    "scope": dict(self.scope),
                    **self.details,
                },
            },
            ensure_ascii=False,
        )


def alert_of(row: AlertRow) -> Alert:
    """What is told of a row of the ledger."""
    title, message = _WORDS.get(row.kind, _of_another_version)(row)
    return Alert(
        kind=row.kind,
        title=title,
        message=message,
        raised_at=row.raised_at,
        budget=row.budget or None,
        scope=row.scope,
        details=row.details,
        id=row.id,
    )


def alert_for_trial() -> Alert:
    """One that says nothing but that alerts arrive."""
    return Alert(
        kind=TEST,
        title="A test of costmw",
        message="Alerts of LLM costs arrive here.",
        raised_at=datetime.now(UTC),
    )


Words = tuple[str, str]
"""A title, and a sentence."""


def _threshold(row: AlertRow) -> Words:
    told = row.details
    return (
        f"{_percent(told['threshold'])} of budget {_named(row)} is used",
        (
            f"{_usd(told['spent_usd'])} of {_usd(told['limit_usd'])} USD "
            f"({_percent(told['used'])}) is spent {_in_period(told)}."
        ),
    )


def _on_course(row: AlertRow) -> Words:
    told = row.details
    return (
        f"Budget {_named(row)} is on course to be exceeded",
        (
            f"{_usd(told['spent_usd'])} of {_usd(told['limit_usd'])} USD is spent "
            f"{_in_period(told)}, {_usd(told['expected_usd'])} USD are expected by "
            f"{told['period_stop'][:10]} ({_usd(told['low_usd'])} to {_usd(told['high_usd'])}), "
            f"and the limit is reached about {told['runs_out_at']}."
        ),
    )


def _velocity(row: AlertRow) -> Words:
    told = row.details
    return (
        "LLM spend is far above what is usual at this hour",
        (
            f"{_usd(told['spent_usd'])} USD since {told['hour']}; in this hour of the "
            f"{told['days']} days before it was {_usd(told['usual_usd'])} USD, "
            f"and {_usd(told['most_usd'])} USD at most."
        ),
    )


def _new_model(row: AlertRow) -> Words:
    told = row.details
    return (
        f"A new model is in use: {_model(row)}",
        f"{told['calls']} call(s) so far, for {_usd(told['spent_usd'])} USD.",
    )


def _unpriced_model(row: AlertRow) -> Words:
    return (
        f"Calls of {_model(row)} have no price",
        (
            f"{row.details['calls']} call(s) of the last days have no cost: they are in no sum and "
            "no budget. Give the model a price, and run: costmw reprice --since "
            f"{row.period_start:%Y-%m-%d}"
        ),
    )


def _of_another_version(row: AlertRow) -> Words:
    return row.kind, json.dumps(dict(row.details), ensure_ascii=False)


_WORDS: dict[str, Callable[[AlertRow], Words]] = {
    THRESHOLD: _threshold,
    ON_COURSE: _on_course,
    VELOCITY: _velocity,
    NEW_MODEL: _new_model,
    UNPRICED_MODEL: _unpriced_model,
}


def _named(row: AlertRow) -> str:
    scope = ", ".join(f"{key}={value}" for key, value in row.scope.items())
    return f"{row.budget!r} ({scope})" if scope else repr(row.budget)


def _model(row: AlertRow) -> str:
    return f"{row.scope.get('model')} ({row.scope.get('provider')})"


def _in_period(told: Mapping[str, str]) -> str:
    start = told["period_start"]
    spans = {"day": f"on {start[:10]}", "week": f"in the week of {start[:10]}"}
    spans |= {"month": f"in {start[:7]}", "total": "in all"}
    return spans[told["period"]]


def _percent(share: str) -> str:
    return f"{(Decimal(share) * 100).normalize():f}%"


def _usd(amount: str) -> str:
    """To the cent, or with two digits that say something."""
    usd = Decimal(amount)
    cent = Decimal("0.01")
    if usd and abs(usd) < cent:
        cent = Decimal(1).scaleb(usd.adjusted() - 1)
    return f"{usd.quantize(cent, ROUND_HALF_UP):f}"
