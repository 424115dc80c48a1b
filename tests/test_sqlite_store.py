"""The SQLite store: opened safely, exact sums, tags that stay data, amendments everywhere."""

from __future__ import annotations

import json
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costmw import Config, Meter
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Amendment, Price, Submission, Usage, UsageEvent, new_id
from costmw.money import MAX_PICO
from costmw.store import sqlite as sqlite_module
from costmw.store.base import Query, Totals
from costmw.store.rollups import PAIRED_VALUES
from costmw.store.sqlite import SqliteStore, path_of
from rows import NOON, an_event, an_outcome, opened, stored

ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmcost.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with opened(path) as store:
        yield store


def totals(store: SqliteStore, *group_by: str, **options: Any) -> dict[Any, Totals]:
    """The answer from the rows, which has to be that of the rollups too."""
    query = Query(*ALL_TIME, group_by=group_by, **options)
    with store.snapshot() as snapshot:
        of_rows = snapshot.totals(query).groups
    while store.roll_up(3) == 3:
        pass
    with store.snapshot() as snapshot:
        assert of_rows == snapshot.totals(query).groups
    return of_rows


def view_of(path: Path) -> list[dict[str, Any]]:
    """The rows of `llm_usage_events`, as any tool would read them."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute("SELECT * FROM llm_usage_events")]
    finally:
        connection.close()


def run_processes(count: int, code: str, *arguments: str) -> list[str]:
    """Run a program in several processes that begin at one moment; gives what they print."""
    gate = (
        "import sys; print('ready', flush=True); sys.stdin.readline()\n"
        "from costmw import Config\nfrom costmw.store.sqlite import SqliteStore\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", gate + code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        return [worker.communicate("go\n", timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


class TestUrl:
    """Which URLs name a file, and what is said about the others."""

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///llmcost.db", "llmcost.db"),
            ("sqlite:///data/llmcost.db", "data/llmcost.db"),
            ("sqlite:////var/lib/llmcost.db", "/var/lib/llmcost.db"),
            ("sqlite:///my%20costs.db", "my costs.db"),
            ("sqlite:///caf%C3%A9.db", "café.db"),
        ],
    )
    def test_three_slashes_are_relative_and_four_absolute(self, url: str, path: str) -> None:
        assert Path(path) == path_of(url)

    @pytest.mark.parametrize(
        "url",
        [
            "mysql:///x",
            "llmcost.db",
            "/var/lib/llmcost.db",
            "sqlite:",
            "sqlite://",
            "sqlite:///",
            "sqlite:llmcost.db",
            "sqlite:/var/lib/llmcost.db",
            "sqlite://host/llmcost.db",
            "sqlite:///llmcost.db?mode=ro",
            "sqlite:///llm#cost.db",
            "sqlite:///:memory:",
            "sqlite:///a%00b.db",
            " sqlite:///llmcost.db",
        ],
    )
    def test_any_other_url_is_refused_with_one_that_works(self, url: str) -> None:
        with pytest.raises(ConfigError, match="store is .*sqlite:///") as error:
            Meter(url)
        assert url.partition(":")[0].strip() in str(error.value)

    def test_no_store_at_all_is_refused_with_one_that_works(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("COSTMW_STORE", raising=False)
        with pytest.raises(ConfigError, match="no store.*sqlite:///.*COSTMW_STORE"):
            Meter()

    def test_a_relative_file_stays_where_the_app_was_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        store = SqliteStore("sqlite:///llmcost.db", Config())
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.open()
        store.close()

        assert (tmp_path / "llmcost.db").is_file()
        assert [] == list((tmp_path / "elsewhere").iterdir())

    def test_a_file_with_odd_characters_in_its_name_is_that_file(self, tmp_path: Path) -> None:
        store = SqliteStore(f"sqlite:///{tmp_path}/a%3Fb%23c%25d%20%C3%A9.db", Config())
        store.open()
        store.write([an_event()])
        assert 1 == len(stored(store))
        store.close()

        assert (tmp_path / "a?b#c%d é.db").is_file()


class TestOpening:
    """What can be wrong with a file is one clear error at the start."""

    def refused(self, path: Path) -> str:
        with pytest.raises(StoreError) as error, opened(path):
            pass
        return str(error.value)

    def test_a_directory_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        said = self.refused(tmp_path / "none" / "llmcost.db")

        assert f"the directory {tmp_path}/none does not exist; make it" in said
        assert [] == list(tmp_path.iterdir())

    def test_a_directory_in_place_of_the_file_is_named(self, tmp_path: Path) -> None:
        said = self.refused(tmp_path)

        assert f"{tmp_path} is a directory; name a file" in said

    def test_a_place_where_nothing_can_be_made_is_named(self) -> None:
        said = self.refused(Path("/proc/llmcost.db"))

        assert "the directory /proc must be writable" in said

    @pytest.mark.parametrize("size", [40, 100_000])
    def test_a_file_that_is_no_database_is_left_as_it_was(self, path: Path, size: int) -> None:
        content = (b"Dear diary, " * size)[:size]
        path.write_bytes(content)

        assert "not an SQLite database; move it away or name another file" in self.refused(path)
        assert content == path.read_bytes()
        # SQLite itself leaves its empty log and index; nothing of costmw's is beside the file.
        assert [] == list(path.parent.glob("llmcost.db.*"))

    @pytest.mark.parametrize(
        "table", ["CREATE TABLE invoices (n)", "CREATE TABLE settings (key, value)"]
    )
    def test_a_database_of_something_else_is_left_as_it_was(self, path: Path, table: str) -> None:
        connection = sqlite3.connect(path)
        connection.execute(table)
        connection.close()
        content = path.read_bytes()

        said = self.refused(path)

        assert f"a database of something else (it has a table {table.split()[2]})" in said
        assert "give costmw a file of its own" in said
        assert content == path.read_bytes()
        assert [path] == list(path.parent.iterdir())

    def test_a_database_with_migrations_of_something_else_is_left_as_it_was(
        self, path: Path
    ) -> None:
        from sqlite_utils import Database
        from sqlite_utils.migrations import Migrations

        steps = Migrations("diary")

        @steps(name="pages")
        def pages(db: Database) -> None:
            db.execute("CREATE TABLE pages (n)")

        connection = sqlite3.connect(path)
        steps.apply(Database(connection))
        connection.close()
        content = path.read_bytes()

        assert "a database of something else" in self.refused(path)
        assert content == path.read_bytes()

    def test_a_damaged_file_that_was_never_ours_is_named_and_left_as_it_was(
        self, path: Path
    ) -> None:
        with opened(path) as store:
            store.write([an_event() for _ in range(50)])
        for file in path.parent.glob("llmcost.db.*"):
            file.unlink()
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 4096)
        content = path.read_bytes()

        assert "damaged; restore a backup or move it away" in self.refused(path)
        assert content == path.read_bytes()
        # SQLite itself leaves an empty log and its index; nothing of costmw's is there.
        assert [] == list(path.parent.glob("llmcost.db.*"))

    def test_an_empty_file_becomes_a_store(self, path: Path) -> None:
        path.touch()
        with opened(path) as store:
            store.write([an_event()])
            assert 1 == len(stored(store))

    def test_a_file_that_another_program_holds_is_busy(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT", 0.01)
        with opened(path) as store:
            other = sqlite3.connect(path, isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreBusy, match="locked by another process"):
                store.write([an_event()])
            other.execute("ROLLBACK")
            other.close()
            store.write([an_event()])
            assert 1 == len(stored(store))

    def test_opening_waits_for_a_lock_that_is_never_released_only_so_long(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import fcntl

        monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT", 0.05)
        with opened(path), Path(f"{path}.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreBusy, match="locked by another process"), opened(path):
                pass
        with opened(path):
            pass

    def test_nothing_is_made_before_the_store_is_opened(self, tmp_path: Path) -> None:
        store = SqliteStore(f"sqlite:///{tmp_path}/llmcost.db", Config())
        store.close()

        assert [] == list(tmp_path.iterdir())

    def test_a_store_that_was_not_opened_opens_at_the_first_write_or_question(
        self, path: Path, tmp_path: Path
    ) -> None:
        writing = SqliteStore(f"sqlite:///{path}", Config())
        writing.write([an_event()])
        writing.close()
        reading = SqliteStore(f"sqlite:///{path}", Config())

        assert 1 == len(stored(reading))
        reading.close()
        new = SqliteStore(f"sqlite:///{tmp_path}/new.db", Config())
        assert [] == stored(new)
        new.close()

    def test_commits_reach_the_disk_unless_traded_away(self, path: Path) -> None:
        for durability, synchronous in (("commit", 2), ("process", 1), ("async", 1)):
            with opened(path, durability=durability) as store:
                connection = store._connected()
                assert synchronous == connection.execute("PRAGMA synchronous").fetchone()[0]
                assert "wal" == connection.execute("PRAGMA journal_mode").fetchone()[0]


class TestMigrations:
    def test_ten_processes_open_a_new_file_at_one_moment(self, path: Path) -> None:
        code = """
from rows import an_event
store = SqliteStore(sys.argv[1], Config())
store.open()
store.write([an_event(tags={"tenant": "acme"})])
store.close()
print("done")
"""
        code = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + code

        said = run_processes(10, code, f"sqlite:///{path}")

        assert ["done\n"] * 10 == said
        with opened(path) as store:
            assert {("acme",): 10} == {
                group: sums.calls for group, sums in totals(store, "tag:tenant").items()
            }
            connection = store._connected()
            names = [row[0] for row in connection.execute("SELECT name FROM _sqlite_migrations")]
            assert ["alerts", "caps", "ledger", "tag_sets_by_index"] == sorted(names)
            assert 1 == connection.execute("SELECT count(*) FROM tag_sets").fetchone()[0]

    def test_a_migration_that_fails_leaves_nothing_behind(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from costmw.store import migrations

        with monkeypatch.context() as broken:
            broken.setattr(migrations, "SCHEMA", migrations.SCHEMA + "CREATE TABLE broken ();\n")
            with pytest.raises(StoreError, match="syntax error"), opened(path):
                pass
        connection = sqlite3.connect(path)
        assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'tags'").fetchone()
        connection.close()

        with opened(path) as store:
            store.write([an_event()])
            assert 1 == len(stored(store))

    def test_the_additions_of_a_newer_version_are_tolerated(self, path: Path) -> None:
        with opened(path) as store:
            store.write([an_event(1, tags={"tenant": "a"})])
        newer = sqlite3.connect(path)
        newer.executescript(
            """
            ALTER TABLE usage_events ADD COLUMN region TEXT;
            ALTER TABLE amendments ADD COLUMN author TEXT DEFAULT 'nobody';
            ALTER TABLE tag_sets ADD COLUMN first_seen INTEGER NOT NULL DEFAULT 0;
            CREATE TABLE newer (hour INTEGER, calls INTEGER);
            CREATE INDEX usage_events_by_region ON usage_events (region);
            INSERT INTO _sqlite_migrations (migration_set, name, applied_at)
            VALUES ('costmw', 'newer', '2030-01-01');
            """
        )
        newer.close()

        with opened(path) as store:
            event = an_event(2, tags={"tenant": "b"})
            store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=5)])
            assert [1, 7] == [e.price.cost_pico_usd for e in stored(store)]
            assert {("a",): 1, ("b",): 7} == {
                group: sums.cost_pico_usd for group, sums in totals(store, "tag:tenant").items()
            }


class TestSeveralProcesses:
    def test_a_process_that_ends_leaves_the_log_to_those_that_still_have_the_file(
        self, path: Path
    ) -> None:
        """Opening and closing a database's file by hand would give up the locks of this process.

        The last to close it removes its log: with the locks given up, another process thinks
        that it is the last while this one goes on writing to a log that is gone.
        """
        other = """
store = SqliteStore(sys.argv[1], Config())
with store.snapshot() as snapshot:
    print(len(snapshot.events(scope={}, limit=100)))
store.write([])
store.close()
"""
        url = f"sqlite:///{path}"
        with opened(path) as store:
            store.write([an_event()])
            with store.snapshot() as snapshot:
                store.close()
                store.write([an_event()])
                assert ["2\n"] == run_processes(1, other, url)
                assert Path(f"{path}-wal").exists()
                store.write([an_event()])
                assert ["3\n"] == run_processes(1, other, url)
                assert 1 == len(snapshot.events(scope={}, limit=100))
            store.write([an_event()])
        with opened(path) as store:
            assert 4 == len(stored(store))
            check = store._connected().execute("PRAGMA integrity_check").fetchone()
            assert ("ok",) == tuple(check)

    def test_processes_that_write_at_once_lose_nothing(self, path: Path) -> None:
        code = """
from rows import an_event
store = SqliteStore(sys.argv[1], Config())
for n in range(40):
    store.write([an_event(1, tags={"n": str(n)}) for _ in range(5)])
    if n % 10 == 9:
        store.close()
print("done")
store.close()
"""
        code = f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + code

        assert ["done\n"] * 4 == run_processes(4, code, f"sqlite:///{path}")
        with opened(path) as store:
            assert 4 * 40 * 5 == totals(store)[()].cost_pico_usd
            assert {(str(n),): 20 for n in range(40)} == {
                group: sums.calls for group, sums in totals(store, "tag:n").items()
            }


class TestTimeZone:
    def test_the_zone_that_a_store_is_made_with_stays(self, path: Path) -> None:
        with opened(path, time_zone="Europe/Berlin") as store:
            assert "Europe/Berlin" == store.time_zone.key
        with opened(path) as store:
            assert "Europe/Berlin" == store.time_zone.key
        with opened(path, time_zone="Europe/Berlin") as store:
            assert "Europe/Berlin" == store.time_zone.key

    def test_closing_does_not_change_the_zone(self, path: Path) -> None:
        with opened(path, time_zone="Asia/Tokyo"):
            pass
        store = SqliteStore(f"sqlite:///{path}", Config())
        store.open()
        store.close()

        assert "Asia/Tokyo" == store.time_zone.key


class TestFingerprintKey:
    def test_the_key_is_kept_beside_the_store_for_its_owner_alone(
        self, path: Path, store: SqliteStore
    ) -> None:
        key = store.fingerprint_key()

        assert 32 == len(key)
        assert key == store.fingerprint_key() == Path(f"{path}.key").read_bytes()
        assert 0o600 == stat.S_IMODE(Path(f"{path}.key").stat().st_mode)

    def test_ten_processes_that_ask_at_one_moment_get_one_key(self, path: Path) -> None:
        code = """
store = SqliteStore(sys.argv[1], Config())
print(store.fingerprint_key().hex())
store.close()
"""
        for n in range(2):
            said = run_processes(10, code, f"sqlite:///{path}{n}")
            assert 1 == len(set(said)), said
            assert 65 == len(said[0])

    def test_a_damaged_key_is_named(self, path: Path, store: SqliteStore) -> None:
        Path(f"{path}.key").write_bytes(b"short")
        with pytest.raises(StoreError, match=r"llmcost\.db\.key is damaged: remove it"):
            store.fingerprint_key()

    def test_a_key_that_cannot_be_read_is_named(self, path: Path, store: SqliteStore) -> None:
        Path(f"{path}.key").mkdir()
        with pytest.raises(StoreError, match=r"llmcost\.db\.key"):
            store.fingerprint_key()

    def test_a_file_that_is_not_ours_gets_no_key(self, path: Path) -> None:
        path.write_bytes(b"Dear diary")
        with pytest.raises(StoreError, match="not an SQLite database"):
            SqliteStore(f"sqlite:///{path}", Config()).fingerprint_key()
        assert [path] == list(path.parent.iterdir())

    def test_a_key_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        store = SqliteStore(f"sqlite:///{tmp_path}/none/llmcost.db", Config())
        with pytest.raises(StoreError, match=r"llmcost\.db"):
            store.fingerprint_key()


class TestEvents:
    def test_an_event_that_is_there_already_is_skipped(self, store: SqliteStore) -> None:
        event = an_event(5, tags={"tenant": "a"})
        store.write([event, event, an_event(6)])
        store.write([event])
        store.write([an_event(99, id=event.id, tags={"tenant": "b"})])

        assert [5, 6] == [e.price.cost_pico_usd for e in stored(store)]
        assert {("a",): 1, (None,): 1} == {
            group: sums.calls for group, sums in totals(store, "tag:tenant").items()
        }

    def test_an_amendment_that_is_there_already_is_skipped(self, store: SqliteStore) -> None:
        event = an_event(5)
        amendment = Amendment(event_id=event.id, reason="more", cost_pico_usd=3)
        store.write([event, amendment, amendment])
        store.write([amendment])

        assert 8 == totals(store)[()].cost_pico_usd

    @pytest.mark.parametrize(
        "record",
        [
            an_event(operation=None),
            an_event(id="no uuid"),
            an_event(created_at=datetime(2026, 1, 1)),
            an_event(2**63),
            an_event(latency_ms="fast"),
            an_event(provider=object()),
            an_event(response_id="\ud800"),
            an_event(tags={"a": None}),
            an_event(usage=Usage(detail={"a": object()})),  # type: ignore[dict-item]
            Amendment(event_id=new_id(), reason=None),  # type: ignore[arg-type]
            Amendment(event_id=new_id(), reason="x", input_tokens=None),  # type: ignore[arg-type]
            an_outcome(None),  # type: ignore[arg-type]
            Submission("openai", None, NOON, {}),  # type: ignore[arg-type]
        ],
        ids=lambda record: type(record).__name__,
    )
    def test_a_record_that_cannot_be_stored_is_told_from_a_store_that_cannot_be_written(
        self, store: SqliteStore, record: Any
    ) -> None:
        good = an_event()
        try:
            store.write([good, record])
        except Exception as error:
            refused = error
        assert not isinstance(refused, StoreError)
        assert [] == stored(store)

        store.write([good])
        assert [good] == stored(store)

    def test_a_transaction_that_fails_leaves_no_ids_behind(self, store: SqliteStore) -> None:
        event = an_event(tags={"tenant": "new"})
        with pytest.raises(OverflowError):
            store.write([event, an_event(2**63)])
        store.write([an_event(tags={"tenant": "other"})])
        store.write([event])

        assert {("other",): 1, ("new",): 1} == {
            group: sums.calls for group, sums in totals(store, "tag:tenant").items()
        }

    def test_tag_sets_and_prices_are_stored_once(self, store: SqliteStore) -> None:
        price = Price(1, "list", "ref", {"input_mtok": "1"})
        store.write([an_event(tags={"a": "1", "b": str(n % 2)}, price=price) for n in range(50)])
        store.close()
        store.write([an_event(tags={"b": "0", "a": "1"}, price=price)])
        connection = store._connected()

        assert 2 == connection.execute("SELECT count(*) FROM tag_sets").fetchone()[0]
        assert 1 == connection.execute("SELECT count(*) FROM prices").fetchone()[0]

    def test_more_tag_sets_than_are_remembered_are_still_right(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("costmw.store.sqlite_write.INTERNED_AT_MOST", 3)
        for _ in range(2):
            store.write([an_event(tags={"user": str(n)}) for n in range(10)])
            assert 3 >= len(store._inserter._ids)

        assert {(str(n),): 2 for n in range(10)} == {
            group: sums.calls for group, sums in totals(store, "tag:user").items()
        }


class TestTags:
    @given(
        st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4), max_size=8),
        st.text(max_size=8),
    )
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_text_is_a_tag(
        self, tmp_path: Path, tag_sets: list[dict[str, str]], key: str
    ) -> None:
        from collections import Counter

        key = next((k for tags in tag_sets for k in tags), key)
        with opened(tmp_path / f"{new_id()}.db", durability="async") as store:
            store.write([an_event(tags=tags) for tags in tag_sets])

            assert tag_sets == [event.tags for event in stored(store)]
            assert Counter(tags.get(key) for tags in tag_sets) == {
                group[0]: sums.calls for group, sums in totals(store, f"tag:{key}").items()
            }

    def test_tags_are_never_part_of_a_statement(self, store: SqliteStore) -> None:
        statements: list[str] = []
        key, value = "needle'\"key", "needle'\"value"
        store.write([an_event(tags={key: value})])
        with store.snapshot() as snapshot:
            original = snapshot._connection

            class Watched:
                def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
                    statements.append(sql)
                    return original.execute(sql, *rest)

            snapshot._connection = Watched()  # type: ignore[assignment]
            query = Query(
                *ALL_TIME, group_by=(f"tag:{key}",), scope={key: value}, where={key: value}
            )
            assert 1 == snapshot.totals(query).groups[value,].calls
            assert 1 == len(snapshot.events(scope={key: value}, limit=1))
            snapshot.tag_keys(scope={key: value})
            snapshot.outcomes(*ALL_TIME, scope={key: value})

        assert len(statements) >= 5
        assert not any("needle" in sql for sql in statements)


class TestSums:
    @given(st.lists(st.tuples(st.integers(0, MAX_PICO), st.integers(-MAX_PICO, MAX_PICO))))
    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_any_amounts_and_corrections_sum_exactly(
        self, tmp_path: Path, amounts: list[tuple[int, int]]
    ) -> None:
        with opened(tmp_path / f"{new_id()}.db", durability="async") as store:
            for cost, delta in amounts:
                event = an_event(cost)
                store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=delta)])

            assert sum(map(sum, amounts)) == totals(store)[()].cost_pico_usd
            assert [sum(pair) for pair in amounts] == [
                event.price.cost_pico_usd for event in stored(store)
            ]

    def test_new_rows_are_found_by_their_position(self, store: SqliteStore) -> None:
        """And not among all rows of the tag that is asked for."""
        asked: list[tuple[str, Sequence[Any]]] = []
        store.write([an_event(1, tags={"tenant": "acme"})])
        with store.snapshot() as snapshot:
            ask = snapshot._rows

            def remember(sql: str, values: Sequence[Any] = ()) -> Any:
                asked.append((sql, values))
                return ask(sql, values)

            snapshot._rows = remember  # type: ignore[method-assign, assignment]
            query = Query(*ALL_TIME, group_by=("model",), where={"tenant": "acme"})
            snapshot.totals(query)
            snapshot.durations(query)
            plans = [
                str([tuple(row) for row in ask(f"EXPLAIN QUERY PLAN {sql}", values)])
                for sql, values in asked
                if "e.seq > " in sql
            ]
        assert 2 <= len(plans)
        assert all("SEARCH e USING INTEGER PRIMARY KEY (rowid>?)" in plan for plan in plans)

    def test_a_key_of_many_values_is_still_summed(self, store: SqliteStore) -> None:
        """Beyond what is kept in pairs and by the hour, whether it is a model or a tag."""
        many = PAIRED_VALUES + 20
        for first in range(0, many, 40):
            store.write(
                [
                    an_event(n, request_model=f"m{n}", response_model=None, tags={"user": str(n)})
                    for n in range(first, min(first + 40, many))
                ]
            )
            store.roll_up(100)
        assert {(f"m{n}",): n for n in range(many)} == {
            group: sums.cost_pico_usd for group, sums in totals(store, "model").items()
        }
        assert many == len(totals(store, "tag:user"))
        assert many == len(totals(store, "model", "tag:user"))
        assert [] == store.verify()

    def test_many_buckets_are_within_the_limits_of_any_sqlite(self, store: SqliteStore) -> None:
        store.write([an_event(1), an_event(2, created_at=NOON + timedelta(days=900))])
        hours = tuple(NOON + timedelta(hours=n) for n in range(24 * 1000))
        with store.snapshot() as snapshot:
            snapshot._connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
            found = snapshot.totals(Query(NOON, hours[-1], buckets=hours)).groups

        assert {(0,): 1, (24 * 900,): 2} == {k: v.cost_pico_usd for k, v in found.items()}


class TestAmendments:
    """What is corrected later shows wherever money is told."""

    def amended(self, store: SqliteStore, event: UsageEvent, **changes: Any) -> UsageEvent:
        store.write([Amendment(event_id=event.id, reason="a correction", **changes)])
        with store.snapshot() as snapshot:
            found = snapshot.event(event.id, scope={})
        assert found is not None
        assert [found] == [e for e in stored(store) if e.id == event.id]
        return found

    def test_an_event_without_a_cost_gets_one(self, store: SqliteStore, path: Path) -> None:
        event = an_event(None, tags={"tenant": "acme"}, request_id=new_id())
        store.write([event, an_event(5, tags={"tenant": "acme"})])
        price = Price(70, "override", "override x", {"input_mtok": "0.7"})

        found = self.amended(store, event, price=price, cost_pico_usd=70, unpriced=-1)

        assert price == found.price
        assert "a correction" == found.reason
        sums = totals(store, "tag:tenant")["acme",]
        assert (2, 0, 75) == (sums.calls, sums.unpriced, sums.cost_pico_usd)
        assert 70 == sums.cost_in_requests_pico_usd
        assert {("override",): 70, ("list",): 5} == {
            group: sums.cost_pico_usd for group, sums in totals(store, "cost_source").items()
        }
        assert "0.000000000070" == view_of(path)[0]["cost_usd"]

    def test_a_cost_that_turns_out_unknown_is_taken_back(
        self, store: SqliteStore, path: Path
    ) -> None:
        event = an_event(None)
        store.write([event])
        self.amended(store, event, cost_pico_usd=70, unpriced=-1)
        found = self.amended(store, event, cost_pico_usd=-70, unpriced=1, price=Price(None, "none"))

        assert found.price.cost_pico_usd is None
        assert (1, 0) == (totals(store)[()].unpriced, totals(store)[()].cost_pico_usd)
        assert view_of(path)[0]["cost_usd"] is None

        priced = an_event(9)
        store.write([priced])
        assert self.amended(store, priced, cost_pico_usd=-9, unpriced=1).price.cost_pico_usd is None
        assert view_of(path)[1]["cost_usd"] is None
        assert 2 == totals(store)[()].unpriced

    def test_an_incomplete_event_becomes_exact(self, store: SqliteStore, path: Path) -> None:
        event = an_event(40, status="incomplete", usage=Usage(100, None), tags={"tenant": "acme"})
        store.write([event])

        found = self.amended(
            store,
            event,
            status="ok",
            cost_pico_usd=55,
            estimated_cost_pico_usd=-40,
            output_tokens=30,
            cache_read_input_tokens=7,
            reasoning_output_tokens=3,
        )

        assert ("ok", 55) == (found.status, found.price.cost_pico_usd)
        assert Usage(100, 30, 7, 0, 3) == found.usage
        sums = totals(store)[()]
        assert (55, 0, 0) == (sums.cost_pico_usd, sums.estimated_cost_pico_usd, sums.incomplete)
        assert (100, 30, 7, 3) == (
            sums.input_tokens,
            sums.output_tokens,
            sums.cache_read_input_tokens,
            sums.reasoning_output_tokens,
        )
        assert {("ok",): 55} == {k: v.cost_pico_usd for k, v in totals(store, "status").items()}
        row = view_of(path)[0]
        assert ("0.000000000055", 100, 30) == (
            row["cost_usd"],
            row["input_tokens"],
            row["output_tokens"],
        )

    def test_a_status_is_counted_once_however_often_it_is_amended(self, store: SqliteStore) -> None:
        settled, doubted, twice = (
            an_event(1, status=status, tags={"case": str(n)})
            for n, status in enumerate(("incomplete", "ok", "ok"))
        )
        store.write([settled, doubted, twice])
        self.amended(store, settled, status="ok")
        self.amended(store, settled, status="ok", cost_pico_usd=1)
        self.amended(store, settled, cost_pico_usd=1)
        self.amended(store, doubted, status="incomplete")
        self.amended(store, doubted, status="estimated")
        self.amended(store, twice, status="estimated")
        self.amended(store, twice, status="ok")

        assert {("0",): 0, ("1",): 1, ("2",): 0} == {
            group: sums.incomplete for group, sums in totals(store, "tag:case").items()
        }
        assert 1 == totals(store)[()].incomplete
        assert {("ok",): 2, ("estimated",): 1} == {
            group: sums.calls for group, sums in totals(store, "status").items()
        }
        assert {("ok",): 0, ("estimated",): 1} == {
            group: sums.incomplete for group, sums in totals(store, "status").items()
        }

    def test_corrections_add_up(self, store: SqliteStore, path: Path) -> None:
        event = an_event(10**12)
        store.write([event])
        for delta in (1, -5, -(10**12), 3):
            found = self.amended(store, event, cost_pico_usd=delta)

        assert -1 == found.price.cost_pico_usd == totals(store)[()].cost_pico_usd
        assert "-0.000000000001" == view_of(path)[0]["cost_usd"]

    def test_an_amendment_may_come_before_its_event(self, store: SqliteStore) -> None:
        event = an_event(5)
        store.write([Amendment(event_id=event.id, reason="early", cost_pico_usd=2)])
        assert 0 == totals(store)[()].cost_pico_usd

        store.write([event])
        assert 7 == totals(store)[()].cost_pico_usd
        assert [7] == [e.price.cost_pico_usd for e in stored(store)]


class TestView:
    def test_the_view_has_the_columns_that_articles_name(
        self, store: SqliteStore, path: Path
    ) -> None:
        event = an_event(
            3_250_000_000,
            created_at=datetime(2026, 3, 17, 12, 30, 15, 42, tzinfo=UTC),
            request_model="asked",
            response_model=None,
            latency_ms=1500,
            tags={"b": 'q"uote', "a": "é"},
            api_key_id="k1",
        )
        store.write([event])

        (row,) = view_of(path)
        assert {
            "id": event.id.hex,
            "model": "asked",
            "provider": "openai",
            "input_tokens": 100,
            "output_tokens": 10,
            "cost_usd": "0.003250000000",
            "latency_ms": 1500,
            "tags": '{"a":"é","b":"q\\"uote"}',
            "api_key_id": "k1",
            "created_at": "2026-03-17T12:30:15.000042Z",
            "cost_pico_usd": 3_250_000_000,
            "status": "ok",
            "reason": None,
            "cost_source": "list",
            "operation": "chat",
            "cache_read_input_tokens": 0,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": 0,
            "request_id": None,
            "first_in_request": 0,
        } == row
        assert dict(event.tags) == json.loads(row["tags"])
        assert event.created_at == datetime.fromisoformat(row["created_at"])

    @pytest.mark.parametrize(
        ("cost", "deltas", "text"),
        [
            (0, [], "0.000000000000"),
            (1, [], "0.000000000001"),
            (10**12, [], "1.000000000000"),
            (MAX_PICO, [], "9223372.036854775807"),
            (None, [], None),
            (None, [0], None),
            (5, [-5], "0.000000000000"),
            (5, [-6], "-0.000000000001"),
            (10**12, [-3 * 10**12, -1], "-2.000000000001"),
            (10**12, [-(10**12) - 10**11], "-0.100000000000"),
            (0, [-MAX_PICO], "-9223372.036854775807"),
        ],
    )
    def test_costs_are_exact_decimal_text(
        self, store: SqliteStore, path: Path, cost: int | None, deltas: list[int], text: str | None
    ) -> None:
        event = an_event(cost)
        amendments = [
            Amendment(event_id=event.id, reason="x", cost_pico_usd=delta) for delta in deltas
        ]
        store.write([event, *amendments])

        assert [text] == [row["cost_usd"] for row in view_of(path)]

    def test_tokens_that_are_not_known_are_null_in_the_view(
        self, store: SqliteStore, path: Path
    ) -> None:
        event = an_event(usage=Usage())
        store.write([event, an_event(usage=Usage(0, 0))])
        assert [(None, None), (0, 0)] == [
            (row["input_tokens"], row["output_tokens"]) for row in view_of(path)
        ]

        store.write([Amendment(event_id=event.id, reason="x", input_tokens=5)])
        assert [(5, None), (0, 0)] == [
            (row["input_tokens"], row["output_tokens"]) for row in view_of(path)
        ]


class TestOutcomes:
    def counted(self, store: SqliteStore, start: datetime, stop: datetime, **scope: str) -> Any:
        with store.snapshot() as snapshot:
            return {row.kind: row.count for row in snapshot.outcomes(start, stop, scope=scope)}

    def test_outcomes_are_counted_by_the_hour(self, store: SqliteStore) -> None:
        late = timedelta(minutes=59)
        store.write([an_outcome("error"), an_outcome("error", at=NOON + late), an_outcome("retry")])
        store.write([an_outcome("error"), an_outcome("error", at=NOON + timedelta(hours=1))])
        connection = store._connected()

        assert [(1, "error"), (1, "retry"), (3, "error")] == sorted(
            connection.execute("SELECT count, kind FROM call_outcomes").fetchall()
        )
        assert {"error": 4, "retry": 1} == self.counted(store, *ALL_TIME)

    def test_a_span_counts_from_its_first_hour_to_its_stop(self, store: SqliteStore) -> None:
        store.write([an_outcome("error")])
        tick = timedelta(microseconds=1)

        assert {"error": 1} == self.counted(store, NOON + timedelta(minutes=59), ALL_TIME[1])
        assert {} == self.counted(store, NOON + timedelta(hours=1), ALL_TIME[1])
        assert {} == self.counted(store, ALL_TIME[0], NOON)
        assert {"error": 1} == self.counted(store, ALL_TIME[0], NOON + tick)


class TestSnapshots:
    def test_a_snapshot_stays_as_it_was_while_writes_go_on(self, store: SqliteStore) -> None:
        stop = threading.Event()
        failures: list[BaseException] = []
        written = threading.Semaphore(0)

        def write() -> None:
            try:
                while not stop.is_set():
                    event = an_event(7)
                    store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=-7)])
                    written.release()
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(30):
                assert written.acquire(timeout=30)
                with store.snapshot() as snapshot:
                    position = snapshot.position()
                    first = snapshot.totals(Query(*ALL_TIME)).groups[()]
                    for _ in range(2):
                        assert written.acquire(timeout=30)
                    assert first == snapshot.totals(Query(*ALL_TIME)).groups[()]
                    assert 0 == first.cost_pico_usd
                    assert first.calls == len(snapshot.events(scope={}, limit=10**6))
                    assert position == snapshot.position() == 2 * first.calls
        finally:
            stop.set()
            thread.join()
        assert [] == failures

    def test_the_position_grows_with_all_that_is_recorded(self, store: SqliteStore) -> None:
        def position() -> int:
            with store.snapshot() as snapshot:
                return snapshot.position()

        positions = [position()]
        event = an_event()
        amendment = Amendment(event_id=event.id, reason="x")
        for record in (event, an_outcome(), amendment, an_outcome(), an_event()):
            store.write([record])
            positions.append(position())

        assert 6 == len(set(positions))
        assert sorted(positions) == positions
        assert positions[-1] == position()

    def test_a_snapshot_of_a_damaged_file_says_so(self, path: Path) -> None:
        with opened(path) as store:
            store.write([an_event(tags={"n": str(n)}) for n in range(500)])
            store.close()
            content = bytearray(path.read_bytes())
            content[4096:] = random.Random(1).randbytes(len(content) - 4096)
            path.write_bytes(content)
            with pytest.raises(StoreError, match="damaged; restore a backup"):
                stored(store)
