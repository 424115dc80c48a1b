"""Spans of time and tags, as somebody types them on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from costmw.errors import ConfigError

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9999, 1, 1, tzinfo=UTC)


def moment_of(text: str, what: str, zone: ZoneInfo) -> datetime:
    """A day or moment in ISO 8601; without a zone it is one of `zone`.

    Raises:
        ConfigError: naming it as `what` when it is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{what} is {text!r}; use a day such as 2026-11-01, or 2026-11-01T12:00:00Z"
        ) from None


def tag_of(pair: str, what: str) -> tuple[str, str]:
    """A tag's key and value, from `key=value`.

    Raises:
        ConfigError: naming it as `what` when there is no `=` in it.
    """
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise ConfigError(f"{what} is {pair!r}; use a tag and its value, as tenant=acme")
    return key, value


def tags_of(pairs: Iterable[str]) -> dict[str, str]:
    """Tags from `key=value` pairs.

    Raises:
        ConfigError: when there is no `=` in one, or a key comes twice.
    """
    tags: dict[str, str] = {}
    for pair in pairs:
        key, value = tag_of(pair, "--where")
        if key in tags:
            raise ConfigError(f"--where has {key} twice; rows must have all that is asked for")
        tags[key] = value
    return tags
