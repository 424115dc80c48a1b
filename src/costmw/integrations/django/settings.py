"""The setting `COSTMW`, read when it is first needed.

| key | |
|---|---|
| `METER` | a `Meter`, the dotted path of one, or a dict of its arguments; else `Meter()`, which the environment's `COSTMW_STORE` sets up |
| `TAGS` | takes the request and gives tags; asked when an LLM call starts |
| `USER` | tag calls with the primary key of who is signed in; True |
| `AUTH` | takes the request and gives a `Principal`, or None to refuse; without it the page stays closed |
| `EXPLAIN_REFUSALS` | tell whoever asked which budget refused, its scope and amounts; False |
| `RESPONSE_HEADERS` | add `X-LLM-Cost` and `Server-Timing` to responses; False |

`TAGS` and `AUTH` are callables, or the dotted paths of such.
"""  # noqa: E501 - a row is a line

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.utils.module_loading import import_string

from costmw.errors import ConfigError
from costmw.meter import Meter

if TYPE_CHECKING:
    from django.http import HttpRequest

    from costmw.context import Tags
    from costmw.dashboard.auth import Auth


@dataclass(frozen=True, eq=False, slots=True)
class Settings:
    """What `COSTMW` says, checked."""

    meter: Meter
    tags: Callable[[HttpRequest], Tags] | None
    user: bool
    auth: Auth | None
    explain_refusals: bool
    response_headers: bool


@functools.cache
def read_settings() -> Settings:
    """The settings of the project.

    Raises:
        ConfigError: when one of them cannot be used.
    """
    given = _given()
    _refuse_unknown(given)
    return Settings(**{key.lower(): read(given) for key, read in _KEYS.items()})


def get_meter() -> Meter:
    """The meter of the project: `client = get_meter().instrument(OpenAI())`.

    Raises:
        ConfigError: when a setting cannot be used.
    """
    return read_settings().meter


def find_problems() -> Iterator[tuple[ConfigError, str]]:
    """What cannot be used, and how to say it instead."""
    try:
        given = _given()
    except ConfigError as error:
        yield error, "COSTMW = {'METER': {'store': 'sqlite:///llmcost.db'}}"
        return
    try:
        _refuse_unknown(given)
    except ConfigError as error:
        yield error, f"Known are {', '.join(_KEYS)}."
    for key, read in _KEYS.items():
        try:
            read(given)
        except ConfigError as error:
            yield error, _HINTS[key]


def forget_settings(*, setting: str, **_: Any) -> None:
    """Read `COSTMW` anew: a test has set it otherwise."""
    if setting == "COSTMW":
        read_settings.cache_clear()


def _given() -> dict[str, Any]:
    given = getattr(settings, "COSTMW", {})
    if not isinstance(given, dict):
        raise ConfigError(f"COSTMW must be a dict, and is a {type(given).__name__}.")
    return given


def _refuse_unknown(given: dict[str, Any]) -> None:
    unknown = [str(key) for key in given if key not in _KEYS]
    if unknown:
        raise ConfigError(f"COSTMW has no setting {', '.join(unknown)}.")


def _meter(given: dict[str, Any]) -> Meter:
    value = _imported(given.get("METER", {}), "METER")
    if isinstance(value, Meter):
        return value
    if not isinstance(value, dict):
        raise ConfigError(
            f"COSTMW['METER'] is a {type(value).__name__}, and must be a Meter or its arguments."
        )
    try:
        return Meter(**value)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"COSTMW['METER'] cannot make a Meter: {error}.") from error


def _callable(key: str, given: dict[str, Any]) -> Any:
    value = _imported(given.get(key), key)
    if value is not None and not callable(value):
        raise ConfigError(f"COSTMW[{key!r}] is a {type(value).__name__}, and cannot be called.")
    return value


def _flag(key: str, default: bool, given: dict[str, Any]) -> bool:
    value = given.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"COSTMW[{key!r}] must be True or False, and is {value!r}.")
    return value


def _imported(value: Any, key: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except Exception as error:
        raise ConfigError(
            f"COSTMW[{key!r}] = {value!r} cannot be imported: {type(error).__name__}: {error}."
        ) from error


_KEYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "METER": _meter,
    "TAGS": functools.partial(_callable, "TAGS"),
    "USER": functools.partial(_flag, "USER", True),
    "AUTH": functools.partial(_callable, "AUTH"),
    "EXPLAIN_REFUSALS": functools.partial(_flag, "EXPLAIN_REFUSALS", False),
    "RESPONSE_HEADERS": functools.partial(_flag, "RESPONSE_HEADERS", False),
}

_FLAG_HINT = "Write True or False."
_HINTS = {
    "METER": "'METER': {'store': 'sqlite:///llmcost.db'}, or the dotted path of a Meter, as "
    "'myproject.costs.meter'.",
    "TAGS": "'TAGS': 'myproject.costs.tags_of', a function that takes the request and gives a "
    "dict.",
    "USER": _FLAG_HINT,
    "AUTH": "'AUTH': token(os.environ['LLMCOST_TOKEN']), django_user(permission=...), or the "
    "dotted path of a function that takes the request and gives a Principal.",
    "EXPLAIN_REFUSALS": _FLAG_HINT,
    "RESPONSE_HEADERS": _FLAG_HINT,
}
