"""Takes the alerts of the ledger to one channel, one after the other, until it has them all.

An alert counts as delivered once the channel has taken it. Whoever is interrupted before that
is written down has it sent again, with the same id: at least once, never not at all. One that
fails is tried again, later and later, and those after it wait for it.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading

from costmw.alerts.alert import alert_of
from costmw.alerts.channel import Channel, ChannelClosed, NotDelivered
from costmw.errors import CostmwError, StoreError
from costmw.store.alert_rows import AlertRows, NextAlert
from costmw.store.greenlets import MadeLate

logger = logging.getLogger("costmw")

CLAIMED_FOR = 45.0
"""Seconds for which a channel is one process's; longer than one delivery takes."""

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""Seconds until a delivery is tried again: doubled each time, up to the longest."""


class Courier:
    """A thread that runs while a channel lacks alerts; of all processes one at a time sends."""

    _lock = MadeLate(lambda: threading.Lock())

    def __init__(self, channel: Channel, rows: AlertRows) -> None:
        self.channel = channel
        self._rows = rows
        self._task = f"alerts to {channel.name}"
        self._owner = secrets.token_hex(8)
        self._thread: threading.Thread | None = None
        self._is_wanted = False

    def start(self, stop: threading.Event) -> None:
        """See whether the channel lacks something: once more, if that is being done."""
        with self._lock:
            self._is_wanted = True
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, args=(stop,), name="costmw-alerts-courier", daemon=True
                )
                thread.start()
                self._thread = thread

    def join(self, timeout: float) -> None:
        """Wait until it has come to its end."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _run(self, stop: threading.Event) -> None:
        while self._goes_on():
            try:
                while (wait := self.send_next()) is not None:
                    if wait and stop.wait(wait):
                        break
                self._rows.claim(self._task, self._owner, 0.0)
            except StoreError as error:
                logger.debug("alerts to %s wait for the store: %s", self.channel.name, error)
            except Exception:
                logger.exception("alerts to %s are interrupted", self.channel.name)

    def _goes_on(self) -> bool:
        with self._lock:
            if not self._is_wanted:
                self._thread = None
            wanted, self._is_wanted = self._is_wanted, False
            return wanted

    def send_next(self) -> float | None:
        """Try to deliver one alert.

        Returns:
            The seconds after which to go on; None when there is nothing to do here.

        Raises:
            StoreError: when the ledger cannot be used; what was sent may be sent again.
        """
        if not self._rows.claim(self._task, self._owner, CLAIMED_FOR):
            return None
        given = self._rows.next_for(self.channel.name)
        if given is None or given.due_in is None:
            return None
        if given.due_in:
            return given.due_in
        try:
            self.channel.send(alert_of(given.row))
        except ChannelClosed as error:
            logger.error("alerts end at %s: %s", self.channel.name, error)
            self._rows.failed(self.channel.name, given, None)
            return None
        except Exception as error:  # noqa: BLE001 - of the channel, which may be the app's
            retry_in = back_off(given.attempts)
            self._rows.failed(self.channel.name, given, retry_in)
            self._tell(given, error, retry_in)
            return retry_in
        self._rows.delivered(self.channel.name, given)
        return 0.0

    def _tell(self, given: NextAlert, error: Exception, retry_in: float) -> None:
        """The 1st, 2nd, 4th, 8th time."""
        failures = given.attempts + 1
        if failures & (failures - 1):
            return
        logger.warning(
            "an alert has not arrived at %s (%d time(s) now) and is tried again in %.0f s: %s",
            self.channel.name,
            failures,
            retry_in,
            told(error),
        )
        logger.debug("what %s raised", self.channel.name, exc_info=error)


def told(error: Exception) -> str:
    """What an error says, if it is one of ours; others may repeat a URL that holds a token."""
    if isinstance(error, CostmwError | NotDelivered):
        return str(error)
    return type(error).__name__


def back_off(attempts: int) -> float:
    """Seconds to wait after so many failures before this one; some less, at random."""
    longest = min(FIRST_RETRY * 2.0 ** min(attempts, 30), LONGEST_RETRY)
    return longest * random.uniform(0.75, 1.0)  # noqa: S311 - so that hosts do not come at once
