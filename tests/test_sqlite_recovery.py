"""Files that are damaged, removed or replaced under a store: what is kept, and what is said."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Budget, Config, Meter
from costmw.caps.rules import Rule
from costmw.errors import StoreError
from costmw.events import Amendment, Submission, UsageEvent
from costmw.store import mounts, sqlite_place, sqlite_recovery
from costmw.store.base import Query, Totals
from costmw.store.migrations import migrations
from costmw.store.sqlite import SqliteStore
from costmw.store.sqlite_aside import finish_setting_aside, set_aside
from costmw.store.sqlite_log import read_log
from costmw.store.sqlite_pages import Pages
from costmw.store.sqlite_shapes import MADE_ANEW, SHAPES, table_of
from rows import NOON, a_reservation, an_event, an_outcome, opened, stored

SOON = 30.0
PAGE = 4096
ROWS_OF_A_PAGE = 75
ALL_TIME = Query(datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmcost.db"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def has_settled(store: SqliteStore) -> bool:
    """Whether nothing is being brought over any more."""
    thread = store._rescuer._thread
    return thread is None or not thread.is_alive()


def aside(path: Path, why: str = "damaged") -> Path:
    """The one file that was set aside."""
    (found,) = (p for p in path.parent.glob(f"{path.name}.{why}-*Z*") if p.name[-4] != "-")
    return found


def some_events(count: int, **changes: Any) -> list[UsageEvent]:
    return [
        an_event(
            n,
            tags={"tenant": f"t{n % 7}", "n": str(n)},
            created_at=NOON + timedelta(minutes=n),
            **changes,
        )
        for n in range(count)
    ]


def overwrite(path: Path, page: int, content: bytes | None = None) -> None:
    """Put something else in the place of a page, numbered from 1."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(content or random.Random(page).randbytes(PAGE))


def pages_of(path: Path, name: str) -> list[int]:
    """The pages of a table or index: its root, then the others."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            page
            for (page,) in connection.execute(
                "SELECT pageno FROM dbstat WHERE name = ? ORDER BY path", (name,)
            )
        ]


def said(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def verified(store: SqliteStore) -> None:
    """Rolled up, and proven."""
    while store.roll_up(100):
        pass
    assert [] == store.verify()
    connection = store._connected()
    assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    assert [] == connection.execute("PRAGMA foreign_key_check").fetchall()


def total(store: SqliteStore) -> Totals:
    with store.snapshot() as snapshot:
        return snapshot.totals(ALL_TIME).groups[()]


class TestPages:
    """Rows read page by page are what SQLite reads."""

    def filled(self, path: Path) -> Path:
        events = [
            an_event(
                rng.choice([None, 0, 1, 127, -1, 2**15, -(2**31), 2**47, 2**62]),
                tags={"k" * rng.randint(1, 60): "v" * rng.randint(0, 250) for _ in range(9)},
                reason="r" * rng.choice([0, 5, 300, 5_000, 20_000]),
                latency_ms=rng.choice([None, 0, 1, 255, 2**23, 2**31]),
                response_id="\N{SNOWMAN}" * rng.randint(0, 40),
            )
            for rng in map(random.Random, range(400))
        ]
        with opened(path) as store:
            store.write(events)
            store.write([Amendment(event_id=event.id, reason="x", at=NOON) for event in events])
            store.write([an_outcome(tags={"tenant": str(n)}) for n in range(300)])
            store.write([Submission("openai", f"b{n}", NOON, {"n": "1"}) for n in range(300)])
            caps = [Budget(f"cap {n}", limit="1", action="block") for n in range(300)]
            store.declare([Rule.of(budget) for budget in caps])
            held = [a_reservation({"tenant": str(n)}, n) for n in range(300)]
            store.write(held)
            store.write([replace(held[n].event, reason="no price") for n in range(200)])
            while store.roll_up(100):
                pass
            wal = Path(f"{path}-wal")
            assert wal.stat().st_size
            # Some of it in the log only, and more than one version of a page.
            copy = path.with_name("copy.db")
            shutil.copyfile(path, copy)
            shutil.copyfile(wal, f"{copy}-wal")
        return copy

    def test_every_row_of_every_table_is_found_as_it_is(self, path: Path) -> None:
        copy = self.filled(path)
        found: dict[str, list[Any]] = {name: [] for name in SHAPES}
        with Pages(copy) as pages:
            for number in range(1, pages.count + 1):
                for row in pages.rows(number):
                    rowid = () if row.rowid is None or row.values[0] is not None else (row.rowid,)
                    if table := table_of(row):
                        found[table].append((*rowid, *row.values[len(rowid) :]))
            assert 0 == pages.damaged
        with closing(sqlite3.connect(copy)) as connection:
            for table, rows in found.items():
                wanted = connection.execute(f"SELECT * FROM {table}").fetchall()
                assert wanted
                assert sorted(map(repr, wanted)) == sorted(map(repr, rows)), table

    def test_every_table_is_brought_over_or_follows_from_others(self, path: Path) -> None:
        with opened(path) as store:
            tables = {
                name
                for (name,) in store._connected().execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
            }
        assert tables - {migrations().migrations_table} == {*SHAPES, *MADE_ANEW}

    def test_a_log_is_read_up_to_its_last_whole_commit(self, tmp_path: Path) -> None:
        log = tmp_path / "x.db-wal"
        with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (n)")
            connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
            content = log.read_bytes()
        frames = (len(content) - 32) // (PAGE + 24)
        for cut in (0, 10, 32, 40, len(content) - 1, len(content)):
            log.write_bytes(content[:cut])
            with log.open("rb") as file:
                found = read_log(file)
            last = max(found.pages.values(), default=0)
            assert (cut == len(content)) == (last == 32 + 24 + (frames - 1) * (PAGE + 24))
        # A frame that is damaged does not hide the commits after it.
        broken = bytearray(content)
        broken[32 + 24 + 2 * (PAGE + 24) + 100] ^= 1
        log.write_bytes(broken)
        with log.open("rb") as file:
            assert max(read_log(file).pages.values()) > 32 + 24 + 3 * (PAGE + 24)


class TestDamaged:
    """A damaged file is set aside, loudly, and what can be read comes over."""

    def reopened(self, path: Path) -> Iterator[SqliteStore]:
        store = SqliteStore(f"sqlite:///{path}", Config())
        try:
            store.open()
            wait_until(lambda: has_settled(store))
            yield store
        finally:
            store.close()

    @pytest.mark.parametrize("name", ["usage_events", "sqlite_autoindex_usage_events_1"])
    @pytest.mark.parametrize("which", ["root", "leaf"])
    def test_at_the_start(
        self, path: Path, name: str, which: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        events = some_events(1_500)
        with opened(path, time_zone="Asia/Tokyo") as store:
            store.write(events)
            while store.roll_up(100):
                pass
            key = store.fingerprint_key()
        pages = pages_of(path, name)
        overwrite(path, pages[0] if which == "root" else pages[len(pages) // 2])
        damaged = path.read_bytes()

        for store in self.reopened(path):
            kept = stored(store)
            lost = len(events) - len(kept)
            assert 0 <= lost <= (ROWS_OF_A_PAGE if (name, which) == ("usage_events", "leaf") else 0)
            ids = {event.id for event in kept}
            assert [event for event in events if event.id in ids] == kept
            assert "Asia/Tokyo" == store.time_zone.key
            assert key == store.fingerprint_key()
            store.write([an_event(1)])
            assert len(kept) + 1 == total(store).calls
            verified(store)
        assert damaged == aside(path).read_bytes()
        assert f"{path} IS DAMAGED" in said(caplog)
        assert f"set aside as {aside(path).name}" in said(caplog)
        assert f"{len(kept)} events" in said(caplog)

    @pytest.mark.parametrize("content", [bytes(PAGE), b"\xff" * PAGE, None])
    def test_without_its_first_page(self, path: Path, content: bytes | None) -> None:
        events = some_events(300)
        with opened(path, time_zone="Asia/Tokyo") as store:
            store.write(events)
        overwrite(path, 1, content)

        for store in self.reopened(path):
            assert events == stored(store)
            assert "Asia/Tokyo" == store.time_zone.key
            verified(store)

    def test_while_it_is_in_use(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        events = some_events(600)
        meter = Meter(f"sqlite:///{path}", config=Config(ack_timeout=SOON))
        store = meter.store
        assert isinstance(store, SqliteStore)
        store.write(events)
        while store.roll_up(100):
            pass
        connection = store._connected()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for page in pages_of(path, "usage_events")[:1]:
            overwrite(path, page)
        connection.execute("PRAGMA shrink_memory")

        for n in range(5):
            meter.record(provider="openai", model="m", cost="0.5", tags={"after": n})
        wait_until(lambda: has_settled(store))
        assert {*(event.id for event in events)} < {event.id for event in stored(store)}
        assert 605 == total(store).calls
        assert 0 == meter.status().rejected
        assert "IS DAMAGED" in said(caplog)
        verified(store)
        meter.close()

    def test_what_a_question_finds_is_heeded_by_the_next_commit(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = some_events(2_000)
        with opened(path) as store:
            store.write(events)
            store.close()
            overwrite(path, pages_of(path, "usage_events")[20])
            with pytest.raises(StoreError, match="damaged"):
                stored(store)
            store.write([an_event(1)])
            wait_until(lambda: has_settled(store))
            assert len(events) - ROWS_OF_A_PAGE < len(stored(store)) <= len(events)
            assert aside(path).exists()
            verified(store)

    def test_what_happens_once_sets_nothing_aside(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(path) as store:
            store.write(some_events(10))

            def fail(*_: object) -> None:
                error = sqlite3.DatabaseError("database disk image is malformed")
                error.sqlite_errorname = "SQLITE_CORRUPT"
                raise error

            for n in range(2):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(store._inserter, "insert", fail)
                    with pytest.raises(StoreError, match="damaged"):
                        store.write([an_event(1)])
                store.write([an_event(1)])
                assert 11 + n == len(stored(store))
            assert "seems to be damaged" in said(caplog)
            assert [] == list(path.parent.glob("*.damaged-*"))

    def test_what_is_only_in_the_log_comes_over_too(self, path: Path) -> None:
        events = some_events(50)
        store = SqliteStore(f"sqlite:///{path}", Config())
        store.write(events[:25])
        store._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.write(events[25:])
        copies = [(file, file.read_bytes()) for file in path.parent.iterdir()]
        store.close()
        for file, content in copies:
            file.write_bytes(content)
        overwrite(path, 1)

        for store in self.reopened(path):
            assert events == stored(store)

    def test_everything_else_comes_over(self, path: Path) -> None:
        old = NOON - timedelta(days=30)
        with opened(path) as store:
            store.write([an_event(n, created_at=old, tags={"tenant": "acme"}) for n in range(9)])
            while store.roll_up(100):
                pass
            assert 9 == store.prune(NOON - timedelta(days=10))
            before = total(store)
            unpriced = an_event(None, tags={"user": "ann"})
            store.write([an_outcome(tags={"tenant": "acme"})] * 3)
            store.write(
                [
                    unpriced,
                    Amendment(
                        event_id=unpriced.id, reason="repriced", unpriced=-1, cost_pico_usd=70
                    ),
                    Submission("openai", "batch_1", NOON, {"user": "bob"}),
                ]
            )
            wanted = total(store)
            assert 9 == before.calls
        overwrite(path, 1)

        for store in self.reopened(path):
            assert wanted == total(store)
            assert [] != store._connected().execute("SELECT 1 FROM rollups").fetchall()
            with store.snapshot() as snapshot:
                query = Query(ALL_TIME.start, ALL_TIME.stop, group_by=("tag:tenant",))
                assert 9 == snapshot.totals(query).groups[("acme",)].calls
                (outcome,) = snapshot.outcomes(ALL_TIME.start, ALL_TIME.stop, scope={})
                assert 3 == outcome.count
            late = an_event(5, submitted_as="batch_1")
            store.write([late])
            found = {event.id: event for event in stored(store)}
            assert {"user": "bob"} == found[late.id].tags
            assert (70, 1) == (
                found[unpriced.id].price.cost_pico_usd,
                found[unpriced.id].amendments,
            )
            verified(store)
            assert 10 == total(store).calls - 1

    def test_events_whose_tags_or_price_are_lost_keep_their_cost_and_say_so(
        self, path: Path
    ) -> None:
        with opened(path) as store:
            store.write(some_events(5))
        for table in ("tag_sets", "prices", "call_kinds"):
            for page in pages_of(path, table):
                overwrite(path, page)

        for store in self.reopened(path):
            kept = stored(store)
            assert list(range(5)) == [event.price.cost_pico_usd for event in kept]
            for event in kept:
                assert {} == event.tags
                assert (None, "unknown", "none") == (
                    event.provider,
                    event.operation,
                    event.price.source,
                )
                for lost in ("model and provider", "price", "tags"):
                    assert f"its {lost} could not be recovered" in (event.reason or "")
            verified(store)

    def test_new_rows_stand_behind_those_that_come_over(self, path: Path) -> None:
        events = some_events(40)
        with opened(path) as store:
            store.write(events)
        overwrite(path, 1)
        store = SqliteStore(f"sqlite:///{path}", Config())
        new = an_event(1)
        store.write([new])
        wait_until(lambda: has_settled(store))

        assert [*events, new] == stored(store)
        store.close()

    def test_a_file_is_set_aside_twice(self, path: Path) -> None:
        """The second time before the first one is recovered."""
        events = some_events(100)
        with opened(path) as store:
            store.write(events)
        overwrite(path, 1)
        set_aside(path, "x", None, None)
        overwrite(path, 1)

        for store in self.reopened(path):
            assert events == stored(store)
            verified(store)

    @pytest.mark.parametrize("step", range(1, 8))
    def test_a_crash_while_it_is_set_aside_loses_nothing(
        self, path: Path, step: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = some_events(30)
        store = SqliteStore(f"sqlite:///{path}", Config())
        store.write(events)
        copies = [
            (file, file.read_bytes()) for file in path.parent.iterdir() if file.name[-4:] != "lock"
        ]
        store.close()
        for file, content in copies:
            file.write_bytes(content)
        overwrite(path, 1)
        renamed = 0
        rename = Path.rename

        def crash(self: Path, target: Path) -> Path:
            nonlocal renamed
            renamed += 1
            if renamed == step:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crash)
            for n in range(3):
                try:
                    set_aside(path, "x", None, None) if n == 0 else finish_setting_aside(path)
                except KeyboardInterrupt:
                    continue

        for store in self.reopened(path):
            assert events == stored(store)

    def test_a_crash_while_rows_come_over_is_made_good(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = some_events(500)
        with opened(path) as store:
            store.write(events)
            store.write([an_outcome()] * 5)
        overwrite(path, 1)
        code = """
import os, sys
from costmw import Config
from costmw.store import sqlite_recovery
from costmw.store.sqlite import SqliteStore
sqlite_recovery.ROWS_AT_ONCE = 20
left = int(sys.argv[2])
put = sqlite_recovery.Recovery.put
def dying(self, connection):
    global left
    left -= 1
    done = put(self, connection)
    if not left:
        os._exit(9)
    return done
sqlite_recovery.Recovery.put = dying
store = SqliteStore(sys.argv[1], Config())
store.open()
store._rescuer._thread.join()
"""
        for slices in (2, 5, 9, 7):
            arguments = [sys.executable, "-c", code, f"sqlite:///{path}", str(slices)]
            assert 9 == subprocess.run(arguments, timeout=60).returncode

        for store in self.reopened(path):
            assert events == stored(store)
            with store.snapshot() as snapshot:
                (outcome,) = snapshot.outcomes(ALL_TIME.start, ALL_TIME.stop, scope={})
            assert 5 == outcome.count
            verified(store)

    def test_nothing_is_pruned_or_rebuilt_before_all_rows_are_there(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(path) as store:
            store.write(some_events(10))
        overwrite(path, 1)
        monkeypatch.setattr(sqlite_place.Rescuer, "start", lambda self: None)
        with opened(path) as store:
            store.write([an_event(1)])
            assert 0 == store.roll_up(100)
            assert [] == store.verify()
            for refused in (lambda: store.prune(NOON), store.rebuild):
                with pytest.raises(StoreError, match="are being brought over"):
                    refused()
        monkeypatch.undo()
        for store in self.reopened(path):
            assert 11 == total(store).calls
            assert 11 == store.rebuild()
            verified(store)

    def test_a_file_that_was_set_aside_and_is_gone_holds_nothing_up(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(path) as store:
            store.write(some_events(10))
        overwrite(path, 1)
        set_aside(path, "x", None, None).unlink()

        for store in self.reopened(path):
            store.write([an_event(1)])
            assert 1 == store.roll_up(100) or 1 == total(store).calls
            verified(store)
        assert "is gone" in said(caplog)

    def test_several_processes_agree(self, path: Path) -> None:
        code = """
import sys, time
sys.path.insert(0, sys.argv[2])
from rows import an_event
from costmw import Budget, Config, Meter
from costmw.caps.rules import Rule
meter = Meter(sys.argv[1], config=Config(ack_timeout=30))
meter.record(provider="openai", model="m", cost="1", tags={"n": "first"})
print("ready", flush=True)
sys.stdin.readline()
for n in range(100):
    meter.record(provider="openai", model="m", cost="1", tags={"n": n})
meter.close()
print(meter.status().rejected, meter.status().dropped)
"""
        with opened(path) as store:
            store.write(some_events(1_000))
            workers = [
                subprocess.Popen(
                    [sys.executable, "-c", code, f"sqlite:///{path}", str(Path(__file__).parent)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for _ in range(3)
            ]
            try:
                for worker in workers:
                    assert worker.stdout is not None
                    assert "ready\n" == worker.stdout.readline()
                store._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
                overwrite(path, pages_of(path, "usage_events")[0])
                assert ["0 0\n"] * 3 == [w.communicate("go\n", timeout=60)[0] for w in workers]
            finally:
                for worker in workers:
                    worker.kill()
                    worker.communicate()
            store.write([an_event(1)])
            wait_until(lambda: has_settled(store))
            wait_until(lambda: 1_304 == total(store).calls)
            verified(store)
        assert aside(path)


class TestGone:
    """A file that is not at its path any more."""

    def test_removed_with_all_that_is_beside_it(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        events = some_events(300)
        with opened(path, time_zone="Asia/Tokyo") as store:
            key = store.fingerprint_key()
            store.write([*events, an_outcome(), an_outcome()])
            for file in path.parent.glob("llmcost.db*"):
                file.unlink()
            store.write([an_event(7), an_outcome()])
            wait_until(lambda: has_settled(store))

            assert [*range(300), 7] == [event.price.cost_pico_usd for event in stored(store)]
            with store.snapshot() as snapshot:
                (outcome,) = snapshot.outcomes(ALL_TIME.start, ALL_TIME.stop, scope={})
            assert 3 == outcome.count
            assert key == store.fingerprint_key()
            assert "Asia/Tokyo" == store.time_zone.key
            verified(store)
        assert "WAS REMOVED" in said(caplog)
        assert [] == list(path.parent.glob("*.removed-*"))
        with opened(path) as store:
            assert 301 == len(stored(store))

    def test_removed_between_a_commit_and_its_acknowledgement(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(path) as store:
            store.write([an_event(1), an_outcome()])
            insert = store._inserter.insert
            removed = []

            def insert_and_remove(*arguments: Any) -> None:
                insert(*arguments)
                if not removed:
                    removed.append(path.unlink())

            monkeypatch.setattr(store._inserter, "insert", insert_and_remove)
            store.write([an_event(2), an_outcome()])
            # It was committed to a file that nobody will see, and is in the new one now.
            with closing(sqlite3.connect(path)) as connection:
                assert 2 in [
                    c for (c,) in connection.execute("SELECT cost_pico_usd FROM usage_events")
                ]
            wait_until(lambda: has_settled(store))
            assert {1, 2} == {event.price.cost_pico_usd for event in stored(store)}
            with store.snapshot() as snapshot:
                (outcome,) = snapshot.outcomes(ALL_TIME.start, ALL_TIME.stop, scope={})
            assert 2 == outcome.count
            verified(store)

    def test_replaced_between_a_commit_and_its_acknowledgement(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with opened(tmp_path / "backup.db") as backup:
            backup.write([an_event(1)])
        with opened(path) as store:
            store.write([an_event(2)])
            insert = store._inserter.insert
            replaced = []

            def insert_and_replace(*arguments: Any) -> None:
                insert(*arguments)
                if not replaced:
                    replaced.append((tmp_path / "backup.db").rename(path))

            monkeypatch.setattr(store._inserter, "insert", insert_and_replace)
            store.write([an_event(3), an_outcome()])
            assert [1, 3] == [event.price.cost_pico_usd for event in stored(store)]
            with store.snapshot() as snapshot:
                assert 1 == len(snapshot.outcomes(ALL_TIME.start, ALL_TIME.stop, scope={}))

    def test_removed_and_made_anew_by_another_process(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(path) as store:
            store.write(some_events(20))
            for file in path.parent.glob("llmcost.db*"):
                file.unlink()
            with opened(path) as other:
                other.write([an_event(100)])
                store.write([an_event(101)])
                wait_until(lambda: has_settled(store))
                assert {*range(20), 100, 101} == {
                    event.price.cost_pico_usd for event in stored(other)
                }
                verified(other)

    def test_moved_away(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        kept = path.with_name("2025.db")
        with opened(path) as store:
            store.write([an_event(1)])
            for ending in ("", "-wal", "-shm"):
                Path(f"{path}{ending}").rename(f"{kept}{ending}")
            store.write([an_event(2)])
            assert [2] == [event.price.cost_pico_usd for event in stored(store)]
        assert "WAS MOVED AWAY" in said(caplog)
        with opened(kept) as store:
            assert [1] == [event.price.cost_pico_usd for event in stored(store)]

    def test_replaced_by_a_backup(
        self, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(tmp_path / "backup.db", time_zone="Asia/Tokyo") as backup:
            backup.write([an_event(1, tags={"tenant": "acme"})])
        with opened(path) as store:
            store.write([an_event(2, tags={"tenant": "other"})])
            (tmp_path / "backup.db").rename(path)
            for file in path.parent.glob("llmcost.db-*"):
                file.unlink()
            store.write([an_event(3, tags={"tenant": "acme"})])
            assert [1, 3] == [event.price.cost_pico_usd for event in stored(store)]
            assert "Asia/Tokyo" == store.time_zone.key
            verified(store)
        assert "WAS REPLACED" in said(caplog)

    def test_replaced_by_something_else(self, path: Path, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "diary.db")) as diary:
            diary.execute("CREATE TABLE pages (n)")
        content = (tmp_path / "diary.db").read_bytes()
        kept = tmp_path / "kept.db"
        with opened(path) as store:
            store.write([an_event(1)])
            path.rename(kept)
            (tmp_path / "diary.db").rename(path)
            with pytest.raises(StoreError, match="a database of something else"):
                store.write([an_event(2)])
            assert content == path.read_bytes()
            kept.rename(path)
            store.write([an_event(3)])
            assert [1, 3] == [event.price.cost_pico_usd for event in stored(store)]

    @pytest.mark.parametrize("ending", ["-wal", "-shm", "-*"])
    def test_its_log_removed(self, path: Path, ending: str) -> None:
        events = some_events(50)
        with opened(path) as store:
            store.write(events)
            for file in path.parent.glob(f"llmcost.db{ending}"):
                file.unlink()
            store.write([an_event(7)])
            assert [*range(50), 7] == [event.price.cost_pico_usd for event in stored(store)]
            verified(store)
        with opened(path) as store:
            assert 51 == len(stored(store))

    def test_its_log_replaced(self, path: Path) -> None:
        """Somebody removes the log and starts another process before the next commit."""
        events = some_events(50)
        code = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from rows import an_event, opened\nfrom pathlib import Path\n"
            "with opened(Path(sys.argv[1])) as store: store.write([an_event(100)]); "
            "input()\n"
        )
        with opened(path) as store:
            store.write(events[:25])
            store._connected().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            store.write(events[25:])
            for file in path.parent.glob("llmcost.db-*"):
                file.unlink()
            other = subprocess.Popen(
                [sys.executable, "-c", code, str(path), str(Path(__file__).parent)],
                stdin=subprocess.PIPE,
            )
            try:
                wait_until(
                    lambda: (
                        Path(f"{path}-wal").exists() and Path(f"{path}-wal").stat().st_size > 8_000
                    )
                )
                time.sleep(0.2)
                store.write([an_event(101)])
                wait_until(lambda: has_settled(store))
                assert {*range(50), 100, 101} == {
                    event.price.cost_pico_usd for event in stored(store)
                }
                verified(store)
            finally:
                other.communicate(b"\n", timeout=30)

    def test_the_lock_file_removed(self, path: Path) -> None:
        with opened(path) as store, opened(path) as other:
            store.write([an_event(1)])
            Path(f"{path}.lock").unlink()
            other.write([an_event(2)])
            with other._turns.mine():
                late = threading.Thread(target=store.write, args=([an_event(3)],))
                late.start()
                late.join(0.1)
                assert late.is_alive()
            late.join(SOON)
            assert [1, 2, 3] == [event.price.cost_pico_usd for event in stored(store)]


class TestCheckpoints:
    """Only who has the turn checkpoints, whatever version of SQLite this is."""

    def test_nobody_checkpoints_out_of_turn(self, path: Path) -> None:
        other = (
            "import sys; sys.path.insert(0, sys.argv[2])\n"
            "from rows import opened\nfrom pathlib import Path\n"
            "with opened(Path(sys.argv[1])) as store:\n"
            "    store.write([]); print('ready', flush=True); input()\n"
        )
        with opened(path) as store:
            process = subprocess.Popen(
                [sys.executable, "-c", other, str(path), str(Path(__file__).parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            process.stdout.readline()
            try:
                for n in range(40):  # far beyond the thousand pages of SQLite's own mind
                    store.write(some_events(200, response_id=str(n) * 500))
                store.write(some_events(20))
                before = path.read_bytes()
                log = Path(f"{path}-wal").stat().st_size
                with store._turns.mine():
                    with store.snapshot():
                        pass
                    stored(store)
                    store.verify()
                store.close()
                assert (before, log) == (path.read_bytes(), Path(f"{path}-wal").stat().st_size)
            finally:
                process.communicate(b"\n", timeout=30)


class TestNetwork:
    @pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
    def test_a_network_file_system_is_warned_of_once(
        self,
        path: Path,
        kind: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        table = path.with_name("mounts")
        table.write_text(f"/dev/sda / ext4 rw 0 0\nhost:/x {path.parent} {kind} rw 0 0\n")
        monkeypatch.setattr(mounts, "TABLE", table)
        for _ in range(2):
            with opened(path):
                pass
        (record,) = caplog.records
        assert logging.WARNING == record.levelno
        assert f"on a network file system ({kind})" in record.getMessage()

    @pytest.mark.parametrize("kind", ["ext4", "tmpfs", "overlay", "fuse.fuse-overlayfs"])
    def test_others_are_not(
        self,
        path: Path,
        kind: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        table = path.with_name("mounts")
        table.write_text(f"none {path.parent} {kind} rw 0 0\n")
        monkeypatch.setattr(mounts, "TABLE", table)
        with opened(path):
            assert [] == caplog.records


class TestIdsOfOthers:
    """What another process prunes or forgets is not what this one remembers."""

    def test_a_tag_set_that_another_process_dropped_is_made_anew(self, path: Path) -> None:
        acme, other = {"tenant": "acme"}, {"tenant": "other"}
        with opened(path) as one, opened(path) as two:
            one.write([an_event(1, tags=acme)])
            two.prune(NOON + timedelta(days=9))
            two.write([an_event(2, tags=other)])
            one.write([an_event(4, tags=acme)])
            query = Query(ALL_TIME.start, ALL_TIME.stop, group_by=("tag:tenant",))
            with one.snapshot() as snapshot:
                groups = snapshot.totals(query).groups
            assert {("acme",): 5, ("other",): 2} == {
                group: sums.cost_pico_usd for group, sums in groups.items()
            }
            verified(one)

    def test_a_tag_set_that_another_process_changed_is_not_used_for_new_calls(
        self, path: Path
    ) -> None:
        with opened(path) as one, opened(path) as two:
            one.write([an_event(1, tags={"user": "ann"})])
            assert 1 == two.forget("user", "ann", substitute="nobody")
            one.write([an_event(2, tags={"user": "ann"})])
            assert [{"user": "nobody"}, {"user": "ann"}] == [event.tags for event in stored(one)]
            verified(one)


def test_progress_is_told_in_words() -> None:
    progress = sqlite_recovery.Progress(events=3, damaged=2)
    assert "3 events, 0 amendments and 0 rows of other kinds; 2 places cannot be read" == (
        progress.said()
    )
    assert progress == sqlite_recovery.Progress(**json.loads('{"events": 3, "damaged": 2}'))
