"""What is worth an alert: one lookout a kind, each asking the ledger's rollups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from costmw.alerts.alert import NEW_MODEL, ON_COURSE, THRESHOLD, UNPRICED_MODEL, VELOCITY
from costmw.alerts.settings import Alerts
from costmw.alerts.velocity import unusual_hour
from costmw.answering import cost_of
from costmw.answers import BudgetForecast, BudgetUse
from costmw.budgets import Budget
from costmw.money import format_usd
from costmw.periods import day_start, period_span
from costmw.reports import Reports
from costmw.store.alert_rows import ALL_TIME, AlertRow
from costmw.store.base import Query, Store, Totals

LATE = timedelta(hours=1)
"""For so long calls of a period that has ended may still be recorded."""

AHEAD = timedelta(hours=1)
"""The clocks of other hosts may be ahead by so much."""

KEPT = timedelta(days=90)
"""Alerts of a period are kept for so long after it."""

PRICED_STATUS = ("ok", "estimated")
"""Calls whose usage is known: without a cost they lack a price."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a lookout looks at."""

    store: Store
    budgets: Sequence[Budget]
    settings: Alerts
    now: datetime
    known: Callable[[Sequence[AlertRow]], set[str]]
    """The digests of alerts that the ledger has already."""


class Lookout(Protocol):
    """Looks for one kind of thing."""

    def __call__(self, ground: Ground) -> Iterator[AlertRow]:
        """Give what it finds, known or not, in the order in which to tell it.

        Raises:
            StoreError: when the ledger cannot be read.
        """


def thresholds(ground: Ground) -> Iterator[AlertRow]:
    """Thresholds that budgets have reached, in this period and in one that has just ended."""
    zone = ground.store.time_zone
    midnight = day_start(ground.now, zone)
    uses = _reports(ground, ground.now).budgets()
    if ground.now - midnight < LATE:
        yesterday = _reports(ground, midnight - timedelta(microseconds=1)).budgets()
        uses = [use for use in yesterday if use.stop <= midnight] + uses
    for use in uses:
        for share in sorted(use.reached):
            yield _threshold_row(use, share, zone)


def _threshold_row(use: BudgetUse, share: float, zone: ZoneInfo) -> AlertRow:
    return AlertRow(
        kind=THRESHOLD,
        budget=use.name,
        scope=use.tags,
        period_start=use.start,
        # A limit that is changed has thresholds of its own.
        threshold=f"{share:g} of {use.limit_usd:f}",
        details={
            "threshold": f"{share:g}",
            "limit_usd": f"{use.limit_usd:f}",
            "spent_usd": f"{use.spent_usd:f}",
            "used": f"{use.used:.4f}",
            **_period(use, zone),
        },
        forget_at=None if use.period == "total" else use.stop + KEPT,
    )


def on_course(ground: Ground) -> Iterator[AlertRow]:
    """Budgets that will be exceeded before their period ends, and are not yet."""
    if not ground.settings.on_course:
        return
    zone = ground.store.time_zone
    for use in _reports(ground, ground.now).forecast().budgets:
        seen = use.forecast
        if seen is None or use.runs_out_at is None or use.spent_usd >= use.limit_usd:
            continue
        yield AlertRow(
            kind=ON_COURSE,
            budget=use.name,
            scope=use.tags,
            period_start=use.start,
            threshold=f"{use.limit_usd:f}",
            details={
                "limit_usd": f"{use.limit_usd:f}",
                "spent_usd": f"{use.spent_usd:f}",
                "expected_usd": f"{seen.expected_usd:f}",
                "low_usd": f"{seen.low_usd:f}",
                "high_usd": f"{seen.high_usd:f}",
                "runs_out_at": f"{use.runs_out_at.astimezone(zone):%Y-%m-%d %H:%M}",
                **_period(use, zone),
            },
            forget_at=None if use.period == "total" else use.stop + KEPT,
        )


def _reports(ground: Ground, at: datetime) -> Reports:
    return Reports(ground.store, ground.budgets, now=lambda: at)


def _period(use: BudgetUse | BudgetForecast, zone: ZoneInfo) -> dict[str, str]:
    return {
        "period": use.period,
        "period_start": use.start.astimezone(zone).isoformat(),
        "period_stop": use.stop.astimezone(zone).isoformat(),
    }


def velocity(ground: Ground) -> Iterator[AlertRow]:
    """An hour that costs far more than is usual; told once a day."""
    if not ground.settings.velocity:
        return
    with ground.store.snapshot() as view:
        zone = ground.store.time_zone
        found = unusual_hour(view, ground.now, zone, ground.settings.velocity_floor_pico_usd)
    if found is not None:
        day = day_start(ground.now, zone)
        yield AlertRow(
            kind=VELOCITY,
            period_start=day,
            details={
                "hour": f"{found.hour.astimezone(zone):%Y-%m-%d %H:%M}",
                "spent_usd": format_usd(found.spent),
                "usual_usd": format_usd(found.usual),
                "most_usd": format_usd(found.most),
                "days": str(found.days),
            },
            forget_at=day + KEPT,
        )


def models(ground: Ground) -> Iterator[AlertRow]:
    """Models that were never used before, and those whose calls have no price.

    What was in use when alerts began, or on the first days of a ledger, is known quietly.
    """
    if not ground.settings.models:
        return
    zone = ground.store.time_zone
    since = day_start(day_start(ground.now, zone) - timedelta(hours=1), zone)
    recent = _by_model(ground, since)
    new = {
        model: AlertRow(
            NEW_MODEL,
            scope=_scope(model),
            details={"calls": str(totals.calls), "spent_usd": format_usd(cost_of(totals))},
        )
        for model, totals in sorted(recent.items())
    }
    strange = ground.known(list(new.values()))
    if unseen := {model: row for model, row in new.items() if row.digest not in strange}:
        before = _by_model(ground, ALL_TIME, stop=since)
        for model, row in unseen.items():
            quiet = not before or model in before
            yield AlertRow(row.kind, scope=row.scope, details=row.details, quiet=quiet)
    yield from _unpriced(ground, recent)


def _unpriced(ground: Ground, recent: dict[Model, Totals]) -> Iterator[AlertRow]:
    start, stop = period_span("month", ground.now, ground.store.time_zone)
    rows = {
        model: AlertRow(
            UNPRICED_MODEL,
            scope=_scope(model),
            period_start=start,
            details={"calls": str(totals.unpriced)},
            forget_at=stop + KEPT,
        )
        for model, totals in sorted(recent.items())
        if totals.unpriced
    }
    if not rows or len(ground.known(list(rows.values()))) == len(rows):
        return
    # Calls that were cut off have no cost either, and a price would not help them.
    since = max(start, ground.now - timedelta(days=2))
    lacking = _by_model(ground, since, status=PRICED_STATUS)
    for model, row in rows.items():
        if model in lacking and lacking[model].unpriced:
            yield row


Model = tuple[str, str]
"""Provider and model."""


def _by_model(
    ground: Ground, start: datetime, *, stop: datetime | None = None, status: Sequence[str] = ()
) -> dict[Model, Totals]:
    group_by = ("provider", "model", *(("status",) if status else ()))
    with ground.store.snapshot() as view:
        groups = view.totals(Query(start, stop or ground.now + AHEAD, group_by)).groups
    found: dict[Model, Totals] = {}
    for (provider, model, *rest), totals in groups.items():
        if not status or rest[0] in status:
            key = str(provider or "(unknown)"), str(model or "(unknown)")
            found.setdefault(key, Totals()).add(totals)
    return found


def _scope(model: Model) -> dict[str, str]:
    return {"provider": model[0], "model": model[1]}
