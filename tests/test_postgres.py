"""The Postgres store: what the contract does not ask of every store."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest

from costmw import Config, Meter
from costmw.errors import ConfigError, StoreBusy, StoreError, StoreUnreachable
from costmw.events import Amendment, Usage, new_id
from costmw.money import MAX_PICO
from costmw.periods import midnight, next_month
from costmw.store import postgres as postgres_module
from costmw.store import postgres_readers
from costmw.store.base import Query
from costmw.store.outbox_file import DeadLetter
from costmw.store.postgres import PostgresStore
from costmw.store.postgres_batch import Batch
from costmw.store.postgres_partitions import made
from costmw.store.postgres_read import PostgresSnapshot
from costmw.store.postgres_url import address_of
from costmw.store.record_json import encode
from postgres_server import Server, postgres, running
from rows import NOON, an_event, an_outcome
from stores import rows_alone

__all__ = ["postgres"]

ALL_TIME = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC))


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    store = PostgresStore(url, Config())
    store.open()
    yield store
    store.close()


def asked(store: PostgresStore, sql: str) -> list[tuple[Any, ...]]:
    """Rows of a statement of the test's own, in the store's schema."""
    with store._readers.one() as connection:
        return connection.execute(sql).fetchall()


def wait_for_locks(connection: psycopg.Connection[Any], waiting: int) -> None:
    """Until this many sessions of the server wait for a lock: each in the order they came in."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    until = time.monotonic() + 30
    while connection.execute(sql).fetchall() != [(waiting,)]:
        assert time.monotonic() < until, f"{waiting} sessions do not come to wait"
        time.sleep(0.01)


def stored(store: PostgresStore) -> list[Any]:
    with store.snapshot() as snapshot:
        found = dict(snapshot.events(scope={}, limit=1_000_000))
    return [found[position] for position in sorted(found)]


def total(store: PostgresStore) -> int:
    with store.snapshot() as snapshot:
        found = snapshot.totals(Query(*ALL_TIME)).groups[()]
        with rows_alone():
            assert found == snapshot.totals(Query(*ALL_TIME)).groups[()]
    return found.cost_pico_usd


class TestUrl:
    def test_a_url_is_told_without_its_secrets(self) -> None:
        for url, shown in [
            ("postgresql://u:s3cret@h:5433/d", "postgresql://u@h:5433/d?schema=costmw"),
            ("postgres://u:s3%20cret@h/d?schema=x", "postgresql://u@h/d?schema=x"),
            ("postgresql://h/d?user=u&password=s3cret", "postgresql://u@h/d?schema=costmw"),
            ("postgresql:///d?host=/run/pg", "postgresql:///d?host=/run/pg&schema=costmw"),
            ("postgresql://a,b/d", "postgresql://a,b/d?schema=costmw"),
        ]:
            address = address_of(url)
            assert shown == address.shown
            assert "s3" not in repr(address)
            assert "schema" not in address.conninfo

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://u:s3cret@h:port/d",
            "postgresql://u:s3cret%zz@h/d",
            "postgresql://u:9/s3cret@h/d",
            "postgresql://u:s3/cret@h/d",
            "postgresql://u:s3cret@h/d?no_such_option=1",
            "postgresql://u:s3cret@h/d?schema=My-Schema",
            "postgresql://u:s3cret@h/d?schema=x;drop",
            "postgresql://u:s3cret@h/d?schema=pg_catalog",
        ],
    )
    def test_one_that_cannot_be_read_is_refused_and_not_repeated(self, url: str) -> None:
        with pytest.raises(ConfigError, match="store") as error:
            Meter(url)
        assert "s3" not in str(error.value)
        assert error.value.__suppress_context__ or error.value.__context__ is None

    def test_what_the_url_says_of_the_connection_holds(self) -> None:
        address = address_of("postgresql://h/d?connect_timeout=7&application_name=shop")

        assert "connect_timeout=7" in address.conninfo
        assert "application_name=shop" in address.conninfo
        assert "keepalives_idle=10" in address.conninfo

    def test_without_the_packages_the_pip_command_is_named(self) -> None:
        script = (
            "import sys; sys.modules['psycopg'] = None\n"
            "from costmw import Meter; Meter('postgresql://h/d')"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert "psycopg is not installed" in done.stderr
        assert "pip install 'costmw[postgres]'" in done.stderr


class TestOpening:
    """What can be wrong with a database is one clear error at the start."""

    def refused(self, url: str, kind: type[StoreError] = StoreError) -> str:
        store = PostgresStore(url, Config())
        try:
            with pytest.raises(kind) as error:
                store.open()
        finally:
            store.close()
        return str(error.value)

    def test_a_server_that_is_not_there_is_named(self) -> None:
        began = time.monotonic()
        said = self.refused("postgresql://u:s3cret@127.0.0.1:9/d", StoreUnreachable)

        assert "cannot use postgresql://u@127.0.0.1:9/d" in said
        assert "refused" in said
        assert "s3cret" not in said
        assert time.monotonic() - began < 5

    def test_a_database_that_is_not_there_is_named(self, postgres: Server) -> None:
        url = postgres.url().replace("/postgres?", "/nowhere?")

        assert "there is no such database; make it with CREATE DATABASE" in self.refused(url)

    def test_a_user_that_is_not_there_is_named(self, postgres: Server) -> None:
        url = postgres.url().replace("postgres@", "nobody:s3cret@")
        said = self.refused(url)

        assert "check user and password" in said
        assert "s3cret" not in said

    def test_a_user_that_may_not_is_told_what_to_grant(
        self, postgres: Server, store: PostgresStore
    ) -> None:
        with psycopg.connect(postgres.address, autocommit=True) as connection:
            connection.execute("DROP ROLE IF EXISTS guest")
            connection.execute("CREATE ROLE guest LOGIN")
        said = self.refused(postgres.url().replace("postgres@", "guest@"))

        assert "grant it CREATE on the database" in said

    def test_a_schema_of_something_else_is_left_as_it_was(self, postgres: Server) -> None:
        with psycopg.connect(postgres.address, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA shop CREATE TABLE invoices (n int)")
            said = self.refused(postgres.url("shop"))
            tables = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'shop'"
            ).fetchall()

        assert "is of something else (it has a table invoices)" in said
        assert "?schema=costmw" in said
        assert [("invoices",)] == tables

    def test_a_schema_that_was_made_for_it_is_taken(self, postgres: Server) -> None:
        with psycopg.connect(postgres.address, autocommit=True) as connection:
            connection.execute("CREATE SCHEMA made_before")
        store = PostgresStore(postgres.url("made_before"), Config())
        store.write([an_event(5)])
        assert 5 == total(store)
        store.close()

    def test_a_server_that_only_reads_is_told_from_the_primary(self, postgres: Server) -> None:
        url = f"{postgres.url()}&options=-c%20default_transaction_read_only%3Don"

        assert "it is a read-only standby; name the primary" in self.refused(url)

    def test_a_database_of_another_encoding_is_refused(self, postgres: Server) -> None:
        with psycopg.connect(postgres.address, autocommit=True) as connection:
            connection.execute(
                "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
            )
        url = postgres.url().replace("/postgres?", "/latin?")

        assert "encoded in LATIN1" in self.refused(url)

    def test_ten_hosts_make_a_new_one_at_one_moment(self, url: str) -> None:
        stores = [PostgresStore(url, Config()) for _ in range(10)]
        failures: list[BaseException] = []

        def run(store: PostgresStore) -> None:
            try:
                store.open()
                store.write([an_event(1, tags={"tenant": "acme"})])
                keys.add(store.fingerprint_key())
            except BaseException as error:
                failures.append(error)

        keys: set[bytes] = set()
        threads = [threading.Thread(target=run, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [] == failures
        assert 10 == total(stores[0])
        assert 1 == len(keys)
        steps = asked(stores[0], "SELECT name FROM costmw_migrations ORDER BY applied_at, name")
        assert {"ledger", "caps", "alerts"} == {name for (name,) in steps}
        assert 3 == len(steps)
        assert [(1,)] == asked(stores[0], "SELECT count(*) FROM tag_sets")
        for store in stores:
            store.close()

    def test_a_migration_that_fails_leaves_nothing_behind(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from costmw.store import postgres_schema

        with monkeypatch.context() as broken:
            steps = {**postgres_schema.MIGRATIONS, "broken": "CREATE TABLE broken (;"}
            broken.setattr(postgres_schema, "MIGRATIONS", steps)
            assert "syntax error" in self.refused(url)
        store = PostgresStore(url, Config())
        store.write([an_event()])
        assert 1 == len(stored(store))
        store.close()

    def test_the_additions_of_a_newer_version_are_tolerated(self, store: PostgresStore) -> None:
        store.write([an_event(1, tags={"tenant": "a"})])
        with store._writing() as (connection, _):
            connection.execute(
                "ALTER TABLE usage_events ADD COLUMN region text; "
                "ALTER TABLE rollups ADD COLUMN regions bigint NOT NULL DEFAULT 0; "
                "ALTER TABLE amendments ADD COLUMN author text DEFAULT 'nobody'; "
                "CREATE TABLE newer (hour int); "
                "INSERT INTO costmw_migrations (name) VALUES ('newer')"
            )
        store.close()
        event = an_event(2)
        store.write([event, Amendment(event_id=event.id, reason="x", cost_pico_usd=5)])

        assert 8 == total(store)

    def test_commits_reach_the_disk_unless_traded_away(self, url: str) -> None:
        for durability, expected in (("commit", "on"), ("process", "off"), ("async", "off")):
            store = PostgresStore(url, Config(durability=durability))
            with store._writing() as (connection, _):
                found = connection.execute("SHOW synchronous_commit").fetchone()
            assert (expected,) == found
            store.close()

    def test_making_one_connects_nowhere(self) -> None:
        store = PostgresStore("postgresql://u@10.255.255.1/d", Config())
        store.close()


class TestPartitions:
    def test_months_are_made_ahead_in_the_zone_of_the_store(self, url: str) -> None:
        zone = ZoneInfo("Asia/Tokyo")
        store = PostgresStore(url, Config(time_zone="Asia/Tokyo"))
        store.open()
        first = datetime.now(zone).date().replace(day=1)
        months = [first, next_month(first), next_month(next_month(first))]
        with store._writing() as (connection, _):
            assert months == made(connection)
        start = midnight(months[1], zone)
        for moment in (start - timedelta(microseconds=1), start):
            store.write([an_event(1, created_at=moment)])
        found = asked(
            store, "SELECT tableoid::regclass::text FROM usage_events ORDER BY created_at"
        )
        assert [f"usage_events_{month:%Y_%m}" for month in months[:2]] == [row[0] for row in found]
        store.close()

    def test_a_month_of_the_past_is_made_when_rows_of_it_come(self, store: PostgresStore) -> None:
        store.write([an_event(1), an_event(2, created_at=NOON - timedelta(days=400))])

        assert [("usage_events_2025_02",), ("usage_events_2026_03",)] == asked(
            store, "SELECT tableoid::regclass::text FROM usage_events ORDER BY 1"
        )

    @pytest.mark.parametrize("year", [1970, 2005, 8999])
    def test_a_moment_that_cannot_be_meant_makes_none(
        self, store: PostgresStore, year: int
    ) -> None:
        store.write([an_event(1, created_at=datetime(year, 5, 1, tzinfo=UTC))])

        assert [("usage_events_default",)] == asked(
            store, "SELECT tableoid::regclass::text FROM usage_events"
        )
        assert 1 == total(store)

    def test_what_is_in_the_default_partition_moves_when_its_own_is_made(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise psycopg.errors.LockNotAvailable("someone reads")

            broken.setattr("costmw.store.postgres_partitions._make", fail)
            store.write([an_event(1), an_event(2, created_at=NOON - timedelta(days=100))])
        assert [("usage_events_default",)] * 2 == asked(
            store, "SELECT tableoid::regclass::text FROM usage_events"
        )
        store.close()
        store.write([an_event(4)])

        assert [("usage_events_2026_03", 2), ("usage_events_default", 1)] == asked(
            store,
            "SELECT tableoid::regclass::text, count(*) FROM usage_events GROUP BY 1 ORDER BY 1",
        )
        assert 7 == total(store)
        assert [1, 2, 4] == [event.price.cost_pico_usd for event in stored(store)]

    def test_someone_who_reads_for_long_does_not_keep_writers_waiting(
        self, store: PostgresStore
    ) -> None:
        with store.snapshot() as snapshot:
            assert [] == snapshot.events(scope={}, limit=1)
            began = time.monotonic()
            store.write([an_event(1)])
            store.write([an_event(2)])
            assert time.monotonic() - began < 5
        assert 3 == total(store)

    def test_old_months_are_dropped_and_their_sums_stay(self, store: PostgresStore) -> None:
        march, april = NOON, NOON + timedelta(days=30)
        old = [an_event(n, created_at=march, id=uuid4(), tags={"n": "x"}) for n in (1, 2)]
        store.write([*old, an_event(4, id=uuid4(), created_at=april)])
        store.write([Amendment(event_id=old[0].id, reason="x", cost_pico_usd=8)])

        assert 0 == store.prune(march)
        assert 2 == store.prune(april)
        assert 0 == store.prune(april)

        assert [4] == [event.price.cost_pico_usd for event in stored(store)]
        assert [(0, 1)] == asked(
            store, "SELECT (SELECT count(*) FROM amendments), (SELECT count(*) FROM undated_ids)"
        )
        day = timedelta(days=1)
        with store.snapshot() as snapshot:
            assert datetime(2026, 4, 1, tzinfo=UTC) == snapshot.pruned_until()
            found = snapshot.totals(Query(march - day / 2, april + day, ("tag:n",))).groups
        assert {("x",): 11, (None,): 4} == {k: v.cost_pico_usd for k, v in found.items()}
        store.write([an_event(16, created_at=march)])
        assert [4, 16] == [event.price.cost_pico_usd for event in stored(store)]

    def test_a_span_is_asked_of_its_own_partitions(self, store: PostgresStore) -> None:
        store.write([an_event(1, created_at=NOON + timedelta(days=31 * n)) for n in range(4)])
        plans: list[str] = []
        with store.snapshot() as snapshot:
            rows = snapshot._rows

            def explained(sql: str, values: Any = ()) -> Any:
                if "usage_events e" in sql:
                    plans.append("\n".join(row[0] for row in rows(f"EXPLAIN {sql}", values)))
                return rows(sql, values)

            snapshot._rows = explained  # type: ignore[method-assign]
            with rows_alone():
                snapshot.totals(Query(NOON, NOON + timedelta(hours=1)))
        assert plans
        assert all("usage_events_2026_03" in plan for plan in plans)
        assert not any("usage_events_2026_04" in plan for plan in plans)


class TestText:
    def test_a_nul_is_kept_as_a_replacement_character(self, store: PostgresStore) -> None:
        event = an_event(
            1,
            provider="open\0ai",
            response_model="m\0",
            response_id="r\0",
            reason="\0",
            tags={"a\0": "b\0", "c": "{\0}"},
            usage=Usage(1, 2, detail={"x\0": 1}),
        )
        store.write([event, an_outcome(tags={"tenant": "\0"})])
        (found,) = stored(store)

        assert ("open\ufffdai", "m\ufffd", "r\ufffd", "\ufffd") == (
            found.provider,
            found.model,
            found.response_id,
            found.reason,
        )
        assert {"a\ufffd": "b\ufffd", "c": "{\ufffd}"} == found.tags
        with store.snapshot() as snapshot:
            for name, value in (("a\0", "b\0"), ("a\ufffd", "b\ufffd")):
                assert 1 == snapshot.totals(Query(*ALL_TIME, scope={name: value})).groups[()].calls
                assert {(value.replace("\0", "\ufffd"),)} == set(
                    snapshot.totals(Query(*ALL_TIME, (f"tag:{name}",))).groups
                )
        assert 1 == len(asked(store, "SELECT tags FROM llm_usage_events"))

    def test_what_has_a_nul_is_known_again_when_it_is_read(
        self, url: str, store: PostgresStore
    ) -> None:
        event = an_event(1, provider="open\0ai", response_model="m\0", api_key_id="k\0")
        store.write([event, an_event(2, provider="open\ufffdai", response_model="m\ufffd")])
        other = PostgresStore(url, Config())
        other.write(
            [Amendment(event_id=event.id, reason="\0", cost_pico_usd=4, status="estimated")]
        )
        other.write([Amendment(event_id=event.id, reason="\0", cost_pico_usd=8)])
        other.close()

        assert [] == store.verify()
        with store.snapshot() as snapshot:
            found = snapshot.totals(Query(*ALL_TIME, ("provider", "model"))).groups
        assert {("open\ufffdai", "m\ufffd"): 15} == {k: v.cost_pico_usd for k, v in found.items()}
        assert [(2,)] == asked(store, "SELECT count(*) FROM call_kinds")

    def test_tags_are_never_part_of_a_statement(self, store: PostgresStore) -> None:
        statements: list[str] = []
        key, value = "needle'\"key", "needle'\"value"
        store.write([an_event(tags={key: value})])
        with store.snapshot() as snapshot:
            connection = snapshot._connection

            class Watched:
                """A connection that tells the statements that it is given."""

                execute, pipeline = connection.execute, connection.pipeline

                def cursor(self, **options: Any) -> Any:
                    cursor = connection.cursor(**options)
                    execute = cursor.execute

                    def told(sql: str, values: Any) -> Any:
                        statements.append(sql)
                        return execute(sql, values)

                    cursor.execute = told  # type: ignore[assignment]
                    return cursor

            snapshot._connection = Watched()  # type: ignore[assignment]
            query = Query(
                *ALL_TIME, group_by=(f"tag:{key}",), scope={key: value}, where={key: value}
            )
            assert 1 == snapshot.totals(query).groups[value,].calls
            with rows_alone():
                assert 1 == snapshot.totals(query).groups[value,].calls
            assert 1 == len(snapshot.events(scope={key: value}, limit=1))
            snapshot.tag_keys(scope={key: value})
            snapshot.outcomes(*ALL_TIME, scope={key: value})

        assert len(statements) >= 6
        assert not any("needle" in sql for sql in statements)


class TestQuestions:
    @pytest.mark.parametrize("analyzed", [True, False])
    def test_cells_are_looked_up_by_their_keys(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch, analyzed: bool
    ) -> None:
        """Not by reading all cells of a day, of which there are many more."""
        for day in range(8):
            at = NOON + timedelta(days=day)
            tags = [{"tenant": f"t{n % 40}", "feature": f"f{n % 30}"} for n in range(120)]
            store.write([an_event(1, created_at=at, tags=each) for each in tags])
        if analyzed:
            with store._writing() as (connection, _):
                connection.execute("ANALYZE")
        plans: list[str] = []
        really = PostgresSnapshot._rows

        def explained(self: PostgresSnapshot, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
            if "rollups r" in sql:
                plans.append("\n".join(row[0] for row in really(self, f"EXPLAIN {sql}", values)))
            return really(self, sql, values)

        monkeypatch.setattr(PostgresSnapshot, "_rows", explained)
        with store.snapshot() as snapshot:
            for names, where in ((("tag:feature",), {}), (("model",), {"tenant": "t3"})):
                snapshot.totals(Query(*ALL_TIME, names, where=where))

        assert len(plans) >= 2
        for plan in plans:
            assert re.search(r"Index Cond: \(\(every = .*bucket = .*other_facet_id = ", plan), plan

    def test_a_question_that_fails_leaves_the_connection_usable(self, store: PostgresStore) -> None:
        store.write([an_event(1)])
        with pytest.raises(StoreError, match="no_such_column"):
            with store.snapshot() as snapshot:
                snapshot._rows("SELECT sum(no_such_column) FROM rollups", ())
        for _ in range(10):
            assert 1 == total(store)


class TestView:
    def test_the_view_has_the_columns_that_articles_name(self, store: PostgresStore) -> None:
        event = an_event(
            3_250_000_000,
            created_at=datetime(2026, 3, 17, 12, 30, 15, 42, tzinfo=UTC),
            request_model="asked",
            response_model=None,
            latency_ms=1500,
            tags={"b": 'q"uote', "a": "é"},
            api_key_id="k1",
            request_id=new_id(),
            first_in_request=True,
        )
        store.write([event])

        assert [
            (
                event.id,
                "asked",
                "openai",
                100,
                10,
                Decimal("0.003250000000"),
                1500,
                {"b": 'q"uote', "a": "é"},
                "k1",
                event.created_at,
                3_250_000_000,
                "ok",
                None,
                "list",
                "chat",
                0,
                0,
                0,
                event.request_id,
                True,
            )
        ] == asked(store, "SELECT * FROM llm_usage_events")

    def test_it_has_the_columns_of_the_other_store(
        self, store: PostgresStore, tmp_path: Path
    ) -> None:
        from costmw.store.sqlite import SqliteStore

        other = SqliteStore(f"sqlite:///{tmp_path}/llmcost.db", Config())
        other.open()
        names = [
            row[1] for row in other._connected().execute("PRAGMA table_info(llm_usage_events)")
        ]
        other.close()
        with store._readers.one() as connection:
            cursor = connection.execute("SELECT * FROM llm_usage_events")
            assert names == [column.name for column in cursor.description or ()]

    @pytest.mark.parametrize(
        ("cost", "deltas", "usd"),
        [
            (0, [], "0.000000000000"),
            (1, [], "0.000000000001"),
            (MAX_PICO, [], "9223372.036854775807"),
            (MAX_PICO, [MAX_PICO], "18446744.073709551614"),
            (None, [], None),
            (None, [0], None),
            (5, [-6], "-0.000000000001"),
            (10**12, [-3 * 10**12, -1], "-2.000000000001"),
        ],
    )
    def test_costs_are_exact_decimals(
        self, store: PostgresStore, cost: int | None, deltas: list[int], usd: str | None
    ) -> None:
        event = an_event(cost)
        amendments = [
            Amendment(event_id=event.id, reason="x", cost_pico_usd=delta) for delta in deltas
        ]
        store.write([event, *amendments])

        assert [(usd,)] == asked(store, "SELECT cost_usd::text FROM llm_usage_events")

    def test_amended_rows_read_as_they_are_now(self, store: PostgresStore) -> None:
        from costmw.events import Price

        event = an_event(None, usage=Usage())
        store.write([event])
        for status, price in (("estimated", Price(1, "override")), (None, None)):
            store.write(
                [
                    Amendment(
                        event_id=event.id,
                        reason=f"now {status}",
                        status=status,  # type: ignore[arg-type]
                        price=price,
                        cost_pico_usd=1,
                        unpriced=-1 if price else 0,
                        input_tokens=5,
                    )
                ]
            )
        assert [
            (Decimal("0.000000000002"), 10, None, "estimated", "override", "now None")
        ] == asked(
            store,
            "SELECT cost_usd, input_tokens, output_tokens, status, cost_source, reason "
            "FROM llm_usage_events",
        )


class TestConnections:
    def test_a_server_that_restarts_is_found_again(self) -> None:
        with running() as server:
            store = PostgresStore(server.url("restarted"), Config())
            store.write([an_event(1, tags={"tenant": "a"})])
            assert 1 == total(store)
            server.kill()
            with pytest.raises(StoreUnreachable):
                store.write([an_event(2)])
            began = time.monotonic()
            with pytest.raises(StoreUnreachable, match="No such file|refused"):
                stored(store)
            assert time.monotonic() - began < 6
            server.start()
            store.write([an_event(4, tags={"tenant": "a"})])
            assert 5 == total(store)
            store.close()

    def test_an_idle_connection_that_was_closed_is_made_again(self, store: PostgresStore) -> None:
        store.write([an_event(1)])
        assert 1 == total(store)
        with psycopg.connect(store._address.conninfo, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND application_name = 'costmw'"
            )
        assert 1 == total(store)
        with pytest.raises(StoreUnreachable):
            store.write([an_event(2)])
        store.write([an_event(2)])
        assert 3 == total(store)

    def test_ids_of_a_database_that_was_made_anew_are_not_remembered(
        self, url: str, store: PostgresStore
    ) -> None:
        store.write([an_event(1, tags={"tenant": "a"}), an_event(1, tags={"tenant": "b"})])
        with psycopg.connect(store._address.conninfo, autocommit=True) as other:
            other.execute(f"DROP SCHEMA {store._address.schema} CASCADE")
        with pytest.raises(StoreError):
            store.write([an_event(1, tags={"tenant": "b"})])
        store.close()
        store.write([an_event(1, tags={"tenant": "b"})])
        with store.snapshot() as snapshot:
            assert {("b",)} == set(snapshot.totals(Query(*ALL_TIME, ("tag:tenant",))).groups)

    def test_a_copy_that_is_restored_meanwhile_is_noticed(self, store: PostgresStore) -> None:
        store.write([an_event(1, tags={"tenant": "a"}), an_event(1, tags={"tenant": "b"})])
        store.write([an_event(1, tags={"tenant": "c"})])
        schema = store._address.schema
        with psycopg.connect(store._address.conninfo, autocommit=True) as other:
            tables = ["tag_sets", "tags", "facets", "facet_keys", "rollups", "rollup_histograms"]
            for table in tables:
                other.execute(f"CREATE TABLE public.{schema}_{table} AS TABLE {schema}.{table}")
            store.write([an_event(1, tags={"tenant": "since"})])
            with other.transaction():
                other.execute("SET LOCAL session_replication_role = replica")
                other.execute(f"SET LOCAL search_path = {schema}")
                other.execute("CREATE TEMP TABLE kept AS TABLE settings; DELETE FROM settings")
                other.execute("INSERT INTO settings TABLE kept")
                for table in tables:
                    other.execute(f"DELETE FROM {table}")
                    other.execute(
                        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE public.{schema}_{table}"
                    )
        store.write([an_event(2, tags={"tenant": "since"})])

        with store.snapshot() as snapshot:
            found = snapshot.totals(Query(*ALL_TIME, ("tag:tenant",))).groups
        assert 2 == found["since",].cost_pico_usd

    def test_a_statement_that_hangs_is_broken_off(self, store: PostgresStore) -> None:
        store.write([an_event(1)])
        with psycopg.connect(store._address.conninfo, autocommit=True) as other:
            other.execute(f"SET search_path = {store._address.schema}")
            with other.transaction():
                other.execute("UPDATE turn SET position = position")
                began = time.monotonic()
                with pytest.raises(StoreUnreachable):
                    store.write([an_event(2)], patience=0.3)
                assert 0.2 < time.monotonic() - began < 3
        store.write([an_event(4)])
        assert 5 == total(store)

    def test_a_turn_that_never_comes_is_told(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = postgres_module._SESSION.replace("lock_timeout = '10s'", "lock_timeout = '50ms'")
        monkeypatch.setattr(postgres_module, "_SESSION", session)
        store.close()
        store.write([an_event(1)])
        with psycopg.connect(store._address.conninfo, autocommit=True) as other:
            other.execute(f"SET search_path = {store._address.schema}")
            with other.transaction():
                other.execute("UPDATE turn SET position = position")
                with pytest.raises(StoreBusy, match="kept busy by others"):
                    store.write([an_event(2)])
        store.write([an_event(4)])
        assert 5 == total(store)

    def test_more_readers_than_connections_wait_for_their_turn(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_readers, "READERS", 2)
        monkeypatch.setattr(postgres_readers, "READER_PATIENCE", 0.2)
        store.close()
        store.write([an_event(1)])
        with store.snapshot(), store.snapshot():
            with pytest.raises(StoreBusy, match="all 2 connections to read with are in use"):
                stored(store)
        assert 1 == total(store)

    def test_nothing_of_a_closed_store_is_left_on_the_server(
        self, postgres: Server, url: str
    ) -> None:
        name = "closed-test"
        store = PostgresStore(f"{url}&application_name={name}", Config())
        store.write([an_event(1)])
        assert 1 == total(store)
        store.close()
        with psycopg.connect(postgres.address, autocommit=True) as other:
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                found = other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (name,)
                ).fetchone()
                if found == (0,):
                    break
        assert found == (0,)


class TestCare:
    """What the contract does not ask of every store."""

    def test_a_kind_of_calls_that_is_not_known_any_more_is_known_again(
        self, store: PostgresStore
    ) -> None:
        store.write([an_event(5, api_key_id="k1"), an_event(6, provider="x")])
        with store._writing() as (connection, _):
            for table in ("rollups", "rollup_histograms", "rollup_kinds", "facets"):
                connection.execute(f"DELETE FROM {table}")
        assert store.verify()
        store.close()
        store.rebuild()

        assert [] == store.verify()
        with store.snapshot() as snapshot:
            found = snapshot.totals(Query(*ALL_TIME, ("provider",))).groups
        assert {("openai",): 5, ("x",): 6} == {k: v.cost_pico_usd for k, v in found.items()}

    def test_a_cell_of_no_facet_is_told_and_goes(self, store: PostgresStore) -> None:
        store.write([an_event(5)])
        with store._writing() as (connection, _):
            connection.execute("UPDATE rollups SET other_facet_id = 77 WHERE other_facet_id <> 0")
        assert ("(no facet has the id 77)",) in {found.facets for found in store.verify()}
        store.rebuild()

        assert [] == store.verify()
        assert [(0,)] == asked(store, "SELECT count(*) FROM rollups WHERE other_facet_id = 77")

    def test_tag_sets_that_are_interned_while_a_user_is_forgotten_are_forgotten_too(
        self, url: str, store: PostgresStore
    ) -> None:
        """A batch has stored its tags, and waits for its turn meanwhile."""
        store.write([an_event(1, tags={"user": "alice"})])
        with (
            closing(PostgresStore(url, Config())) as other,
            psycopg.connect(store._address.conninfo, autocommit=True) as third,
        ):
            other.open()
            third.execute(f"SET search_path = {store._address.schema}")
            with third.transaction():
                third.execute("SELECT FROM turn FOR UPDATE")  # an UPDATE would mix the queue up
                event = an_event(10, tags={"user": "alice", "n": "new"})
                threads = [
                    threading.Thread(target=store.forget, args=("user", "alice")),
                    threading.Thread(target=other.write, args=([event],)),
                ]
                for waiting, thread in enumerate(threads, 1):
                    thread.start()
                    wait_for_locks(third, waiting)
            for thread in threads:
                thread.join()
        found = {event.price.cost_pico_usd: dict(event.tags) for event in stored(store)}
        assert {"user": "alice", "n": "new"} == found[10]
        assert found[1]["user"].startswith("(erased")
        assert [] == store.verify()
        names = (
            "SELECT value FROM facets f JOIN facet_keys k ON k.id = key_id WHERE key = $$tag:user$$"
        )
        assert {("alice",), (found[1]["user"],)} == set(asked(store, names))

    def test_who_forgets_waits_for_tags_that_are_being_stored(
        self, url: str, store: PostgresStore
    ) -> None:
        store.write([an_event(1, tags={"user": "alice"})])
        other = PostgresStore(url, Config())
        forgotten: list[int] = []
        thread = threading.Thread(
            target=lambda: forgotten.append(store.forget("user", "alice", substitute="x"))
        )
        with other._writing() as (connection, writer), connection.transaction():
            batch = Batch.of([an_event(2, tags={"user": "alice", "n": "new"})])
            writer._interner.intern(connection, batch.wanted())
            thread.start()
            thread.join(0.5)
            assert [] == forgotten
        thread.join()
        assert [2] == forgotten
        other.close()

    def test_dead_letters_forget_too(self, store: PostgresStore) -> None:
        event = an_event(1, tags={"user": "alice", "n": "alice"})
        kind, record = encode(event)
        store.bury(DeadLetter(str(new_id()), kind, record, "why", NOON.isoformat()))
        store.bury(DeadLetter(str(new_id()), kind, "nonsense", "why", NOON.isoformat()))
        store.forget("user", "alice", substitute="x")

        expected = encode(replace(event, tags={"user": "x", "n": "alice"}))[1]
        assert {("nonsense",), (expected,)} == set(asked(store, "SELECT record FROM dead_letters"))

    def test_copies_are_made_by_pg_dump(self, store: PostgresStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"pg_dump --format=custom --schema=test_\w+ --file="):
            store.backup(tmp_path / "copy")

    def test_a_month_that_someone_reads_is_told_and_dropped_later(
        self, store: PostgresStore
    ) -> None:
        store.write([an_event(1), an_event(2, created_at=NOON + timedelta(days=90))])
        with store.snapshot() as snapshot:
            assert 2 == len(snapshot.events(scope={}, limit=9))
            began = time.monotonic()
            with pytest.raises(StoreBusy, match="kept busy by others"):
                store.prune(NOON + timedelta(days=60))
            assert time.monotonic() - began < 8
            assert 2 == len(snapshot.events(scope={}, limit=9))
            store.write([an_event(4, created_at=NOON + timedelta(days=90))])
        assert 1 == store.prune(NOON + timedelta(days=60))
        assert [2, 4] == [event.price.cost_pico_usd for event in stored(store)]
        assert [] == store.verify()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
class TestFork:
    def test_parent_and_child_both_go_on(self, store: PostgresStore) -> None:
        """The child's end says no goodbye to the server in the parent's name."""
        store.write([an_event(1)])
        assert 1 == total(store)
        with store.snapshot() as snapshot:
            store.before_fork()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    store.after_fork_in_child()
                    store.write([an_event(2)])
                    code = 0 if total(store) == 3 else 2
                    store.close()
                    with pytest.raises(StoreError):
                        snapshot.position()
                except BaseException as error:
                    print(repr(error), file=sys.stderr)
                    code = 3
                finally:
                    os._exit(code)
            store.after_fork_in_parent()
            assert 0 == os.waitpid(pid, 0)[1]
            assert 1 == snapshot.totals(Query(*ALL_TIME)).groups[()].calls
        store.write([an_event(4)])
        assert 7 == total(store)

    def test_a_fork_does_not_wait_for_a_question_for_ever(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres_readers, "FORK_PATIENCE", 0.2)
        store.write([an_event(1)])
        asking, told = threading.Event(), []

        def ask() -> None:
            with store.snapshot() as snapshot:
                asking.set()
                try:
                    snapshot._rows("SELECT pg_sleep(30)")
                except StoreError as error:
                    told.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        assert asking.wait(10)
        time.sleep(0.1)
        began = time.monotonic()
        store.before_fork()
        store.after_fork_in_parent()
        assert time.monotonic() - began < 5
        thread.join(10)
        assert "took too long" in told[0]
        assert 1 == total(store)


WORKER = """
import random, sys, time
from costmw import Config
from costmw.events import Amendment
from costmw.store.postgres import PostgresStore
from rows import an_event, an_outcome

url, told, name = sys.argv[1:]
store = PostgresStore(url, Config())
rng = random.Random(name)
with open(told, "a") as journal:
    while True:
        events = [
            an_event(1, tags={"user": str(rng.randrange(400)), "tenant": str(n % 3)}, latency_ms=n)
            for n in range(rng.randrange(1, 20))
        ]
        store.write([*events, Amendment(event_id=events[0].id, reason="x", cost_pico_usd=1)])
        journal.write("".join(f"{event.id}\\n" for event in events))
        journal.flush()
"""


class TestSeveralHosts:
    def test_an_outcome_that_is_sent_again_is_counted_once(self, store: PostgresStore) -> None:
        one, other = (replace(an_outcome(), id=new_id()) for _ in range(2))
        store.write([one, one])
        store.write([other, one, an_outcome()])

        with store.snapshot() as snapshot:
            assert [3] == [row.count for row in snapshot.outcomes(*ALL_TIME, scope={})]

    def test_processes_that_are_killed_lose_nothing_that_was_acknowledged(
        self, store: PostgresStore, tmp_path: Path
    ) -> None:
        url = f"{store.url}"
        for first in range(2):
            workers = [
                subprocess.Popen(
                    [sys.executable, "-c", WORKER, url, tmp_path / f"{first}{n}", f"{first}{n}"],
                    cwd=Path(__file__).parent,
                )
                for n in range(4)
            ]
            while len([p for p in tmp_path.glob(f"{first}*") if p.stat().st_size]) < 4:
                assert all(worker.poll() is None for worker in workers)
                time.sleep(0.05)
            time.sleep(1.0)
            for worker in workers:
                worker.send_signal(signal.SIGKILL)
            for worker in workers:
                worker.wait()
        told = {
            line
            for path in tmp_path.iterdir()
            for line in path.read_text().splitlines()
            if len(line) == 36
        }
        assert told
        found = stored(store)
        ids = [str(event.id) for event in found]
        assert not told - set(ids)
        assert len(ids) == len(set(ids))
        cost = sum(event.price.cost_pico_usd for event in found)
        assert cost == total(store)
        with store.snapshot() as snapshot:
            for name in ("tag:user", "tag:tenant", "model"):
                query = Query(*ALL_TIME, (name,))
                rolled = snapshot.totals(query)
                with rows_alone():
                    assert rolled.groups == snapshot.totals(query).groups
                assert cost == sum(sums.cost_pico_usd for sums in rolled.groups.values())

    def test_histograms_have_every_call_once(self, store: PostgresStore) -> None:
        event = an_event(1, latency_ms=100, tags={"tenant": "a"})
        store.write([event, an_event(1, latency_ms=0, time_to_first_chunk_ms=7)])
        store.write([event, Amendment(event_id=event.id, reason="x", status="estimated")])

        assert [(2, 1)] == asked(
            store,
            "SELECT sum(count) FILTER (WHERE bin < 128)::int, "
            "sum(count) FILTER (WHERE bin >= 128)::int FROM rollup_histograms WHERE facet_id = 0",
        )

    def test_what_got_in_the_way_is_tried_again(
        self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from costmw.store.postgres_write import BatchWriter

        write = BatchWriter.write
        failures = iter([psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure])

        def fail(self: BatchWriter, *arguments: Any) -> Any:
            applied = write(self, *arguments)
            if (error := next(failures, None)) is not None:
                raise error("others")
            return applied

        monkeypatch.setattr(BatchWriter, "write", fail)
        store.write([an_event(1)])
        assert 1 == total(store)

        failures = iter([psycopg.errors.DeadlockDetected] * 9)
        with pytest.raises(StoreBusy, match="others are always quicker"):
            store.write([an_event(2)])


def test_the_meter_and_its_reports_work_over_postgres(url: str, tmp_path: Path) -> None:
    meter = Meter(url, config=Config(ack_timeout=30, outbox=tmp_path / "outbox.db"))
    meter.start()
    for n in range(3):
        meter.record(
            provider="openai",
            model="gpt-5-mini",
            input_tokens=1000 + n,
            output_tokens=10,
            tags={"tenant": "acme", "feature": "chat"},
        )
    overview = meter.reports.overview()

    assert (3, 3003) == (overview.month.sums.calls, overview.summary.sums.input_tokens)
    assert ["acme"] == [row.value for row in meter.reports.by("tag:tenant").rows]
    assert 3 == len(overview.calls)
    assert json.loads(overview.model_dump_json())["month"]["sums"]["calls"] == 3
    meter.close()
    assert not (tmp_path / "outbox.db").exists() or meter.status().store_failures == 0
