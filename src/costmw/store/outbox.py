"""A store with an outbox: when the database is away records wait on this host's disk.

They are acknowledged then: they are as safe as in an SQLite ledger, and are sent once the
database is back, in their order. While anything waits all of this host's records go the
same way, so that nothing overtakes; nobody waits for a connection that cannot be had.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from costmw.caps.rules import Rule
from costmw.config import Config
from costmw.errors import StoreError, StoreUnreachable
from costmw.events import Record, Reservation
from costmw.store.balances import BalanceDifference
from costmw.store.base import Difference, Snapshot, TagScope, erased_name
from costmw.store.caps import Answers
from costmw.store.outbox_drainer import Drainer, Remote
from costmw.store.outbox_file import OutboxFile
from costmw.store.record_json import encode

logger = logging.getLogger("costmw")

SHARE_OF_TIMEOUT = 0.7
"""The part of `ack_timeout` that the database gets: the outbox needs some of it too."""

ASK_AGAIN_AFTER = 1.0
"""Seconds before a database that was away is asked for another reservation."""

STOP_PATIENCE = 2.0
"""Seconds that closing waits for what is being sent."""

_KEY = "fingerprint_key"


class OutboxStore:
    """Writes to `remote`, or to a file when that fails; reads from `remote` alone.

    `path` is the file, one for all processes of the host; None puts it into the user's
    state directory. Made without any I/O.
    """

    def __init__(self, remote: Remote, path: Path | None, config: Config) -> None:
        self.remote = remote
        self.url = remote.url
        self.file = OutboxFile(path, remote.url)
        self._patience = config.ack_timeout * SHARE_OF_TIMEOUT
        self._drainer = Drainer(self.file, remote)
        self._outages = 0
        self._asked_again_at = 0.0

    @property
    def time_zone(self) -> ZoneInfo:
        """The accounting time zone, once the database was reached."""
        return self.remote.time_zone

    def open(self) -> None:
        """Open the database; one that is away now is no error, as long as records can wait."""
        try:
            self.remote.open()
        except StoreUnreachable as error:
            self._prepare(error)
            logger.warning("costmw starts while its store is away: %s", error)
        try:
            if not self.file.is_empty():
                self._drainer.start()
        except StoreError as error:
            logger.error("what waits from before cannot be sent: %s", error)

    def write(self, records: Sequence[Record]) -> Answers:
        """Commit records, here or there; see `Store.write`.

        Reservations never wait here: what other hosts have spent only the database knows.
        """
        if self._is_direct():
            try:
                return self.remote.write(records, patience=self._patience)
            except StoreError as error:
                self._is_away(error)
                answers = _refused(records, error)
            except Exception as error:
                if len(records) == 1:
                    self._bury(records[0], error)
                raise
        else:
            answers = self._reserve(records)
        kept = [record for record in records if not isinstance(record, Reservation)]
        if kept:
            self.file.append(kept)
            self._drainer.start()
        return answers

    def _reserve(self, records: Sequence[Record]) -> Answers:
        """Reserve while other records wait: what they cost is still held in the database."""
        asked = [record for record in records if isinstance(record, Reservation)]
        if not asked:
            return {}
        if time.monotonic() < self._asked_again_at:
            return _refused(asked, StoreUnreachable(f"{self.url} is away"))
        try:
            return self.remote.write(asked, patience=self._patience)
        except StoreError as error:
            self._asked_again_at = time.monotonic() + ASK_AGAIN_AFTER
            return _refused(asked, error)

    def declare(self, rules: Sequence[Rule]) -> None:
        """See `Store.declare`."""
        self.remote.declare(rules)

    def page_rules(self, tags: TagScope) -> Sequence[Rule]:
        """See `Store.page_rules`."""
        return self.remote.page_rules(tags)

    def expire_holds(self, now: datetime) -> int:
        """Charge holds in the database; see `Store.expire_holds`."""
        return self.remote.expire_holds(now) if self._is_direct() else 0

    def keep_budget(self, rule: Rule) -> None:
        """See `Store.keep_budget`."""
        self.remote.keep_budget(rule)

    def drop_budget(self, name: str) -> None:
        """See `Store.drop_budget`."""
        self.remote.drop_budget(name)

    def waiting(self) -> int:
        """How many records wait on this host."""
        return self.file.count()

    def roll_up(self, limit: int) -> int:
        """See `Store.roll_up`."""
        return self.remote.roll_up(limit) if self._is_direct() else 0

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Open a consistent view of the database; what waits is not in it."""
        return self.remote.snapshot()

    def prune(self, before: datetime) -> int:
        """Drop old rows of the database; see `Care.prune`."""
        return self.remote.prune(before)

    def rebuild(self) -> int:
        """Make the database's rollups anew; see `Care.rebuild`."""
        return self.remote.rebuild()

    def verify(self) -> Sequence[Difference]:
        """Compare the database's rollups with its rows; see `Care.verify`."""
        return self.remote.verify()

    def verify_balances(self) -> Sequence[BalanceDifference]:
        """Compare the database's balances with its rows; see `Care.verify_balances`."""
        return self.remote.verify_balances()

    def rebuild_balances(self) -> None:
        """Make the database's balances anew; see `Care.rebuild_balances`."""
        self.remote.rebuild_balances()

    def forget(self, key: str, value: str, *, substitute: str | None = None) -> int:
        """Put something else in the place of a tag's value; see `Care.forget`.

        In what waits on this host too; what waits on another is sent as it was.
        """
        name = substitute or erased_name()
        self.file.retag(key, value, name)
        return self.remote.forget(key, value, substitute=name)

    def backup(self, target: Path) -> None:
        """Copy the database, if it can be copied; see `Care.backup`."""
        self.remote.backup(target)

    def fingerprint_key(self) -> bytes:
        """The database's key; remembered here for when it is away."""
        try:
            key = self.remote.fingerprint_key()
        except StoreError:
            if kept := self.file.setting(_KEY):
                return bytes.fromhex(kept)
            raise
        try:
            if self.file.setting(_KEY) != key.hex():
                self.file.set(_KEY, key.hex())
        except StoreError as error:
            logger.warning("records cannot wait here when the store is away: %s", error)
        return key

    def close(self) -> None:
        """Release connections and files; what waits is sent when the store is used again."""
        self._drainer.stop(STOP_PATIENCE)
        self.file.close()
        self.remote.close()

    def before_fork(self) -> None:
        """Come to rest: nobody is inside of the database, or of the file."""
        self.remote.before_fork()
        self.file.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.file.after_fork_in_parent()
        self.remote.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on, without anything that belongs to the parent."""
        self.file.after_fork_in_child()
        self.remote.after_fork_in_child()
        self._drainer.after_fork_in_child()

    def _is_direct(self) -> bool:
        """Whether nothing waits that has to go first."""
        try:
            return self.file.is_empty()
        except StoreError as error:
            logger.debug("costmw's outbox cannot be looked at: %s", error)
            return True

    def _prepare(self, away: StoreError) -> None:
        try:
            self.file.prepare()
        except StoreError as error:
            raise StoreError(f"{away}; and {error}") from away

    def _is_away(self, error: StoreError) -> None:
        self._outages += 1
        if (self._outages & (self._outages - 1)) == 0:
            logger.warning("records wait in %s meanwhile: %s", self.file.path, error)

    def _bury(self, record: Record, error: Exception) -> None:
        """Keep a record that the database refuses; whoever wrote it is told as well."""
        try:
            kind, text = encode(record)
            self.file.bury(kind, text, f"{type(error).__name__}: {error}".strip())
            self._drainer.start()
        except (StoreError, TypeError) as reason:
            logger.debug("a record that cannot be stored is not kept either: %s", reason)


def _refused(records: Sequence[Record], error: StoreError) -> Answers:
    return {record.id: error for record in records if isinstance(record, Reservation)}
