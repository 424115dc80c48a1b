"""The example app, served with a past, live traffic, and a provider that costs nothing."""

from __future__ import annotations

import importlib.util
import signal
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from costmw import Budget, Meter
from costmw.demo.history import made_up_history
from costmw.demo.saying import say
from costmw.demo.traffic import answer, traffic
from costmw.errors import ConfigError, MissingExtra
from costmw.listening import listen, shown

BUDGETS = (
    Budget("all of the app", "80", period="month"),
    Budget("each tenant", "20", per="tenant", period="month"),
    Budget("trial of initech", "0.01", where={"tenant": "initech"}, period="day", action="block"),
)
"""Those in the app's code."""

PAGE_BUDGET = Budget("digests", "12", where={"feature": "digest"}, period="month")
"""One that somebody made on the page."""

SLICE = 2000
"""Rows that are rolled up at a time."""


def run_demo(*, port: int = 0, seconds: float | None = None, store: str | None = None) -> None:
    """Serve the demo until Ctrl-C, or for `seconds`; prints the page's address.

    Raises:
        MissingExtra: when the demo's packages are not installed.
        ConfigError: when the port is taken.
    """
    try:
        import fastapi  # noqa: F401
        import openai  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtra(package=error.name or "fastapi", extra="demo") from error
    from costmw.dashboard.auth import anonymous

    example = _example()
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="costmw-demo-") as folder:
        meter = Meter(
            store or f"sqlite:///{folder}/llmcost.db",
            tags={"environment": "demo"},
            budgets=BUDGETS,
        )
        meter.start()
        fill(meter, datetime.now(UTC))
        app = example.create_app(meter=meter, page_auth=anonymous())
        app.state.fake_provider.responder = answer
        listener = listen("127.0.0.1", port)
        address = shown(listener)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        serving.start()
        try:
            _wait_for(server, serving)
            with traffic(address):
                say(f"The page, with live traffic: {address}/_llmcost/")
                say("Stop with Ctrl-C.")
                serving.join(seconds)
        except KeyboardInterrupt:
            say("Stopping.")
        finally:
            server.should_exit = True
            serving.join(10)
            meter.close()


def fill(meter: Meter, now: datetime) -> None:
    """Give an empty ledger a past, and a budget that was made on the page."""
    if meter.reports.calls(1):
        return
    say("Making up a past ...")
    meter.store.write(list(made_up_history(meter, now)))
    while meter.store.roll_up(SLICE) == SLICE:
        continue
    meter.keep_budget(PAGE_BUDGET)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _example() -> ModuleType:
    """The FastAPI example: part of the package in a wheel, in `examples/` of a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "examples", package.parents[1] / "examples"):
        path = folder / "fastapi_app" / "app.py"
        if path.is_file():
            spec = importlib.util.spec_from_file_location("costmw_example", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module  # where dataclasses look for it
            spec.loader.exec_module(module)
            return module
    raise ConfigError("the example app is not part of this installation")


def _wait_for(server: Any, serving: threading.Thread) -> None:
    while not server.started:
        if not serving.is_alive():
            raise ConfigError("the example app did not start; see the lines above")
        time.sleep(0.05)
