"""The environment: variables, settings that contradict each other, versions."""

from __future__ import annotations

import difflib
import importlib.metadata
import re
import sqlite3
from collections.abc import Iterator, Mapping

from costmw.config import VARIABLES, Config, enabled_from_environment, store_from_environment
from costmw.doctor.case import Case
from costmw.doctor.finding import Finding
from costmw.doctor.urls import told
from costmw.errors import ConfigError
from costmw.price_overrides import load_overrides
from costmw.providers.known import find_provider
from costmw.providers.registry import provider_of_host
from costmw.store.layers import ledger_of
from costmw.store.sqlite import SqliteStore

PREFIX = "COSTMW_"

INTEGRATIONS = {"starlette": "fastapi", "flask": "flask"}
"""Packages that costmw runs inside of, and the extra that asks for a version."""

FIXED_SQLITE = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""Where SQLite's fault in resetting a write-ahead log was mended: in two old lines, and for good
(https://www.sqlite.org/wal.html#walresetbug)."""


def check_variables(case: Case) -> Iterator[Finding]:
    """Variables that nobody reads, and values that cannot be used."""
    for name in sorted(name for name in case.environ if name.startswith(PREFIX)):
        if name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, n=1)
            yield Finding(
                "warning",
                "variable-unknown",
                f"The environment has {name}, which costmw does not read.",
                f"Did you mean {near[0]}?" if near else f"Known are {', '.join(VARIABLES)}.",
            )
    for name in (name for name in VARIABLES if case.environ.get(name)):
        try:
            alone = {name: case.environ[name]}
            config = Config.from_environment(alone)
            enabled_from_environment(alone)
            if config.price_file:
                load_overrides(config.price_file)
        except ConfigError as error:
            yield Finding(
                "error",
                "setting-invalid",
                f"{name} cannot be used: {str(error).removeprefix(f'{name}: ')}.",
                f"Correct it, or unset {name}: Meter(...) raises this error at the start.",
            )


def check_contradictions(case: Case) -> Iterator[Finding]:
    """Settings of which one makes another one useless."""
    if case.config.durability == "async" and case.environ.get("COSTMW_ACK_TIMEOUT"):
        yield Finding(
            "warning",
            "settings-contradict",
            "COSTMW_ACK_TIMEOUT has no effect: with COSTMW_DURABILITY=async no call waits.",
            "Unset one of the two; durability 'commit' is what waits for the disk.",
        )
    stated = store_from_environment(case.environ)
    for meter in case.meters:
        if stated and not _same_store(stated, meter.store.url):
            yield Finding(
                "warning",
                "settings-contradict",
                f"COSTMW_STORE names {told(stated)}, and a meter is made with "
                f"{told(meter.store.url)}: what stands in the code wins.",
                "Leave the store out of Meter(...), or unset COSTMW_STORE.",
            )
        ignored = [
            name
            for name, setting in _SETTINGS.items()
            if case.environ.get(name)
            and getattr(case.config, setting) != getattr(meter.config, setting)
        ]
        if ignored:
            yield Finding(
                "warning",
                "settings-contradict",
                f"{', '.join(ignored)} {'has' if len(ignored) == 1 else 'have'} no effect: the "
                "meter is made with Meter(config=...), which reads no environment.",
                "Say it in that Config, or leave config= out.",
            )


_SETTINGS = {
    "COSTMW_DURABILITY": "durability",
    "COSTMW_ACK_TIMEOUT": "ack_timeout",
    "COSTMW_TIME_ZONE": "time_zone",
    "COSTMW_PRICES": "price_file",
    "COSTMW_HOSTS": "hosts",
}


def _same_store(one: str, other: str) -> bool:
    try:
        return SqliteStore(one, Config()).path == SqliteStore(other, Config()).path
    except ConfigError:
        return one == other


def check_hosts(case: Case) -> Iterator[Finding]:
    """Own gateways: entries that match nothing, contradict what is known, or have no price."""
    hosts: dict[str, tuple[str, Config]] = {}
    for config in (case.config, *(meter.config for meter in case.meters)):
        hosts |= {host: (provider, config) for host, provider in config.hosts.items()}
    for host, (provider, config) in hosts.items():
        known, billed_by = provider_of_host(host, {}), find_provider(provider)
        if known is not None and known.name != billed_by.name:
            yield Finding(
                "warning",
                "settings-contradict",
                f"hosts says that {host} bills as {provider!r}; costmw knows it as "
                f"{known.name!r}. What hosts says wins, prices included.",
                f"Take {host} out of hosts, unless that is meant.",
            )
        elif not billed_by.families and not _has_prices(config, provider):
            yield Finding(
                "info",
                "hosts-unpriced",
                f"hosts has {host}={provider}, a provider that is in no price list: its calls are "
                "recorded, without a cost.",
                f"Name the provider whose prices hold there ({host}=openai), or add "
                f"[[price]] entries with provider = {provider!r}.",
            )


def _has_prices(config: Config, provider: str) -> bool:
    try:
        more = load_overrides(config.price_file) if config.price_file else ()
    except ConfigError:
        return False
    return any(own.provider in (None, provider) for own in (*config.prices, *more))


def check_versions(case: Case) -> Iterator[Finding]:
    """Installed libraries that are older than those that costmw is tested with."""
    for package, (least, extras) in _requirements().items():
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if _numbers(installed) >= _numbers(least):
            continue
        needed = not extras or package in INTEGRATIONS
        yield Finding(
            "warning" if needed else "info",
            "version-old",
            f"{package} {installed} is installed; costmw "
            f"{'needs' if needed else 'is tested with'} {least} or later.",
            f"pip install 'costmw[{INTEGRATIONS[package]}]'"
            if package in INTEGRATIONS
            else f"pip install '{package}>={least}'",
        )


_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)")
_EXTRA = re.compile(r"extra == ['\"]([^'\"]+)['\"]")
_INTERNAL = {"dev", "frameworks"}


def _requirements() -> Mapping[str, tuple[str, set[str]]]:
    """What costmw's own metadata asks for: package -> least version, and the extras that ask."""
    try:
        stated = importlib.metadata.requires("costmw") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return {}
    found: dict[str, tuple[str, set[str]]] = {}
    for line in stated:
        extras = set(_EXTRA.findall(line))
        if (match := _REQUIREMENT.match(line)) and not extras & _INTERNAL:
            found.setdefault(match[1].lower(), (match[2], extras))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check_sqlite(case: Case) -> Iterator[Finding]:
    """A fault of SQLite that costmw itself does not meet, and other programs may."""
    if not any(isinstance(ledger_of(store), SqliteStore) for store in case.stores):
        return
    version = sqlite3.sqlite_version_info
    first_good = next((good for good in FIXED_SQLITE if good[:2] == version[:2]), FIXED_SQLITE[-1])
    if version < first_good:
        yield Finding(
            "info",
            "sqlite-old",
            f"SQLite {sqlite3.sqlite_version} can damage a file when two programs write it and "
            "reset its log at one moment. The processes of costmw take turns, so they do not; "
            "another program that writes the file might.",
            "Let nothing but costmw write to the file, or run a Python with SQLite 3.51.3 or "
            "later.",
        )
