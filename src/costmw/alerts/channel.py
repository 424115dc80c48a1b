"""Where alerts go: what a channel is, and the two that need nothing."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from costmw.alerts.alert import Alert
from costmw.errors import ConfigError, CostmwError

logger = logging.getLogger("costmw.alerts")


class NotDelivered(CostmwError):
    """A channel did not take an alert; it is tried again. Says why, without any secret."""


class ChannelClosed(CostmwError):
    """A channel says that it takes no alerts any more; nothing is tried again."""


@runtime_checkable
class Channel(Protocol):
    """Takes alerts to somebody, one at a time, from a thread of its own.

    `name` is what the ledger knows it by: alerts that wait belong to it. `address` is a
    digest of where it leads, without any secret to be read from it.
    """

    @property
    def name(self) -> str:
        """Unlike the name of any other channel."""

    @property
    def address(self) -> str:
        """Changes when it leads elsewhere."""

    def send(self, alert: Alert) -> None:
        """Deliver one alert; done when it returns.

        Raises:
            ChannelClosed: when no more are taken.
            Exception: when it has to be tried again.
        """


def digest_of(*parts: str) -> str:
    """What an address is known by."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class Callback:
    """Hands alerts to a function of the app.

    Whatever it raises has the alert tried again, so that it may get one twice: go by its id.
    It should return within half a minute.

    Args:
        function: takes an `Alert`.
        name: the function's own when left out.

    Raises:
        ConfigError: when it is not a function.
    """

    def __init__(self, function: Callable[[Alert], object], *, name: str | None = None) -> None:
        if not callable(function):
            raise ConfigError(f"Callback is given {function!r}; give it a function of an alert")
        self.name = name or str(getattr(function, "__qualname__", type(function).__qualname__))
        self.address = digest_of(self.name)
        self._function = function

    def send(self, alert: Alert) -> None:
        """Call the function."""
        self._function(alert)


class Log:
    """Writes alerts to the logger `costmw.alerts`.

    Args:
        level: that of the lines; a warning when left out.
        name: what the ledger knows it by.
    """

    def __init__(self, level: int = logging.WARNING, *, name: str = "log") -> None:
        if isinstance(level, bool) or not isinstance(level, int):
            raise ConfigError(f"the level of Log is {level!r}; give one such as logging.WARNING")
        self.name = name
        self.address = digest_of(name)
        self._level = level

    def send(self, alert: Alert) -> None:
        """Write one line."""
        logger.log(self._level, "%s. %s (%s)", alert.title, alert.message, alert.id)
