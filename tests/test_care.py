"""Care on the command line: prune, verify, rebuild, backup, forget, migrate."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlite_utils import Database

from costmw.care import commands, differences
from costmw.care.pruning import old_rows
from costmw.errors import ConfigError, StoreError
from costmw.events import Amendment, Submission, UsageEvent
from costmw.store.base import Difference, Query, Totals
from costmw.store.hashed_tags import hash_of
from costmw.store.migrations import migrations
from costmw.store.sqlite import SqliteStore
from costmw.transfer.spans import BEGINNING, END
from postgres_server import postgres
from rows import NOON, an_event, an_outcome, opened, stored
from stores import Place, place, place_of
from test_exports import names_in, on_a_terminal, run

__all__ = ["place", "place_of", "postgres"]

DAY = timedelta(days=1)
FIRST_SCHEMA = Path(__file__).with_name("schemas") / "ledger.sql"
OLDER_SCHEMAS = ("ledger", "tag_sets_by_index", "caps")
EVERYONE = lambda plan: True  # noqa: E731 - who is sure of everything


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llmcost.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def filled(path: Path) -> Callable[[Sequence[UsageEvent]], None]:
    """Writes rows to the store, and rolls them up."""

    def fill(events: Sequence[Any], **settings: Any) -> None:
        with opened(path, **settings) as store:
            store.write(events)
            while store.roll_up(100):
                pass

    return fill


def sums(store: Any, *group_by: str) -> dict[Any, Totals]:
    with store.snapshot() as snapshot:
        return dict(snapshot.totals(Query(BEGINNING, END, group_by=group_by)).groups)


def days_of(store: SqliteStore) -> list[int]:
    return [event.created_at.day for event in stored(store)]


class TestPrune:
    TEN_DAYS = tuple(an_event(1, created_at=NOON - n * DAY) for n in reversed(range(10)))

    def test_rows_of_whole_days_go_and_sums_stay(self, url: str, path: Path, filled: Any) -> None:
        filled(self.TEN_DAYS, time_zone="Europe/Berlin")
        assert "7 calls from before 2026-03-15 (Europe/Berlin) would be dropped" == commands.prune(
            url, days=None, before="2026-03-15T18:00", dry_run=True
        )
        told = commands.prune(url, days=None, before="2026-03-15", dry_run=False)
        assert "7 calls from before 2026-03-15 (Europe/Berlin) dropped; their sums are kept" == told
        with opened(path) as store:
            assert [15, 16, 17] == days_of(store)
            assert 10 == sums(store)[()].cost_pico_usd
            assert [] == store.verify()

    def test_by_days_and_twice(self, path: Path, url: str, filled: Any) -> None:
        now = datetime.now(UTC)
        filled([an_event(1, created_at=now - n * DAY) for n in range(10)])
        assert commands.prune(url, days=3, before="", dry_run=True).startswith("6 calls from")
        assert commands.prune(url, days=3, before="", dry_run=False).startswith("6 calls from")
        assert commands.prune(url, days=3, before="", dry_run=False).startswith("0 calls from")
        # What was dropped does not come back, and is not counted again.
        kept_from = f"{now - 3 * DAY:%Y-%m-%d} (UTC)"
        assert f"0 calls from before {kept_from} would be dropped" == commands.prune(
            url, days=5, before="", dry_run=True
        )
        with opened(path) as store:
            assert 4 == len(stored(store))

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"days": None, "before": ""}, "say what to keep: --days 90, or --before"),
            ({"days": 3, "before": "2026-01-01"}, "say what to keep"),
            ({"days": None, "before": "soon"}, "--before is 'soon'; use a day such as"),
            ({"days": None, "before": "2190-01-01"}, "--before is 2190-01-01, which is still to"),
        ],
    )
    def test_options_that_cannot_be_used(
        self, url: str, filled: Any, options: Any, said: str
    ) -> None:
        filled(self.TEN_DAYS)
        with pytest.raises(ConfigError, match=said):
            commands.prune(url, dry_run=False, **options)

    def test_postgres_keeps_whole_months(self, place_of: Callable[[str], Place]) -> None:
        place = place_of("postgres")
        store = place.open()
        store.write([an_event(1, created_at=NOON - n * 10 * DAY) for n in range(7)])
        old = old_rows(store, days=None, before="2026-02-20")
        assert (datetime(2026, 2, 1, tzinfo=UTC), 2) == (old.kept_from, old.calls)
        assert commands.prune(place.url, days=None, before="2026-02-20", dry_run=False).startswith(
            "2 calls from before 2026-02-01 (UTC) dropped"
        )
        assert 7 == sums(store)[()].calls

    def test_an_amended_row_waits_until_its_amendment_is_rolled_up(self, path: Path) -> None:
        event = an_event(1)
        with opened(path) as store:
            store.write([event])
            assert 1 == store.roll_up(100)
            store.write([Amendment(event.id, "a correction", cost_pico_usd=5)])
            assert 0 == store.prune_some(NOON + 2 * DAY, 100)
            assert 1 == store.roll_up(100)
            assert 1 == store.prune_some(NOON + 2 * DAY, 100)
            assert 6 == sums(store)[()].cost_pico_usd

    def test_tag_sets_go_with_their_last_row(self, path: Path) -> None:
        with opened(path) as store:
            asked = Submission("openai", "r1", NOON, {"tenant": "asked"})
            old = [
                an_event(1, tags={"tenant": name}) for name in ("gone", "kept", "asked", "count")
            ]
            new = an_event(1, created_at=NOON + DAY, tags={"tenant": "kept"})
            store.write([*old, new, asked, an_outcome(tags={"tenant": "count"})])
            assert 4 == store.prune(NOON + DAY)
        with closing(sqlite3.connect(path)) as connection:
            kept = connection.execute("SELECT tags FROM tag_sets ORDER BY 1").fetchall()
            lonely = connection.execute(
                "SELECT count(*) FROM tags WHERE tag_set_id NOT IN (SELECT id FROM tag_sets)"
            ).fetchone()
        assert ['{"tenant":"asked"}', '{"tenant":"count"}', '{"tenant":"kept"}'] == [
            t for (t,) in kept
        ]
        assert (0,) == lonely

    @pytest.mark.parametrize("table", ["usage_events", "submissions", "call_outcomes"])
    def test_whether_a_tag_set_is_used_is_looked_up(self, path: Path, table: str) -> None:
        with opened(path), closing(sqlite3.connect(path)) as connection:
            ((*_, how),) = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT 1 FROM {table} WHERE tag_set_id = 1"
            )
        assert how.startswith("SEARCH")


class TestVerify:
    def test_rollups_that_are_right(self, url: str, filled: Any) -> None:
        filled([an_event(1, created_at=NOON + n * DAY) for n in range(3)])
        assert ("rollups = ledger: 3 calls", True) == commands.verify(url, as_json=False)
        assert ("[]", True) == commands.verify(url, as_json=True)
        commands.prune(url, days=None, before="2026-03-18", dry_run=False)
        assert ("rollups = ledger: 2 calls", True) == commands.verify(url, as_json=False)

    @pytest.fixture
    def damaged(self, path: Path, filled: Any) -> None:
        """One cell too dear, one missing, and a histogram that counts too much."""
        filled(
            [an_event(1_500_000, tags={"tenant": "acme"}, latency_ms=90)], time_zone="Asia/Kolkata"
        )
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "UPDATE rollups SET cost_pico_usd = 0, cost_pico_usd_m = 3 "
                "WHERE every = 60 AND facet_id = 0 AND other_facet_id = 0"
            )
            connection.execute(
                "DELETE FROM rollups WHERE every = 1440 AND facet_id = 0 AND other_facet_id IN "
                "(SELECT id FROM facets WHERE value = 'acme')"
            )
            connection.execute("UPDATE rollup_histograms SET count = 9 WHERE facet_id = 0")

    @pytest.mark.usefixtures("damaged")
    def test_what_differs_is_a_table(self, url: str) -> None:
        text, agree = commands.verify(url, as_json=False)
        assert not agree
        head, *rows, last = [line.split("  ") for line in text.splitlines()]
        found = [[cell.strip() for cell in row if cell.strip()] for row in (head, *rows)]
        assert ["when", "what", "column", "rollups say", "rows say"] == found[0]
        assert ["2026-03-17 17:00 IST", "everything", "cost_usd", "0.000003", "0.0000015"] in found
        assert ["2026-03-17 (day)", "tenant=acme", "calls", "0", "1"] in found
        assert ["2026-03-17 (day)", "tenant=acme", "cost_usd", "0.00", "0.0000015"] in found
        bin_lines = [row for row in found if "of latency" in row[2]]
        assert [["2026-03-17 (day)", "everything", bin_lines[0][2], "9", "1"]] == bin_lines
        assert "costmw rebuild makes the rollups anew" in "  ".join(last)

    @pytest.mark.usefixtures("damaged")
    def test_as_json(self, url: str) -> None:
        text, agree = commands.verify(url, as_json=True)
        assert not agree
        assert {
            "every": "hour",
            "start": "2026-03-17T11:30:00Z",
            "facets": [],
            "column": "cost_pico_usd",
            "rollups": 3_000_000,
            "rows": 1_500_000,
        } in json.loads(text)

    @pytest.mark.usefixtures("damaged")
    def test_rebuild_mends_it(self, url: str) -> None:
        assert "rollups are made anew from 1 row" == commands.rebuild(url)
        assert commands.verify(url, as_json=False)[1]

    def test_a_kind_reads_as_what_it_is(self) -> None:
        kind = 'kind=["openai",null,"chat","ok","list"]'
        one = Difference(1440, 0, ("tag:a=b=c", kind), {"calls": 1}, in_rollups=True)
        table = differences.as_table(differences.lines_of([one]), BEGINNING.tzinfo)  # type: ignore[arg-type]
        assert "a=b=c and openai - chat ok list" in table

    def test_more_than_can_be_read_is_cut_short(self) -> None:
        found = [Difference(60, n * 60, (), {"calls": 1}, in_rollups=False) for n in range(150)]
        table = differences.as_table(differences.lines_of(found), BEGINNING.tzinfo)  # type: ignore[arg-type]
        assert 102 == len(table.splitlines())
        assert table.endswith("... and 50 more: --json has them all")

    def test_postgres(self, place_of: Callable[[str], Place]) -> None:
        place = place_of("postgres")
        store = place.open()
        store.write([an_event(1_500_000, tags={"tenant": "acme"}, latency_ms=90)])
        assert ("rollups = ledger: 1 call", True) == commands.verify(place.url, as_json=False)
        with store._writing() as (connection, _):
            connection.execute("UPDATE rollups SET calls = 5 WHERE every = 60 AND facet_id = 0")
        text, agree = commands.verify(place.url, as_json=False)
        assert not agree
        row = next(line for line in text.splitlines() if "everything" in line)
        assert ["2026-03-17", "12:00", "UTC", "everything", "calls", "5", "1"] == row.split()
        commands.rebuild(place.url)
        assert commands.verify(place.url, as_json=False)[1]


class TestBackup:
    def test_the_copy_answers_as_the_ledger_does(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event(n, tags={"tenant": "acme"}) for n in range(5)])
        path.chmod(0o600)
        told = commands.backup(url, path.with_name("copy.db"))
        assert "hashes of tags and API keys go on with a copy of llmcost.db.key" in told
        assert 0o600 == path.with_name("copy.db").stat().st_mode & 0o777
        with opened(path) as store, opened(path.with_name("copy.db")) as copy:
            assert sums(store, "tag:tenant") == sums(copy, "tag:tenant")
            assert stored(store) == stored(copy)
            assert [] == copy.verify()
        assert [] == [name for name in names_in(path.parent) if "part" in name]

    def test_it_is_made_while_calls_are_recorded(self, url: str, path: Path) -> None:
        with opened(path) as store:
            stop = threading.Event()

            def record() -> None:
                while not stop.is_set():
                    store.write([an_event(1)])

            thread = threading.Thread(target=record)
            thread.start()
            try:
                for n in range(5):
                    commands.backup(url, path.with_name(f"{n}.db"))
            finally:
                stop.set()
                thread.join()
            counts = []
            for n in range(5):
                with opened(path.with_name(f"{n}.db")) as copy:
                    counts.append(len(stored(copy)))
                    while copy.roll_up(1000):
                        pass
                    assert [] == copy.verify()
            assert sorted(counts) == counts
            assert counts[0] < len(stored(store))

    def test_nothing_is_written_over(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event()])
        target = path.with_name("copy.db")
        target.write_text("mine")
        with pytest.raises(StoreError, match="copy.db exists already; name a file that does not"):
            commands.backup(url, target)
        assert "mine" == target.read_text()

    def test_a_directory_that_is_not_there(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event()])
        with pytest.raises(ConfigError, match="there is no directory .*; make it first"):
            commands.backup(url, path.parent / "none" / "copy.db")

    def test_postgres_names_its_own_tool(self, place_of: Callable[[str], Place]) -> None:
        place = place_of("postgres")
        place.open()
        with pytest.raises(StoreError, match="pg_dump"):
            commands.backup(place.url, Path("copy.db"))
        assert not Path("copy.db.part").exists()


class TestForget:
    ALICE: ClassVar = {"user": "alice", "tenant": "acme"}

    def forget(self, url: str, *pairs: str, how: str = "hash", sure: Any = EVERYONE) -> str:
        return commands.forget(
            url, pairs, as_hash=how == "hash", as_nobody=how == "erase", sure=sure
        )

    def test_a_hash_takes_the_place_of_the_value(self, place: Place) -> None:
        store = place.open()
        event = an_event(5, tags=self.ALICE)
        amended = Amendment(event.id, "a correction", cost_pico_usd=2)
        store.write([event, an_event(1, tags={"user": "bob"}), amended])
        store.roll_up(100)
        told = self.forget(place.url, "user=alice").splitlines()
        assert "user=alice: forgotten in 1 call (1 set of tags)" == told[0]
        assert "calls to come are recorded with user in clear text" in told[1]
        hashed = hash_of(store.fingerprint_key(), "user", "alice")
        assert {("bob",): 1, (hashed,): 7} == {
            group: found.cost_pico_usd for group, found in sums(store, "tag:user").items()
        }
        with store.snapshot() as snapshot:
            (found,) = [event for _, event in snapshot.events(scope={"tenant": "acme"}, limit=9)]
        assert ({"user": hashed, "tenant": "acme"}, 1) == (found.tags, found.amendments)
        assert [] == list(store.verify())

    def test_calls_that_have_the_hash_already_are_the_same_person_s(self, place: Place) -> None:
        """As it is where `hash_tags` was set later: sums, sets, outcomes and submissions merge."""
        store = place.open()
        hashed = hash_of(store.fingerprint_key(), "user", "alice")
        records: list[Any] = []
        for n, user in enumerate(("alice", hashed, "alice", "bob")):
            tags = {"user": user, "tenant": "acme"}
            records += [
                an_event(10**n, tags=tags, latency_ms=100),
                an_event(10**n, tags={"user": user}, created_at=NOON + DAY),
                an_outcome(tags=tags),
                Submission("openai", f"r{n}", datetime.now(UTC), tags),
            ]
        store.write(records)
        store.roll_up(3)  # the others are rolled up after it
        self.forget(place.url, "user=alice")
        self.merged(store, hashed)
        while store.roll_up(100):
            pass
        self.merged(store, hashed)
        assert [] == list(store.verify())
        store.rebuild()
        self.merged(store, hashed)
        store.write([an_event(10**5, submitted_as="r0", tags={})])
        last = stored(store)[-1]
        with store.snapshot() as snapshot:
            (outcome,) = snapshot.outcomes(NOON - DAY, NOON + DAY, scope={"user": hashed})
        assert {"user": hashed, "tenant": "acme"} == last.tags
        assert 3 == outcome.count

    def merged(self, store: Any, hashed: str) -> None:
        assert {(hashed,): 222, ("bob",): 2000} == {
            group: found.cost_pico_usd for group, found in sums(store, "tag:user").items()
        }
        assert {(hashed, "acme"): 111, (hashed, None): 111} == {
            group: found.cost_pico_usd
            for group, found in sums(store, "tag:user", "tag:tenant").items()
            if group[0] == hashed
        }

    def test_erasing_takes_the_hash_too(self, place: Place) -> None:
        store = place.open()
        hashed = hash_of(store.fingerprint_key(), "user", "alice")
        store.write([an_event(1, tags={"user": "alice"}), an_event(2, tags={"user": hashed})])
        told = self.forget(place.url, "user=alice", how="erase")
        assert told.startswith("user=alice: forgotten in 2 calls")
        ((name,), found), *others = sums(store, "tag:user").items()
        assert ([], 3) == (others, found.cost_pico_usd)
        assert name.startswith("(erased ")
        assert (
            "user=alice: nothing to forget"
            == self.forget(place.url, "user=alice", how="erase").splitlines()[0]
        )

    def test_by_the_hash_itself(self, place: Place) -> None:
        store = place.open()
        hashed = hash_of(store.fingerprint_key(), "user", "alice")
        store.write([an_event(1, tags={"user": hashed})])
        self.forget(place.url, f"user={hashed}", how="hash")
        assert {(hashed,): 1} == {
            group: found.cost_pico_usd for group, found in sums(store, "tag:user").items()
        }
        assert [] == list(store.verify())
        assert self.forget(place.url, f"user={hashed}", how="erase").startswith(
            f"user={hashed}: forgotten in 1 call"
        )

    def test_several_people_and_calls_that_have_only_sums(self, url: str, path: Path) -> None:
        with opened(path) as store:
            store.write([an_event(1, tags={"user": user}) for user in ("alice", "bob", "eve")])
            store.prune(NOON + DAY)
        told = self.forget(url, "user=alice", "user=bob", "user=alice", how="erase").splitlines()
        assert [
            "user=alice: forgotten in 1 call (0 sets of tags)",
            "user=bob: forgotten in 1 call (0 sets of tags)",
        ] == told[:2]
        with opened(path) as store:
            assert 1 == len([g for g in sums(store, "tag:user") if g == ("eve",)])
            assert {("alice",), ("bob",)}.isdisjoint(sums(store, "tag:user"))

    def test_the_file_has_it_no_more(self, url: str, path: Path) -> None:
        with opened(path) as store:
            for n in range(50):
                store.write([an_event(1, tags={"user": "alice in clear", "n": str(n)})])
        assert b"alice in clear" in path.read_bytes()
        self.forget(url, "user=alice in clear", how="erase")
        assert b"alice in clear" not in path.read_bytes()
        assert not Path(f"{path}-wal").exists()

    def test_a_key_that_no_call_has_is_an_error(self, url: str, filled: Any) -> None:
        filled([an_event(1, tags=self.ALICE)])
        with pytest.raises(ConfigError, match="no call has a tag 'usr'; there are tenant, user"):
            self.forget(url, "usr=alice")

    @pytest.mark.parametrize("pair", ["alice", "=alice"])
    def test_what_is_no_tag_is_an_error(self, url: str, filled: Any, pair: str) -> None:
        filled([an_event(1, tags=self.ALICE)])
        with pytest.raises(ConfigError, match="a tag to forget is .*use a tag and its value"):
            self.forget(url, pair)

    @pytest.mark.parametrize("how", ["neither", "both"])
    def test_how_has_to_be_said(self, url: str, how: str) -> None:
        both = how == "both"
        with pytest.raises(ConfigError, match="--hash or --erase"):
            commands.forget(url, ["user=alice"], as_hash=both, as_nobody=both, sure=EVERYONE)

    def test_nothing_happens_to_who_is_not_sure(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event(1, tags=self.ALICE)])
        asked: list[str] = []
        told = self.forget(url, "user=alice", sure=asked.append)
        assert "nothing is changed" == told
        assert "user=alice: 1 call -> hashed:" in asked[0]
        assert "cannot be undone. Backups and exports keep" in asked[0]
        with opened(path) as store:
            assert [self.ALICE] == [event.tags for event in stored(store)]


class TestMigrate:
    """Each schema that was ever released is brought up to date, with all that is in it."""

    def released(self, name: str, path: Path) -> str:
        """A file of the first schema, brought as far as the step of this name."""
        steps = self.steps()
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(FIRST_SCHEMA.read_text("utf-8"))
            migrations().apply(Database(connection), stop_before=steps[steps.index(name) + 1])
        return f"sqlite:///{path}"

    @staticmethod
    def steps() -> list[str]:
        with closing(sqlite3.connect(":memory:")) as empty:
            return [step.name for step in migrations().pending(Database(empty))]

    @pytest.mark.parametrize("name", OLDER_SCHEMAS)
    def test_a_released_schema(self, name: str, path: Path) -> None:
        url, steps = self.released(name, path), self.steps()
        had = steps[: steps.index(name) + 1]
        missing = ", ".join(steps[len(had) :])
        assert (
            f"not up to date: {' + '.join(had)}; costmw migrate adds {missing}",
            False,
        ) == commands.migrate(url, check=True)
        told, is_current = commands.migrate(url, check=False)
        assert f"brought up to date, from {' + '.join(had)} to {' + '.join(steps)}" == told
        assert is_current
        assert (f"up to date: {' + '.join(steps)}", True) == commands.migrate(url, check=True)
        with opened(path) as store:
            assert "Europe/Berlin" == store.time_zone.key
            while store.roll_up(100):
                pass
            assert [] == store.verify()
            assert {("alice",): 3_250_000_000, ("bob",): 5} == {
                group: found.cost_pico_usd for group, found in sums(store, "tag:user").items()
            }
            assert 3 == len(stored(store))

    @pytest.mark.parametrize("name", OLDER_SCHEMAS)
    def test_it_ends_with_the_tables_of_a_new_file(self, name: str, path: Path) -> None:
        commands.migrate(self.released(name, path), check=False)
        new = path.with_name("new.db")
        with opened(new):
            pass
        assert self.tables(new) == self.tables(path)

    @staticmethod
    def tables(path: Path) -> dict[str, str]:
        with closing(sqlite3.connect(path)) as connection:
            return dict(
                connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
            )

    def test_a_check_changes_nothing(self, path: Path) -> None:
        url = self.released("ledger", path)
        before = path.read_bytes()
        commands.migrate(url, check=True)
        assert before == path.read_bytes()

    def test_a_newer_ledger_is_left_as_it_is(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event()])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
                "VALUES ('costmw', 'of the future', '')"
            )
        told, is_current = commands.migrate(url, check=False)
        assert is_current
        assert told.endswith("(and of the future of a newer costmw)")

    def test_postgres(self, place_of: Callable[[str], Place]) -> None:
        place = place_of("postgres")
        told, is_current = commands.migrate(place.url, check=True)
        assert told.startswith("not up to date: nothing; costmw migrate adds ledger")
        assert not is_current
        assert commands.migrate(place.url, check=False)[0].startswith(
            "brought up to date, from nothing to ledger"
        )
        assert commands.migrate(place.url, check=True)[0].startswith("up to date: ledger")


class TestCommandLine:
    """The commands as they are typed; what they do is shown above."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("prune", "--days", "9"),
            ("verify",),
            ("rebuild",),
            ("backup", "copy.db"),
            ("forget", "user=alice", "--hash", "--yes"),
            ("migrate", "--check"),
        ],
    )
    def test_a_store_that_is_not_there_is_one_line_and_is_not_made(
        self, arguments: tuple[str, ...], tmp_path: Path
    ) -> None:
        done = run(*arguments, "--store", f"sqlite:///{tmp_path}/none.db", cwd=tmp_path)
        assert (1, b"") == (done.returncode, done.stdout)
        assert (
            f"costmw: there is no store at sqlite:///{tmp_path}/none.db\n" == done.stderr.decode()
        )
        assert [] == names_in(tmp_path)

    def test_all_of_them_beside_an_app_that_records(self, path: Path, filled: Any) -> None:
        now = datetime.now(UTC)
        filled([an_event(1, created_at=now - n * DAY, tags={"user": "alice"}) for n in range(5)])
        environment = os.environ | {"COSTMW_STORE": f"sqlite:///{path}"}
        stop = threading.Event()
        with opened(path) as store:

            def record() -> None:
                while not stop.wait(0.01):
                    store.write([an_event(1, created_at=now, tags={"user": "bob"})])
                    store.roll_up(10)

            thread = threading.Thread(target=record)
            thread.start()
            try:
                said = []
                for arguments in (
                    "migrate --check",
                    "verify",
                    "prune --days 2",
                    "rebuild",
                    "forget user=alice --erase --yes",
                    f"backup {path.parent}/copy.db",
                    "verify --json",
                ):
                    done = run(*arguments.split(), env=environment)
                    assert (0, b"") == (done.returncode, done.stderr), arguments
                    said.append(done.stdout.decode())
            finally:
                stop.set()
                thread.join()
        for text, expected in zip(
            said,
            (
                "up to date: ",
                "rollups = ledger: ",
                "2 calls from before ",
                "rollups are made anew from ",
                "user=alice: forgotten in 5 calls",
                "copied to ",
                "[]",
            ),
            strict=True,
        ):
            assert text.startswith(expected)

    @pytest.mark.parametrize(
        ("command", "shown"),
        [
            ("prune --days 2", b"Dropping old rows"),
            ("verify", b"Comparing rollups and rows"),
            ("rebuild", b"Making the rollups anew"),
            ("backup copy.db", b"Copying"),
            ("forget user=alice --hash --yes", b"Forgetting"),
        ],
    )
    def test_a_terminal_sees_what_is_done(
        self, path: Path, url: str, filled: Any, command: str, shown: bytes
    ) -> None:
        filled([an_event(1, tags={"user": "alice"})])
        seen = on_a_terminal(*command.split(), "--store", url, cwd=path.parent)
        assert shown in seen

    def test_what_differs_is_an_exit_code(self, path: Path, url: str, filled: Any) -> None:
        filled([an_event(1)])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE rollups SET calls = 2")
        done = run("verify", "--store", url)
        assert (1, b"") == (done.returncode, done.stderr)
        assert b"everything" in done.stdout

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("prune",), "say what to keep: --days 90, or --before 2026-01-01"),
            (("prune", "--before", "2190-01-01"), "which is still to come"),
            (("prune", "--before", "2024-13-01"), "use a day such as 2026-11-01"),
            (("forget", "usr=alice", "--hash", "--yes"), "no call has a tag 'usr'; there are user"),
            (("forget", "user=alice", "--yes"), "--hash or --erase"),
        ],
    )
    def test_an_option_that_cannot_be_used_is_one_line(
        self, url: str, filled: Any, arguments: tuple[str, ...], said: str
    ) -> None:
        filled([an_event(1, tags={"user": "alice"})])
        done = run(*arguments, "--store", url)
        assert (1, b"", 1) == (done.returncode, done.stdout, done.stderr.count(b"\n"))
        assert said in done.stderr.decode()

    def test_a_store_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.execute("CREATE TABLE invoices (n)")
        for arguments in (["verify"], ["migrate", "--check"], ["prune", "--days", "1"]):
            done = run(*arguments, "--store", f"sqlite:///{tmp_path}/other.db")
            assert 1 == done.returncode
            assert b"a database of something else (it has a table invoices)" in done.stderr
        assert ["other.db"] == names_in(tmp_path)

    def test_an_old_schema_is_an_exit_code(self, path: Path) -> None:
        url = TestMigrate().released("ledger", path)
        assert [1, 0, 0] == [
            run("migrate", *options, "--store", url).returncode
            for options in (["--check"], [], ["--check"])
        ]

    def test_forgetting_asks(self, url: str, path: Path, filled: Any) -> None:
        filled([an_event(1, tags={"user": "alice"})])
        command = ("forget", "user=alice", "--erase", "--store", url)
        unasked = run(*command, stdin=subprocess.DEVNULL)
        assert 1 == unasked.returncode
        assert b"Nobody can be asked here: say --yes" in unasked.stderr
        assert (b"nothing is changed" in answered(command, "n"), "alice") == (True, who(path))
        assert (b"forgotten in 1 call" in answered(command, "y"), True) == (
            True,
            who(path).startswith("(erased"),
        )


def who(path: Path) -> str:
    with opened(path) as store:
        return stored(store)[0].tags["user"]


def answered(command: Sequence[str], answer: str) -> bytes:
    """What a command prints on a terminal on which somebody answers it."""
    mine, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "costmw.cli", *command],
        stdin=its,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(its)
        os.write(mine, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=60)
        os.close(mine)
    assert 0 == process.returncode
    return out
