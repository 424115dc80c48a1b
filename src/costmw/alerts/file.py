"""The `[alerts]` of a TOML file: what to alert of, and where to send it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from costmw.alerts.channel import Channel, Log
from costmw.alerts.notifications import Apprise
from costmw.alerts.settings import Alerts
from costmw.alerts.webhook import Webhook
from costmw.budget_file import tables_of
from costmw.errors import ConfigError

_KEYS = (
    "on_course",
    "velocity",
    "velocity_floor",
    "models",
    "every",
    "webhooks",
    "apprise",
    "log",
)


def load_alerts(path: Path | str, environ: Mapping[str, str] | None = None) -> Alerts | None:
    """Read the `[alerts]` table of a TOML file; None when there is none.

    Secrets stay out of the file with `url_env`, `urls_env` and `secret_env`, which name
    environment variables; several URLs or secrets in one are separated by spaces.

    Raises:
        ConfigError: when the file or an entry cannot be used; it names the file and the key.
        MissingExtra: when a package that it needs is not installed.
    """
    path = Path(path)
    table = tables_of(path).get("alerts")
    if table is None:
        return None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: alerts must be a table, [alerts]")
    environ = os.environ if environ is None else environ
    try:
        _check(table, _KEYS, "[alerts]")
        settings = {key: table[key] for key in _KEYS[:5] if key in table}
        for key in ("on_course", "velocity", "models"):
            if not isinstance(settings.get(key, True), bool):
                raise ConfigError(f"{key} of [alerts] is {settings[key]!r}; use true or false")
        if "every" in settings:
            settings["every"] = _number(settings["every"], "every")
        return Alerts(list(_channels(table, environ)), **settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _channels(table: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Channel]:
    for entry in _entries(table, "webhooks"):
        where = "[[alerts.webhooks]]"
        _check(entry, ("name", "url", "url_env", "secret", "secret_env", "timeout"), where)
        urls = _texts(entry, "url", environ, where)
        if len(urls) != 1:
            raise ConfigError(f"{where} needs one url, or url_env")
        options: dict[str, Any] = _name_of(entry, where)
        if "timeout" in entry:
            options["timeout"] = _number(entry["timeout"], "timeout")
        yield Webhook(urls[0], _texts(entry, "secret", environ, where), **options)
    for entry in _entries(table, "apprise"):
        where = "[[alerts.apprise]]"
        _check(entry, ("name", "urls", "urls_env"), where)
        yield Apprise(*_texts(entry, "urls", environ, where), **_name_of(entry, where))
    if "log" in table:
        log = table["log"]
        where = "[alerts.log]"
        if not isinstance(log, dict):
            raise ConfigError(f"log of [alerts] must be a table, {where}")
        _check(log, ("name", "level"), where)
        level = logging.getLevelNamesMapping().get(str(log.get("level", "warning")).upper())
        if level is None:
            raise ConfigError(f"level of {where} is {log['level']!r}; use 'info' or 'warning'")
        yield Log(level, **_name_of(log, where))


def _entries(table: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    entries = table.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{key} of [alerts] must be [[alerts.{key}]] tables")
    return entries


def _check(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if strange := sorted(set(entry) - set(known)):
        raise ConfigError(f"{where} has {strange[0]!r}; use one of {', '.join(known)}")


def _name_of(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    name = entry.get("name")
    if name is None:
        return {}
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name of {where} is {name!r}; give it as text")
    return {"name": name}


def _texts(entry: Mapping[str, Any], key: str, environ: Mapping[str, str], where: str) -> list[str]:
    """What is said in the file, or in the environment; never repeated in an error."""
    said, variable = entry.get(key), entry.get(f"{key}_env")
    if said is not None and variable is not None:
        raise ConfigError(f"{where} has {key} and {key}_env; use one of them")
    if variable is not None:
        if not isinstance(variable, str) or not environ.get(variable):
            raise ConfigError(
                f"{key}_env of {where} names {variable!r}, which is not set in the environment"
            )
        return environ[variable].split()
    found = [said] if isinstance(said, str) else ([] if said is None else said)
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ConfigError(f"{key} of {where} must be text")
    return found


def _number(value: Any, key: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{key} is {value!r}; it must be a number of seconds") from None
