"""Budgets from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from costmw.budgets import Budget
from costmw.errors import ConfigError
from costmw.toml_file import read_toml

_KEYS = tuple(field.name for field in fields(Budget))

_TABLES = {"budgets", "alerts"}


def load_budgets(path: Path | str) -> tuple[Budget, ...]:
    """Read `[[budgets]]` tables from a TOML file.

    Each has the fields of `Budget`. Amounts may be numbers, which are read as decimals, or
    text. `limits` of a budget that is split by one tag is a table of its values; by several,
    tables with each tag and a `limit`.

    Raises:
        ConfigError: when the file or an entry cannot be read; it names the file and the key.
    """
    path = Path(path)
    entries = tables_of(path).get("budgets", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: budgets must be [[budgets]] tables")
    budgets = tuple(_budget(entry, path) for entry in entries)
    names = [budget.name for budget in budgets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: two budgets are named {name!r}")
    return budgets


def tables_of(path: Path) -> Mapping[str, Any]:
    """What a file of budgets and alerts has, numbers with a point as decimals.

    Raises:
        ConfigError: when it cannot be read, or has something else too.
    """
    tables = read_toml(path, "the budgets file")
    if strange := sorted(set(tables) - _TABLES):
        raise ConfigError(
            f"the budgets file {path} has {strange[0]!r}; it may have [[budgets]] and [alerts]"
        )
    return tables


def combined(in_code: Sequence[Budget], in_file: Sequence[Budget], path: object) -> list[Budget]:
    """Budgets of the code and of a file.

    Raises:
        ConfigError: when both have one of the same name.
    """
    names = {budget.name for budget in in_code}
    for budget in in_file:
        if budget.name in names:
            raise ConfigError(
                f"budget {budget.name!r} is in the code and in {path}: what the code says holds; "
                "take it out of the file, or give it another name"
            )
    return [*in_code, *in_file]


def _budget(entry: Mapping[str, Any], path: Path) -> Budget:
    name = entry.get("name")
    if not name or not isinstance(name, str):
        raise ConfigError(f"{path}: each of [[budgets]] needs name = '...'")
    if strange := sorted(set(entry) - set(_KEYS)):
        raise ConfigError(
            f"{path}: budget {name!r} has {strange[0]!r}; use one of {', '.join(_KEYS)}"
        )
    if "limit" not in entry:
        raise ConfigError(f"{path}: budget {name!r} needs limit = '...', in USD")
    settings = dict(entry)
    try:
        for key in ("alert_at", "wait"):
            if key in settings:
                settings[key] = _plain(settings[key])
        if "limits" in settings:
            settings["limits"] = _limits(settings["limits"], settings.get("per"), name)
        return Budget(**settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    """A share or a number of seconds, which are no money."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if isinstance(value, Decimal) else value


def _limits(limits: Any, per: Any, name: str) -> Any:
    if not isinstance(limits, list):
        return limits
    if not isinstance(per, list):
        raise ConfigError(f"limits of budget {name!r} are tables, but per is not a list of tags")
    found = {}
    for entry in limits:
        if not isinstance(entry, dict) or set(entry) != {*per, "limit"}:
            raise ConfigError(
                f"limits of budget {name!r}: each needs {', '.join(map(str, per))} and limit"
            )
        found[tuple(entry[tag] for tag in per)] = entry["limit"]
    return found
