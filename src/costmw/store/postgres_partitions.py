"""Partitions of the events: one a month of the accounting time zone.

They are made ahead, and for months of the past when rows of them come. Rows of no
partition are kept in the default one, and move when theirs is made.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from psycopg import Connection, Error
from psycopg.sql import SQL, Identifier, Literal

from costmw.periods import midnight, next_month

logger = logging.getLogger("costmw")

MADE_AHEAD = 2
"""Months beyond the current one that have their partitions."""

YEARS_BACK = 20
"""Rows from before are kept in the default partition: their moment is a mistake, most likely."""

TRY_AGAIN_AFTER = 300.0
"""Seconds before a partition that could not be made is tried again."""

_LOCK_TIMEOUT = "1s"
_NAME = re.compile(r"usage_events_(\d{4})_(\d{2})")


class Partitions:
    """Knows which months have a partition, and makes those that are missing."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._made: set[date] = set()
        self._hours: set[int] = set()
        self._not_before = 0.0

    def load(self, connection: Connection) -> None:
        """Look at which there are."""
        self._made = set(made(connection))
        self._hours.clear()

    def make_for(self, connection: Connection, moments: Iterable[datetime]) -> None:
        """Make the partitions of these moments, and of the months to come.

        What cannot be made now is logged: its rows are kept in the default partition.
        """
        # Zones change at quarters of an hour; a month that begins inside of one is fine too:
        # this only says which months to make.
        hours = {int(moment.timestamp()) // 3600 for moment in moments}
        hours.add(int(time.time()) // 3600)
        if hours <= self._hours or time.monotonic() < self._not_before:
            return
        now = datetime.now(UTC)
        ahead = self._month_of(now)
        wanted = {ahead}
        for _ in range(MADE_AHEAD):
            ahead = next_month(ahead)
            wanted.add(ahead)
        for hour in hours:
            month = self._month_of(datetime.fromtimestamp(hour * 3600, UTC))
            if now.year - YEARS_BACK <= month.year and month <= ahead:
                wanted.add(month)
        try:
            for month in sorted(wanted - self._made):
                _make(connection, month, self._zone)
                self._made.add(month)
        except Error as error:
            self._not_before = time.monotonic() + TRY_AGAIN_AFTER
            logger.warning(
                "a partition of usage_events cannot be made now; its rows are kept in the "
                "default one meanwhile: %s",
                error,
            )
            if connection.closed:
                raise
        else:
            if len(self._hours) > 10_000:
                self._hours.clear()
            self._hours |= hours

    def _month_of(self, moment: datetime) -> date:
        return moment.astimezone(self._zone).date().replace(day=1)


def made(connection: Connection) -> list[date]:
    """The months that have a partition, oldest first."""
    rows = connection.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'usage_events'::regclass"
    ).fetchall()
    names = (_NAME.fullmatch(name) for (name,) in rows)
    return sorted(date(int(name[1]), int(name[2]), 1) for name in names if name)


def _name_of(month: date) -> str:
    return f"usage_events_{month:%Y_%m}"


def _make(connection: Connection, month: date, zone: ZoneInfo) -> None:
    table = Identifier(_name_of(month))
    start = Literal(midnight(month, zone))
    stop = Literal(midnight(next_month(month), zone))
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        take_turn(connection)
        if month in made(connection):
            return
        connection.execute(SQL("CREATE TABLE {} (LIKE usage_events INCLUDING ALL)").format(table))
        connection.execute(
            SQL(
                "WITH moved AS (DELETE FROM usage_events_default "
                "WHERE created_at >= {} AND created_at < {} RETURNING *) "
                "INSERT INTO {} SELECT * FROM moved"
            ).format(start, stop, table)
        )
        connection.execute(
            SQL("ALTER TABLE usage_events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                table, start, stop
            )
        )


def drop(connection: Connection, month: date) -> int:
    """Drop the partition of a month, and the amendments of its rows; gives their number."""
    table = Identifier(_name_of(month))
    connection.execute(
        SQL("DELETE FROM amendments a USING {} e WHERE a.event_id = e.id").format(table)
    )
    connection.execute(SQL("DELETE FROM undated_ids u USING {} e WHERE u.id = e.id").format(table))
    row = connection.execute(SQL("SELECT count(*) FROM {}").format(table)).fetchone()
    assert row is not None  # of a count
    # Whoever asks meanwhile waits behind this, and this behind whoever reads.
    connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.execute(SQL("ALTER TABLE usage_events DETACH PARTITION {}").format(table))
    connection.execute(SQL("DROP TABLE {}").format(table))
    return int(row[0])


def take_turn(connection: Connection) -> None:
    """Keep all other writers out until the end of this transaction."""
    connection.execute("UPDATE turn SET position = position + 1")
