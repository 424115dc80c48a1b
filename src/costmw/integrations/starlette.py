"""Starlette and FastAPI: who asks, by a pure ASGI middleware; and the page to mount."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags, enter_scope
from costmw.errors import BudgetExceeded, CostmwError, MissingExtra
from costmw.integrations.cost_headers import cost_headers, keep_costs
from costmw.integrations.payment_required import payment_required, refusal_in

try:
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import HTTPConnection, Request
    from starlette.routing import Host, Mount
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
        explain_refusals: what a `BudgetExceeded` that the app lets pass tells whoever asked.
            The answer is 402 with problem+json, and `Retry-After` where the budget is renewed;
            the budget's name, its scope and amounts are told only if this is True. An
            exception handler of the app's own for `BudgetExceeded` comes first.
        response_headers: add `X-LLM-Cost` (USD of the calls that ended before the response
            began; left out where one is of unknown cost) and `Server-Timing` to responses.
    """

    def __init__(
        self,
        app: ASGIApp,
        meter: Meter,
        tags: Callable[[HTTPConnection], Tags] | None = None,
        *,
        explain_refusals: bool = False,
        response_headers: bool = False,
    ) -> None:
        self.app = app
        self.meter = meter
        self.tags = tags
        self.explain_refusals = explain_refusals
        self.response_headers = response_headers

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request, websocket or lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if not self.meter.enabled or scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not self.meter.started:
            await run_in_threadpool(self.meter.start)
        request = Scope(self.meter, lambda: _route_of(scope), lambda: self._tags_of(scope))
        before = enter_scope(request)
        try:
            if scope["type"] == "http":
                await self._respond(request, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            enter_scope(before)

    async def _respond(
        self, request: Scope, scope: AsgiScope, receive: Receive, send: Send
    ) -> None:
        begun = False
        if self.response_headers:
            keep_costs(request)

        async def send_on(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if costs := _raw(cost_headers(request)):
                    message = {**message, "headers": [*message.get("headers", ()), *costs]}
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except (BudgetExceeded, BaseExceptionGroup) as error:
            refusal = refusal_in(error)
            if begun or refusal is None:
                raise
            answer = payment_required(refusal, explain=self.explain_refusals)
            start = {"status": answer.status, "headers": _raw(answer.headers.items())}
            await send_on({"type": "http.response.start", **start})
            await send_on({"type": "http.response.body", "body": answer.body})

    def _tags_of(self, scope: AsgiScope) -> Tags:
        return self.tags(HTTPConnection(scope)) if self.tags is not None else {}

    async def _lifespan(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def start_first() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await run_in_threadpool(self.meter.start)
                except CostmwError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def flush_last(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self.meter.end_streams()
                await run_in_threadpool(self.meter.flush)
            await send(message)

        await self.app(scope, start_first, flush_last)


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]


def _route_of(scope: AsgiScope) -> Tags:
    route = route_template(scope)
    return {"route": route} if route else {}


def route_template(scope: AsgiScope) -> str | None:
    """The path template that a request was routed by, mounts included: `/items/{id}`.

    None before routing, and for paths that no route has: a raw path would make a new
    tag value for every id.
    """
    route = scope.get("route")
    # Starlette names a mount before the app in it has routed; FastAPI names its own routes only.
    unnamed = route is None or isinstance(route, Mount)
    prefix = _mount_prefix(scope)
    if not prefix and not unnamed:
        return _own_template(scope, route)
    mounts, inside = _mounts(scope, prefix)
    if mounts is None:
        return None
    if unnamed:
        route = _route_among(inside, scope)
        if route is None:
            return mounts if mounts and not inside else None
    path = _own_template(scope, route)
    return None if path is None else mounts + path


def _own_template(scope: AsgiScope, route: Any) -> str | None:
    # FastAPI keeps a route that a router was included with under a prefix as it was
    # written, and the whole template beside it.
    whole = (scope.get("fastapi") or {}).get("effective_route_context")
    if whole is not None and getattr(whole, "original_route", None) is route:
        route = whole
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return path if isinstance(path, str) else None


def _mount_prefix(scope: AsgiScope) -> str:
    """The part of the path that mounts have taken off; not what a server or proxy has."""
    root_path: str = scope.get("root_path", "")
    return root_path.removeprefix(scope.get("app_root_path", root_path))


def _mounts(scope: AsgiScope, prefix: str) -> tuple[str | None, list[Any]]:
    """The templates of the mounts that took `prefix` off, and the routes inside of the last.

    They are matched again, since the values of parameters do not tell where they stood.
    """
    template, inside = "", _routes_of(scope.get("router"))
    while prefix:
        for mount in inside:
            taken = mount.path_regex.match(prefix + "/") if isinstance(mount, Mount) else None
            if taken:
                break
        else:
            return None, []
        template += mount.path_format.removesuffix("/{path}")
        prefix = f"/{taken['path']}".rstrip("/")
        inside = _routes_of(mount)
    return template, inside


def _routes_of(app: Any) -> list[Any]:
    """The routes of an app, of a mount or of what is behind their middlewares."""
    app = getattr(app, "_base_app", app)
    for _ in range(100):
        if hasattr(app, "routes") or not hasattr(app, "app"):
            break
        app = app.app
    routes: list[Any] = []
    for route in getattr(app, "routes", ()):
        if hasattr(route, "effective_route_contexts"):  # a router that FastAPI has included
            found = route.effective_route_contexts()
            routes += (getattr(one, "starlette_route", None) or one for one in found)
        elif isinstance(route, Host):
            routes += _routes_of(route.app)
        else:
            routes.append(route)
    return routes


def _route_among(routes: list[Any], scope: AsgiScope) -> Any:
    """The route that leads to the endpoint that was found; None when none was."""
    endpoint = scope.get("endpoint")
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    for route in routes:
        if getattr(route, "endpoint", scope) is endpoint and route.path_regex.match(path):
            return route
    return None


def dashboard_app(meter: Meter, auth: Auth | None = None) -> ASGIApp:
    """The page as an ASGI app: `app.mount("/_llmcost", dashboard_app(meter, auth=...))`.

    Args:
        meter: whose store is shown.
        auth: takes the Starlette `Request` and gives a `Principal`, or None to refuse.
            Without it the page stays closed.
    """
    from costmw.dashboard.asgi import DashboardASGI

    return DashboardASGI(meter, auth, request_for_auth=Request)
