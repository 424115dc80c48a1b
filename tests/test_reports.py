"""The seven questions against plain Python over the same random calls."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw import Budget, Config, Meter, PriceOverride
from costmw.answering import average_usd
from costmw.answers import Answer, BudgetUse, Call, Row, Sums
from costmw.budgets import MISSING
from costmw.errors import ConfigError
from costmw.events import Amendment, Price, Status, Usage, UsageEvent, new_id
from costmw.money import PICO, from_pico
from costmw.question import Question
from costmw.reports import Reports
from costmw.store.sqlite import SqliteStore
from rows import NOON, an_event, an_outcome, opened

NOW = datetime(2026, 3, 30, 15, 30, tzinfo=UTC)  # the day after Berlin's clocks changed
TAGS = {
    "tenant": ["acme", "umbrella", "o'brien $.%", "\N{SNOWMAN}", None],
    "feature": ["chat", "search", "", None],
    "team": ["a", "b", None, None],
}
SCOPES: list[dict[str, str]] = [
    {},
    {"tenant": "acme"},
    {"tenant": "o'brien $.%"},
    {"tenant": "acme", "feature": "chat"},
    {"feature": ""},
    {"tenant": "nobody"},
]
STATUSES: list[Status] = ["ok", "ok", "ok", "estimated", "incomplete", "unmetered"]


class Truth:
    """What one call comes to once all its amendments are applied."""

    def __init__(self, event: UsageEvent, amendments: Sequence[Amendment]) -> None:
        self.event = event
        self.tags = event.tags
        self.at = event.created_at
        cost = event.price.cost_pico_usd
        self.exact = (cost or 0) if event.status == "ok" else 0
        self.estimated = 0 if event.status == "ok" else (cost or 0)
        self.exact += sum(a.cost_pico_usd for a in amendments)
        self.estimated += sum(a.estimated_cost_pico_usd for a in amendments)
        self.cost = self.exact + self.estimated
        self.unpriced = (cost is None) + sum(a.unpriced for a in amendments)
        self.flagged = cost is not None and event.reason is not None
        self.status = ([event.status] + [a.status for a in amendments if a.status])[-1]
        self.source = ([event.price] + [a.price for a in amendments if a.price])[-1].source
        self.tokens = {
            name: (getattr(event.usage, name) or 0) + sum(getattr(a, name) for a in amendments)
            for name in (
                "input_tokens",
                "output_tokens",
                "cache_read_input_tokens",
                "cache_write_input_tokens",
                "reasoning_output_tokens",
            )
        }

    def has(self, tags: Mapping[str, str]) -> bool:
        return all(self.tags.get(key) == value for key, value in tags.items())


def random_calls(seed: int, count: int = 250) -> tuple[list[UsageEvent], list[Amendment]]:
    """Calls of the 70 days before NOW and the one after, and corrections of some."""
    rng = random.Random(seed)
    events, amendments = [], []
    for _ in range(count):
        cost = rng.choice([None, 0, 1, rng.randrange(10**6), rng.randrange(10**14), 2**63 - 1])
        in_request = rng.random() < 0.6
        cached = rng.randrange(50)
        event = an_event(
            cost,
            created_at=NOW + timedelta(seconds=rng.randrange(-70 * 86400, 86400)),
            provider=rng.choice(["openai", "anthropic", None]),
            response_model=rng.choice(["gpt-5-mini", "claude-haiku-4-5", None]),
            operation=rng.choice(["chat", "embeddings"]),
            status=rng.choice(STATUSES),
            reason=rng.choice([None, None, "something"]),
            usage=Usage(
                rng.choice([None, 100 + rng.randrange(10**6)]),
                rng.choice([None, 100 + rng.randrange(10**4)]),
                cached,
                rng.randrange(50),
                rng.randrange(50),
            ),
            price=Price(cost, "none" if cost is None else rng.choice(["list", "provider"])),
            tags={k: v for k in TAGS if (v := rng.choice(TAGS[k])) is not None},
            request_id=new_id() if in_request else None,
            first_in_request=in_request and rng.random() < 0.5,
            latency_ms=rng.choice([None, rng.randrange(5000)]),
            api_key_id=rng.choice([None, "key 1"]),
        )
        events.append(event)
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            amendments.append(
                Amendment(
                    event_id=event.id,
                    reason="a correction",
                    status=rng.choice([None, "ok", "estimated"]),
                    price=rng.choice([None, Price(1, "override")]),
                    cost_pico_usd=rng.randrange(-(10**12), 10**13),
                    estimated_cost_pico_usd=rng.randrange(-(10**12), 10**12),
                    unpriced=-1 if cost is None and rng.random() < 0.5 else 0,
                    input_tokens=rng.randrange(-10, 1000),
                    output_tokens=rng.randrange(-10, 1000),
                    cache_read_input_tokens=rng.randrange(5),
                    cache_write_input_tokens=rng.randrange(5),
                    reasoning_output_tokens=rng.randrange(5),
                )
            )
            cost = 0  # unpriced is taken back once
    return events, amendments


class World:
    """A store with random calls, reports on it, and the same calls as plain objects."""

    def __init__(self, store: SqliteStore, seed: int, budgets: Sequence[Budget] = ()) -> None:
        self.seed = seed
        self.events, self.amendments = random_calls(seed)
        store.write([*self.events, *self.amendments])
        by_event = defaultdict(list)
        for amendment in self.amendments:
            by_event[amendment.event_id].append(amendment)
        self.truth = [Truth(event, by_event[event.id]) for event in self.events]
        self.store = store
        self.zone = store.time_zone
        self.reports = Reports(store, budgets, now=lambda: NOW)

    @property
    def today(self) -> date:
        return NOW.astimezone(self.zone).date()

    def day_of(self, call: Truth) -> date:
        return call.at.astimezone(self.zone).date()

    def last(self, days: int, *tags: Mapping[str, str]) -> list[Truth]:
        """The calls of the last days, today included, that have all these tags."""
        first = self.today - timedelta(days=days - 1)
        return [
            call
            for call in self.truth
            if first <= self.day_of(call) <= self.today and all(call.has(t) for t in tags)
        ]


@pytest.fixture(scope="module", params=["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def zone(request: pytest.FixtureRequest) -> str:
    return str(request.param)


BUDGETS = [
    Budget("all", limit="100", period="month"),
    Budget("tenant", limit="20", per="tenant", period="month"),
    Budget("pair", limit="5", per=("tenant", "feature"), period="week"),
    Budget("acme chat", limit="3", where={"tenant": "acme", "feature": "chat"}, period="day"),
    Budget("acme by team", limit="1", per=["team"], where={"tenant": "acme"}, period="total"),
    Budget("nothing", limit=0, period="month"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, zone: str) -> Iterator[World]:
    seed = random.SystemRandom().randrange(10**9)
    with opened(tmp_path_factory.mktemp("world") / "llmcost.db", time_zone=zone) as store:
        world = World(store, seed, BUDGETS)
        store.write([an_outcome("error", at=NOW), an_outcome("error", at=NOW)])
        yield world


@pytest.fixture(autouse=True)
def _seed(request: pytest.FixtureRequest) -> None:
    if "world" in request.fixturenames:
        print(f"seed {request.getfixturevalue('world').seed}")


def usd(pico: int | Fraction) -> Decimal:
    return from_pico(int(pico))


def average(pico: int, count: int) -> Decimal | None:
    """To the nearest pico-USD, halves up."""
    return usd((Fraction(pico, count) + Fraction(1, 2)).__floor__()) if count else None


def sums(calls: Iterable[Truth]) -> Sums:
    calls = list(calls)
    priced = len(calls) - sum(call.unpriced for call in calls)
    requests = sum(call.event.first_in_request for call in calls)
    timed = [call.event.latency_ms for call in calls if call.event.latency_ms is not None]
    caused = sum(call.cost for call in calls if call.event.request_id)
    return Sums(
        total_usd=usd(sum(call.cost for call in calls)),
        cost_usd=usd(sum(call.exact for call in calls)),
        estimated_cost_usd=usd(sum(call.estimated for call in calls)),
        cost_per_call_usd=average(sum(call.cost for call in calls), priced),
        cost_per_request_usd=average(caused, requests),
        calls=len(calls),
        requests=requests,
        unpriced_calls=sum(call.unpriced for call in calls),
        flagged_calls=sum(call.flagged for call in calls),
        incomplete_calls=sum(call.status != "ok" for call in calls),
        average_latency_ms=sum(timed) // len(timed) if timed else None,
        **{name: sum(call.tokens[name] for call in calls) for name in Truth_tokens},
    )


Truth_tokens = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "reasoning_output_tokens",
)


class TestAgainstPlainPython:
    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_what_has_been_spent(self, world: World, scope: dict[str, str]) -> None:
        def week(day: date) -> tuple[int, int]:
            return day.isocalendar()[:2]

        def month(day: date) -> tuple[int, int]:
            return day.year, day.month

        calls = [call for call in world.truth if call.has(scope)]
        before = {
            "day": world.today - timedelta(days=1),
            "week": world.today - timedelta(days=7),
            "month": world.today.replace(day=1) - timedelta(days=1),
        }
        kinds: list[tuple[Literal["day", "week", "month"], Callable[[date], object]]]
        kinds = [("day", lambda day: day), ("week", week), ("month", month)]
        for period, key in kinds:
            spend = world.reports.spend(period, scope=scope)

            now = [call for call in calls if key(world.day_of(call)) == key(world.today)]
            assert sums(now) == spend.sums
            last = [c for c in calls if key(world.day_of(c)) == key(before[period])]
            began = min(d for d in _days_around(before[period]) if key(d) == key(before[period]))
            assert _midnight(began, world.zone) == spend.previous_start
            cut = spend.previous_stop
            as_far = min(spend.previous_start + (NOW - spend.start), spend.start)
            assert abs(cut - as_far) <= timedelta(minutes=30)
            assert 0 == cut.astimezone(world.zone).minute
            assert sums(call for call in last if call.at < cut) == spend.previous
            assert (period, world.zone.key) == (spend.period, spend.time_zone)
            assert key(spend.start.astimezone(world.zone).date()) == key(world.today)
            assert spend.start <= NOW < spend.stop

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_how_it_went_by_day(self, world: World, scope: dict[str, str]) -> None:
        where = {"team": "a"}
        for days in (1, 2, 30, 60):
            trend = world.reports.trend(days, scope=scope)
            narrowed = world.reports.trend(days, scope=scope, where=where)

            dates = [world.today - timedelta(days=days - 1 - n) for n in range(days)]
            assert [_midnight(day, world.zone) for day in dates] == [p.start for p in trend.points]
            assert trend.points[0].start == trend.start
            assert _midnight(world.today + timedelta(days=1), world.zone) == trend.stop
            for found, tags in ((trend, {}), (narrowed, where)):
                assert [
                    sums(c for c in world.last(days, scope, tags) if world.day_of(c) == day)
                    for day in dates
                ] == [point.sums for point in found.points]

    def test_how_it_went_by_hour_and_month(self, world: World) -> None:
        def hour(at: datetime) -> datetime:
            local = at.astimezone(world.zone)
            return at - timedelta(
                minutes=local.minute, seconds=local.second, microseconds=local.microsecond
            )

        def month(at: datetime) -> datetime:
            local = at.astimezone(world.zone).date()
            first = _midnight(local.replace(day=1), world.zone)
            return max(first, _midnight(world.today - timedelta(days=59), world.zone))

        by_hour = world.reports.trend(3, every="hour")
        calls = world.last(3)
        assert {p.start: p.sums for p in by_hour.points if p.sums.calls} == {
            start: sums(c for c in calls if hour(c.at) == start)
            for start in {hour(c.at) for c in calls}
        }
        assert (by_hour.stop - by_hour.start) / timedelta(hours=1) == len(by_hour.points)
        by_month = world.reports.trend(60, every="month")
        calls = world.last(60)
        assert {p.start: p.sums for p in by_month.points if p.sums.calls} == {
            start: sums(c for c in calls if month(c.at) == start)
            for start in {month(c.at) for c in calls}
        }

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    @pytest.mark.parametrize(
        ("dimension", "key"),
        [
            ("model", lambda c: c.event.model),
            ("provider", lambda c: c.event.provider),
            ("operation", lambda c: c.event.operation),
            ("status", lambda c: c.status),
            ("cost_source", lambda c: c.source),
            ("api_key_id", lambda c: c.event.api_key_id),
            ("tag:tenant", lambda c: c.tags.get("tenant")),
            ("tag:feature", lambda c: c.tags.get("feature")),
            ("tag:no such tag", lambda c: None),
        ],
    )
    def test_who_spends_it(
        self, world: World, scope: dict[str, str], dimension: str, key: Callable[[Truth], Any]
    ) -> None:
        calls = world.last(30, scope)
        groups = defaultdict(list)
        for call in calls:
            groups[key(call)].append(call)
        expected = {value: sums(group) for value, group in groups.items()}

        found = world.reports.by(dimension, scope=scope)

        assert expected == {row.value: row.sums for row in found.rows}
        assert sums(calls) == found.total.sums
        assert found.other is None
        costs = [row.sums.total_usd for row in found.rows]
        assert sorted(costs, reverse=True) == costs
        assert (
            world.last(30, scope, {"team": "b"}) == []
            or sums(world.last(30, scope, {"team": "b"}))
            == world.reports.by(dimension, scope=scope, where={"team": "b"}).total.sums
        )

    def test_what_rows_leave_out_is_summed_as_other(self, world: World) -> None:
        full = world.reports.by("tag:tenant")
        for most in range(len(full.rows) + 2):
            short = world.reports.by("tag:tenant", most=most)

            assert full.rows[:most] == short.rows
            assert full.total == short.total
            left_out = {row.value for row in full.rows[most:]}
            rest = [c for c in world.last(30) if c.tags.get("tenant") in left_out]
            if most >= len(full.rows):
                assert short.other is None
            else:
                assert short.other is not None
                assert (None, sums(rest)) == (short.other.value, short.other.sums)
                whole = Fraction(full.total.sums.total_usd)
                part = Fraction(short.other.sums.total_usd)
                assert float(part / whole) == pytest.approx(short.other.share, rel=1e-12)

    def test_shares_are_of_the_whole_cost(self, world: World) -> None:
        found = world.reports.by("model", most=2)

        rows = [*found.rows, *([found.other] if found.other else [])]
        whole = Fraction(found.total.sums.total_usd)
        assert whole == sum(Fraction(row.sums.total_usd) for row in rows)
        assert [pytest.approx(float(Fraction(row.sums.total_usd) / whole)) for row in rows] == [
            row.share for row in rows
        ]
        assert pytest.approx(1) == sum(row.share for row in rows)

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_what_a_call_and_a_request_cost(self, world: World, scope: dict[str, str]) -> None:
        found = world.reports.unit_costs(20, scope=scope)

        expected = [
            sums(c for c in world.last(20, scope) if world.day_of(c) == day)
            for day in (world.today - timedelta(days=19 - n) for n in range(20))
        ]
        assert [
            (s.cost_per_call_usd, s.cost_per_request_usd, s.calls, s.requests) for s in expected
        ] == [
            (p.cost_per_call_usd, p.cost_per_request_usd, p.calls, p.requests) for p in found.points
        ]

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_how_many_tokens(self, world: World, scope: dict[str, str]) -> None:
        found = world.reports.tokens(40, scope=scope)

        expected = sums(world.last(40, scope))
        for name in Truth_tokens:
            assert getattr(expected, name) == getattr(found, name)
        assert found.input_tokens == (
            found.uncached_input_tokens
            + found.cache_read_input_tokens
            + found.cache_write_input_tokens
        )

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_how_full_budgets_are(self, world: World, scope: dict[str, str]) -> None:
        def in_period(call: Truth, period: str) -> bool:
            day, today = world.day_of(call), world.today
            return {
                "day": day == today,
                "week": day.isocalendar()[:2] == today.isocalendar()[:2],
                "month": (day.year, day.month) == (today.year, today.month),
                "total": True,
            }[period]

        expected: dict[tuple[str, tuple[str, ...]], int] = {}
        for budget in BUDGETS:
            if not all(
                key in budget.tag_keys or budget.where.get(key) == value
                for key, value in scope.items()
            ):
                continue
            calls = [
                call
                for call in world.truth
                if call.has(budget.where) and call.has(scope) and in_period(call, budget.period)
            ]
            if not budget.tag_keys:
                expected[budget.name, ()] = 0
            for call in calls:
                split = tuple(call.tags.get(key, MISSING) for key in budget.tag_keys)
                expected[budget.name, split] = expected.get((budget.name, split), 0) + call.cost

        found = world.reports.budgets(scope=scope)

        assert {key: usd(spent) for key, spent in expected.items()} == {
            (use.name, tuple(use.tags.values())): use.spent_usd for use in found
        }
        limits = {budget.name: from_pico(budget.limit_pico_usd) for budget in BUDGETS}
        for use in found:
            assert limits[use.name] == use.limit_usd
            if use.limit_usd:
                assert pytest.approx(float(use.spent_usd / use.limit_usd)) == use.used
            assert [share for share in (0.5, 0.8, 1.0) if use.used >= share] == use.reached
            assert use.start <= NOW < use.stop
        assert sorted((use.used for use in found), reverse=True) == [use.used for use in found]

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_which_calls_there_were(self, world: World, scope: dict[str, str]) -> None:
        seen: list[Any] = []
        before = None
        while page := world.reports.calls(37, before=before, scope=scope):
            assert 37 >= len(page)
            before = page[-1][0]
            seen += [call for _, call in page]

        expected = [call for call in reversed(world.truth) if call.has(scope)]
        expected.sort(key=lambda call: call.at, reverse=True)
        assert [
            (
                c.event.id,
                None if c.unpriced else usd(c.cost),
                c.status,
                c.source,
                c.event.model,
                c.tags,
                c.at,
                c.event.latency_ms,
            )
            for c in expected
        ] == [
            (
                c.id,
                c.cost_usd,
                c.status,
                c.cost_source,
                c.model,
                c.tags,
                c.created_at,
                c.latency_ms,
            )
            for c in seen
        ]
        by_id = {call.id: call for call in seen}
        for call in world.truth:
            found = world.reports.call(call.event.id, scope=scope)
            told = (
                None if found is None else Call(**{k: getattr(found, k) for k in Call.model_fields})
            )
            assert by_id.get(call.event.id) == told
        assert world.reports.call(new_id(), scope=scope) is None

    def test_the_overview_is_all_of_them_at_one_moment(self, world: World) -> None:
        for scope in SCOPES:
            question = Question(by="tag:tenant", top=2)
            overview = world.reports.overview(question, scope=scope)

            assert (NOW, world.zone.key) == (overview.generated_at, overview.question.time_zone)
            assert world.reports.spend(scope=scope) == overview.month
            assert world.reports.series(question, scope=scope) == overview.series.model_copy(
                update={"forecast": []}
            )
            assert world.reports.breakdown(question, scope=scope) == overview.breakdown
            assert sums(world.last(30, scope)) == overview.summary.sums
            if len(scope) < 2:  # of pairs of tags no histogram is kept
                took = world.reports.durations(scope=scope).total
                assert took.latency == overview.summary.latency
            uses = [
                BudgetUse(**{k: v for k, v in one if k in BudgetUse.model_fields})
                for one in overview.budgets
            ]
            assert world.reports.budgets(scope=scope)[:50] == uses
            newest = world.reports.calls(20, question=question, scope=scope)
            assert [call for _, call in newest] == overview.calls
            keys = sorted({key for call in world.truth if call.has(scope) for key in call.tags})
            assert keys == overview.tag_keys
            assert ([] if scope else [("error", 2)]) == [
                (row.kind, row.count) for row in overview.outcomes
            ]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a date: found by looking at every quarter of an hour."""
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    while moment.astimezone(zone).date() < day:
        moment += timedelta(minutes=15)
    return moment


def _days_around(day: date) -> list[date]:
    return [day + timedelta(days=n) for n in range(-31, 32)]


class TestDays:
    @pytest.mark.parametrize(
        ("zone", "changes", "hours"),
        [
            ("Europe/Berlin", date(2026, 3, 29), 23),
            ("Europe/Berlin", date(2026, 10, 25), 25),
            ("America/New_York", date(2026, 3, 8), 23),
            ("America/New_York", date(2026, 11, 1), 25),
            ("Asia/Beirut", date(2026, 3, 29), 23),
            ("America/Havana", date(2026, 3, 8), 23),
            ("America/Havana", date(2026, 11, 1), 25),
        ],
    )
    @pytest.mark.parametrize("later", [0, 1, 5, 29])
    def test_days_when_the_clocks_change(
        self, tmp_path: Path, zone: str, changes: date, hours: int, later: int
    ) -> None:
        """Also when the first or the last moment of the trend is the change itself."""
        tz = ZoneInfo(zone)
        midnight = _midnight(changes, tz)
        tick = timedelta(microseconds=1)
        edges = [
            midnight - tick,
            midnight,
            midnight + timedelta(hours=hours) - tick,
            midnight + timedelta(hours=hours),
        ]
        now = _midnight(changes + timedelta(days=later), tz) + timedelta(hours=22)
        with opened(tmp_path / "llmcost.db", time_zone=zone) as store:
            store.write([an_event(10**n, created_at=at) for n, at in enumerate(edges)])
            trend = Reports(store, now=lambda: now).trend(30)

        days = [changes + timedelta(days=later - 29 + n) for n in range(30)]
        assert [_midnight(day, tz) for day in days] == [point.start for point in trend.points]
        cost = {day: p.sums.total_usd * PICO for day, p in zip(days, trend.points, strict=True)}
        assert 10 + 100 == cost[changes]
        if later < 29:
            assert 1 == cost[changes - timedelta(days=1)]
        if later > 0:
            assert 1000 == cost[changes + timedelta(days=1)]
        starts = [*(point.start for point in trend.points), trend.stop]
        assert timedelta(hours=hours) == starts[days.index(changes) + 1] - _midnight(changes, tz)

    @pytest.mark.parametrize("zone", ["Asia/Beirut", "America/Havana", "Africa/Cairo"])
    def test_the_trend_is_of_whole_days_on_the_eve_of_a_day_without_midnight(
        self, tmp_path: Path, zone: str
    ) -> None:
        tz = ZoneInfo(zone)
        with opened(tmp_path / "llmcost.db", time_zone=zone) as store:
            for n in range(365):
                now = datetime(2026, 1, 1, 12, tzinfo=tz) + timedelta(days=n)
                trend = Reports(store, now=lambda: now.astimezone(UTC)).trend(7)  # noqa: B023
                first = now.date() - timedelta(days=6)
                assert (7, _midnight(first, tz)) == (len(trend.points), trend.start)

    def test_one_day_is_today(self, tmp_path: Path) -> None:
        with opened(tmp_path / "llmcost.db", time_zone="Asia/Tokyo") as store:
            late = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)
            store.write([an_event(1, created_at=late), an_event(10, created_at=NOON)])
            reports = Reports(store, now=lambda: late)

            assert [usd(1)] == [point.sums.total_usd for point in reports.trend(1).points]
            assert usd(1) == reports.by("model", 1).total.sums.total_usd
            assert datetime(2026, 7, 1, 15, tzinfo=UTC) == reports.trend(1).start


class TestBudgets:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqliteStore]:
        with opened(tmp_path / "llmcost.db") as store:
            yield store

    def uses(self, store: SqliteStore, *budgets: Budget, **scope: str) -> list[BudgetUse]:
        return Reports(store, budgets, now=lambda: NOON).budgets(scope=scope)

    def test_calls_without_the_tag_share_one_limit(self, store: SqliteStore) -> None:
        store.write([an_event(n * PICO, tags=t) for n, t in enumerate([{"tenant": "a"}, {}, {}])])
        cap = Budget("cap", limit=4, per="tenant")

        assert [({"tenant": MISSING}, 0.75), ({"tenant": "a"}, 0.0)] == [
            (use.tags, use.used) for use in self.uses(store, cap)
        ]
        assert "(missing)" == MISSING

    def test_a_tenant_that_calls_itself_missing_shares_their_limit(
        self, store: SqliteStore
    ) -> None:
        store.write([an_event(PICO, tags={"tenant": MISSING}), an_event(2 * PICO)])

        (use,) = self.uses(store, Budget("cap", limit=4, per="tenant"))

        assert ({"tenant": MISSING}, Decimal(3)) == (use.tags, use.spent_usd)

    def test_a_budget_over_all_is_there_before_the_first_call(self, store: SqliteStore) -> None:
        (use,) = self.uses(
            store, Budget("all", limit="10"), Budget("split", limit="10", per="tenant")
        )

        assert ("all", {}, Decimal(0), 0.0, []) == (
            use.name,
            use.tags,
            use.spent_usd,
            use.used,
            use.reached,
        )

    def test_a_limit_of_nothing_is_used_up_by_the_first_cost(self, store: SqliteStore) -> None:
        cap = Budget("none", limit=0)
        store.write([an_event(0), an_event(None)])
        assert [(0.0, [])] == [(use.used, use.reached) for use in self.uses(store, cap)]

        store.write([an_event(1)])
        assert [(1.0, [0.5, 0.8, 1.0])] == [
            (use.used, use.reached) for use in self.uses(store, cap)
        ]

    def test_an_alert_is_reached_at_its_share_and_not_before(self, store: SqliteStore) -> None:
        cap = Budget("cap", limit="1", alert_at=(0.5, 1, 1.5))
        store.write([an_event(PICO // 2 - 1)])
        assert [] == self.uses(store, cap)[0].reached
        store.write([an_event(1)])
        assert [0.5] == self.uses(store, cap)[0].reached
        store.write([an_event(PICO)])
        assert [0.5, 1.0, 1.5] == self.uses(store, cap)[0].reached

    def test_only_budgets_inside_of_a_scope_are_seen(self, store: SqliteStore) -> None:
        store.write(
            [
                an_event(PICO, tags={"tenant": t, "feature": f})
                for t in ("acme", "other")
                for f in ("chat", "search")
            ]
        )
        budgets = [
            Budget("all", limit=100),
            Budget("tenant", limit=100, per="tenant"),
            Budget("tenant and feature", limit=100, per=("tenant", "feature")),
            Budget("feature", limit=100, per="feature"),
            Budget("acme", limit=100, where={"tenant": "acme"}),
            Budget("other", limit=100, where={"tenant": "other"}),
            Budget("acme by feature", limit=100, per="feature", where={"tenant": "acme"}),
        ]

        seen = self.uses(store, *budgets, tenant="acme")

        assert [
            ("acme", [], 2),
            ("acme by feature", ["chat"], 1),
            ("acme by feature", ["search"], 1),
            ("tenant", ["acme"], 2),
            ("tenant and feature", ["acme", "chat"], 1),
            ("tenant and feature", ["acme", "search"], 1),
        ] == sorted((use.name, list(use.tags.values()), int(use.spent_usd)) for use in seen)
        both = self.uses(store, *budgets, tenant="acme", feature="chat")
        assert [
            ("acme by feature", ["chat"], 1),
            ("tenant and feature", ["acme", "chat"], 1),
        ] == sorted((use.name, list(use.tags.values()), int(use.spent_usd)) for use in both)
        assert [] == self.uses(store, *budgets, unheard_of="x")

    @pytest.mark.parametrize(
        ("period", "counted"), [("day", 1), ("week", 11), ("month", 111), ("total", 1111)]
    )
    def test_a_budget_counts_its_period(
        self, store: SqliteStore, period: Any, counted: int
    ) -> None:
        ago = [timedelta(0), timedelta(days=1), timedelta(days=10), timedelta(days=40)]
        store.write([an_event(10**n * PICO, created_at=NOON - ago[n]) for n in range(4)])

        (use,) = self.uses(store, Budget("cap", limit=1, period=period))

        assert counted == use.spent_usd


class TestJson:
    PLAIN = re.compile(r"-?[0-9]+\.[0-9]{2,12}")

    def check(self, value: Any, key: str = "") -> int:
        """Money is a plain decimal string everywhere; gives how much money there was."""
        if isinstance(value, dict):
            inside = "usd" if key == "unit_prices_usd" else ""
            return sum(self.check(item, name + inside) for name, item in value.items())
        if isinstance(value, list):
            return sum(self.check(item, key) for item in value)
        if "usd" not in key:
            return 0
        assert value is None or (isinstance(value, str) and self.PLAIN.fullmatch(value)), key
        return 1

    @pytest.mark.parametrize("zone", ["UTC"], indirect=True)
    def test_money_in_json_is_plain_decimal_text(self, world: World) -> None:
        answer = world.reports.overview(Question(by="tag:tenant"))

        by_text = json.loads(answer.model_dump_json())
        assert 200 < self.check(by_text)
        assert by_text == answer.model_dump(mode="json")
        assert type(answer).model_validate_json(answer.model_dump_json()) == answer

    @pytest.mark.parametrize(
        ("pico", "text"),
        [
            (0, "0.00"),
            (1, "0.000000000001"),
            (-1, "-0.000000000001"),
            (10**6, "0.000001"),
            (10**21, "1000000000.00"),
            (123_450_000_000_000, "123.45"),
        ],
    )
    def test_no_exponent_however_small_or_large(self, tmp_path: Path, pico: int, text: str) -> None:
        with opened(tmp_path / "llmcost.db") as store:
            event = an_event(0)
            store.write([event])
            left = pico
            while left:
                part = max(min(left, 2**62), -(2**62))
                left -= part
                amendment = Amendment(event_id=event.id, reason="x", cost_pico_usd=part)
                if abs(pico) > 2**63:  # one row cannot hold it, many can
                    store.write([an_event(part)])
                else:
                    store.write([amendment])
            found = Reports(store, now=lambda: NOON).by("model")

        assert text == json.loads(found.model_dump_json())["total"]["sums"]["total_usd"]

    def test_unit_prices_have_no_exponent_either(self, make_meter: Callable[..., Meter]) -> None:
        prices = (PriceOverride("tiny", {"input": "0.0000001", "output": Decimal("1E+2")}),)
        meter = make_meter(config=Config(prices=prices, ack_timeout=30))
        event = meter.record(provider="openai", model="tiny", input_tokens=10, output_tokens=1)

        call = meter.reports.call(event.id)

        assert call is not None
        assert {"input_mtok": "0.0000001", "output_mtok": "100"} == call.unit_prices_usd
        assert "0.0001" == json.loads(call.model_dump_json())["cost_usd"][:6]

    def test_what_is_not_known_is_null(self, tmp_path: Path) -> None:
        with opened(tmp_path / "llmcost.db") as store:
            store.write([an_event(None, usage=Usage(), latency_ms=None)])
            ((_, call),) = Reports(store).calls()
            found = Reports(store, now=lambda: NOON).by("model")

        text = json.loads(call.model_dump_json())
        assert [None, None, None] == [
            text[key] for key in ("cost_usd", "input_tokens", "output_tokens")
        ]
        assert "no price" == text["reason"]
        assert (None, None, 1) == (
            found.total.sums.cost_per_call_usd,
            found.total.sums.average_latency_ms,
            found.total.sums.unpriced_calls,
        )
        assert [0.0] == [row.share for row in found.rows]

    def test_answers_cannot_be_changed(self) -> None:
        row = Row(value="x", share=1.0, sums=sums([]))
        with pytest.raises(ValueError, match="frozen"):
            row.share = 0.5  # type: ignore[misc]
        assert issubclass(Row, Answer)


@settings(deadline=None)
@given(st.integers(-(10**20), 10**20), st.integers(1, 10**6))
def test_an_average_is_rounded_to_the_nearest_pico_usd(pico: int, count: int) -> None:
    found = average_usd(pico, count)

    assert found is not None
    assert abs(Fraction(found) * PICO - Fraction(pico, count)) <= Fraction(1, 2)


def test_an_average_over_nothing_is_not_known() -> None:
    assert average_usd(0, 0) is None


@pytest.mark.parametrize("dimension", ["", "tenant", "e.id", "bucket", "tags"])
def test_an_unknown_dimension_is_refused_with_those_there_are(
    tmp_path: Path, dimension: str
) -> None:
    with (
        opened(tmp_path / "llmcost.db") as store,
        pytest.raises(ConfigError, match=r"cannot group by .*model.*tag:<key>"),
    ):
        Reports(store).by(dimension)


def test_an_answer_from_rows_says_so(tmp_path: Path) -> None:
    with opened(tmp_path / "llmcost.db") as store:
        store.write([an_event(1, tags={"tenant": "acme", "team": "a", "user": "u"})])
        reports = Reports(store, now=lambda: NOON)
        for where, from_rows in (
            ({}, False),
            ({"tenant": "acme"}, False),
            ({"tenant": "acme", "team": "a"}, True),
        ):
            assert from_rows == reports.by("tag:user", where=where).from_rows
        assert not reports.trend(where={"tenant": "acme", "team": "a"}).from_rows
        where = {"tenant": "acme", "team": "a", "user": "u"}
        assert reports.trend(where=where).from_rows


def test_reports_of_one_moment_do_not_see_what_comes_later(tmp_path: Path) -> None:
    with opened(tmp_path / "llmcost.db") as store:
        store.write([an_event(1)])
        moments = iter([NOON, NOON + timedelta(days=1)])
        reports = Reports(store, [Budget("all", limit=1)], now=lambda: next(moments))
        with reports.at_one_moment() as now:
            store.write([an_event(10)])
            assert usd(1) == now.spend().sums.total_usd
            assert usd(1) == now.by("model").total.sums.total_usd
            assert usd(1) == now.budgets()[0].spent_usd
            assert 1 == len(now.calls())
            assert now.position() == 1
            assert now.trend().stop == datetime(2026, 3, 18, tzinfo=UTC)
        assert usd(11) == Reports(store, now=lambda: NOON).spend().sums.total_usd


def test_an_empty_ledger_answers_every_question(tmp_path: Path) -> None:
    with opened(tmp_path / "llmcost.db") as store:
        overview = Reports(store, [Budget("all", limit=1)]).overview()

    assert 30 == len(overview.series.starts) == len(overview.series.total.calls)
    assert sums([]) == overview.month.sums == overview.breakdown.total.sums
    assert ([], [], [], [], []) == (
        overview.breakdown.rows,
        overview.calls,
        overview.tag_keys,
        overview.outcomes,
        overview.anomalies,
    )
    assert (None, None, None) == (
        overview.breakdown.other,
        overview.summary.cache,
        overview.forecast,
    )
    assert ["all"] == [use.name for use in overview.budgets]
