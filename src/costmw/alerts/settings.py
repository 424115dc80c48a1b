"""What to alert of, and where to send it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from costmw.alerts.channel import Channel
from costmw.errors import ConfigError
from costmw.money import parse_usd, to_pico

LONGEST_INTERVAL = 600.0


@dataclass(frozen=True, slots=True)
class Alerts:
    """Alerts of budgets, of sudden spend and of models, for `Meter(alerts=...)`.

    `channels` are where they go, each by itself. Thresholds of budgets are always told of.
    `on_course` tells of budgets that will be exceeded, as far as spend can be foreseen;
    `velocity` of an hour far above the same hour of the days before, by at least
    `velocity_floor` USD; `models` of models that are new, and of those without a price.
    `every` is how often to look, in seconds.

    Raises:
        ConfigError: when it makes no sense; the message names the field.
    """

    channels: Sequence[Channel]
    on_course: bool = True
    velocity: bool = True
    velocity_floor: Decimal | int | str = "5"
    models: bool = True
    every: float = 15.0

    def __post_init__(self) -> None:
        if not isinstance(self.channels, list | tuple) or not all(
            isinstance(channel, Channel) for channel in self.channels
        ):
            raise ConfigError(
                "channels of Alerts are a list of Webhook, Apprise, Callback, Log or your own"
            )
        names = [channel.name for channel in self.channels]
        for name in names:
            if not isinstance(name, str) or not name:
                raise ConfigError("a channel has no name; give it name='...'")
            if names.count(name) > 1:
                raise ConfigError(
                    f"two channels of alerts are named {name!r}; give each name='...' of its own"
                )
        if parse_usd(self.velocity_floor, "velocity_floor") < 0:
            raise ConfigError(f"velocity_floor is negative: {self.velocity_floor}")
        if isinstance(self.every, bool) or not (
            isinstance(self.every, int | float) and 0 < self.every <= LONGEST_INTERVAL
        ):
            raise ConfigError(
                f"every is {self.every!r}; it must be seconds from 0 to {LONGEST_INTERVAL:.0f}"
            )

    @property
    def velocity_floor_pico_usd(self) -> int:
        """The floor in pico-USD."""
        return to_pico(Decimal(self.velocity_floor))


def settings_of(given: Alerts | Sequence[Channel]) -> Alerts:
    """The settings of `Meter(alerts=...)`, which takes channels alone too.

    Raises:
        ConfigError: when it is neither.
    """
    return given if isinstance(given, Alerts) else Alerts(channels=given)
