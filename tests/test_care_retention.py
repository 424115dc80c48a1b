"""`Config(keep_days=...)`: old rows go by themselves, and nobody waits for it."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.errors import ConfigError, StoreError
from costmw.store import retention
from costmw.store.base import Query
from costmw.store.retention import LOOK_EVERY, Retention
from costmw.store.sqlite import SqliteStore
from costmw.transfer.spans import BEGINNING, END
from postgres_server import postgres
from rows import NOON, an_event, opened, stored
from stores import Place, place_of, plain

__all__ = ["place_of", "postgres"]

DAY = timedelta(days=1)
CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-5-mini"}
CALL |= {"input_tokens": 1, "output_tokens": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmcost.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with opened(path) as store:
        yield store


def old_rows(count: int, **changes: Any) -> list[Any]:
    """Rows of 40 days before NOON, and one of that day."""
    old = [an_event(1, created_at=NOON - 40 * DAY, **changes) for _ in range(count)]
    return [*old, an_event(1, **changes)]


def calls(store: Any) -> int:
    """All calls, as sums tell of them."""
    with store.snapshot() as snapshot:
        return sum(s.calls for s in snapshot.totals(Query(BEGINNING, END)).groups.values())


def at(moment: datetime) -> Callable[[], datetime]:
    return lambda: moment


def until_done(task: Retention) -> int:
    """Work until it is done; gives how many parts it took."""
    for parts in range(1, 1000):
        task.work()
        if task.due_in() > LOOK_EVERY - 60:
            return parts
    raise AssertionError("it never ends")


class TestConfig:
    def test_from_code_and_the_environment(self) -> None:
        assert Config().keep_days is None
        assert 90 == Config.from_environment({"COSTMW_KEEP_DAYS": "90"}).keep_days

    @pytest.mark.parametrize("days", [0, -1, 1.5, True, "90", 10**6])
    def test_what_is_no_number_of_days_is_refused(self, days: Any) -> None:
        with pytest.raises(ConfigError, match="keep_days is .*whole number of days"):
            Config(keep_days=days)

    @pytest.mark.parametrize("text", ["ninety", "0", "1.5"])
    def test_a_variable_that_cannot_be_used_is_named(self, text: str) -> None:
        with pytest.raises(ConfigError, match="COSTMW_KEEP_DAYS"):
            Config.from_environment({"COSTMW_KEEP_DAYS": text})


class TestParts:
    def test_rows_go_in_small_parts_and_sums_stay(self, store: SqliteStore) -> None:
        store.write(old_rows(250, tags={"tenant": "acme"}))
        task = Retention(store, 30, now=at(NOON))
        assert 0 == task.due_in()
        # Three parts to roll up 251 rows, the last one with the first rows to drop.
        assert 2 + 3 + 1 == until_done(task)
        assert 1 == len(stored(store))
        assert 251 == calls(store)
        assert [] == store.verify()

    def test_the_days_that_are_kept_are_whole(self, store: SqliteStore) -> None:
        store.write([an_event(1, created_at=NOON - n * DAY) for n in range(5)])
        until_done(Retention(store, 2, now=at(NOON)))
        assert [17, 16, 15] == [event.created_at.day for event in stored(store)]

    def test_between_parts_the_ledger_is_left_alone(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.write(old_rows(250))
        task = Retention(store, 30, now=at(NOON))
        real = store.prune_some

        def slow(before: datetime, most: int) -> int:
            time.sleep(0.05)
            return real(before, most)

        monkeypatch.setattr(store, "prune_some", slow)
        for _ in range(3):
            task.work()
        assert 0.15 < task.due_in() < LOOK_EVERY / 2

    def test_where_there_is_nothing_old_nothing_is_written(self, store: SqliteStore) -> None:
        store.write([an_event(1)])
        before = store.path.with_name("llmcost.db-wal").read_bytes()
        task = Retention(store, 30, now=at(NOON))
        task.work()
        assert LOOK_EVERY - 60 < task.due_in() <= LOOK_EVERY
        assert before == store.path.with_name("llmcost.db-wal").read_bytes()

    def test_for_ever_is_never_due(self, store: SqliteStore) -> None:
        store.write(old_rows(1))
        task = Retention(store, None)
        assert float("inf") == task.due_in()
        task.work(1.0)
        assert 2 == len(stored(store))

    def test_a_failure_is_logged_now_and_then_and_tried_again_later(
        self, store: SqliteStore, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.write(old_rows(1))
        task = Retention(store, 30, now=at(NOON))

        def broken(limit: int) -> int:
            raise StoreError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(store, "roll_up", broken)
            for _ in range(5):
                task.work()
                assert 0 < task.due_in() <= retention.RETRY_AFTER
        said = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
        assert ["(1 so far)", "(2 so far)", "(4 so far)"] == [
            text[text.index("(") : text.index(")") + 1] for text in said
        ]
        assert "rows older than 30 days" in said[0]
        assert said[0].endswith("the disk is full")
        until_done(task)
        assert 1 == len(stored(store))


class TestOneOfAll:
    def test_another_process_waits_until_the_first_one_is_done(self, path: Path) -> None:
        with opened(path) as one, opened(path) as two:
            one.write(old_rows(250))
            first = Retention(one, 30, now=at(NOON))
            second = Retention(two, 30, now=at(NOON))
            first.work()
            left = len(stored(one))
            second.work()
            assert left == len(stored(one))
            assert retention.CLAIMED_FOR - 1 < second.due_in() <= retention.CLAIMED_FOR
            until_done(first)
            second.work()
            assert LOOK_EVERY - 60 < second.due_in()

    def test_another_one_goes_on_where_the_first_one_ended(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "CLAIMED_FOR", 0.2)
        with opened(path) as one, opened(path) as two:
            one.write(old_rows(250))
            Retention(one, 30, now=at(NOON)).work()
            second = Retention(two, 30, now=at(NOON))
            second.work()
            assert 0 < second.due_in() <= 0.2
            time.sleep(0.25)
            until_done(second)
            assert 1 == len(stored(two))

    def test_one_that_ends_leaves_the_rest_to_others_at_once(self, path: Path) -> None:
        with opened(path) as one, opened(path) as two:
            one.write(old_rows(1_000))
            Retention(one, 30, now=at(NOON)).work(0.001)
            left = len(stored(one))
            assert left > 1
            until_done(Retention(two, 30, now=at(NOON)))
            assert 1 == len(stored(two))

    def test_a_clock_that_was_put_back_keeps_nobody_out(self, store: SqliteStore) -> None:
        assert store.claim("task", "one", 10**6)
        assert store.claim("task", "two", 30)
        assert not store.claim("task", "one", 30)
        assert store.claim("task", "two", 0)
        assert store.claim("task", "one", 30)


class TestProcesses:
    def test_a_long_running_one_drops_rows_while_it_is_idle(
        self, make_meter: Callable[..., Meter]
    ) -> None:
        meter = make_meter(config=Config(keep_days=30, ack_timeout=30.0))
        meter.start()
        old = datetime.now(UTC) - 40 * DAY
        meter.store.write([an_event(1, created_at=old) for _ in range(500)])
        meter.record(**CALL)
        assert wait_for(lambda: 1 == len(stored(plain(meter.store))))  # type: ignore[arg-type]
        assert 501 == calls(meter.store)

    def test_one_that_lives_for_a_call_does_its_part(self, path: Path) -> None:
        with opened(path) as store:
            old = datetime.now(UTC) - 40 * DAY
            store.write([an_event(1, created_at=old) for _ in range(300)])
            for _ in range(5):
                subprocess.run([sys.executable, "-c", ONE_CALL, str(path)], check=True, timeout=60)
            assert 5 == len(stored(store))
            assert 305 == calls(store)
            assert [] == store.verify()

    def test_a_forked_child_claims_for_itself(self, make_meter: Callable[..., Meter]) -> None:
        meter = make_meter(config=Config(keep_days=30, ack_timeout=30.0))
        meter.record(**CALL)
        mine = meter._writer._retention._owner
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=lambda: queue.put(meter._writer._retention._owner))
        child.start()
        child.join(30)
        assert mine != queue.get()

    def test_a_call_waits_for_one_part_at_most(
        self, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = make_meter(config=Config(keep_days=30, ack_timeout=30.0))
        meter.start()
        old = datetime.now(UTC) - 40 * DAY
        meter.store.write([an_event(1, created_at=old) for _ in range(450)])
        real, parts = SqliteStore.prune_some, []

        def slow(store: SqliteStore, before: datetime, most: int) -> int:
            parts.append(time.monotonic())
            time.sleep(0.5)
            return real(store, before, most)

        monkeypatch.setattr(SqliteStore, "prune_some", slow)
        meter.record(**CALL)
        assert wait_for(lambda: bool(parts))
        slowest = 0.0
        while len(parts) < 3:
            started = time.monotonic()
            meter.record(**CALL)
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.01)
        assert slowest < 1.0
        # In between, the ledger is left alone for longer than a part takes.
        assert parts[2] - parts[1] > 2 * 0.5


class TestPostgres:
    def test_months_go(
        self, place_of: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = place_of("postgres").open()
        store.write([an_event(1, created_at=NOON - n * 10 * DAY) for n in range(7)])
        task = Retention(store, 30, now=at(NOON))
        assert 1 == until_done(task)
        # February has days that are to be kept.
        assert [2, 2, 2, 3, 3] == sorted(event.created_at.month for event in newest(store))
        assert 7 == calls(store)
        # Where there is nothing to do, writers of all hosts are left alone.
        again: list[datetime] = []
        monkeypatch.setattr(store, "prune", again.append)
        until_done(Retention(store, 30, now=at(NOON)))
        assert [] == again


def newest(store: Any) -> list[Any]:
    with store.snapshot() as snapshot:
        return [event for _, event in snapshot.events(scope={}, limit=100)]


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


ONE_CALL = """
import sys
from costmw import Config, Meter

meter = Meter(f"sqlite:///{sys.argv[1]}", config=Config(keep_days=30, ack_timeout=30.0))
meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
"""
