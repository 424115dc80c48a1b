"""Forks: no child hangs, nothing acknowledged is lost, nothing is committed twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import events_of, outcomes_of
from costmw import Config, Meter
from costmw.errors import StoreError
from costmw.events import Outcome
from costmw.store import sqlite as sqlite_module
from costmw.store import writer as writer_module
from costmw.store.fork_gate import ForkGate
from costmw.store.sqlite import SqliteStore
from faults.fork import forked
from rows import an_event, an_outcome, stored

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

SOON = 30.0


def in_child(work: Callable[[], object]) -> str:
    """Fork, do some work in the child; gives "ok", its traceback, or "hangs"."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = "ok"
        try:
            os.close(read)
            work()
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(write, said.encode()[-4096:])
            os._exit(0)
    os.close(write)
    deadline = time.monotonic() + SOON
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(read)
            return "hangs"
        time.sleep(0.002)
    with os.fdopen(read) as pipe:
        return pipe.read()


def record(meter: Meter, **tags: object) -> None:
    meter.record(provider="openai", model="m", cost="0.01", tags=tags)
    assert meter.status().late == 0


def test_fifty_forks_under_load(tmp_path: Path) -> None:
    """Six threads write, two ask, and the fifty children record as well."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")

    result = forked(tmp_path, 50, seed)

    assert [] == result.violations, result
    assert (0, 0, 0) == tuple(result.figures[name] for name in ("hangs", "deaths", "lost"))


def test_parent_and_child_both_go_on(meter: Meter) -> None:
    for n in range(5):
        record(meter, who="parent")

        assert "ok" == in_child(lambda: record(meter, who="child"))
        record(meter, who="parent")
        assert 3 * (n + 1) == len(events_of(meter))
    assert ["parent", "child", "parent"] * 5 == [e.tags["who"] for e in events_of(meter)]


def test_children_of_children_go_on(meter: Meter) -> None:
    def child() -> None:
        record(meter)
        assert "ok" == in_child(lambda: record(meter))
        record(meter)

    record(meter)
    assert "ok" == in_child(child)
    assert 4 == len(events_of(meter))


def test_a_meter_made_before_the_fork_and_first_used_after_it(meter: Meter) -> None:
    """As under `gunicorn --preload`: the parent never records."""
    for _ in range(3):
        assert "ok" == in_child(lambda: record(meter))
    assert 3 == len(events_of(meter))


def test_what_waits_in_the_parent_is_committed_by_the_parent_once(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def child() -> None:
        status = meter.status()
        assert (0, 0, 0) == (status.waiting, status.committed, status.store_failures)
        assert meter.flush(SOON)
        record(meter, who="child")
        meter.close()

    writer = meter._writer
    with monkeypatch.context() as exhausted:
        exhausted.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            writer.submit(an_outcome(at=an_event_now()))
            writer.submit(an_event(tags={"who": "parent"}))
    assert "ok" == in_child(child)
    assert 10 == meter.status().waiting

    assert ["child"] + ["parent"] * 5 == [event.tags["who"] for event in events_of(meter)]
    assert {"error": 5} == outcomes_of(meter)


def an_event_now() -> object:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_multiprocessing_children_record(meter: Meter) -> None:
    record(meter, who="parent")
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=record, args=(meter,), kwargs={"who": "child"}) for _ in range(8)
    ]
    for child in children:
        child.start()
    record(meter, who="parent")
    for child in children:
        child.join(SOON)

    assert [0] * 8 == [child.exitcode for child in children]
    assert ["child"] * 8 + ["parent"] * 2 == sorted(e.tags["who"] for e in events_of(meter))


def test_a_process_pool_records(meter: Meter) -> None:
    record(meter)
    with multiprocessing.get_context("fork").Pool(4, _meter_of_pool, (meter,)) as pool:
        assert [True] * 40 == pool.map(_record_in_pool, range(40), chunksize=1)
        pool.close()
        pool.join()
    assert 41 == len(events_of(meter))


def test_what_waits_when_the_process_of_a_pool_ends_is_committed(
    make_meter: Callable[..., Meter],
) -> None:
    """Such a process runs no hooks of `atexit`."""
    meter = make_meter(config=Config(durability="async"))
    context = multiprocessing.get_context("fork")
    with context.Pool(2, _meter_of_pool, (meter,), maxtasksperchild=5) as pool:
        pool.map(_record_and_go_on, range(20), chunksize=1)
        pool.close()
        pool.join()
    alone = context.Process(target=record, args=(meter,))
    alone.start()
    alone.join(SOON)
    assert 21 == len(events_of(meter))


def _record_and_go_on(n: int) -> None:
    record(_pool_meter, n=n)


def _meter_of_pool(meter: Meter) -> None:
    global _pool_meter
    _pool_meter = meter


def _record_in_pool(n: int) -> bool:
    record(_pool_meter, n=n)
    return _pool_meter.flush(SOON)


_pool_meter: Meter


def test_a_fork_in_the_middle_of_a_report(meter: Meter) -> None:
    record(meter)
    with meter.reports.at_one_moment() as reports:
        before = reports.by("model").total.sums.calls
        assert "ok" == in_child(lambda: record(meter))
        record(meter)
        assert (1, 1) == (before, reports.by("model").total.sums.calls)
    assert 3 == meter.reports.by("model").total.sums.calls


def test_what_a_child_inherits_of_a_report_is_closed_in_it(meter: Meter) -> None:
    """SQLite would take the parent's locks for the child's own."""
    assert isinstance(meter.store, SqliteStore)
    store = meter.store
    record(meter)

    def child() -> None:
        assert set() == store._readers
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            snapshot.position()
        record(meter)

    with store.snapshot() as snapshot:
        assert 1 == len(store._readers)
        assert "ok" == in_child(child)
        assert 1 == snapshot.position()
    assert set() == store._readers


def test_a_report_that_the_forking_thread_drops_does_not_hold_up_the_fork(meter: Meter) -> None:
    assert isinstance(meter.store, SqliteStore)
    store = meter.store
    record(meter)
    snapshots = [store.snapshot()]
    snapshots[0].__enter__()
    done = threading.Event()

    def fork() -> None:
        store.before_fork()
        snapshots.clear()
        store.after_fork_in_parent()
        done.set()

    threading.Thread(target=fork, daemon=True).start()
    assert done.wait(SOON)
    assert set() == store._readers


def test_a_question_that_takes_too_long_is_broken_off_for_a_fork(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "FORK_PATIENCE", 0.01)
    record(meter)
    started = threading.Event()
    said: list[str] = []

    def ask() -> None:
        try:
            with meter.store.snapshot() as snapshot:
                snapshot._connection.create_function("started", 0, started.set)  # type: ignore[attr-defined]
                snapshot._rows(  # type: ignore[attr-defined]
                    "WITH RECURSIVE n (i) AS (SELECT started() UNION ALL SELECT 1 FROM n) "
                    "SELECT count(*) FROM n"
                )
        except StoreError as error:
            said.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert started.wait(SOON)
    assert "ok" == in_child(lambda: record(meter))
    thread.join(SOON)

    assert not thread.is_alive()
    assert "the question was broken off" in said[0]
    assert 2 == meter.reports.by("model").total.sums.calls


def test_nobody_connects_between_coming_to_rest_and_the_fork(meter: Meter) -> None:
    assert isinstance(meter.store, SqliteStore)
    store = meter.store
    store.open()
    store.before_fork()
    try:
        late = threading.Thread(target=store.open, daemon=True)
        asking = threading.Thread(target=lambda: stored(store), daemon=True)
        for thread in (late, asking):
            thread.start()
        for thread in (late, asking):
            thread.join(0.05)
            assert thread.is_alive()
        assert not store._place.is_open()
        assert set() == store._readers
    finally:
        store.after_fork_in_parent()
    for thread in (late, asking):
        thread.join(SOON)
        assert not thread.is_alive()


def test_whoever_asks_is_inside_of_the_gate_with_every_statement(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that does not know of one leaves its connection locked in the child, for ever."""
    assert isinstance(meter.store, SqliteStore)
    store, outside = meter.store, []

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if not store._gate._inside:
                outside.append(sql)
            return super().execute(sql, *values)

    def connect(mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{store.path.as_uri()}?mode={mode}",
            uri=True,
            check_same_thread=False,
            isolation_level=None,
            factory=Watched,
        )

    record(meter, feature="f")
    event = events_of(meter)[0]
    monkeypatch.setattr(store, "_connect", connect)
    for opened in (store.snapshot, store.snapshot_as_it_is):
        with opened() as snapshot:
            snapshot.pruned_until()
            snapshot.known_ids([event.id])
            snapshot.events_between(event.created_at, event.created_at, scope={}, limit=1)
    meter.reports.overview()
    meter.reports.calls(5)
    meter.reports.call(event.id)
    store.health()
    store.verify()
    store.backup(store.path.with_name("copy.db"))

    assert [] == outside


def test_a_child_can_ask(meter: Meter) -> None:
    record(meter)
    assert 1 == meter.reports.by("model").total.sums.calls

    def child() -> None:
        record(meter)
        assert 2 == meter.reports.by("model").total.sums.calls

    assert "ok" == in_child(child)


def test_a_fork_waits_for_the_transaction_that_runs(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, gate, entered = meter.store.write, threading.Event(), threading.Event()

    def slow(records: list[Outcome]) -> None:
        entered.set()
        assert gate.wait(SOON)
        write(records)

    with monkeypatch.context() as slowed:
        slowed.setattr(meter.store, "write", slow)
        waiting = meter._writer.submit(an_event())
        assert entered.wait(SOON)
        forked: list[str] = []
        forking = threading.Thread(target=lambda: forked.append(in_child(lambda: None)))
        forking.start()
        forking.join(0.05)
        assert forking.is_alive()
        gate.set()
        forking.join(SOON)

    assert ["ok"] == forked
    assert waiting.wait(SOON)


def test_forks_from_several_threads_at_once(meter: Meter) -> None:
    record(meter)
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: said.append(in_child(lambda: record(meter))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SOON)

    assert ["ok"] * 8 == said
    assert 9 == len(events_of(meter))


def test_meters_that_come_and_go_while_others_fork(meter: Meter, tmp_path: Path) -> None:
    stop = threading.Event()

    def make() -> None:
        while not stop.is_set():
            Meter(f"sqlite:///{tmp_path}/other.db", config=Config())

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            assert "ok" == in_child(lambda: None)
    finally:
        stop.set()
        for thread in threads:
            thread.join(SOON)
    record(meter)
    assert "ok" == in_child(lambda: record(meter))
    assert 2 == len(events_of(meter))
    assert [] == writer_module._at_rest


def test_a_meter_that_is_made_while_another_thread_forks_waits_for_the_fork(
    store_url: str,
) -> None:
    """Or it would be let go after a fork that it was not brought to rest for."""
    made: list[Meter] = []
    writer_module._before_fork()
    try:
        making = threading.Thread(target=lambda: made.append(Meter(store_url)), daemon=True)
        making.start()
        making.join(0.05)
        assert [] == made
    finally:
        writer_module._after_fork_in_parent()
    making.join(SOON)
    assert 1 == len(made)


def test_a_gate_lets_nobody_in_while_it_is_shut() -> None:
    gate = ForkGate()
    entered = threading.Event()

    def enter() -> None:
        with gate.inside():
            entered.set()

    assert gate.shut(SOON)
    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    assert not entered.wait(0.05)
    gate.open()
    assert entered.wait(SOON)


def test_a_gate_forgets_in_a_child_who_was_inside_in_the_parent() -> None:
    gate = ForkGate()
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with gate.inside():
            entered.set()
            leave.wait(SOON)

    thread = threading.Thread(target=stay, daemon=True)
    thread.start()
    assert entered.wait(SOON)
    assert not gate.shut(0.01)
    gate.open(alone=True)
    assert gate.shut(0.01)
    gate.open()
    leave.set()
    thread.join(SOON)


def test_a_store_that_cannot_come_to_rest_does_not_stop_forks(meter: Meter) -> None:
    class Broken:
        def close(self) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    record(meter)
    for _ in range(2):
        assert isinstance(meter.store, SqliteStore)
        meter.store.close()
        meter.store._place._open = SimpleNamespace(connection=Broken())  # type: ignore[assignment]
        assert "ok" == in_child(lambda: record(meter))
    record(meter)
    assert 4 == len(events_of(meter))
    assert "disk I/O error" == meter.status().last_error


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_programs_that_the_app_starts_inherit_no_file_of_the_store(meter: Meter) -> None:
    record(meter)
    assert any("llmcost.db" in name for name in open_files())

    ran = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False
    )
    assert "llmcost.db" not in ran.stdout


def open_files() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found.append(str(path.readlink()))
    return found
