"""What others do around the file: links, copies, long questions, clocks, and other programs."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from costmw import Config, Meter
from costmw.errors import StoreBusy, StoreError
from costmw.store import sqlite_open, turns
from costmw.store.sqlite import SqliteStore
from rows import an_event, opened, stored

SOON = 30.0
HOUR = 3_600_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmcost.db"


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Somebody else has the turn."""
    with Path(f"{path}.lock").open("rb+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def costs(store: SqliteStore) -> list[int | None]:
    return [event.price.cost_pico_usd for event in stored(store)]


class TestLinks:
    def test_a_symbolic_link_is_another_name_of_the_same_store(
        self, path: Path, tmp_path: Path
    ) -> None:
        link = tmp_path / "elsewhere" / "link.db"
        link.parent.mkdir()
        link.symlink_to(path)
        with opened(path) as store, opened(link) as linked:
            assert path == linked.path
            store.write([an_event(1)])
            linked.write([an_event(2)])
            assert [1, 2] == costs(store) == costs(linked)
            assert store.fingerprint_key() == linked.fingerprint_key()
        assert [link] == list(link.parent.iterdir())

    def test_a_hard_link_is_warned_of_once(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with opened(path):
            pass
        assert [] == caplog.records
        os.link(path, path.with_name("backup.db"))
        for _ in range(2):
            with opened(path):
                pass
        (record,) = caplog.records
        assert "has another name (a hard link)" in record.getMessage()


class TestKey:
    def test_it_is_the_owners_alone_whatever_the_umask(self, path: Path) -> None:
        before = os.umask(0)
        try:
            with opened(path) as store:
                store.fingerprint_key()
        finally:
            os.umask(before)
        assert 0o600 == stat.S_IMODE(Path(f"{path}.key").stat().st_mode)

    def test_it_is_never_written_to_a_file_that_somebody_else_has_made(self, path: Path) -> None:
        waiting = Path(f"{path}.key.new")
        waiting.touch(0o666)
        with waiting.open("rb") as theirs, opened(path) as store:
            assert 32 == len(store.fingerprint_key())
            assert b"" == theirs.read()

    def test_a_call_waits_for_it_no_longer_than_for_its_commit(self, path: Path) -> None:
        with opened(path):
            pass
        store = SqliteStore(f"sqlite:///{path}", Config(ack_timeout=0.1))
        began = time.monotonic()
        with taken(path), pytest.raises(StoreBusy):
            store.fingerprint_key()
        assert time.monotonic() - began < 2
        assert 32 == len(store.fingerprint_key())
        store.close()


class TestOtherPrograms:
    def test_a_vacuum_by_somebody_else_changes_nothing(self, path: Path) -> None:
        with opened(path) as store:
            store.write([an_event(n, tags={"n": str(n % 7)}) for n in range(500)])
            store.roll_up(200)
            with closing(sqlite3.connect(path, isolation_level=None)) as shell:
                shell.execute("VACUUM")
            store.write([an_event(500, tags={"n": "1"})])
            while store.roll_up(200):
                pass
            assert list(range(501)) == costs(store)
            assert [] == store.verify()

    def test_a_shell_that_reads_for_long_does_not_hold_up_who_writes(self, path: Path) -> None:
        with opened(path) as store:
            store.write([an_event(1)])
            with closing(sqlite3.connect(path, isolation_level=None)) as shell:
                shell.execute("BEGIN")
                assert (1,) == shell.execute("SELECT count(*) FROM usage_events").fetchone()
                store.write([an_event(2)])
                assert (1,) == shell.execute("SELECT count(*) FROM usage_events").fetchone()
            assert [1, 2] == costs(store)

    def test_the_log_shrinks_again_after_a_long_question(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = 256 * 1024
        monkeypatch.setattr(sqlite_open, "LOG_KEPT", kept)
        monkeypatch.setattr(sqlite_open, "PAGES_IN_LOG", kept // 4096)
        log = Path(f"{path}-wal")
        with opened(path) as store:
            store.write([an_event(0)])
            with store.snapshot():
                for _ in range(30):
                    store.write([an_event(n) for n in range(1000)])
                assert log.stat().st_size > 16 * kept
            store.write([an_event(1)])  # takes the log in
            store.write([an_event(2)])  # begins it anew
            assert log.stat().st_size <= kept

    def test_a_directory_that_is_away_for_a_while(self, path: Path, tmp_path: Path) -> None:
        home = tmp_path / "data"
        home.mkdir()
        with opened(home / "llmcost.db") as store:
            store.write([an_event(1)])
            home.rename(tmp_path / "away")
            with pytest.raises(StoreError, match=r"cannot make .*llmcost\.db\.lock"):
                store.write([an_event(2)])
            (tmp_path / "away").rename(home)
            store.write([an_event(2)])
            assert [1, 2] == costs(store)


class TestFull:
    """A disk that is full is no reason for an app not to start, or to refuse a request."""

    def test_a_full_disk_passes(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with opened(path) as store:
            store.write([an_event(1)])
            connection = store._connected()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(StoreBusy, match="the disk is full; free some space"):
                store.write([an_event(n, response_id="x" * 200) for n in range(500)])
            connection.execute("PRAGMA max_page_count = 1000000")
            store.write([an_event(2)])
            assert [1, 2] == costs(store)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_an_app_starts_on_one(
        self,
        path: Path,
        number: int,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        meter = Meter(f"sqlite:///{path}")
        with monkeypatch.context() as patched:
            patched.setattr(turns.os, "open", full)
            meter.start()
        assert os.strerror(number) in caplog.text
        meter.record(provider="openai", model="m", cost="1")
        assert meter.flush(SOON)
        meter.close()


class TestClocks:
    def test_a_file_that_is_removed_after_the_clock_was_set_back(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.time_ns
        with opened(path) as store:
            store.write([an_event(1)])
            monkeypatch.setattr(time, "time_ns", lambda: now() - HOUR)
            for file in path.parent.glob("llmcost.db*"):
                file.unlink()
            store.write([an_event(2)])
            deadline = time.monotonic() + SOON
            while (thread := store._rescuer._thread) is not None and thread.is_alive():
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert [1, 2] == costs(store)


class TestEnds:
    def test_a_call_at_the_very_end_of_the_interpreter_is_kept(self, path: Path) -> None:
        """Hooks run in the opposite order: this one after the writer's own."""
        code = (
            "import atexit, sys\n"
            "atexit.register(lambda: record(2))\n"
            "from costmw import Meter\n"
            "meter = Meter(sys.argv[1])\n"
            "def record(n): meter.record(provider='openai', model='m', cost=n)\n"
            "record(1)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, f"sqlite:///{path}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (0, "") == (ran.returncode, ran.stderr)
        with opened(path) as store:
            assert [10**12, 2 * 10**12] == costs(store)

    def test_threads_that_ask_when_the_store_is_closed_go_on(self, path: Path) -> None:
        failed: list[Exception] = []

        def ask(store: SqliteStore, stop: threading.Event) -> None:
            while not stop.is_set():
                try:
                    stored(store)
                except Exception as error:
                    failed.append(error)

        with opened(path) as store:
            stop = threading.Event()
            threads = [threading.Thread(target=ask, args=(store, stop)) for _ in range(3)]
            for thread in threads:
                thread.start()
            for n in range(20):
                store.write([an_event(n)])
                store.close()
            stop.set()
            for thread in threads:
                thread.join(SOON)
            assert [] == failed
            assert list(range(20)) == costs(store)
