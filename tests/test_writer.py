"""The writer: many callers, one commit; nothing lost, nobody held up, nothing said too early."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.errors import StoreBusy, StoreError
from costmw.events import Record, UsageEvent
from costmw.store import writer as writer_module
from costmw.store.acknowledgement import Acknowledgement
from costmw.store.sqlite import SqliteStore
from costmw.store.sqlite_rollups import watermarks
from costmw.store.writer import Writer
from faults import Result
from faults.kill import Variant, killed
from faults.powerloss import lose_power
from rows import an_event, an_outcome, opened, stored

SOON = 30.0
"""Seconds that a busy machine may take for what should be immediate."""


class FakeStore:
    """Keeps what is written in a list; can be told to wait or to fail."""

    url = "fake:"

    def __init__(self) -> None:
        self.transactions: list[list[Record]] = []
        self.tries = 0
        self.closed = 0
        self.error: Callable[[Sequence[Record]], Exception | None] = lambda records: None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.failed = threading.Semaphore(0)

    @property
    def kept(self) -> list[Record]:
        return [record for records in self.transactions for record in records]

    def write(self, records: Sequence[Record]) -> None:
        self.tries += 1
        self.entered.set()
        assert self.gate.wait(SOON)
        if error := self.error(records):
            self.failed.release()
            raise error
        self.transactions.append(list(records))

    def roll_up(self, limit: int) -> int:
        return 0

    def close(self) -> None:
        self.closed += 1

    def before_fork(self) -> None:
        pass

    def after_fork_in_parent(self) -> None:
        pass

    def after_fork_in_child(self) -> None:
        pass


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def make_writer(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Writer]]:
    monkeypatch.setattr(writer_module, "RETRY_AFTER", (0.001,))
    writers: list[Writer] = []

    def make(**settings: Any) -> Writer:
        writers.append(Writer(store, Config(**settings)))  # type: ignore[arg-type]
        return writers[-1]

    yield make
    store.error = lambda records: None
    store.gate.set()
    for writer in writers:
        assert writer.close(SOON)


@pytest.fixture
def writer(make_writer: Callable[..., Writer]) -> Writer:
    return make_writer()


def hold(store: FakeStore, writer: Writer) -> Acknowledgement:
    """Stop the writer inside of a transaction, with one record in hand."""
    store.gate.clear()
    store.entered.clear()
    acknowledgement = writer.submit(an_event())
    assert store.entered.wait(SOON)
    return acknowledgement


def fail_with(store: FakeStore, error: Exception) -> None:
    store.error = lambda records: error


class TestGroupCommit:
    def test_a_burst_of_a_thousand_shares_a_few_transactions(
        self, writer: Writer, store: FakeStore
    ) -> None:
        hold(store, writer)
        events = [an_event() for _ in range(1000)]
        acknowledgements = [writer.submit(event) for event in events]
        store.gate.set()

        assert writer.flush(SOON)
        assert all(acknowledgement.committed for acknowledgement in acknowledgements)
        assert events == store.kept[1:]
        assert [1, 500, 500] == [len(records) for records in store.transactions]
        assert (1001, 0) == (writer.counts.committed, writer.waiting)

    def test_a_burst_from_many_threads_makes_far_fewer_transactions_on_disk(
        self, tmp_path: Path
    ) -> None:
        with opened(tmp_path / "llmcost.db") as real:
            writer = Writer(real, Config())
            commits: list[int] = []
            write = real.write
            real.write = lambda records: (commits.append(len(records)), write(records))[1]  # type: ignore[method-assign]
            with ThreadPoolExecutor(100) as pool:
                events = [an_event() for _ in range(1000)]
                done = list(pool.map(lambda event: writer.submit(event).wait(SOON), events))
            assert writer.close(SOON)

            assert [True] * 1000 == done
            assert 1000 == sum(commits)
            assert 300 > len(commits)
            assert {event.id for event in events} == {event.id for event in stored(real)}

    def test_one_transaction_has_no_more_records_than_asked_for(
        self, make_writer: Callable[..., Writer], store: FakeStore
    ) -> None:
        writer = make_writer(batch_size=7)
        hold(store, writer)
        for _ in range(20):
            writer.submit(an_event())
        store.gate.set()

        assert writer.flush(SOON)
        assert [1, 7, 7, 6] == [len(records) for records in store.transactions]

    def test_no_thread_is_started_before_the_first_record(self, writer: Writer) -> None:
        assert writer._thread is None
        assert writer.flush(0)
        assert writer._thread is None

        assert writer.submit(an_event()).wait(SOON)
        assert writer._thread is not None
        assert ("costmw-writer", True, True) == (
            writer._thread.name,
            writer._thread.daemon,
            writer._thread.is_alive(),
        )


class TestAcknowledgement:
    def test_nothing_is_acknowledged_before_its_commit(
        self, writer: Writer, store: FakeStore
    ) -> None:
        first = hold(store, writer)
        second = writer.submit(an_event())

        assert not first.wait(0.05)
        assert not second.wait(0)
        assert (False, False, 2) == (first.committed, second.committed, writer.waiting)
        assert not writer.flush(0.01)
        store.gate.set()
        assert first.wait(SOON)
        assert second.wait(SOON)
        assert first.committed

    def test_many_threads_can_wait_for_one_record(self, writer: Writer, store: FakeStore) -> None:
        acknowledgement = hold(store, writer)
        with ThreadPoolExecutor(20) as pool:
            waits = [pool.submit(acknowledgement.wait, SOON) for _ in range(20)]
            store.gate.set()
            assert [True] * 20 == [wait.result(SOON) for wait in waits]
        assert acknowledgement.wait(0)

    def test_tasks_wait_without_blocking_their_loop(self, writer: Writer, store: FakeStore) -> None:
        async def run() -> list[bool]:
            store.gate.clear()
            waits = [
                asyncio.ensure_future(writer.submit(an_event()).wait_async(SOON))
                for _ in range(100)
            ]
            for _ in range(10):
                await asyncio.sleep(0)  # the loop turns while the commit is held
            assert not any(wait.done() for wait in waits)
            store.gate.set()
            return await asyncio.gather(*waits)

        assert [True] * 100 == asyncio.run(run())

    def test_a_task_gives_up_after_its_timeout_and_sees_the_commit_later(
        self, writer: Writer, store: FakeStore
    ) -> None:
        async def run() -> None:
            acknowledgement = hold(store, writer)
            assert not await acknowledgement.wait_async(0.01)
            store.gate.set()
            assert await acknowledgement.wait_async(SOON)
            assert await acknowledgement.wait_async(0)

        asyncio.run(run())

    def test_a_cancelled_task_leaves_the_others_alone(
        self, writer: Writer, store: FakeStore
    ) -> None:
        async def run() -> None:
            first = asyncio.ensure_future(hold(store, writer).wait_async(SOON))
            second = asyncio.ensure_future(writer.submit(an_event()).wait_async(SOON))
            await asyncio.sleep(0)
            first.cancel()
            store.gate.set()
            assert await second
            with pytest.raises(asyncio.CancelledError):
                await first

        asyncio.run(run())
        assert writer.flush(SOON)
        assert 2 == len(store.kept)

    def test_many_loops_in_many_threads_wait_at_once(self, tmp_path: Path) -> None:
        async def run(writer: Writer) -> list[bool]:
            waits = (writer.submit(an_event()).wait_async(SOON) for _ in range(20))
            return await asyncio.gather(*waits)

        with opened(tmp_path / "llmcost.db") as real:
            writer = Writer(real, Config())
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(lambda _: asyncio.run(run(writer)), range(40)))
            assert writer.close(SOON)

            assert [[True] * 20] * 40 == found
            assert 800 == len(stored(real))

    def test_a_loop_that_was_closed_while_it_waited_holds_nobody_up(
        self, writer: Writer, store: FakeStore
    ) -> None:
        loop = asyncio.new_event_loop()
        step = asyncio.ensure_future(hold(store, writer).wait_async(SOON), loop=loop)
        loop.run_until_complete(asyncio.sleep(0))
        step.get_coro().close()  # type: ignore[union-attr]  # or it would warn, never awaited
        loop.close()
        after = writer.submit(an_event())
        store.gate.set()

        assert after.wait(SOON)
        assert writer.submit(an_event()).wait(SOON)
        step._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_a_loop_that_cannot_be_woken_holds_nobody_up(
        self, writer: Writer, store: FakeStore
    ) -> None:
        class Broken:
            def call_soon_threadsafe(self, *arguments: object) -> None:
                raise OSError("no more file descriptors")

        first = hold(store, writer)
        first._waiter = (Broken(), None)  # type: ignore[assignment]
        after = writer.submit(an_event())
        store.gate.set()

        assert after.wait(SOON)
        assert writer.submit(an_event()).wait(SOON)
        assert first.committed


class TestQueue:
    def test_a_full_queue_drops_counts_and_says_so(
        self,
        make_writer: Callable[..., Writer],
        store: FakeStore,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        writer = make_writer(queue_size=10, batch_size=4)
        hold(store, writer)
        kept = [an_event() for _ in range(9)]
        for event in kept:
            writer.submit(event)
        refused = [writer.submit(an_event()) for _ in range(5)]

        assert (10, 5) == (writer.waiting, writer.counts.dropped)
        assert not any(acknowledgement.wait(0) for acknowledgement in refused)
        said = [r.message for r in caplog.records if "dropped" in r.message]
        assert ["dropped 1 ", "dropped 2 ", "dropped 4 "] == [text[7:17] for text in said]
        assert "10 wait for the store already" in said[0]
        store.gate.set()
        assert writer.flush(SOON)
        assert kept == store.kept[1:]
        assert writer.submit(an_event()).wait(SOON)
        assert 5 == writer.counts.dropped

    def test_records_are_committed_in_the_order_they_came(
        self, make_writer: Callable[..., Writer], store: FakeStore
    ) -> None:
        writer = make_writer(batch_size=3)
        submitted: list[UsageEvent] = []
        lock = threading.Lock()

        def work(_: int) -> None:
            for _ in range(50):
                with lock:
                    event = an_event()
                    submitted.append(event)
                    writer.submit(event)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert writer.flush(SOON)
        assert submitted == store.kept


class TestFailingStore:
    def test_nothing_is_lost_while_the_store_fails_and_order_is_kept(
        self, writer: Writer, store: FakeStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        fail_with(store, StoreError("the disk is full"))
        events = [an_event() for _ in range(20)]
        acknowledgements = []
        for event in events:
            acknowledgements.append(writer.submit(event))
            assert store.failed.acquire(timeout=SOON)
        assert not any(acknowledgement.committed for acknowledgement in acknowledgements)
        assert (20, 0) == (writer.waiting, writer.counts.committed)
        assert writer.counts.failures >= 20
        assert "the disk is full" == writer.counts.last_error
        said = [record.message for record in caplog.records]
        assert len(said) <= writer.counts.failures.bit_length()
        assert "1 record(s) wait. the disk is full" in said[0]

        store.error = lambda records: None
        assert writer.flush(SOON)
        assert events == store.kept
        assert all(acknowledgement.committed for acknowledgement in acknowledgements)
        assert (20, 0, 0) == (
            writer.counts.committed,
            writer.counts.dropped,
            writer.counts.rejected,
        )

    def test_retries_pause_longer_and_longer_whatever_comes_in(
        self, writer: Writer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer_module, "RETRY_AFTER", (0.0, SOON))
        fail_with(store, StoreBusy("locked"))
        writer.submit(an_event())
        for _ in range(2):
            assert store.failed.acquire(timeout=SOON)
        for _ in range(100):
            writer.submit(an_event())

        assert not store.failed.acquire(timeout=0.05)
        assert 2 == store.tries
        store.error = lambda records: None
        assert writer.close(SOON)
        assert 101 == len(store.kept)

    def test_calls_return_after_ack_timeout_and_are_counted_late(
        self, store_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        meter = Meter(store_url, config=Config(ack_timeout=0.05))
        write = meter.store.write

        def refuse(records: Sequence[Record]) -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(meter.store, "write", refuse)
        started = time.monotonic()
        for _ in range(3):
            meter.record(provider="openai", model="m", cost="1")
        asyncio.run(meter.arecord(provider="openai", model="m", cost="1"))
        assert 4 * 0.05 <= time.monotonic() - started < SOON
        status = meter.status()
        assert (4, 4, 0) == (status.late, status.waiting, status.committed)
        assert "the disk is full" == status.last_error
        assert any("longer than ack_timeout (0.05 s)" in r.message for r in caplog.records)

        monkeypatch.setattr(meter.store, "write", write)
        assert meter.flush(SOON)
        status = meter.status()
        assert (4, 0, 4, 0) == (status.late, status.waiting, status.committed, status.dropped)
        meter.close()


class TestPoison:
    POISON = "poison"

    @pytest.fixture
    def poisoned(self, store: FakeStore) -> FakeStore:
        def error(records: Sequence[Record]) -> Exception | None:
            bad = any(getattr(record, "response_id", None) == self.POISON for record in records)
            return OverflowError("too large") if bad else None

        store.error = error
        return store

    @pytest.mark.parametrize("position", [0, 1, 41, 98, 99])
    def test_one_record_that_cannot_be_stored_does_not_hold_up_the_rest(
        self,
        writer: Writer,
        poisoned: FakeStore,
        position: int,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        first = hold(poisoned, writer)
        events = [an_event() for _ in range(100)]
        events[position] = an_event(response_id=self.POISON)
        acknowledgements = [writer.submit(event) for event in events]
        poisoned.gate.set()

        assert writer.flush(SOON)
        assert first.committed
        assert all(acknowledgement.wait(0) for acknowledgement in acknowledgements)
        assert [e for e in events if e.response_id != self.POISON] == poisoned.kept[1:]
        assert (100, 1) == (writer.counts.committed, writer.counts.rejected)
        assert 25 > poisoned.tries
        assert "too large" == writer.counts.last_error
        assert ["costmw cannot store a record and leaves it out"] == [
            record.message.partition(" (")[0] for record in caplog.records
        ]

    def test_many_of_them_are_left_out_and_said_now_and_then(
        self, writer: Writer, poisoned: FakeStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        hold(poisoned, writer)
        for n in range(200):
            writer.submit(an_event(n, response_id=self.POISON if n % 2 else None))
        poisoned.gate.set()

        assert writer.flush(SOON)
        assert list(range(0, 200, 2)) == [
            record.price.cost_pico_usd
            for record in poisoned.kept[1:]
            if isinstance(record, UsageEvent)
        ]
        assert (101, 100) == (writer.counts.committed, writer.counts.rejected)
        assert 7 == len(caplog.records)  # the 1st, 2nd, 4th ... 64th

    def test_what_is_committed_beside_a_poison_is_not_written_again_when_the_store_fails(
        self, writer: Writer, poisoned: FakeStore
    ) -> None:
        poison = poisoned.error
        failing = True

        def error(records: Sequence[Record]) -> Exception | None:
            full = failing and len(poisoned.kept) > 3
            return poison(records) or (StoreError("full") if full else None)

        hold(poisoned, writer)
        poisoned.error = error
        outcomes = [an_outcome() for _ in range(8)]
        acknowledgements = [writer.submit(outcome) for outcome in outcomes]
        bad = writer.submit(an_event(response_id=self.POISON))
        poisoned.gate.set()
        for _ in range(3):
            assert poisoned.failed.acquire(timeout=SOON)
        failing = False

        assert writer.flush(SOON)
        assert 8 == sum(record in outcomes for record in poisoned.kept)
        assert all(acknowledgement.committed for acknowledgement in acknowledgements)
        assert (9, 1) == (writer.counts.committed, writer.counts.rejected)
        assert bad.wait(0)

    def test_a_value_that_sqlite_cannot_take_is_left_out(self, tmp_path: Path) -> None:
        with opened(tmp_path / "llmcost.db") as real:
            writer = Writer(real, Config())
            poisons: list[Any] = [
                an_event(2**63),
                an_event(response_id="\ud800"),
                an_event(provider=object()),
                an_event(operation=None),
                an_event(latency_ms="fast"),
            ]
            good = [an_event(n, tags={"n": str(n)}) for n in range(40)]
            for n, event in enumerate(good):
                if n % 8 == 4:
                    writer.submit(poisons[n // 8])
                writer.submit(event)
            assert writer.close(SOON)

            assert good == stored(real)
            assert (40, 5, 5) == (
                writer.counts.committed,
                writer.counts.rejected,
                len(poisons),
            )


class TestClosing:
    def test_closing_commits_what_waits_and_releases_the_store(
        self, writer: Writer, store: FakeStore
    ) -> None:
        acknowledgements = [writer.submit(an_event()) for _ in range(1200)]
        thread = writer._thread
        assert thread is not None

        assert writer.close(SOON)
        assert 1200 == len(store.kept)
        assert all(acknowledgement.committed for acknowledgement in acknowledgements)
        assert 1 == store.closed
        assert not thread.is_alive()

    def test_a_closed_writer_works_again(self, writer: Writer, store: FakeStore) -> None:
        for n in range(5):
            assert writer.submit(an_event()).wait(SOON)
            assert writer.close(SOON)
            assert writer.close(SOON)
            assert n + 1 == len(store.kept)

    def test_closing_while_others_write_loses_nothing(
        self, writer: Writer, store: FakeStore
    ) -> None:
        stop = threading.Event()
        submitted: list[Record] = []
        counted: list[int] = []

        def work() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                record = an_outcome()
                submitted.append(record)
                assert writer.submit(record).wait(SOON)
            counted.append(n)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        closers = [threading.Thread(target=writer.close, args=(SOON,)) for _ in range(200)]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()
        stop.set()
        for thread in threads:
            thread.join()

        assert writer.flush(SOON)
        assert 4 == len(counted)
        assert sum(counted) == len(store.kept)
        assert sorted(map(id, submitted)) == sorted(map(id, store.kept))
        assert sum(counted) == writer.counts.committed

    def test_what_comes_while_closing_commits_is_not_taken_for_committed(
        self, writer: Writer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as exhausted:
            exhausted.setattr(threading.Thread, "start", refuse)
            early = [an_outcome() for _ in range(3)]
            for record in early:
                writer.submit(record)
        store.gate.clear()
        closing = ThreadPoolExecutor(1).submit(writer.close, SOON)
        assert store.entered.wait(SOON)
        late = an_outcome()
        acknowledgement = writer.submit(late)  # starts a thread, that finds work in hand
        assert writer._thread is not None
        writer._thread.join(0.05)
        store.gate.set()

        assert closing.result(SOON)
        assert acknowledgement.wait(SOON)
        assert [*early, late] == store.kept

    def test_closing_with_a_store_that_fails_is_bounded_and_keeps_what_waits(
        self, writer: Writer, store: FakeStore
    ) -> None:
        fail_with(store, StoreError("full"))
        event = an_event()
        writer.submit(event)
        assert store.failed.acquire(timeout=SOON)

        assert not writer.close(SOON)
        assert 1 == writer.waiting
        store.error = lambda records: None
        after = an_event()
        assert writer.submit(after).wait(SOON)
        assert [event, after] == store.kept

    def test_closing_with_a_store_that_hangs_is_bounded(
        self, writer: Writer, store: FakeStore
    ) -> None:
        hold(store, writer)
        closing = ThreadPoolExecutor(1).submit(writer.close, 0.05)

        assert closing.result(SOON / 2) is False
        assert (1, 0) == (writer.waiting, store.closed)
        store.gate.set()
        assert writer.flush(SOON)
        assert writer.submit(an_event()).wait(SOON)


class TestReentrancy:
    """Finalizers run anywhere, also in the middle of the writer's own code."""

    def test_a_finalizer_may_submit_while_this_thread_holds_the_lock(
        self, writer: Writer, store: FakeStore
    ) -> None:
        done = ThreadPoolExecutor(1)

        def nested() -> Acknowledgement:
            with writer._wanted:
                return writer.submit(an_event())

        assert done.submit(nested).result(SOON).wait(SOON)
        assert 1 == len(store.kept)

    def test_records_from_the_garbage_collector_are_committed(
        self, writer: Writer, store: FakeStore
    ) -> None:
        class Stream:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                submitted.append(writer.submit(an_event()))

        submitted: list[Acknowledgement] = []
        before = gc.get_threshold()
        gc.freeze()  # what other tests left is not looked at every time
        gc.set_threshold(1, 1, 1)
        try:

            def work() -> None:
                for _ in range(100):
                    Stream()
                    submitted.append(writer.submit(an_event()))

            threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
                assert not thread.is_alive(), "the writer's lock is held by its own thread"
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()
        gc.collect()
        assert writer.flush(SOON)
        assert 800 == len(submitted) == len(store.kept)

    def test_a_record_that_comes_as_the_thread_goes_to_sleep_is_not_forgotten(
        self, make_writer: Callable[..., Writer], store: FakeStore
    ) -> None:
        writer = make_writer()
        assert writer.submit(an_event()).wait(SOON)
        late: list[Acknowledgement] = []
        wait = writer._wanted.wait

        def wait_later(timeout: float | None = None) -> bool:
            if not late:  # a finalizer runs between the check and the wait
                late.append(writer.submit(an_event()))
            return wait(timeout)

        writer._wanted.wait = wait_later  # type: ignore[method-assign]
        assert writer.submit(an_event()).wait(SOON)
        deadline = time.monotonic() + SOON
        while not late:
            assert time.monotonic() < deadline
            time.sleep(0.001)

        assert late[0].wait(SOON)
        assert 3 == len(store.kept)


class TestThread:
    def test_records_wait_while_no_thread_can_be_started(
        self,
        writer: Writer,
        store: FakeStore,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as exhausted:
            exhausted.setattr(threading.Thread, "start", refuse)
            events = [an_event() for _ in range(3)]
            acknowledgements = [writer.submit(event) for event in events]
            assert not writer.flush(0.01)
        assert (3, 0) == (writer.waiting, len(store.kept))
        assert "can't start new thread" == writer.counts.last_error
        assert "can't start new thread" in caplog.records[0].message

        assert writer.flush(SOON)
        assert events == store.kept
        assert all(acknowledgement.committed for acknowledgement in acknowledgements)

    def test_closing_commits_even_without_a_thread(
        self, writer: Writer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            writer.submit(an_event())

        assert writer.close(1)
        assert 3 == len(store.kept)

    def test_a_thread_that_died_is_started_anew(self, writer: Writer, store: FakeStore) -> None:
        dead = threading.Thread(target=lambda: None)
        dead.start()
        dead.join()
        writer._thread = dead

        assert writer.submit(an_event()).wait(SOON)

    def test_a_writer_that_nobody_uses_can_go(self, store: FakeStore) -> None:
        writer = Writer(store, Config())  # type: ignore[arg-type]
        assert writer.submit(an_event()).wait(SOON)
        assert writer.close(SOON)
        gone = weakref.ref(writer)
        del writer
        gc.collect()

        assert gone() is None


def test_logging_is_quiet_when_all_is_well(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "costmw"):
        assert writer.submit(an_event()).wait(SOON)
        assert writer.close(SOON)
    assert [] == caplog.records


class TestKilled:
    """The short version of `python -m tests.faults kill powerloss`."""

    @pytest.mark.parametrize("kind", ["threads", "asyncio"])
    def test_three_kills_lose_nothing_that_was_acknowledged(self, kind: str) -> None:
        seed = int.from_bytes(os.urandom(4))
        print(f"seed {seed}")

        result = killed("kill", Variant(kind, "commit"), 3, seed)

        assert [] == result.violations, result
        assert (3, 0, "ok") == tuple(result.figures[n] for n in ("kills", "lost", "integrity"))

    def test_four_processes_on_one_file_lose_nothing_either(self) -> None:
        seed = int.from_bytes(os.urandom(4))
        print(f"seed {seed}")

        result = killed("kill", Variant("threads", "commit", processes=4), 4, seed)

        assert [] == result.violations, result
        assert (4, 0, 0) == tuple(result.figures[n] for n in ("kills", "lost", "rollups wrong"))

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems sync in other ways")
    def test_what_was_acknowledged_is_on_disk_when_the_power_goes(self) -> None:
        seed = int.from_bytes(os.urandom(4))
        print(f"seed {seed}")

        def cut(variant: Variant) -> Result:
            return killed("powerloss", variant, 2, seed, "--mirror", after_kill=lose_power)

        kept = cut(Variant("threads", "commit"))
        assert [] == kept.violations, kept
        assert 0 == kept.figures["lost"]
        control = cut(Variant("threads", "process", control=True))
        assert [] == control.violations, control
        assert 0 != control.figures["lost"]


class TestRollingUp:
    def test_what_others_left_behind_is_caught_up_with(self, tmp_path: Path) -> None:
        with opened(tmp_path / "l.db") as store:
            for _ in range(4):
                store.write([an_event(1) for _ in range(500)])
            writer = Writer(store, Config())
            assert writer.submit(an_event(1)).wait(SOON)
            until = time.monotonic() + SOON
            while rolled_up(store) < 2_001:
                assert time.monotonic() < until
                time.sleep(0.02)
            assert [] == store.verify()
            writer.close(SOON)

    def test_closing_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with opened(tmp_path / "l.db") as store:
            writer = Writer(store, Config())
            assert writer.submit(an_event(1)).wait(SOON)
            assert writer.close(SOON)
            assert 1 == rolled_up(store)

    def test_a_process_that_lives_for_one_call_rolls_it_up(self, tmp_path: Path) -> None:
        script = (
            "import sys\n"
            "from costmw import Meter\n"
            "meter = Meter(sys.argv[1])\n"
            "meter.record(model='gpt-5-mini', provider='openai', input_tokens=1, output_tokens=1)\n"
        )
        for calls in (1, 2):
            url = f"sqlite:///{tmp_path / 'l.db'}"
            subprocess.run([sys.executable, "-c", script, url], check=True, timeout=SOON)
            with opened(tmp_path / "l.db") as store:
                assert calls == rolled_up(store)


def rolled_up(store: SqliteStore) -> int:
    """How many events the rollups have."""
    with closing(sqlite3.connect(store.path)) as connection:
        return watermarks(connection)[0]
