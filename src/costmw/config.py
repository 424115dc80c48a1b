"""Settings: one frozen object, from code or from the environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from costmw.errors import ConfigError
from costmw.hosts import own_host
from costmw.price_overrides import PriceOverride

Durability = Literal["commit", "process", "async"]
"""When a call's result is handed back.

`commit`: once its event is on disk. `process`: once it is in the database, which a
crash of the process survives and a crash of the machine may not. `async`: at once.
"""

LONGEST_KEPT_DAYS = 36_500


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a meter works; the defaults are right for most apps.

    `ack_timeout`: seconds that a call waits for its event's commit at most.
    `queue_size`: events that wait in memory at most; more are dropped and counted.
    `batch_size`: events in one transaction at most. `time_zone`: the IANA zone in which
    days and months are counted; None keeps the store's own (UTC in a new one).
    `prices`: the user's own prices; `price_file`: a TOML file with more of them.
    `hosts`: own gateways, host to provider; a port is optional, `.internal` stands for all
    below. `max_body_bytes`: a JSON response that arrives as a stream is read up to this
    size. `idle_timeout`: seconds after which a stream that nobody reads on is settled as
    `incomplete`. `hold_ttl`: seconds after which what a budget holds for a call is charged,
    when the process that made the call is not heard of any more. `outbox`: the file in which
    records wait on this host while a Postgres store is away; None puts it into the user's
    state directory. `keep_days`: rows older than so many days are dropped, their sums kept;
    None keeps them for ever. `hash_tags`: tags whose values are stored as keyed hashes.
    `budgets_file`: a TOML file of budgets and alerts.
    """

    durability: Durability = "commit"
    ack_timeout: float = 1.0
    queue_size: int = 10_000
    batch_size: int = 500
    time_zone: str | None = None
    prices: tuple[PriceOverride, ...] = ()
    price_file: Path | str | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    max_body_bytes: int = 32 * 1024 * 1024
    idle_timeout: float = 600.0
    hold_ttl: float = 60.0
    outbox: Path | str | None = None
    keep_days: int | None = None
    hash_tags: tuple[str, ...] = ()
    budgets_file: Path | str | None = None

    def __post_init__(self) -> None:
        if self.durability not in get_args(Durability):
            raise ConfigError(
                f"durability is {self.durability!r}; use one of {', '.join(get_args(Durability))}"
            )
        for name in (
            *("ack_timeout", "queue_size", "batch_size", "max_body_bytes", "idle_timeout"),
            "hold_ttl",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name} is {value!r}; it must be a number above 0")
        if self.ack_timeout > threading.TIMEOUT_MAX:
            raise ConfigError(f"ack_timeout is {self.ack_timeout!r} s, longer than anyone can wait")
        if self.time_zone is not None:
            zone(self.time_zone)
        if self.keep_days is not None and not (
            type(self.keep_days) is int and 0 < self.keep_days <= LONGEST_KEPT_DAYS
        ):
            raise ConfigError(
                f"keep_days is {self.keep_days!r}; it must be a whole number of days above 0, or "
                "None to keep rows for ever"
            )
        object.__setattr__(self, "hash_tags", _tag_keys(self.hash_tags))
        own = {own_host(host): provider for host, provider in self.hosts.items()}
        object.__setattr__(self, "hosts", own)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read `COSTMW_DURABILITY`, `COSTMW_ACK_TIMEOUT`, `COSTMW_TIME_ZONE`, `COSTMW_PRICES`
        (a file), `COSTMW_HOSTS` (`llm.internal=openai,gateway.internal=anthropic`),
        `COSTMW_OUTBOX` (a file), `COSTMW_KEEP_DAYS`, `COSTMW_HASH_TAGS` (`user,email`) and
        `COSTMW_BUDGETS` (a file).

        Raises:
            ConfigError: naming the variable and what is wrong with it.
        """
        environ = os.environ if environ is None else environ
        settings: dict[str, object] = {}
        for variable, (name, read) in _VARIABLES.items():
            if text := environ.get(variable):
                try:
                    settings[name] = read(text)
                    cls(**{name: settings[name]})  # type: ignore[arg-type]
                except ConfigError as error:
                    raise ConfigError(f"{variable}: {error}") from None
        return cls(**settings)  # type: ignore[arg-type]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number of seconds") from None


def _days(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a whole number of days") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _tag_keys(keys: object) -> tuple[str, ...]:
    if not isinstance(keys, list | tuple) or not all(k and isinstance(k, str) for k in keys):
        raise ConfigError(f"hash_tags is {keys!r}; give the tags' keys, as in ('user',)")
    return tuple(dict.fromkeys(keys))


def _hosts(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not host.strip() or not provider.strip() for host, _, provider in pairs):
        raise ConfigError(f"hosts are {text!r}; use 'llm.internal=openai,other=anthropic'")
    return {host.strip(): provider.strip() for host, _, provider in pairs}


_VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "COSTMW_DURABILITY": ("durability", str),
    "COSTMW_ACK_TIMEOUT": ("ack_timeout", _seconds),
    "COSTMW_TIME_ZONE": ("time_zone", str),
    "COSTMW_PRICES": ("price_file", str),
    "COSTMW_HOSTS": ("hosts", _hosts),
    "COSTMW_OUTBOX": ("outbox", str),
    "COSTMW_KEEP_DAYS": ("keep_days", _days),
    "COSTMW_HASH_TAGS": ("hash_tags", _names),
    "COSTMW_BUDGETS": ("budgets_file", str),
}


VARIABLES = ("COSTMW_STORE", "COSTMW_ENABLED", *_VARIABLES)
"""Every environment variable that is read."""


def store_from_environment(environ: Mapping[str, str] | None = None) -> str | None:
    """The store's URL in `COSTMW_STORE`, or None."""
    return (os.environ if environ is None else environ).get("COSTMW_STORE") or None


def enabled_from_environment(environ: Mapping[str, str] | None = None) -> bool:
    """Whether `COSTMW_ENABLED` leaves metering on (the default).

    Raises:
        ConfigError: when it is neither yes nor no.
    """
    text = (os.environ if environ is None else environ).get("COSTMW_ENABLED", "").strip().lower()
    if text in ("", "1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    raise ConfigError(f"COSTMW_ENABLED is {text!r}; use 1 or 0")


def zone(name: str) -> ZoneInfo:
    """Look up an IANA time zone.

    Raises:
        ConfigError: when there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ConfigError(
            f"time_zone is {name!r}, which is not an IANA zone such as 'Europe/Berlin'"
        ) from None
