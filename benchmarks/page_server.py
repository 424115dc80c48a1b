"""An app with the page and nothing else, for benchmarks/page.py: prints its port.

`/cpu` gives the CPU seconds that the process has used. With `--events N` it records so many
calls a second itself, as an app does.
"""

from __future__ import annotations

import argparse
import logging
import socket
import threading
import time
from itertools import count

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from benchmarks.ledger_events import a_call
from costmw import Budget, Config, Meter
from costmw.dashboard.auth import anonymous
from costmw.integrations.starlette import dashboard_app

BUDGETS = (Budget("each tenant", limit="5000", per="tenant"), Budget("all", limit="100000"))


def record_for_ever(meter: Meter, a_second: float) -> None:
    """Record calls at an even pace."""
    began = time.monotonic()
    for n in count():
        time.sleep(max(0.0, began + n / a_second - time.monotonic()))
        meter.record(**a_call(n))


def cpu(_: Request) -> PlainTextResponse:
    """CPU seconds of this process so far, all threads."""
    return PlainTextResponse(str(time.process_time()))


def serve(store: str, events_a_second: float) -> None:
    """Serve until killed."""
    logging.disable(logging.WARNING)
    meter = Meter(store, budgets=BUDGETS, config=Config(durability="process"))
    meter.start()
    page = Mount("/_llmcost", dashboard_app(meter, auth=anonymous()))
    app = Starlette(routes=[Route("/cpu", cpu), page])
    if events_a_second:
        threading.Thread(target=record_for_ever, args=(meter, events_a_second), daemon=True).start()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        server.run(sockets=[listener])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--events", type=float, default=0.0)
    options = parser.parse_args()
    serve(options.store, options.events)
