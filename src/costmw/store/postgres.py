"""The Postgres store: one schema of a database, written to by any number of hosts.

Writers of all hosts take turns at one row: every event counts in the same cells of the
rollups, so that they would wait for each other anyway, and some of them for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from costmw.caps.rules import Rule
from costmw.config import Config, zone
from costmw.errors import MissingExtra, StoreBusy, StoreError
from costmw.events import Record
from costmw.store.alert_rows import AlertRows
from costmw.store.balances import BalanceDifference, differences
from costmw.store.base import Difference, TagScope, erased_name
from costmw.store.budget_rows import read_epoch
from costmw.store.caps import Answers, Applied, Caps
from costmw.store.claims import Execute
from costmw.store.holds import expired
from costmw.store.outbox_file import DeadLetter

try:
    import psycopg
    import psycopg_pool  # noqa: F401 - so that a missing one is told here
except ImportError as error:
    raise MissingExtra(package="psycopg", extra="postgres") from error

from costmw.store import postgres_care as care
from costmw.store.postgres_caps import PostgresLedger
from costmw.store.postgres_errors import TRY_AGAIN, translated
from costmw.store.postgres_forget import forget_value
from costmw.store.postgres_partitions import take_turn
from costmw.store.postgres_read import PostgresSnapshot
from costmw.store.postgres_readers import Readers
from costmw.store.postgres_schema import is_migrated, migrate, refuse_other_encodings
from costmw.store.postgres_settings import fingerprint_key, setting, settle_time_zone
from costmw.store.postgres_sql import clock, executing, storable
from costmw.store.postgres_url import address_of
from costmw.store.postgres_watch import Watch
from costmw.store.postgres_write import BatchWriter

WRITE_PATIENCE = 30.0
"""Seconds that a transaction may take, server and network together."""

TRIES = 3
"""How often a transaction is tried that others have got in the way of."""

SUBMISSIONS_KEPT_DAYS = 90
OUTCOME_IDS_KEPT_DAYS = 30

_SESSION = (
    "SET search_path = {schema}; SET timezone = 'UTC'; SET jit = off; "
    # Nearly all that is looked at is in memory.
    "SET random_page_cost = 1.1; "
    "SET lock_timeout = '10s'; SET statement_timeout = '60s'; "
    # A host that stops in the middle of a transaction does not keep the others out for ever.
    "SET idle_in_transaction_session_timeout = '{idle}s'"
)


class PostgresStore:
    """Keeps the ledger in one schema of a Postgres database; made without any I/O."""

    def __init__(self, url: str, config: Config) -> None:
        self._address = address_of(url)
        self.url = self._address.shown
        """The URL without its secrets."""
        self._config = config
        self._zone: ZoneInfo | None = None
        self._connection: psycopg.Connection | None = None
        self._writer: BatchWriter | None = None
        self._turn = threading.Lock()
        self._caps = Caps()
        self._watch = Watch()
        self._readers = Readers(self._address.conninfo, self.url, self._connect, self._configure)

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone, once the store is open."""
        return self._zone or zone(self._config.time_zone or "UTC")

    def open(self) -> None:
        """Make or check the schema and its tables; see `Store.open`."""
        with self._writing() as (connection, writer):
            connection.execute(
                "DELETE FROM submissions WHERE created_at < now() - make_interval(days => $1)",
                (SUBMISSIONS_KEPT_DAYS,),
            )
            connection.execute(
                "DELETE FROM counted_outcomes WHERE counted_at < now() - make_interval(days => $1)",
                (OUTCOME_IDS_KEPT_DAYS,),
            )
            writer.partitions.make_for(connection, ())
        with self._changing_budgets():
            pass  # what the app declares counts from now on

    def write(self, records: Sequence[Record], *, patience: float | None = None) -> Answers:
        """Commit records in one transaction, within `patience` seconds; see `Store.write`."""
        applied = self._write(records, patience)
        if applied.late:
            self._write(applied.late, patience)
        return applied.refusals

    def _write(self, records: Sequence[Record], patience: float | None) -> Applied:
        if not records:
            return Applied()
        for left in reversed(range(TRIES)):
            try:
                with self._writing(patience) as (connection, writer):
                    try:
                        return writer.write(connection, records)
                    except TRY_AGAIN as error:
                        raise _GotInTheWay from error
            except _GotInTheWay as error:
                if not left:
                    raise StoreBusy(f"{self.url}: others are always quicker") from error.__cause__
        raise AssertionError("the last try gives or raises")

    def declare(self, rules: Sequence[Rule]) -> None:
        """Say what the app's own blocking budgets are; see `Store.declare`."""
        self._caps.declare(rules)

    def page_rules(self, tags: TagScope) -> Sequence[Rule]:
        """The budgets of the page that a call counts in; see `Store.page_rules`."""
        return self._caps.page_rules(tags)

    def expire_holds(self, now: datetime) -> int:
        """Charge holds that nobody has settled in time; see `Store.expire_holds`."""
        with self._writing() as (connection, _):
            rows = expired(PostgresLedger(connection, self.time_zone, self.url), now)
        if rows:
            self.write(rows)
        return len(rows)

    def keep_budget(self, rule: Rule) -> None:
        """Make or change a budget of the page; see `Store.keep_budget`."""
        with self._changing_budgets() as ledger:
            self._caps.keep(ledger, rule)

    def drop_budget(self, name: str) -> None:
        """Take a budget away; see `Store.drop_budget`."""
        with self._changing_budgets() as ledger:
            self._caps.drop(ledger, name)

    @contextmanager
    def _changing_budgets(self) -> Iterator[PostgresLedger]:
        with self._writing() as (connection, _), connection.transaction():
            take_turn(connection)
            ledger = PostgresLedger(connection, self.time_zone, self.url)
            self._caps.heed(ledger, read_epoch(ledger), self.time_zone)
            yield ledger

    def roll_up(self, limit: int) -> int:
        """Nothing is left to do: the rollups change with the rows."""
        return 0

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSnapshot]:
        """Open a consistent view on a connection of its own; see `Store.snapshot`."""
        if self._zone is None:
            self.open()
        with self._readers.one() as connection:
            gate = self._readers.gate
            snapshot = PostgresSnapshot(connection, gate, self.time_zone, self.url)
            snapshot.begin()
            yield snapshot

    @contextmanager
    def snapshot_as_it_is(self) -> Iterator[PostgresSnapshot]:
        """Open a view of a ledger that is there; nothing is made or migrated.

        Raises:
            StoreError: when there is none, or one of an older version, or it cannot be read.
        """
        with self._readers.one() as connection:
            if not is_migrated(connection, self._address.schema):
                raise StoreError(f"{self.url} has no ledger of this version yet")
            kept = zone(setting(connection, "time_zone") or "UTC")
            snapshot = PostgresSnapshot(connection, self._readers.gate, kept, self.url)
            snapshot.begin()
            yield snapshot

    def prune(self, before: datetime) -> int:
        """Drop the rows of whole months before a moment; see `Care.prune`.

        A month is dropped with its partition, at once.

        Raises:
            StoreBusy: when someone reads for too long; try again.
        """
        with self._writing(care.PATIENCE) as (connection, writer):
            dropped = care.prune(connection, before, self.time_zone)
            writer.partitions.load(connection)
        if dropped:
            with self._writing(care.PATIENCE) as (connection, _):
                care.drop_unused_tag_sets(connection)
        return dropped

    def verify(self) -> list[Difference]:
        """Compare the rollups with the rows, as both are at one moment; see `Care.verify`."""
        with self.snapshot() as snapshot:
            return list(care.differences(snapshot.replay(), snapshot.pruned_until()))

    def verify_balances(self) -> list[BalanceDifference]:
        """Compare balances with rows and holds; see `Care.verify_balances`."""
        with self.snapshot() as snapshot:
            return differences(snapshot, snapshot.rules(), self._caps.now())

    def rebuild_balances(self) -> None:
        """Make balances anew; see `Care.rebuild_balances`."""
        with self._changing_budgets() as ledger:
            self._caps.rebuild(ledger)

    def rebuild(self) -> int:
        """Mend the rollups by the rows, a day at a time, while others write; see `Care.rebuild`."""
        replayed = 0
        after: datetime | None = None
        while True:
            with self._writing() as (connection, _):
                seen = care.rebuilt(connection)
            with self.snapshot() as snapshot:
                replay = snapshot.replay()
                day = care.next_day(replay, after or snapshot.pruned_until())
            if day is None:
                return replayed
            with self._writing(care.PATIENCE) as (connection, writer):
                if replay.unknown:
                    writer.intern_kinds(connection, replay.unknown)
                elif care.mend(connection, day, seen):
                    replayed += day.replayed
                    after = day.stop

    def forget(self, key: str, value: str, *, substitute: str | None = None) -> int:
        """Put something else in the place of a tag's value; see `Care.forget`."""
        name = substitute or erased_name()
        with self._writing(care.PATIENCE) as (connection, _), care.in_turn(connection):
            count = forget_value(connection, key, value, name)
            ledger = PostgresLedger(connection, self.time_zone, self.url)
            self._caps.heed(ledger, read_epoch(ledger), self.time_zone)
            self._caps.retag(ledger, key, value, name)
        return count

    def backup(self, target: Path) -> None:
        """Refuse: Postgres has tools of its own for that.

        Raises:
            StoreError: always; it says which.
        """
        raise StoreError(
            f"{self.url} is not copied by costmw: Postgres makes its own backups, with "
            f"'pg_dump --format=custom --schema={self._address.schema} --file=FILE DATABASE'"
        )

    def fingerprint_key(self) -> bytes:
        """Read or make the key; it lies in the database, so that all hosts have the same."""
        with self._writing() as (connection, _):
            return fingerprint_key(connection, self.url)

    def bury(self, letter: DeadLetter) -> None:
        """Keep a copy of a record that cannot be stored."""
        reason = storable(letter.reason).encode("utf-8", "replace").decode()
        with self._writing() as (connection, _):
            connection.execute(
                "INSERT INTO dead_letters (id, kind, record, reason, failed_at) "
                "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                (letter.id, letter.kind, letter.record, reason, letter.failed_at),
            )

    @property
    def alerts(self) -> AlertRows:
        """The alerts of this ledger, apart from the connection that calls are written on."""
        return AlertRows(self._executing, clock)

    @contextmanager
    def _executing(self) -> Iterator[Execute]:
        if self._zone is None:
            self.open()
        with (
            self._readers.one() as connection,
            self._readers.gate.inside(),
            translated(self.url),
            connection.transaction(),
        ):
            # One at a time: what is committed later has the higher position.
            connection.execute("LOCK TABLE alerts IN SHARE ROW EXCLUSIVE MODE")
            yield executing(connection)

    def close(self) -> None:
        """Close all connections that nobody uses."""
        with self._turn:
            self._disconnect()
        self._readers.close()

    def before_fork(self) -> None:
        """Close the connection that writes, and wait for the statements of those that read."""
        self._turn.acquire()
        self._readers.before_fork()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._readers.after_fork_in_parent()
        self._turn.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, without the parent's connections."""
        self._readers.after_fork_in_child()
        self._watch.after_fork_in_child()
        self._turn = threading.Lock()

    @contextmanager
    def _writing(
        self, patience: float | None = None
    ) -> Iterator[tuple[psycopg.Connection, BatchWriter]]:
        """The connection to write with, for one thread at a time.

        When anything goes wrong its transaction is undone, and ids that were handed out in
        it are forgotten.
        """
        with self._turn, translated(self.url):
            connection, writer = self._connected()
            try:
                with self._watch.limit(connection, patience or WRITE_PATIENCE):
                    yield connection, writer
            except BaseException:
                writer.forget_ids()
                self._undo(connection)
                raise

    def _connected(self) -> tuple[psycopg.Connection, BatchWriter]:
        if self._connection is not None and self._connection.closed:
            self._disconnect()
        if self._connection is None or self._writer is None:
            connection = self._connect()
            try:
                with self._watch.limit(connection, WRITE_PATIENCE):
                    refuse_other_encodings(connection, self.url)
                    migrate(connection, self._address.schema, self.url)
                    wanted = self._config.time_zone
                    self._zone = settle_time_zone(connection, wanted, self.url)
                    writer = BatchWriter(self._zone, self._caps, self.url)
                    self._caps.forget()
                    writer.partitions.load(connection)
            except BaseException:
                connection.close()
                raise
            # Whatever was remembered may be of a database that was restored since.
            self._connection, self._writer = connection, writer
        return self._connection, self._writer

    def _connect(self) -> psycopg.Connection:
        connection = psycopg.Connection.connect(
            self._address.conninfo, autocommit=True, cursor_factory=psycopg.RawCursor
        )
        try:
            self._configure(connection, idle=10)
            if self._config.durability != "commit":
                connection.execute("SET synchronous_commit = off")
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: psycopg.Connection, idle: int = 60) -> None:
        connection.execute(_SESSION.format(schema=self._address.schema, idle=idle))

    def _undo(self, connection: psycopg.Connection) -> None:
        try:
            if not connection.closed:
                connection.rollback()
        except psycopg.Error:
            connection.close()
        if connection.closed:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._writer = None
        if connection is not None:
            connection.close()


class _GotInTheWay(Exception):
    """Another transaction did; the same again may succeed."""
