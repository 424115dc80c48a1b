"""The outbox: what is written while the database is away is there later, once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.errors import StoreError, StoreUnreachable
from costmw.events import Amendment, Record, Submission, UsageEvent, new_id
from costmw.store.base import Query
from costmw.store.outbox import OutboxStore
from costmw.store.outbox_file import OutboxFile, usual_path
from costmw.store.record_json import decode, encode
from costmw.store.sqlite import SqliteStore
from faults.outbox_simulator import played
from postgres_server import Server, postgres, running
from rows import NOON, an_event, an_outcome, stored
from test_store_contract import random_records

__all__ = ["postgres"]

ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


class Remote(SqliteStore):
    """A store that can be away, and that tells what reached it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}", Config())
        self.away = False
        self.tries = 0
        self.batches: list[Sequence[Record]] = []
        self.buried: list[Any] = []
        self.after_commit: Callable[[], None] = lambda: None

    def _reach(self) -> None:
        if self.away:
            raise StoreUnreachable("the database is away")

    def open(self) -> None:
        self._reach()
        super().open()

    def write(self, records: Sequence[Record], *, patience: float | None = None) -> None:
        self.tries += 1
        self._reach()
        super().write(records)
        self.batches.append(list(records))
        self.after_commit()

    def fingerprint_key(self) -> bytes:
        self._reach()
        return super().fingerprint_key()

    def bury(self, letter: Any) -> None:
        self._reach()
        self.buried.append(letter)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote.db")


@pytest.fixture
def store(remote: Remote, tmp_path: Path) -> Iterator[OutboxStore]:
    store = OutboxStore(remote, tmp_path / "outbox.db", Config())
    yield store
    store.close()


def drained(store: OutboxStore, timeout: float = 20.0) -> bool:
    """Wait until nothing waits any more."""
    deadline = time.monotonic() + timeout
    while store.waiting():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class TestRecordsAsJson:
    def test_every_record_comes_back_as_it_was(self) -> None:
        records = random_records(random.Random(1), 400, NOON)
        records.append(Submission(None, "x", NOON, {}, alias_of="y"))
        records.append(replace(an_outcome(), provider=None, model=None, id=new_id()))
        for record in records:
            assert record == decode(*encode(record))

    def test_odd_text_comes_back_too(self) -> None:
        odd = an_event(response_id="\0\ud800é\u2028", tags={"\ud83d": "\0"})
        assert odd == decode(*encode(odd))

    def test_what_is_no_record_is_refused(self) -> None:
        for kind, text in [
            ("event", "{}"),
            ("event", "nonsense"),
            ("event", "[]"),
            ("event", '{"id": 5}'),
            ("event", encode(an_event())[1].replace("latency", "colour")[:-1] + ', "colour": 1}'),
            ("budget", "{}"),
        ]:
            with pytest.raises(ValueError, match=r"\w"):
                decode(kind, text)
        with pytest.raises(TypeError, match="object is no value of a record"):
            encode(an_event(provider=object()))


class TestWhileTheDatabaseIsThere:
    def test_records_go_straight_to_it_and_no_file_is_made(
        self, store: OutboxStore, remote: Remote, tmp_path: Path
    ) -> None:
        store.open()
        event = an_event()
        store.write([event, an_outcome()])

        assert [event] == stored(remote)
        assert 0 == store.waiting()
        assert not list(tmp_path.glob("outbox*"))

    def test_a_record_that_is_refused_is_told_and_kept_with_the_reason(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        bad = an_event(latency_ms="fast")
        with pytest.raises(Exception, match="latency_ms"):
            store.write([an_event(), bad])
        assert [] == store.file.dead_letters()
        with pytest.raises(Exception, match="latency_ms"):
            store.write([bad])

        (letter,) = store.file.dead_letters()
        assert bad == decode(letter.kind, letter.record)
        assert "latency_ms" in letter.reason
        deadline = time.monotonic() + 10
        while not remote.buried and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [letter] == remote.buried
        store.file.dead_letters(untold=True)


class TestWhileTheDatabaseIsAway:
    def test_records_are_acknowledged_and_sent_later_in_their_order(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        events = [an_event(n) for n in range(1, 6)]
        asked = Submission("openai", "r1", datetime.now(UTC), {"tenant": "acme"})
        store.write(events[:2])
        store.write([asked, Amendment(event_id=events[0].id, reason="x", cost_pico_usd=10)])
        store.write([an_event(7, submitted_as="r1"), an_outcome(), *events[2:]])
        assert 9 == store.waiting()

        remote.away = False
        assert drained(store)
        found = stored(remote)
        assert [11, 2, 7, 3, 4, 5] == [event.price.cost_pico_usd for event in found]
        assert {"tenant": "acme"} == found[2].tags
        with remote.snapshot() as snapshot:
            assert [1] == [row.count for row in snapshot.outcomes(*ALL_TIME, scope={})]

    def test_one_write_tries_the_database_and_the_next_do_not(
        self, store: OutboxStore, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("costmw.store.outbox_drainer.RETRY_AFTER", (60.0,))
        remote.away = True
        for _ in range(20):
            store.write([an_event()])

        assert remote.tries <= 2  # the first write, and the drainer
        assert 20 == store.waiting()

    def test_nothing_overtakes_what_waits(self, store: OutboxStore, remote: Remote) -> None:
        remote.away = True
        store.write([an_event(0)])
        remote.away = False
        for n in range(1, 50):
            store.write([an_event(n)])
        assert drained(store)

        assert list(range(50)) == [event.price.cost_pico_usd for event in stored(remote)]

    def test_once_all_are_sent_records_go_straight_again(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        store.write([an_event()])
        remote.away = False
        assert drained(store)
        threads = [t for t in threading.enumerate() if t.name == "costmw-outbox"]
        for thread in threads:
            thread.join(10)
        event = an_event(99)
        store.write([event])

        assert [event] == remote.batches[-1]
        assert not any(t.is_alive() for t in threads)

    def test_what_waits_when_the_app_ends_is_sent_when_it_starts(
        self, store: OutboxStore, remote: Remote, tmp_path: Path
    ) -> None:
        remote.away = True
        events = [an_event(n) for n in range(3)]
        store.write(events)
        store.close()
        again = OutboxStore(remote, tmp_path / "outbox.db", Config())
        assert 3 == again.waiting()
        remote.away = False
        again.open()

        assert drained(again)
        assert events == stored(remote)
        again.close()

    def test_an_app_that_starts_meanwhile_is_not_kept_from_it(
        self, remote: Remote, tmp_path: Path
    ) -> None:
        remote.away = True
        store = OutboxStore(remote, tmp_path / "outbox.db", Config(ack_timeout=30))
        meter = Meter(store, config=Config(ack_timeout=30))
        meter.start()
        meter.record(provider="openai", model="gpt-5-mini", input_tokens=5, output_tokens=1)
        assert (1, 0) == (meter.status().committed, meter.status().late)
        remote.away = False

        assert drained(store)
        assert 1 == len(stored(remote))
        meter.close()

    def test_questions_are_told_that_it_is_away(self, postgres: Server, tmp_path: Path) -> None:
        from costmw.store.postgres import PostgresStore

        remote = PostgresStore("postgresql://me:s3cret@127.0.0.1:9/db", Config())
        store = OutboxStore(remote, tmp_path / "outbox.db", Config())
        with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1.*refused") as error:
            store.snapshot().__enter__()
        assert "s3cret" not in str(error.value) + repr(remote._address) + remote.url
        store.write([an_event()])
        assert 1 == store.waiting()
        store.close()

    def test_ids_of_keys_stay_the_same(self, store: OutboxStore, remote: Remote) -> None:
        key = store.fingerprint_key()
        remote.away = True

        assert key == store.fingerprint_key()

    def test_without_a_key_that_was_ever_known_there_is_none(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        with pytest.raises(StoreUnreachable):
            store.fingerprint_key()


class TestOnce:
    def test_what_is_sent_again_after_a_crash_is_there_once(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        events = [an_event(n) for n in range(4)]
        store.write(events)
        broken = iter([True, True])

        def crash() -> None:
            if next(broken, False):
                raise StoreError("the connection broke after the commit")

        remote.after_commit = crash
        remote.away = False
        assert drained(store)

        assert events == stored(remote)
        assert 3 == len(remote.batches)

    def test_outcomes_have_ids_before_they_are_sent_at_all(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        """Whether a commit that was not answered took place cannot be known."""
        broken = iter([True])

        def crash() -> None:
            if next(broken, False):
                raise StoreError("the connection broke after the commit")

        remote.after_commit = crash
        store.write([an_outcome()])
        assert drained(store)

        assert 2 == len(remote.batches)
        assert 1 == len({record.id for batch in remote.batches for record in batch})

    def test_one_process_of_a_host_drains(
        self, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("costmw.store.outbox_drainer.RETRY_AFTER", (0.01,))
        remote.away = True
        inside: list[int] = []
        most = 0

        def watch() -> None:
            nonlocal most
            inside.append(1)
            most = max(most, len(inside))
            time.sleep(0.01)
            inside.pop()

        stores = [OutboxStore(remote, tmp_path / "outbox.db", Config()) for _ in range(4)]
        for store in stores:
            for _ in range(5):
                store.write([an_event(1)])
        remote.after_commit = watch
        remote.away = False
        assert drained(stores[0])

        assert (1, 20) == (most, len(stored(remote)))
        for store in stores:
            store.close()


class TestCare:
    def test_the_database_is_cared_for(
        self, store: OutboxStore, remote: Remote, tmp_path: Path
    ) -> None:
        store.write([an_event(5), an_event(6, created_at=NOON + timedelta(days=3))])
        assert 2 == store.roll_up(10)
        with remote._transaction() as connection:
            connection.execute("DELETE FROM rollups")

        assert store.verify()
        assert 2 == store.rebuild()
        assert [] == store.verify()
        assert 1 == store.prune(NOON + timedelta(days=2))
        assert [6] == [event.price.cost_pico_usd for event in stored(remote)]
        store.backup(tmp_path / "copy.db")
        assert (tmp_path / "copy.db").exists()

    def test_who_is_forgotten_is_so_in_what_waits_too(
        self, store: OutboxStore, remote: Remote, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store._drainer, "start", lambda: None)
        sent, bob = an_event(1, tags={"user": "alice"}), an_event(4, tags={"user": "bob"})
        store.write([sent])
        remote.away = True
        waits = an_event(2, tags={"user": "alice", "n": "alice"})
        store.write([waits, bob, Amendment(event_id=sent.id, reason="alice")])
        store.file.bury(*encode(replace(waits, latency_ms="fast")), "why")  # type: ignore[arg-type]
        store.file.bury("event", "nonsense", "why")
        remote.away = False
        store.roll_up(10)

        assert 1 == store.forget("user", "alice")
        (changed, *_), letters = store.file.head(9), store.file.dead_letters()
        name = decode(changed.kind, changed.record).tags["user"]  # type: ignore[union-attr]
        assert name.startswith("(erased ")
        assert replace(waits, tags={"user": name, "n": "alice"}) == decode("event", changed.record)
        assert [3, 1] == [len(store.file.head(9)), letters[0].record.count("alice")]
        while store.waiting():
            store._drainer.send_some()
        assert [name, name, "bob"] == [event.tags["user"] for event in stored(remote)]

    def test_nothing_is_made_of_an_outbox_that_is_not_there(
        self, store: OutboxStore, tmp_path: Path
    ) -> None:
        store.write([an_event(1, tags={"user": "alice"})])
        assert 1 == store.forget("user", "alice", substitute="x")

        assert not list(tmp_path.glob("outbox*"))


class TestPoison:
    def test_a_record_that_is_refused_becomes_a_dead_letter_and_the_rest_is_sent(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        records: list[UsageEvent] = [an_event(n) for n in range(50)]
        for n in (0, 17, 49):
            records[n] = replace(records[n], latency_ms="fast")  # type: ignore[arg-type]
        store.write(records)
        remote.away = False
        assert drained(store)

        good = [event for event in records if event.latency_ms is None]
        assert good == stored(remote)
        letters = store.file.dead_letters()
        bad = [event for event in records if event.latency_ms is not None]
        assert bad == [decode(letter.kind, letter.record) for letter in letters]
        assert all("latency_ms" in letter.reason for letter in letters)
        store.close()
        assert letters == remote.buried

    def test_a_record_of_another_version_becomes_a_dead_letter(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        event = an_event()
        store.write([an_event(), event])
        with store.file._transaction() as connection:
            connection.execute("UPDATE outbox SET kind = 'invoice' WHERE seq = 1")
        remote.away = False
        assert drained(store)

        assert [event] == stored(remote)
        assert ["invoice"] == [letter.kind for letter in store.file.dead_letters()]
        assert "invoice" in store.file.dead_letters()[0].reason

    def test_a_record_that_cannot_even_wait_is_told_from_a_store_that_is_away(
        self, store: OutboxStore, remote: Remote
    ) -> None:
        remote.away = True
        with pytest.raises(TypeError):
            store.write([an_event(provider=object())])
        assert 0 == store.waiting()


def test_random_schedules_with_faults_anywhere_lose_nothing() -> None:
    """More of them are run by `python -m tests.faults outbox_simulator`."""
    first = int.from_bytes(os.urandom(4))
    print(f"seeds from {first}")
    counts, failed = played(range(first, first + 100))

    assert [] == failed
    assert 100 == counts["schedules"]
    assert min(counts["crashed"], counts["failed"], counts["drain"]) > 20


class TestFile:
    def test_it_is_readable_by_its_owner_alone(self, store: OutboxStore, remote: Remote) -> None:
        remote.away = True
        store.write([an_event()])

        for path in store.file.path.parent.glob("outbox.db*"):
            assert path.name.endswith(".lock") or 0 == path.stat().st_mode & 0o077, path

    def test_where_it_is_when_nobody_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        one, other = usual_path("postgresql://a/x"), usual_path("postgresql://b/x")
        assert tmp_path / "state" / "costmw" == one.parent == other.parent
        assert one != other
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", "/proc/nowhere")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert tmp_path == usual_path("postgresql://a/x").parent.parent

    def test_a_file_that_cannot_be_made_is_named(self, remote: Remote) -> None:
        store = OutboxStore(remote, Path("/proc/outbox.db"), Config())
        store.open()
        store.write([an_event()])
        assert 1 == len(stored(remote))
        remote.away = True
        for use in (store.open, lambda: store.write([an_event()])):
            with pytest.raises(StoreError, match=r"/proc.*set COSTMW_OUTBOX"):
                use()
        store.close()

    def test_one_that_is_damaged_keeps_nobody_from_the_database(
        self, store: OutboxStore, remote: Remote, caplog: pytest.LogCaptureFixture
    ) -> None:
        store.file.path.write_bytes(b"no database at all" * 1000)
        store.open()
        store.write([an_event(1)])

        assert 1 == len(stored(remote))
        assert "what waits from before cannot be sent: cannot use the outbox" in caplog.text
        remote.away = True
        with pytest.raises(StoreError, match="cannot use the outbox"):
            store.write([an_event(2)])

    def test_many_processes_share_it(self, tmp_path: Path) -> None:
        path = tmp_path / "outbox.db"
        code = (
            "import sys\nfrom pathlib import Path\nfrom rows import an_event\n"
            "from costmw.store.outbox_file import OutboxFile\n"
            "file = OutboxFile(Path(sys.argv[1]), '')\n"
            "for _ in range(30):\n    file.append([an_event(), an_event()])\n"
        )
        workers = [
            subprocess.Popen([sys.executable, "-c", code, path], cwd=Path(__file__).parent)
            for _ in range(4)
        ]
        assert [0] * 4 == [worker.wait(60) for worker in workers]
        file = OutboxFile(path, "")
        assert 4 * 60 == file.count()
        file.close()

    def test_the_environment_says_where(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COSTMW_OUTBOX", "/data/outbox.db")
        meter = Meter("postgresql://user:s3cret@host/db")

        assert isinstance(meter.store, OutboxStore)
        assert Path("/data/outbox.db") == meter.store.file.path
        assert "s3cret" not in meter.status().store


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
class TestFork:
    def test_parent_and_child_both_go_on(self, store: OutboxStore, remote: Remote) -> None:
        remote.away = True
        store.write([an_event(1)])
        store.before_fork()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.after_fork_in_child()
                store.write([an_event(2)])
                remote.away = False
                code = 0 if drained(store) else 2
            finally:
                os._exit(code)
        store.after_fork_in_parent()
        store.write([an_event(3)])
        remote.away = False
        assert drained(store)
        assert 0 == os.waitpid(pid, 0)[1]

        assert [1, 2, 3] == sorted(event.price.cost_pico_usd or 0 for event in stored(remote))


WORKER = """
import sys, time
from pathlib import Path
from costmw import Config
from costmw.events import Amendment
from costmw.store.layers import open_store
from rows import an_event, an_outcome

url, outbox, told, first, seconds = sys.argv[1:]
store = open_store(url, Config(outbox=outbox))
journal = open(told, "a")
stop = time.monotonic() + float(seconds)
n = 0
while time.monotonic() < stop:
    event = an_event(1, tags={"worker": first})
    amendment = Amendment(event_id=event.id, reason="x", cost_pico_usd=1)
    store.write([event, amendment, an_outcome(tags={"tenant": first})])
    journal.write(f"{event.id}\\n")
    journal.flush()
    n += 1
    time.sleep(0.01)
print(n, flush=True)
store.close()
"""


class TestWithPostgres:
    def start(self, url: str, tmp_path: Path, first: int, seconds: float) -> Any:
        arguments = [url, tmp_path / "outbox.db", tmp_path / f"told{first}", str(first), seconds]
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, arguments)],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            text=True,
        )

    def check(self, url: str, tmp_path: Path) -> None:
        """Nothing that was acknowledged is lost, nothing is there twice, and sums agree."""
        from costmw.store.layers import open_store

        store = open_store(url, Config(outbox=tmp_path / "outbox.db"))
        assert isinstance(store, OutboxStore)
        store.open()
        assert drained(store, 30)
        assert [] == store.file.dead_letters()
        found = stored(store)  # type: ignore[arg-type]
        ids = [str(event.id) for event in found]
        told = [
            line
            for path in tmp_path.glob("told*")
            for line in path.read_text().splitlines()
            if len(line) == 36
        ]
        assert told
        assert not set(told) - set(ids)
        assert len(ids) == len(set(ids))
        assert {2} == {event.price.cost_pico_usd for event in found}
        with store.snapshot() as snapshot:
            sums = snapshot.totals(Query(*ALL_TIME)).groups[()]
            outcomes = sum(row.count for row in snapshot.outcomes(*ALL_TIME, scope={}))
        assert (len(ids), 2 * len(ids), len(ids)) == (sums.calls, sums.cost_pico_usd, outcomes)
        store.close()

    def test_a_server_that_crashes_under_load_loses_nothing(self, tmp_path: Path) -> None:
        with running() as server:
            url = server.url("crash")
            workers = [self.start(url, tmp_path, n, 6.0) for n in range(2)]
            time.sleep(2.0)
            server.kill()
            time.sleep(1.5)
            server.start()
            written = [int(worker.communicate(timeout=60)[0]) for worker in workers]
            assert all(count > 100 for count in written), written
            self.check(url, tmp_path)

    def test_drainers_that_are_killed_send_nothing_twice(
        self, postgres: Server, tmp_path: Path
    ) -> None:
        url = postgres.url()
        rng = random.Random(7)
        self.start(url, tmp_path, 0, 0.5).communicate(timeout=60)
        file = OutboxFile(tmp_path / "outbox.db", "")
        for first in range(4):
            events = [an_event(1, tags={"worker": str(n)}) for n in range(300)]
            for event in events:
                amendment = Amendment(event_id=event.id, reason="x", cost_pico_usd=1)
                file.append([event, amendment, replace(an_outcome(), id=new_id())])
            (tmp_path / f"told{100 + first}").write_text(
                "".join(f"{event.id}\n" for event in events)
            )
            worker = self.start(url, tmp_path, first + 1, 30)
            time.sleep(0.5 + rng.random())
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
        file.close()
        self.check(url, tmp_path)

    def test_a_server_that_hangs_keeps_nobody_waiting_for_long(
        self, postgres: Server, tmp_path: Path
    ) -> None:
        from costmw.store.layers import open_store

        url = postgres.url()
        store = open_store(url, Config(outbox=tmp_path / "outbox.db"))
        assert isinstance(store, OutboxStore)
        store.write([an_event(1)])
        backend = store.remote._connection.info.backend_pid  # type: ignore[attr-defined]
        os.kill(backend, signal.SIGSTOP)
        try:
            began = time.monotonic()
            store.write([an_event(2)])
            assert 0.5 < time.monotonic() - began < 5
            began = time.monotonic()
            store.write([an_event(3)])
            assert time.monotonic() - began < 0.5
        finally:
            os.kill(backend, signal.SIGCONT)
        assert drained(store)
        assert [1, 2, 3] == [e.price.cost_pico_usd for e in stored(store)]  # type: ignore[arg-type]
        store.close()

    def test_a_poison_record_is_in_the_database_with_its_reason(
        self, postgres: Server, tmp_path: Path
    ) -> None:
        from costmw.store.layers import open_store

        store = open_store(postgres.url(), Config(outbox=tmp_path / "outbox.db"))
        assert isinstance(store, OutboxStore)
        store.open()
        bad = an_event(response_id="\ud800", tags={"tenant": "acme"})
        store.file.append([an_event(1), bad, an_event(2)])
        store.open()
        assert drained(store)
        deadline = time.monotonic() + 10
        while store.file.dead_letters(untold=True) and time.monotonic() < deadline:
            time.sleep(0.01)
        with store.remote._readers.one() as connection:  # type: ignore[attr-defined]
            ((kind, record, reason),) = connection.execute(
                "SELECT kind, record, reason FROM dead_letters"
            ).fetchall()

        assert bad == decode(kind, record)
        assert "UnicodeEncodeError" in reason
        assert [1, 2] == [e.price.cost_pico_usd for e in stored(store)]  # type: ignore[arg-type]
        store.close()
