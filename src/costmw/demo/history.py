"""A past for the demo: two months of calls that never were, the same every time."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from costmw import Meter
from costmw.demo.work import (
    AT_NIGHT,
    CHAT,
    IN_THE_DAY,
    NIGHTLY_CALLS,
    SEARCH,
    SUMMARY,
    TENANTS,
    Work,
)
from costmw.events import Amendment, Outcome, OutcomeKind, Price, Record, UsageEvent, new_id

HISTORY_TAG = {"made_up": "history"}
"""On every row that the demo made up; rows of its live traffic do not have it."""

HISTORY_DAYS = 61
SEED = 7

CALLS_A_DAY = 55
"""Calls of the first working day; there are twice as many at the end."""

RUNAWAY_CALLS = 200
"""Calls of a loop that nobody stopped, on one day of the last two weeks."""

OUTCOMES: tuple[tuple[OutcomeKind, float], ...] = (
    ("error", 0.02),
    ("retry", 0.012),
    ("capture_fault", 0.0003),
)
"""What bills nothing, and how often it happens beside a call."""

REFUSED = 0.1
"""How often a budget refuses a call of the one tenant that has a small one."""

CUT_OFF = "the client closed the stream before its end"
WITHOUT_USAGE = "the answer does not say what it used"


def made_up_history(meter: Meter, now: datetime) -> Iterator[Record]:
    """Calls of the weeks before `now`, priced like real ones, marked by `HISTORY_TAG`."""
    made = _History(meter, now)
    for days_ago in range(HISTORY_DAYS, -1, -1):
        yield from made.day(days_ago)


def runaway_day(now: datetime) -> datetime:
    """When the day began on which a loop ran away: a working day, most of a week ago."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=5)
    return day - timedelta(days=max(day.weekday() - 3, 0))


class _History:
    """Makes up calls, by chance that is always the same."""

    def __init__(self, meter: Meter, now: datetime) -> None:
        self._meter = meter
        self._now = now
        self._chance = random.Random(SEED)  # noqa: S311 - nothing is kept secret by it

    def day(self, days_ago: int) -> Iterator[Record]:
        """All of one day, up to now."""
        start = self._now.replace(hour=0, minute=0, second=0, microsecond=0)
        start -= timedelta(days=days_ago)
        weekend = 0.35 if start.weekday() >= 5 else 1.0
        growth = 2.0 - days_ago / HISTORY_DAYS
        for number in range(NIGHTLY_CALLS):
            yield from self._call(AT_NIGHT, start + timedelta(hours=2, minutes=3 * number), "")
        for second in sorted(
            self._busy_second() for _ in range(int(CALLS_A_DAY * weekend * growth))
        ):
            yield from self._request(start + timedelta(seconds=second), days_ago)
        if start == runaway_day(self._now):
            for number in range(RUNAWAY_CALLS):
                at = start + timedelta(hours=14, seconds=17 * number)
                yield from self._call(SUMMARY, at, "globex", user="cho")

    def _busy_second(self) -> float:
        """A second of the day, most of them in office hours."""
        return min(max(self._chance.gauss(13.5, 3.5), 3.0), 23.9) * 3600

    def _request(self, at: datetime, days_ago: int) -> Iterator[Record]:
        """One web request; some of those that chat search first."""
        chance = self._chance
        (work,) = chance.choices(IN_THE_DAY, weights=[work.often for work in IN_THE_DAY])
        known = {name: tenant for name, tenant in TENANTS.items() if tenant.days >= days_ago}
        (tenant,) = chance.choices(list(known), weights=[one.often for one in known.values()])
        user = chance.choice(TENANTS[tenant].users)
        if tenant == "initech" and chance.random() < REFUSED:
            tags = {"route": work.route, "tenant": tenant}
            yield Outcome("refused", at, work.provider, work.model, tags)
            return
        request = new_id()
        searches = work is CHAT and chance.random() < 0.3
        if searches:
            yield from self._call(SEARCH, at, tenant, user=user, request=request, route=work.route)
            at += timedelta(milliseconds=300)
        yield from self._call(work, at, tenant, user=user, request=request, is_first=not searches)

    def _call(
        self,
        work: Work,
        at: datetime,
        tenant: str,
        *,
        user: str = "",
        request: UUID | None = None,
        is_first: bool = True,
        route: str = "",
    ) -> Iterator[Record]:
        if at >= self._now:
            return
        chance = self._chance
        tags = {"route": route or work.route, "feature": work.feature, "team": work.team}
        if tenant:
            tags |= {"tenant": tenant, "user": user}
        for kind, often in OUTCOMES:
            if chance.random() < often:
                yield Outcome(kind, at, work.provider, work.model, tags)
        spread = math.exp(chance.gauss(0, 0.4))
        used, made = int(work.input_tokens * spread) + 1, int(work.output_tokens * spread)
        call = self._meter.priced(
            provider=work.provider,
            model=work.model,
            input_tokens=used,
            cache_read_input_tokens=int(used * work.cached),
            output_tokens=made,
            reasoning_output_tokens=int(made * work.reasoning),
            operation=work.operation,
            created_at=at,
            latency_ms=int(work.ms * spread),
            tags={**HISTORY_TAG, **tags},
        )
        yield from self._ended(
            replace(
                call,
                request_id=request,
                first_in_request=request is not None and is_first,
                time_to_first_chunk_ms=work.first_ms and int(work.first_ms * spread),
                api_key_id=_key_id("batch" if work is AT_NIGHT else "production"),
            )
        )

    def _ended(self, call: UsageEvent) -> Iterator[Record]:
        """How a call ended: most of them well."""
        chance = self._chance.random()
        cost = call.price.cost_pico_usd
        if cost is None or chance >= 0.025:
            yield call
        elif chance < 0.012 and call.time_to_first_chunk_ms:
            yield replace(call, status="incomplete", reason=CUT_OFF)
        else:
            yield replace(call, status="estimated", reason=WITHOUT_USAGE)
            if chance > 0.022:
                yield _told_later(call, cost)


def _told_later(call: UsageEvent, estimated: int) -> Amendment:
    """What the provider said of a call whose cost had been estimated."""
    told = estimated * 21 // 20
    return Amendment(
        event_id=call.id,
        at=call.created_at + timedelta(hours=1),
        reason="the provider told its cost later",
        status="ok",
        price=Price(told, "provider"),
        cost_pico_usd=told,
        estimated_cost_pico_usd=-estimated,
    )


def _key_id(name: str) -> str:
    """What a fingerprint of an API key looks like."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
