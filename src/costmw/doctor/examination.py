"""All checks, run one after the other over one case."""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

from costmw.config import Config, store_from_environment
from costmw.doctor.app import check_meters, check_middleware, check_pages
from costmw.doctor.case import Case, Check, utc_now
from costmw.doctor.clients import check_clients, check_libraries
from costmw.doctor.database import check_database, check_outbox
from costmw.doctor.environment import (
    check_contradictions,
    check_hosts,
    check_sqlite,
    check_variables,
    check_versions,
)
from costmw.doctor.finding import Finding
from costmw.doctor.ledger import (
    check_calls_come_in,
    check_counted_twice,
    check_faults,
    check_prices,
    check_requests,
    check_usage,
)
from costmw.doctor.loading import load_app
from costmw.doctor.store import (
    check_access,
    check_place,
    check_space,
    check_state,
    check_store_is_named,
)
from costmw.doctor.urls import told
from costmw.errors import ConfigError
from costmw.meter import Meter
from costmw.meters import all_meters
from costmw.store.base import Store
from costmw.store.layers import open_store

CHECKS: tuple[Check, ...] = (
    check_variables,
    check_contradictions,
    check_hosts,
    check_versions,
    check_sqlite,
    check_meters,
    check_middleware,
    check_pages,
    check_clients,
    check_libraries,
    check_store_is_named,
    check_place,
    check_access,
    check_state,
    check_space,
    check_database,
    check_outbox,
    check_calls_come_in,
    check_requests,
    check_usage,
    check_prices,
    check_counted_twice,
    check_faults,
)


def examine(
    meter: Meter | None = None,
    app: object | None = None,
    *,
    store: str | None = None,
    days: int = 7,
    environ: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Say what is wrong in a set-up, and how to mend it; changes nothing.

    It looks at every object of the process, which takes a second or so: nothing for a
    request to wait for.

    Args:
        meter: the meter to look at; all of the process when left out and there is an app.
        app: the app object, to see whether its requests are bound.
        store: a store's URL; that of the meters, or `COSTMW_STORE`, when left out.
        days: how many days of the ledger to look at.
        environ: the environment; `os.environ` when left out.

    Returns:
        What was found, the worst first.
    """
    environ = os.environ if environ is None else environ
    in_process = meter is not None or app is not None
    meters = (meter,) if meter is not None else tuple(all_meters()) if in_process else ()
    config = _usable_config(environ)
    stores, problem = _stores(store, meters, config, environ)
    case = Case(
        environ=environ,
        config=config,
        meters=meters,
        stores=stores,
        store_problem=problem,
        app=app,
        in_process=in_process,
        days=days,
        now=utc_now(),
    )
    if in_process:
        gc.collect()  # a client that was dropped is no finding
    return _sorted([finding for check in CHECKS for finding in _run(check, case)])


def examine_target(target: str, *, store: str | None = None, days: int = 7) -> list[Finding]:
    """Import an app by its name, `main:app`, and examine it; see `examine`."""
    try:
        app = load_app(target)
    except ConfigError as error:
        failure = Finding(
            "error",
            "app-not-imported",
            f"{error}.",
            "Run this in the directory, with the environment and the Python that the app is "
            "started with.",
        )
        others = examine(store=store, days=days)
        # The app may name its store itself.
        return _sorted([failure, *(one for one in others if one.code != "store-not-set")])
    return examine(app=app, store=store, days=days)


def _run(check: Check, case: Case) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(case))
    except Exception as error:  # noqa: BLE001 - one check that fails is no reason to stop
        frame = traceback.extract_tb(error.__traceback__)[-1]
        found.append(
            Finding(
                "warning",
                "check-failed",
                f"{check.__name__} did not come to its end: {type(error).__name__} at "
                f"{Path(frame.filename).name}:{frame.lineno}.",
                "What it looks at remains unknown; all other checks ran. Please report this.",
            )
        )
    return found


def _sorted(findings: list[Finding]) -> list[Finding]:
    """The worst first, each once; otherwise in the order of the checks."""
    levels = ("error", "warning", "info")
    return sorted(dict.fromkeys(findings), key=lambda finding: levels.index(finding.level))


def _usable_config(environ: Mapping[str, str]) -> Config:
    """The settings of the environment, without those that cannot be used."""
    usable = dict(environ)
    for name in environ:
        try:
            Config.from_environment({name: environ[name]})
        except ConfigError:
            del usable[name]
    return Config.from_environment(usable)


def _stores(
    url: str | None, meters: tuple[Meter, ...], config: Config, environ: Mapping[str, str]
) -> tuple[tuple[Store, ...], str | None]:
    """The stores to look at, and why the one that was named is none."""
    if url is None and meters:
        return tuple({meter.store.url: meter.store for meter in meters}.values()), None
    url = url or store_from_environment(environ)
    if not url:
        return (), None
    try:
        return (open_store(url, config),), None
    except ConfigError as error:
        return (), str(error).replace(repr(url), told(url))
