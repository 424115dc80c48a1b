"""Times a bare app, with costmw's middleware and with one peer's: `middlewares NAME`."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from costmw import Config, Meter
from costmw.integrations import starlette, wsgi

REQUESTS = 5_000
ROUNDS = 15

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/items/17",
    "raw_path": b"/items/17",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"app.test"), (b"accept", b"*/*"), (b"user-agent", b"test")],
    "client": ("127.0.0.1", 50_000),
    "server": ("127.0.0.1", 8_000),
}
ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/items/17",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "app.test",
    "REMOTE_ADDR": "127.0.0.1",
    "wsgi.url_scheme": "http",
}
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
BODY = {"type": "http.response.body", "body": b"{}"}


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once."""
    await send(START)
    await send(BODY)


class Nothing:
    """A middleware that only calls on."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Call on."""
        await self.app(scope, receive, send)


def bare_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answers at once."""
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]


def nothing_wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A middleware that only calls on."""
    return bare_wsgi(environ, start_response)


def peer_asgi(name: str) -> Asgi:
    """The bare app with a peer's middleware, as its README says."""
    if name == "asgi-correlation-id":
        found: Any = importlib.import_module("asgi_correlation_id")
        return found.CorrelationIdMiddleware(bare_asgi)  # type: ignore[no-any-return]
    if name == "starlette-context":
        found = importlib.import_module("starlette_context.middleware")
        return found.RawContextMiddleware(bare_asgi)  # type: ignore[no-any-return]
    found = importlib.import_module("opentelemetry.instrumentation.asgi")
    return found.OpenTelemetryMiddleware(bare_asgi, tracer_provider=_tracers())  # type: ignore[no-any-return]


def peer_wsgi() -> Wsgi:
    """The bare app with OpenTelemetry's middleware."""
    found: Any = importlib.import_module("opentelemetry.instrumentation.wsgi")
    return found.OpenTelemetryMiddleware(bare_wsgi, tracer_provider=_tracers())  # type: ignore[no-any-return]


def _tracers() -> Any:
    """Spans are made, and exported nowhere."""
    return importlib.import_module("opentelemetry.sdk.trace").TracerProvider()


def asgi_times(apps: dict[str, Asgi]) -> dict[str, float]:
    """Microseconds a request, the median of rounds in turn."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        return

    async def requests(app: Asgi) -> None:
        for _ in range(REQUESTS):
            await app(dict(SCOPE), receive, send)

    def run(app: Asgi) -> None:
        asyncio.run(requests(app))

    return _times({name: partial(run, app) for name, app in apps.items()})


def wsgi_times(apps: dict[str, Wsgi]) -> dict[str, float]:
    """The same for WSGI; bodies are read and closed as servers do."""

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        return None

    def requests(app: Wsgi) -> None:
        for _ in range(REQUESTS):
            body = app(dict(ENVIRON), start_response)
            for _part in body:
                pass
            close = getattr(body, "close", None)
            if close is not None:
                close()

    return _times({name: partial(requests, app) for name, app in apps.items()})


def _times(pieces: dict[str, Callable[[], None]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(ROUNDS):
        for name, piece in pieces.items():
            gc.collect()
            began = time.perf_counter()
            piece()
            found[name].append((time.perf_counter() - began) / REQUESTS * 1e6)
    return {name: statistics.median(times) for name, times in found.items()}


def main(name: str) -> None:
    """Print microseconds by middleware as JSON."""
    with tempfile.TemporaryDirectory(prefix="costmw-middleware-") as folder:
        meter = Meter(f"sqlite:///{folder}/llmcost.db", config=Config())
        meter.start()
        print(json.dumps(times(name, meter)))
        meter.close()


def times(name: str, meter: Meter) -> dict[str, float]:
    """Microseconds a request takes: bare, and with each middleware."""
    if name.endswith("wsgi"):
        return wsgi_times(
            {
                "bare": bare_wsgi,
                "calls on": nothing_wsgi,
                "costmw": wsgi.CostMiddleware(bare_wsgi, meter),
                name: peer_wsgi(),
            }
        )
    return asgi_times(
        {
            "bare": bare_asgi,
            "calls on": Nothing(bare_asgi),
            "costmw": starlette.CostMiddleware(bare_asgi, meter),
            name: peer_asgi(name),
        }
    )


if __name__ == "__main__":
    main(sys.argv[1])
