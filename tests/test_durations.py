"""How long calls took: histograms from rollups and rows, on every store, and their quantiles."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmw.errors import ConfigError
from costmw.events import Amendment
from costmw.periods import day_start
from costmw.reports import Reports
from costmw.store.base import DurationCounts, Group, Query
from costmw.store.rollups import bin_of, quantile
from postgres_server import postgres
from rows import NOON, an_event
from stores import Place, place, place_of, store

__all__ = ["place", "place_of", "postgres", "store"]

DAY = timedelta(days=1)


def durations_of(store: Any, query: Query) -> dict[Group, DurationCounts]:
    """The answer, which is the same from rows, rollups and both together."""

    def ask() -> dict[Group, DurationCounts]:
        with store.snapshot() as snapshot:
            return dict(snapshot.durations(query).groups)

    with (
        patch("costmw.store.snapshots.plan_durations", lambda *_: None),
    ):
        of_rows = ask()
    assert of_rows == ask()
    store.roll_up(3)
    assert of_rows == ask()
    while store.roll_up(1_000):
        pass
    assert of_rows == ask()
    return of_rows


def counts(latencies: list[int], first_chunks: list[int]) -> DurationCounts:
    """What a few calls come to."""
    found = DurationCounts()
    for milliseconds in latencies:
        found.add(DurationCounts(latency={bin_of(milliseconds): 1}))
    for milliseconds in first_chunks:
        found.add(DurationCounts(first_chunk={bin_of(milliseconds): 1}))
    return found


def timed(n: int, latency: int | None, first: int | None, **fields: Any) -> Any:
    return an_event(n, latency_ms=latency, time_to_first_chunk_ms=first, **fields)


class TestStores:
    def test_groups_and_calls_without_a_time(self, store: Any) -> None:
        store.write(
            [
                timed(1, 100, 20, tags={"tenant": "acme"}),
                timed(2, 9_000, None, tags={"tenant": "acme"}),
                timed(3, 0, 0, tags={"tenant": "globex"}),
                timed(4, 50, 10, tags={}),
                timed(5, None, None, tags={"tenant": "silent"}),
            ]
        )
        everything = Query(NOON - DAY, NOON + DAY)
        assert {(): counts([100, 9_000, 0, 50], [20, 0, 10])} == durations_of(store, everything)
        by_tenant = Query(NOON - DAY, NOON + DAY, group_by=("tag:tenant",))
        assert {
            ("acme",): counts([100, 9_000], [20]),
            ("globex",): counts([0], [0]),
            (None,): counts([50], [10]),
        } == durations_of(store, by_tenant)
        filtered = Query(NOON - DAY, NOON + DAY, group_by=("model",), where={"tenant": "acme"})
        assert [counts([100, 9_000], [20])] == list(durations_of(store, filtered).values())

    def test_days_and_part_days(self, store: Any) -> None:
        store.write([timed(n, n * 10, n, created_at=NOON + n * DAY / 3) for n in range(1, 13)])
        zone = ZoneInfo("UTC")
        days = tuple(day_start(NOON, zone) + n * DAY for n in range(5))
        asked = Query(NOON + DAY / 3, NOON + 4 * DAY, buckets=(NOON + DAY / 3, *days[1:]))
        assert {
            (0,): counts([10], [1]),
            (1,): counts([20, 30, 40], [2, 3, 4]),
            (2,): counts([50, 60, 70], [5, 6, 7]),
            (3,): counts([80, 90, 100], [8, 9, 10]),
            (4,): counts([110], [11]),
        } == durations_of(store, asked)

    def test_what_is_no_longer_incomplete_is_counted_there(self, store: Any) -> None:
        event = timed(1, 700, 70, status="incomplete")
        store.write([event, timed(2, 800, 80)])
        store.roll_up(1)
        store.write([Amendment(event.id, "completed", status="ok")])
        by_status = Query(NOON - DAY, NOON + DAY, group_by=("status",))
        assert {("ok",): counts([700, 800], [70, 80])} == durations_of(store, by_status)

    def test_two_keys_are_asked_of_the_rows_and_said_so(self, store: Any) -> None:
        store.write([timed(1, 100, 20, tags={"tenant": "acme"})])
        with store.snapshot() as snapshot:
            for where, from_rows in (({}, False), ({"tenant": "acme"}, True)):
                asked = Query(NOON - DAY, NOON + DAY, group_by=("model",), where=where)
                assert from_rows == snapshot.durations(asked).from_rows

    def test_random_calls(self, place: Place) -> None:
        rng = random.Random(7)
        store = place.open(time_zone="Europe/Berlin")
        store.write(
            [
                timed(
                    n,
                    rng.choice([None, 0, rng.randrange(100_000)]),
                    rng.choice([None, rng.randrange(2_000)]),
                    created_at=NOON + rng.random() * 20 * DAY,
                    tags={"tenant": f"t{rng.randrange(4)}"},
                )
                for n in range(60)
            ]
        )
        for group_by in ((), ("tag:tenant",), ("provider", "model")):
            durations_of(store, Query(NOON, NOON + 15 * DAY, group_by=group_by))

    def test_no_such_dimension(self, store: Any) -> None:
        with store.snapshot() as snapshot, pytest.raises(ConfigError, match="tag:<key>"):
            snapshot.durations(Query(NOON, NOON + DAY, group_by=("tenant",)))


class TestReport:
    def test_quantiles_by_a_tag(self, store: Any) -> None:
        store.write(
            [timed(n, 100 + n, 10, tags={"feature": "chat"}) for n in range(90)]
            + [timed(90 + n, 5_000, None, tags={"feature": "report"}) for n in range(10)]
        )
        found = Reports(store, now=lambda: NOON).durations("tag:feature")
        assert ["report", "chat"] == [row.value for row in found.rows]
        assert (100, 90) == (found.total.latency.calls, found.total.time_to_first_chunk.calls)
        report, chat = found.rows
        assert report.latency.p50_ms == pytest.approx(5_000, rel=0.09)
        assert report.time_to_first_chunk.p99_ms is None
        assert chat.latency.p95_ms == pytest.approx(186, rel=0.09)
        assert found.total.latency.p99_ms == pytest.approx(5_000, rel=0.09)
        assert not found.from_rows

    def test_all_together(self, store: Any) -> None:
        store.write([timed(1, 250, 30)])
        found = Reports(store, now=lambda: NOON).durations()
        assert ([], 1) == (found.rows, found.total.latency.calls)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=50), st.integers(1, 100))
def test_a_quantile_is_within_nine_percent(durations: list[int], percent: int) -> None:
    exact = sorted(durations)[-(-percent * len(durations) // 100) - 1]
    found = quantile([(bin_of(duration), 1) for duration in durations], percent / 100)
    assert found == pytest.approx(exact, rel=0.095)
