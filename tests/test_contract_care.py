"""What every store does alike when a ledger is cared for: proved, mended, pruned, and when a
user is forgotten."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from costmw.events import Amendment, Submission, UsageEvent
from costmw.store.base import Difference, Query, Store
from costmw.store.rollups import bin_of, minutes
from postgres_server import postgres
from rows import NOON, an_event, an_outcome
from stores import Place, changing, groups_of, narrow, place, place_of, rows_alone, store
from test_store_contract import random_records

__all__ = ["place", "place_of", "postgres", "store"]

ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))
DAY = timedelta(days=1)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)

EVERYTHING = "every = 1440 AND facet_id = 0 AND other_facet_id = 0"


def costs(store: Store, *group_by: str, **options: Any) -> dict[Any, int]:
    """Costs by group, the same from rows and from rollups."""
    groups = groups_of(store, Query(*ALL_TIME, group_by=group_by, **options))
    return {group: sums.cost_pico_usd for group, sums in groups.items()}


def rolled_costs(store: Store, *group_by: str, **options: Any) -> dict[Any, int]:
    """Costs by group, from rollups: of rows that were pruned too."""
    with store.snapshot() as snapshot:
        found = snapshot.totals(Query(*ALL_TIME, group_by=group_by, **options))
    assert not found.from_rows
    return {group: sums.cost_pico_usd for group, sums in found.groups.items()}


def rolled_up(store: Store) -> Any:
    """The store, once its rollups have everything."""
    while store.roll_up(1_000):
        pass
    return store


def wrong(store: Any) -> list[tuple[int, int, tuple[str, ...], bool, dict[str, int]]]:
    """What differs, sorted; sums that are kept in millions and a rest put together."""

    def said(one: Difference) -> Any:
        sums = {
            name: value + 1_000_000 * one.sums.get(f"{name}_m", 0)
            for name, value in one.sums.items()
            if not name.endswith("_m")
        }
        told = {name: value for name, value in sums.items() if value}
        return one.every_minutes, one.bucket_minutes, one.facets, one.in_rollups, told

    return sorted(map(said, store.verify()), key=str)


def busy(store: Store, start: datetime = NOON, count: int = 300) -> None:
    """Events of all sorts over nine days, with amendments before and after they are rolled up."""
    records = random_records(random.Random(1), count, start)
    store.write(records[: count // 2])
    store.roll_up(count // 4)
    store.write(records[count // 2 :])
    rolled_up(store)


def write_on(store: Store, failures: list[BaseException], stop: threading.Event) -> None:
    """Write events and amendments until it is time to stop."""
    try:
        while not stop.is_set():
            event = an_event(2, tags={"user": "alice", "tenant": "a"}, latency_ms=5)
            store.write([event, an_event(3, tags={"user": "bob"})])
            store.write([Amendment(event_id=event.id, reason="x", cost_pico_usd=1)])
            written.append(6)
    except BaseException as error:
        failures.append(error)


written: list[int] = []


@contextmanager
def others_writing(place: Place, count: int = 2) -> Iterator[None]:
    """Other processes, as it were, write meanwhile; none of them fails."""
    written.clear()
    failures: list[BaseException] = []
    stop = threading.Event()
    threads = [
        threading.Thread(target=write_on, args=(place.open(), failures, stop)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        while len(written) < 3 * count and not failures:
            stop.wait(0.01)
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [] == failures


class TestVerify:
    def test_rollups_follow_whatever_was_written(self, store: Any) -> None:
        assert [] == wrong(store)
        busy(store)
        store.write([an_event(1, created_at=datetime(1970, 1, 2, tzinfo=UTC))])
        store.write([an_event(1, created_at=datetime(8999, 1, 2, tzinfo=UTC))])
        rolled_up(store)

        assert [] == wrong(store)

    @pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "America/Sao_Paulo", "Asia/Kathmandu"])
    def test_days_are_those_of_the_zone(self, place: Place, zone: str) -> None:
        store = place.open(time_zone=zone)
        busy(store, datetime(2018, 11, 1, tzinfo=UTC), 150)

        assert [] == wrong(store)

    def test_a_cell_that_is_wrong_is_told_as_it_is_and_as_it_ought_to_be(self, store: Any) -> None:
        store.write([an_event(5 * 10**9, tags={"tenant": "acme"}), an_event(7)])
        rolled_up(store)
        with changing(store) as connection:
            connection.execute(f"UPDATE rollups SET calls = calls + 3 WHERE {EVERYTHING}")

        day = minutes(NOON.replace(hour=0))
        sums = {
            "cost_pico_usd": 5 * 10**9 + 7,
            "input_tokens": 200,
            "output_tokens": 20,
        }
        assert [
            (1440, day, (), False, {"calls": 2, **sums}),
            (1440, day, (), True, {"calls": 5, **sums}),
        ] == wrong(store)
        assert 2 == len(wrong(store))  # nothing was changed

    def test_cells_are_named_by_what_they_count(self, store: Any) -> None:
        store.write([an_event(5, tags={"tenant": "acme"}, api_key_id="k1", latency_ms=9)])
        rolled_up(store)
        with changing(store) as connection:
            connection.execute("DELETE FROM rollups")
            connection.execute("DELETE FROM rollup_histograms")
        kind = 'kind=["openai", "gpt-5-mini", "chat", "ok", "list"]'
        single = [{one} for one in ("tag:tenant=acme", "api_key_id=k1", kind)]
        pairs = [one | other for one, other in combinations(single, 2)]

        found = wrong(store)
        hourly = [set(facets) for every, _, facets, _, _ in found if every == 60]
        daily = [
            set(facets) for every, _, facets, _, sums in found if every == 1440 and "calls" in sums
        ]
        assert sorted(map(sorted, [set(), *single])) == sorted(map(sorted, hourly))
        assert sorted(map(sorted, [set(), *single, *pairs])) == sorted(map(sorted, daily))
        assert not any(in_rollups for *_, in_rollups, _ in found)
        assert [{f"bin_{bin_of(9)}": 1}] * 4 == [sums for *_, sums in found if "calls" not in sums]

    def test_it_is_of_one_moment_while_others_write(self, place: Place) -> None:
        store = place.open()
        busy(store)
        with others_writing(place):
            for _ in range(3):
                assert [] == wrong(store)
        assert [] == wrong(rolled_up(store))


class TestRebuild:
    def test_rollups_are_as_they_were(self, store: Any) -> None:
        busy(store)
        before = rolled_costs(store, "tag:tenant", "model")
        with changing(store) as connection:
            connection.execute("DELETE FROM rollups")
            connection.execute("DELETE FROM rollup_histograms")
        assert wrong(store)
        with changing(store) as connection:
            (rows,) = connection.execute(
                "SELECT (SELECT count(*) FROM usage_events) + (SELECT count(*) FROM amendments a "
                "WHERE EXISTS (SELECT 1 FROM usage_events e WHERE e.id = a.event_id))"
            ).fetchone()

        assert rows == store.rebuild()
        assert [] == wrong(store)
        assert before == rolled_costs(store, "tag:tenant", "model")
        assert before == costs(store, "tag:tenant", "model")

    def test_what_is_too_much_goes(self, store: Any) -> None:
        busy(store)
        with changing(store) as connection:
            connection.execute("UPDATE rollups SET bucket = bucket + 1440000 WHERE facet_id <> 0")
            connection.execute("UPDATE rollup_histograms SET count = count + 1")
            connection.execute(f"UPDATE rollups SET requests = 99 WHERE {EVERYTHING}")
        assert wrong(store)
        store.rebuild()

        assert [] == wrong(store)
        with changing(store) as connection:
            last = connection.execute("SELECT max(bucket) FROM rollups").fetchone()[0]
        assert last < minutes(NOON + 20 * DAY)

    def test_nothing_is_lost_that_others_write_meanwhile(self, place: Place) -> None:
        store = place.open()
        busy(store)
        before = costs(store)[()]
        with others_writing(place):
            for _ in range(3):
                store.rebuild()
        rolled_up(store)

        assert [] == wrong(store)
        assert before + sum(written) == costs(store)[()]

    def test_several_at_once_do_not_count_twice(self, place: Place) -> None:
        stores = [place.open() for _ in range(3)]
        busy(stores[0])
        before = costs(stores[0], "tag:tenant")
        with changing(stores[0]) as connection:
            connection.execute("DELETE FROM rollups WHERE every = 1440")
        threads = [threading.Thread(target=each.rebuild) for each in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rolled_up(stores[0])

        assert [] == wrong(stores[0])
        assert before == rolled_costs(stores[0], "tag:tenant")


class TestPrune:
    def fill(self, store: Any) -> tuple[UsageEvent, UsageEvent]:
        """Two calls of March, one of them amended, one of April, and one of 1970."""
        old = an_event(5, created_at=APRIL - DAY, tags={"tenant": "a"}, latency_ms=50)
        amended = an_event(10, created_at=MARCH, tags={"tenant": "b"})
        new = an_event(20, created_at=APRIL, tags={"tenant": "a"})
        store.write([old, amended, new])
        store.write([Amendment(event_id=amended.id, reason="x", cost_pico_usd=1)])
        store.write([an_event(40, created_at=datetime(1970, 5, 1, tzinfo=UTC))])
        rolled_up(store)
        return amended, new

    def test_rows_go_and_sums_stay(self, store: Any) -> None:
        _, new = self.fill(store)
        assert 3 == store.prune(APRIL)
        assert 0 == store.prune(APRIL)

        with store.snapshot() as snapshot:
            assert [new] == [event for _, event in snapshot.events(scope={}, limit=99)]
            assert APRIL == snapshot.pruned_until()
        assert {("a",): 25, ("b",): 11, (None,): 40} == rolled_costs(store, "tag:tenant")
        with rows_alone(), store.snapshot() as snapshot:
            of_rows = snapshot.totals(Query(*ALL_TIME)).groups[()]
        assert 20 == of_rows.cost_pico_usd
        assert [] == wrong(store)

    def test_of_what_is_pruned_rollups_are_all_there_is(self, store: Any) -> None:
        amended, new = self.fill(store)
        store.prune(APRIL)
        store.write([Amendment(event_id=amended.id, reason="late", cost_pico_usd=100)])
        store.write([Amendment(event_id=new.id, reason="y", cost_pico_usd=1_000)])
        rolled_up(store)
        store.rebuild()

        assert [] == wrong(store)
        assert {("a",): 1_025, ("b",): 11, (None,): 40} == rolled_costs(store, "tag:tenant")

    def test_what_was_pruned_stays_so(self, store: Any) -> None:
        """One that prunes less than was pruned before takes nothing back."""
        self.fill(store)
        store.prune(APRIL)
        store.write([an_event(80, created_at=MARCH - 3 * DAY)])
        rolled_up(store)
        store.prune(MARCH)

        with store.snapshot() as snapshot:
            assert APRIL == snapshot.pruned_until()
        store.rebuild()
        assert [] == wrong(store)
        assert {(): 5 + 11 + 20 + 40 + 80} == rolled_costs(store)

    def test_tags_that_no_row_has_any_more_are_dropped(self, place: Place) -> None:
        one, other = place.open(), place.open()
        self.fill(one)
        asked = Submission("openai", "r1", datetime.now(UTC) - DAY, {"tenant": "asked"})
        other.write([an_event(1, created_at=APRIL, tags={"tenant": "b"}, submitted_as="no")])
        other.write([asked, an_outcome(tags={"tenant": "counted"})])
        one.prune(APRIL + 40 * DAY)
        with changing(one) as connection:
            left = [row[0] for row in connection.execute("SELECT tags FROM tag_sets").fetchall()]
        assert ['{"tenant":"asked"}', '{"tenant":"counted"}'] == sorted(left)

        # Another process remembers ids that nobody has any more.
        now = datetime.now(UTC)
        other.write([an_event(300, created_at=now, tags={"tenant": "b"})])
        other.write([an_outcome(tags={"tenant": "b"})])
        other.write([Submission("openai", "r2", now, {"tenant": "b"})])
        other.write([an_event(1_000, created_at=now, submitted_as="r2")])
        rolled_up(one)
        assert [] == wrong(one)
        with one.snapshot() as snapshot:
            assert {("b",): 1_300} == {
                group: sums.cost_pico_usd
                for group, sums in snapshot.totals(
                    Query(now - DAY, now + DAY, ("tag:tenant",))
                ).groups.items()
            }

    def test_several_at_once_drop_each_row_once(self, place: Place) -> None:
        stores = [place.open() for _ in range(3)]
        for n in range(8):
            stores[0].write([an_event(1, created_at=NOON + n * 31 * DAY)])
        rolled_up(stores[0])
        dropped: list[int] = []
        threads = [
            threading.Thread(target=lambda s=s: dropped.append(s.prune(NOON + 200 * DAY)))
            for s in stores
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert (3, 7) == (len(dropped), sum(dropped))
        assert {(): 8} == rolled_costs(stores[0])
        assert [] == wrong(stores[0])

    def test_others_go_on_writing(self, place: Place) -> None:
        store = place.open()
        busy(store)
        before = rolled_costs(store)[()]
        with others_writing(place):
            for n in range(4):
                store.write([an_event(1, created_at=NOON - n * 31 * DAY)])
                store.prune(NOON - n * 31 * DAY)
        rolled_up(store)

        assert [] == wrong(store)
        assert before + 4 + sum(written) == rolled_costs(store)[()]


class TestForget:
    def test_a_value_is_gone_and_what_it_cost_is_not(self, store: Any) -> None:
        store.write([an_event(n, tags={"user": "alice", "n": str(n)}) for n in (1, 2)])
        store.write([an_event(4, tags={"user": "bob"}), an_event(8, tags={"n": "alice"})])
        store.write([an_outcome(tags={"user": "alice"})])
        rolled_up(store)

        assert 3 == store.forget("user", "alice", substitute="x")
        assert 0 == store.forget("user", "alice", substitute="x")
        assert 0 == store.forget("user", "nobody")
        assert 0 == store.forget("no such key", "alice")
        assert {("x",): 3, ("bob",): 4, (None,): 8} == costs(store, "tag:user")
        assert {(): 0} == costs(store, where={"user": "alice"})
        assert {(): 3} == costs(store, where={"user": "x"})
        with store.snapshot() as snapshot:
            found = [dict(event.tags) for _, event in snapshot.events(scope={}, limit=9)]
        assert 2 == sum(tags.get("user") == "x" for tags in found)
        assert [] == wrong(store)
        with changing(store) as connection:
            for sql in ("SELECT tags FROM tag_sets", "SELECT value FROM facets"):
                said = [row[0] for row in connection.execute(sql).fetchall()]
                assert 1 == sum("alice" in text for text in said)  # of another key

    def test_without_a_substitute_everyone_has_a_name_of_their_own(self, store: Any) -> None:
        store.write([an_event(n, tags={"user": f"u{n}"}) for n in (1, 2)])
        rolled_up(store)
        assert [1, 1] == [store.forget("user", f"u{n}") for n in (1, 2)]

        found = costs(store, "tag:user")
        assert [1, 2] == sorted(found.values())
        assert all(name.startswith("(erased ") for (name,) in found)

    def test_calls_become_those_of_whoever_has_the_substitute(self, store: Any) -> None:
        for user in ("alice", "x"):
            for n in (1, 2):
                tags = {"user": user, "n": str(n)}
                store.write([an_event(n, tags=tags, latency_ms=n, api_key_id="k")])
                store.write([an_outcome(tags={"user": user}), an_outcome(tags=tags)])
        store.write([an_event(10, tags={"user": "alice", "only": "alice"})])
        asked = Submission("openai", "r1", datetime.now(UTC), {"user": "alice"})
        store.write([asked])
        rolled_up(store)

        assert 4 == store.forget("user", "alice", substitute="x")
        store.write([an_event(100, tags={"user": "x", "n": "1"})])
        store.write([an_event(1_000, submitted_as="r1")])
        rolled_up(store)
        assert {("x",): 1_116} == costs(store, "tag:user")
        assert {("1",): 102, ("2",): 4, (None,): 1_010} == costs(store, "tag:n")
        assert {("x", "1"): 102, ("x", "2"): 4, ("x", None): 1_010} == costs(
            store, "tag:user", "tag:n"
        )
        with store.snapshot() as snapshot:
            assert 8 == sum(o.count for o in snapshot.outcomes(*ALL_TIME, scope={"user": "x"}))
        assert [] == wrong(store)
        store.rebuild()
        assert [] == wrong(store)

    def test_other_processes_do_not_go_on_with_what_they_remember(self, place: Place) -> None:
        one, other = place.open(), place.open()
        other.write([an_event(1, tags={"user": "alice"})])
        one.forget("user", "alice", substitute="x")
        other.write([an_event(10, tags={"user": "alice"})])
        other.write([Submission("openai", "r1", datetime.now(UTC), {"user": "alice"})])
        one.forget("user", "alice", substitute="y")
        other.write([an_outcome(tags={"user": "alice"})])
        other.write([an_event(100, submitted_as="r1"), an_event(1_000, tags={"user": "x"})])
        rolled_up(one)

        assert {("x",): 1_001, ("y",): 110} == costs(one, "tag:user")
        assert [] == wrong(one)

    def test_while_others_write_nothing_is_mixed_up(self, place: Place) -> None:
        store = place.open()
        with others_writing(place, 3):
            for n in range(20):
                store.forget("user", "alice", substitute=f"x{n}")
        rolled_up(store)

        found = costs(store, "tag:user")
        assert sum(written) == sum(found.values())
        assert sum(written) == 2 * found["bob",]
        with store.snapshot() as snapshot:
            for _, event in snapshot.events(scope={}, limit=10**6):
                assert (event.tags["user"] == "bob") == ("tenant" not in event.tags)
        assert [] == wrong(store)

    def test_odd_text_is_forgotten_too(self, store: Any) -> None:
        odd = 'a"b\\\n\N{SNOWMAN}\u2028'
        store.write([an_event(1, tags={odd: odd})])
        rolled_up(store)

        assert 1 == store.forget(odd, odd, substitute="ü")
        assert {("ü",): 1} == costs(store, f"tag:{odd}")


class TestWideKeys:
    """Keys of many values are kept by the day alone, those of very many not at all."""

    @pytest.mark.parametrize("pruned", [False, True])
    def test_they_are_cared_for_like_others(
        self, store: Any, monkeypatch: pytest.MonkeyPatch, pruned: bool
    ) -> None:
        narrow(monkeypatch, paired=4, rolled=9)
        events = []
        for n in range(14):
            tags = {"user": str(n), "team": str(n % 6), "tenant": str(n % 3)}
            at = MARCH + timedelta(hours=80 * n)
            event = an_event(n, created_at=at, tags=tags, latency_ms=n)
            early = Amendment(event_id=event.id, reason="early", cost_pico_usd=100)
            store.write([early, event] if n % 2 else [event])
            store.roll_up(n % 3)
            if events:
                late = {"status": "estimated"} if n % 4 else {}
                change = Amendment(event_id=events[-1].id, reason="l", cost_pico_usd=1, **late)
                store.write([change])
            events.append(event)
        rolled_up(store)
        assert [] == wrong(store)
        by_team, by_tenant = rolled_costs(store, "tag:team"), rolled_costs(store, "tag:tenant")
        assert sum(range(14)) + 7 * 100 + 13 == sum(by_team.values())
        if pruned:
            assert 10 == store.prune(APRIL)
            assert [] == wrong(store)
        with changing(store) as connection:
            connection.execute(f"DELETE FROM rollups WHERE bucket >= {minutes(APRIL)}")
        assert wrong(store)
        store.rebuild()

        assert [] == wrong(store)
        assert by_team == rolled_costs(store, "tag:team")
        assert by_tenant == rolled_costs(store, "tag:tenant")
        if not pruned:
            assert by_team == costs(store, "tag:team")
            assert {(str(n),) for n in range(14)} == set(costs(store, "tag:user"))
        assert (1 if pruned else 3) == store.forget("team", "1", substitute="x")
        assert by_team["1",] == rolled_costs(store, "tag:team")["x",]
        assert [] == wrong(store)

    def test_many_kinds_of_calls_keep_their_daily_sums(
        self, store: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        narrow(monkeypatch, paired=4, rolled=40)
        expected: dict[Any, int] = {}
        events = []
        for n in range(12):
            event = an_event(n, created_at=MARCH + n * DAY, response_model=f"m{n}")
            events.append(event)
            store.write([event, an_event(50, created_at=MARCH + n * DAY, response_model="m0")])
            expected[f"m{n}",] = n
            expected["m0",] = expected.get(("m0",), 0) + 50
            assert expected == costs(store, "model")
            assert expected == rolled_costs(store, "model")
        store.write([Amendment(event_id=events[5].id, reason="x", status="incomplete")])
        rolled_up(store)
        assert {("ok",): 11 + 12, ("incomplete",): 1} == {
            group: sums.calls
            for group, sums in groups_of(store, Query(*ALL_TIME, ("status",))).items()
        }
        assert [] == wrong(store)

        store.prune(APRIL)
        store.rebuild()
        assert [] == wrong(store)
        assert expected == rolled_costs(store, "model")
