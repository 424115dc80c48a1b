"""Starlette and FastAPI: who asks, by a pure ASGI middleware; and the page to mount."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags, enter_scope
from costmw.errors import CostmwError, MissingExtra

try:
    from starlette.requests import HTTPConnection, Request
except ImportError as error:
    raise MissingExtra(package="starlette", extra="fastapi") from error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Send

    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

AsgiScope = Any


class CostMiddleware:
    """Binds every LLM call of a request to its route and tags.

    `app.add_middleware(CostMiddleware, meter=meter, tags=lambda conn: {...})`

    Args:
        app: the application.
        meter: where calls are recorded. Its store is checked when the app starts.
        tags: takes the `HTTPConnection` and gives tags. It is asked when an LLM call
            starts, after authentication has run, so it may read `conn.user`.
    """

    def __init__(
        self, app: ASGIApp, meter: Meter, tags: Callable[[HTTPConnection], Tags] | None = None
    ) -> None:
        self.app = app
        self.meter = meter
        self.tags = tags

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if not self.meter.enabled or scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not self.meter.started:
            await asyncio.to_thread(self.meter.start)
        before = enter_scope(Scope(self.meter, lambda: self._tags_of(scope)))
        try:
            await self.app(scope, receive, send)
        finally:
            enter_scope(before)

    def _tags_of(self, scope: AsgiScope) -> Iterator[Tags]:
        if route := route_template(scope):
            yield {"route": route}
        if self.tags is not None:
            yield self.tags(HTTPConnection(scope))

    async def _lifespan(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def start_first() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(self.meter.start)
                except CostmwError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def flush_last(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                self.meter.end_streams()
                await asyncio.to_thread(self.meter.flush)
            await send(message)

        await self.app(scope, start_first, flush_last)


def route_template(scope: AsgiScope) -> str | None:
    """The path template that a request was routed by, mounts included: `/items/{id}`.

    None before routing, and for paths that no route has: a raw path would make a new
    tag value for every id.
    """
    route = scope.get("route")
    if route is None:
        return None
    path = _own_template(scope, route)
    return None if path is None else _mounts(scope, path) + path


def _own_template(scope: AsgiScope, route: Any) -> str | None:
    # FastAPI keeps a route that a router was included with under a prefix as it was
    # written, and the whole template beside it.
    whole = (scope.get("fastapi") or {}).get("effective_route_context")
    if whole is not None and getattr(whole, "original_route", None) is route:
        route = whole
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return path if isinstance(path, str) else None


def _mounts(scope: AsgiScope, path: str) -> str:
    """The prefix that mounts have taken off, the values of its parameters as names again."""
    outside = scope.get("app_root_path", scope.get("root_path", ""))
    prefix: str = scope.get("root_path", "").removeprefix(outside)
    if not prefix:
        return ""
    names = {
        str(value): name
        for name, value in scope.get("path_params", {}).items()
        if f"{{{name}}}" not in path and f"{{{name}:" not in path
    }
    return "/".join(f"{{{names[part]}}}" if part in names else part for part in prefix.split("/"))


def dashboard_app(meter: Meter, auth: Auth | None = None) -> ASGIApp:
    """The page as an ASGI app: `app.mount("/_llmcost", dashboard_app(meter, auth=...))`.

    Args:
        meter: whose store is shown.
        auth: takes the Starlette `Request` and gives a `Principal`, or None to refuse.
            Without it the page stays closed.
    """
    from costmw.dashboard.asgi import DashboardASGI

    return DashboardASGI(meter, auth, request_for_auth=Request)
