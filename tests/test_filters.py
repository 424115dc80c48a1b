"""Filters: the same calls from rollups, rows and both together, on every store, hashed or not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costmw import Config
from costmw.errors import ConfigError
from costmw.events import Amendment, Price, UsageEvent, new_id
from costmw.periods import spans
from costmw.store.base import (
    DIMENSIONS,
    AppliedAmendment,
    DurationCounts,
    Filter,
    Operator,
    Query,
    Store,
    Totals,
)
from costmw.store.hashed_tags import HashedTags
from costmw.store.rollups import bin_of
from costmw.store.sqlite import SqliteStore
from postgres_server import postgres
from rows import NOON, an_event, an_outcome
from stores import Place, place, place_of, rows_alone, store

__all__ = ["place", "place_of", "postgres", "store"]

DAY = timedelta(days=1)
SUMS_OF_ROWS = "costmw.store.snapshots.add_rows"
WHOLE = (NOON - 20 * DAY, NOON + 20 * DAY)

TENANTS = ("acme", "Acme", "ÄCME", "äcme", "a%", "a_", "it's", '"', "")
MODELS = ("gpt-5", "gpt-5-mini", "100%", None)


def value_of(event: UsageEvent, key: str) -> str | None:
    """What a call has of a key, told without any database."""
    if key.startswith("tag:"):
        return event.tags.get(key.removeprefix("tag:"))
    if key == "model":
        return event.response_model or event.request_model
    if key == "cost_source":
        return event.price.source
    found: str | None = getattr(event, key)
    return found


def small(text: str) -> str:
    """A-Z as a-z, and nothing else: as bytes, which know of no other letters."""
    return text.encode().lower().decode()


def passes(event: UsageEvent, wanted: Filter) -> bool:
    value = value_of(event, wanted.key)
    match wanted.op:
        case "is":
            return value in wanted.values
        case "not":
            return value not in wanted.values
        case "contains":
            return value is not None and any(small(part) in small(value) for part in wanted.values)
        case "set":
            return value is not None
        case _:
            return value is None


def answers(events: Sequence[UsageEvent], query: Query) -> dict[Any, tuple[int, int]]:
    """Calls and cost of each group, added up one by one."""
    found: dict[Any, tuple[int, int]] = {} if query.group_by or query.buckets else {(): (0, 0)}
    for event in events:
        if not query.start <= event.created_at < query.stop:
            continue
        tags = [*query.scope.items(), *query.where.items()]
        if any(event.tags.get(key) != value for key, value in tags):
            continue
        if not all(passes(event, wanted) for wanted in query.filters):
            continue
        group: tuple[Any, ...] = tuple(value_of(event, name) for name in query.group_by)
        if query.buckets:
            group = (sum(event.created_at >= start for start in query.buckets) - 1, *group)
        calls, cost = found.get(group, (0, 0))
        found[group] = calls + 1, cost + (event.price.cost_pico_usd or 0)
    return found


def told(groups: Mapping[Any, Totals]) -> dict[Any, tuple[int, int]]:
    return {
        group: (sums.calls, sums.cost_pico_usd + sums.estimated_cost_pico_usd)
        for group, sums in groups.items()
    }


def some_events(rng: random.Random, count: int) -> list[UsageEvent]:
    events = []
    for n in range(count):
        tags = {"tenant": rng.choice(TENANTS), "team": f"t{n % 3}", "user": f"u{n}"}
        events.append(
            an_event(
                rng.randrange(10**6),
                created_at=NOON + rng.randrange(-60, 60) * timedelta(hours=2.5),
                tags={key: value for key, value in tags.items() if rng.random() < 0.7},
                provider=rng.choice(["openai", "anthropic", None]),
                request_model=None,
                response_model=rng.choice(MODELS),
                operation=rng.choice(["chat", "embeddings"]),
                status=rng.choice(["ok", "incomplete", "estimated"]),
                price=Price(rng.randrange(10**6), rng.choice(["list", "override"])),
                api_key_id=rng.choice(["k1", "k2", None]),
                latency_ms=rng.choice([None, rng.randrange(9_000)]),
            )
        )
    return events


def some_amendments(rng: random.Random, events: Sequence[UsageEvent]) -> list[Amendment]:
    return [
        Amendment(
            event_id=rng.choice(events).id,
            reason="corrected",
            status=rng.choice([None, "ok", "estimated"]),
            price=rng.choice([None, Price(1, "provider")]),
            cost_pico_usd=rng.randrange(9_000),
        )
        for _ in range(12)
    ]


class Ledgers:
    """The same calls in ledgers that have rolled up all, a part, or are of another kind."""

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self.stores = stores
        with stores["rolled up"].snapshot() as view:
            self.events = [event for _, event in view.events(scope={}, limit=1_000)]


@pytest.fixture(scope="module")
def ledgers(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Ledgers]:
    rng = random.Random(11)
    folder: Path = tmp_path_factory.mktemp("filters")
    events = some_events(rng, 150)
    records = [*events, *some_amendments(rng, events)]
    with closing(open_postgres(request)) as remote:
        stores: dict[str, Any] = {"postgres": remote}
        for name, rolled in (("rolled up", 1_000), ("partly", 170), ("before amendments", 150)):
            stores[name] = SqliteStore(f"sqlite:///{folder}/{rolled}.db", Config())
        for each in stores.values():
            each.open()
            each.write(records)
        stores["rolled up"].roll_up(1_000)
        stores["before amendments"].roll_up(150)
        later = some_events(random.Random(12), 30)
        for each in stores.values():
            if each is stores["partly"]:
                each.roll_up(1_000)
            each.write(later)
        stores["rolled up"].roll_up(1_000)
        yield Ledgers(stores)
        for each in stores.values():
            each.close()


def open_postgres(request: pytest.FixtureRequest) -> Any:
    from costmw.store.postgres import PostgresStore

    return PostgresStore(request.getfixturevalue("postgres").url(), Config())


VALUES = {
    "tag:tenant": TENANTS,
    "tag:team": ("t0", "t1"),
    "tag:user": ("u1", "u2"),
    "tag:no": ("x",),
    "model": tuple(model for model in MODELS if model),
    "provider": ("openai", "anthropic"),
    "operation": ("chat",),
    "status": ("ok", "estimated"),
    "cost_source": ("list", "provider"),
    "api_key_id": ("k1", "no"),
}
assert set(DIMENSIONS) < set(VALUES)


PARTS = ("A", "Ä", "%", "_", "'", '"', "", "5-M", "K", "o")


def a_filter(rng: random.Random, keys: Sequence[str]) -> Filter:
    key = rng.choice(keys)
    op: Operator = rng.choice(get_args(Operator))
    if op in ("set", "unset"):
        return Filter(key, op)
    values = PARTS if op == "contains" else VALUES[key]
    return Filter(key, op, tuple(rng.choices(values, k=rng.choice([1, 1, 2, 3]))))


def a_question(rng: random.Random) -> Query:
    start = NOON + rng.randrange(-70, 20) * timedelta(hours=1.5)
    stop = start + rng.randrange(1, 70) * timedelta(hours=3.1)
    days = tuple(start + n * DAY for n in range(9) if start + n * DAY < stop)
    # Few keys, so that filters and groups often are of the same.
    keys = rng.sample(sorted(VALUES), rng.choice([1, 2, 2, 3]))
    return Query(
        start,
        stop,
        tuple(rng.sample(keys, rng.randrange(min(len(keys), 2) + 1))),
        rng.choice([(), days]),
        {"tenant": rng.choice(TENANTS)} if rng.random() < 0.1 else {},
        {"team": rng.choice(["t0", "t1"])} if rng.random() < 0.1 else {},
        tuple(a_filter(rng, keys) for _ in range(rng.choice([1, 1, 2, 3]))),
    )


# A random number as the seed: what hypothesis draws piece by piece mostly passes nothing.
questions = st.integers(0, 2**32).map(random.Random).map(a_question)


@given(questions)
@example(Query(*WHOLE, filters=tuple(Filter("tag:tenant", "not", (name,)) for name in TENANTS[:3])))
@settings(max_examples=100, deadline=None)
def test_rows_and_rollups_give_what_adding_up_gives(ledgers: Ledgers, query: Query) -> None:
    expected = answers(ledgers.events, query)
    for name, each in ledgers.stores.items():
        with each.snapshot() as view:
            assert expected == told(view.totals(query).groups), name
            with rows_alone():
                assert expected == told(view.totals(query).groups), f"{name}, rows"


@given(questions)
@settings(max_examples=25, deadline=None)
def test_durations_pass_the_same_filters(ledgers: Ledgers, query: Query) -> None:
    query = replace(query, buckets=(), group_by=())
    expected = DurationCounts()
    for event in ledgers.events:
        if event.latency_ms is not None and answers([event], query) != {(): (0, 0)}:
            expected.add(DurationCounts(latency={bin_of(event.latency_ms): 1}))
    found = {(): expected} if expected.latency else {}
    for name, each in ledgers.stores.items():
        with each.snapshot() as view:
            assert found == view.durations(query).groups, name
            with patch("costmw.store.snapshots.plan_durations", lambda *_: None):
                assert found == view.durations(query).groups, f"{name}, rows"


@given(questions, st.integers(15, 60))
@settings(max_examples=25, deadline=None)
def test_pages_of_calls_pass_them_newest_first(ledgers: Ledgers, query: Query, limit: int) -> None:
    query = replace(query, buckets=(), group_by=(), where={})
    expected = [event for event in ledgers.events if answers([event], query) != {(): (0, 0)}]
    assert sorted(expected, key=lambda event: event.created_at, reverse=True) == expected
    for name, each in ledgers.stores.items():
        with each.snapshot() as view:
            found: list[UsageEvent] = []
            before = None
            while page := view.events(
                scope=query.scope,
                limit=limit,
                before=before,
                start=query.start,
                stop=query.stop,
                filters=query.filters,
            ):
                found += [event for _, event in page]
                before = page[-1][0]
            assert expected == found, name


class TestWhatIsSaid:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (Filter("tenant", "is", ("a",)), "'tag:<key>'"),
            (Filter("model", "like", ("a",)), "is, not, contains, set, unset"),  # type: ignore[arg-type]
            (Filter("model", "is"), "one value or more"),
            (Filter("tag:tenant", "unset", ("a",)), "no values"),
            (Filter("model", "is", ("a",) * 501), "at most 500"),
        ],
    )
    def test_a_filter_that_cannot_be_is_refused(
        self, ledgers: Ledgers, wrong: Filter, said: str
    ) -> None:
        query = Query(*WHOLE, filters=(wrong,))
        with ledgers.stores["rolled up"].snapshot() as view:
            for ask in (
                lambda: view.totals(query),
                lambda: view.durations(query),
                lambda: view.events(scope={}, limit=1, filters=[wrong]),
                lambda: view.outcomes(*WHOLE, scope={}, filters=[wrong]),
            ):
                with pytest.raises(ConfigError, match=said):
                    ask()

    def test_as_many_values_as_can_be(self, ledgers: Ledgers) -> None:
        many = tuple(f"t{n}" for n in range(250))
        filters = (Filter("tag:team", "is", many), Filter("tag:no", "not", many))
        for name, each in ledgers.stores.items():
            with each.snapshot() as view:
                found = view.totals(Query(*WHOLE, filters=filters))
                expected = answers(ledgers.events, Query(*WHOLE, filters=filters))
                assert expected == told(found.groups), name


class TestRollups:
    """What the rollups answer themselves: the rows would give the same, and take longer."""

    @pytest.mark.parametrize(
        ("group_by", "filters", "from_rows"),
        [
            (("tag:tenant",), (Filter("tag:tenant", "not", ("acme",)),), False),
            (("tag:tenant",), (Filter("status", "is", ("ok",)),), False),
            (("model",), (Filter("provider", "unset"), Filter("status", "set")), False),
            ((), (Filter("tag:tenant", "unset"), Filter("api_key_id", "contains", ("k",))), False),
            (("model",), (Filter("tag:tenant", "set"), Filter("tag:team", "set")), True),
        ],
    )
    def test_one_key_or_two(
        self, ledgers: Ledgers, group_by: Any, filters: Any, from_rows: bool
    ) -> None:
        for name in ("rolled up", "postgres"):
            with ledgers.stores[name].snapshot() as view:
                found = view.totals(Query(*WHOLE, group_by=group_by, filters=filters))
            assert from_rows == found.from_rows, name

    @pytest.mark.parametrize(
        ("zone", "every", "keys", "from_rows"),
        [
            ("UTC", "day", 2, False),
            ("Asia/Tokyo", "day", 1, False),
            ("Asia/Tokyo", "day", 2, True),
            ("UTC", "hour", 1, False),
            ("UTC", "hour", 2, True),
            ("Asia/Tokyo", "month", 2, False),
        ],
    )
    def test_what_no_day_of_the_ledger_lies_in_is_told_of_by_rows(
        self, ledgers: Ledgers, zone: str, every: Any, keys: int, from_rows: bool
    ) -> None:
        filters = (Filter("tag:tenant", "set"), Filter("model", "set"))[:keys]
        starts = tuple(spans(*WHOLE, every, ZoneInfo(zone)))
        for name in ("rolled up", "postgres"):
            with ledgers.stores[name].snapshot() as view:
                found = view.totals(Query(*WHOLE, buckets=starts, filters=filters))
            assert from_rows == found.from_rows, name

    def test_a_question_that_ends_now_is_asked_of_cells_alone(self, ledgers: Ledgers) -> None:
        last = max(event.created_at for event in ledgers.events)
        filters = (Filter("tag:tenant", "set"), Filter("model", "set"))
        for name in ("rolled up", "postgres"):
            with ledgers.stores[name].snapshot() as view, patch(SUMS_OF_ROWS) as asked:
                view.totals(Query(WHOLE[0], last + timedelta(microseconds=1), filters=filters))
                assert all(not call.args[4] for call in asked.call_args_list), name
                view.totals(Query(WHOLE[0], last, filters=filters))
                assert any(call.args[4] for call in asked.call_args_list), name


class TestValues:
    def test_of_dimensions_and_tags_sorted(self, ledgers: Ledgers) -> None:
        for name, each in ledgers.stores.items():
            with each.snapshot() as view:
                for key in VALUES:
                    found = {value_of(event, key) for event in ledgers.events} - {None}
                    expected = sorted(map(str, found), key=str.encode)
                    assert expected == list(view.values(key, scope={}, limit=1_000)), name
                    assert expected[:2] == list(view.values(key, scope={}, limit=2)), name

    def test_that_contain_a_part_whatever_it_is(self, ledgers: Ledgers) -> None:
        for each in ledgers.stores.values():
            with each.snapshot() as view:
                assert ["Acme", "acme"] == view.values("tag:tenant", scope={}, contains="ACM")
                assert ["äcme"] == view.values("tag:tenant", scope={}, contains="äC")
                assert ["ÄCME"] == view.values("tag:tenant", scope={}, contains="Äc")
                assert ["a%"] == view.values("tag:tenant", scope={}, contains="%")
                assert ["it's"] == view.values("tag:tenant", scope={}, contains="'")
                assert ["100%"] == view.values("model", scope={}, contains="%")
                assert [] == view.values("tag:tenant", scope={}, contains="acm_")

    def test_that_occur_together_with_a_scope(self, ledgers: Ledgers) -> None:
        scope = {"tenant": "acme"}
        inside = [event for event in ledgers.events if event.tags.get("tenant") == "acme"]
        for name, each in ledgers.stores.items():
            with each.snapshot() as view:
                for key in VALUES:
                    found = sorted({value_of(event, key) for event in inside} - {None}, key=str)
                    assert found == list(view.values(key, scope=scope)), name
                assert ["acme"] == view.values("tag:tenant", scope=scope)
                assert [] == view.values("tag:tenant", scope={"no": "x"})

    def test_of_no_such_dimension(self, store: Store) -> None:
        with store.snapshot() as view, pytest.raises(ConfigError, match="tag:<key>"):
            view.values("tenant", scope={})


class TestAmendments:
    def test_each_with_the_cost_before_and_after(self, store: Store) -> None:
        unknown = an_event(None, tags={"tenant": "acme"})
        known = an_event(1_000, status="estimated")
        store.write([unknown, known])
        store.write(
            [
                Amendment(unknown.id, "priced", at=NOON, cost_pico_usd=70, unpriced=-1),
                Amendment(unknown.id, "came to its end", at=NOON + DAY, status="ok"),
                Amendment(known.id, "dearer", at=NOON, estimated_cost_pico_usd=5),
                Amendment(known.id, "no longer known", at=NOON + DAY, unpriced=1),
            ]
        )
        with store.snapshot() as view:
            assert [
                AppliedAmendment(NOON, "priced", None, None, 70),
                AppliedAmendment(NOON + DAY, "came to its end", "ok", 70, 70),
            ] == view.amendments(unknown.id, scope={"tenant": "acme"})
            assert [
                AppliedAmendment(NOON, "dearer", None, 1_000, 1_005),
                AppliedAmendment(NOON + DAY, "no longer known", None, 1_005, None),
            ] == view.amendments(known.id, scope={})
            assert [] == view.amendments(known.id, scope={"tenant": "acme"})
            assert [] == view.amendments(new_id(), scope={})


class TestOutcomes:
    def test_by_the_hour_they_begin_in(self, store: Store) -> None:
        half = timedelta(minutes=30)
        store.write([an_outcome(at=NOON + n * half) for n in range(6)])
        buckets = (NOON + half, NOON + 3 * half)
        with store.snapshot() as view:
            found = view.outcomes(buckets[0], NOON + 5 * half, scope={}, buckets=buckets)
            assert [(0, 4), (1, 2)] == [(row.position, row.count) for row in found]
            assert [] == view.outcomes(NOON, NOON, scope={})

    def test_filters_of_what_counters_keep(self, store: Store) -> None:
        store.write(
            [
                an_outcome(at=NOON, tags={"tenant": "acme", "route": "/chat"}),
                an_outcome(at=NOON, tags={"tenant": "globex"}),
                replace(an_outcome("refused", at=NOON), provider=None, model=None),
            ]
        )
        expected = {
            Filter("tag:tenant", "is", ("acme",)): 1,
            Filter("tag:tenant", "not", ("acme",)): 2,
            Filter("tag:route", "unset"): 2,
            Filter("tag:tenant", "contains", ("E",)): 2,
            Filter("provider", "set"): 2,
            Filter("model", "not", ("gpt-5-mini",)): 1,
            Filter("tag:user", "unset"): 0,
            Filter("status", "is", ("ok",)): 0,
        }
        with store.snapshot() as view:
            for wanted, count in expected.items():
                found = view.outcomes(NOON, NOON + DAY, scope={}, filters=[wanted])
                assert count == sum(row.count for row in found), wanted
            both = (Filter("tag:tenant", "not", ("acme",)),)
            assert [] == view.outcomes(*WHOLE, scope={"tenant": "acme"}, filters=both)


def test_values_in_clear_text_find_their_hashes(place: Place) -> None:
    store = HashedTags(place.open(), ("user",))
    store.write([an_event(n, tags={"user": name}) for n, name in enumerate(("ada", "bob", "cy"))])
    store.write([an_event(8)])
    with store.snapshot() as view:
        for op, cost in (("is", 0 + 1), ("not", 2 + 8)):
            wanted = (Filter("tag:user", op, ("ada", "bob")),)  # type: ignore[arg-type]
            query = Query(*WHOLE, filters=wanted)
            assert cost == view.totals(query).groups[()].cost_pico_usd
            found = view.events(scope={}, limit=9, filters=wanted)
            assert cost == sum(event.price.cost_pico_usd or 0 for _, event in found)
        clear = Filter("tag:user", "contains", ("ada",))
        assert [] == view.events(scope={}, limit=9, filters=[clear])
        assert 3 == len(view.values("tag:user", scope={}, contains="Hashed:"))
        assert [] == view.amendments(new_id(), scope={"user": "ada"})
