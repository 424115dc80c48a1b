"""Starlette and FastAPI: the middleware that knows their routes, and the page to mount."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags
from costmw.errors import MissingExtra
from costmw.integrations import asgi
from costmw.integrations.relative import relative_to_slash

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


class CostMiddleware(asgi.CostMiddleware):
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
        super().__init__(
            app if meter.enabled else _with_relative_redirects(app),
            meter,
            None if tags is None else lambda scope: tags(HTTPConnection(scope)),
            route_template,
            explain_refusals=explain_refusals,
            response_headers=response_headers,
        )

    async def in_thread(self, work: Callable[[], object]) -> None:
        """Do what blocks beside the event loop, of asyncio or trio."""
        await run_in_threadpool(work)

    def start_of_response(self, message: Message, request: Scope) -> Message:
        """What the head of a response becomes that has calls behind it, or is a redirect."""
        return relative_redirect(super().start_of_response(message, request), request.about)


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


def relative_redirect(message: Message, scope: AsgiScope) -> Message:
    """Make the head of Starlette's redirect from `/_llmcost` to `/_llmcost/` relative.

    It has a host and a path of its own, which lack what a proxy has cut off. Redirects to
    anything else pass as they are.
    """
    is_redirect = message.get("status") == asgi.TEMPORARY_REDIRECT
    if not is_redirect or scope["path"].endswith("/") or not _is_before_page(scope):
        return message
    headers = [
        (name, relative_to_slash(value.decode("latin-1")).encode("latin-1"))
        if name == b"location"
        else (name, value)
        for name, value in message["headers"]
    ]
    return {**message, "headers": headers}


def _with_relative_redirects(app: ASGIApp) -> ASGIApp:
    async def redirect(scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            await send(relative_redirect(message, scope))

        await app(scope, receive, send_on)

    return redirect


def _is_before_page(scope: AsgiScope) -> bool:
    from costmw.dashboard.asgi import DashboardASGI

    _, inside = _mounts(scope, _mount_prefix(scope))
    path = scope["path"].removeprefix(scope.get("root_path", "")) + "/"
    for route in inside:
        taken = route.path_regex.match(path) if isinstance(route, Mount) else None
        if taken and not taken["path"]:
            return isinstance(getattr(route, "_base_app", route.app), DashboardASGI)
    return False


def dashboard_app(meter: Meter, auth: Auth | None = None) -> ASGIApp:
    """The page as an ASGI app: `app.mount("/_llmcost", dashboard_app(meter, auth=...))`.

    Args:
        meter: whose store is shown.
        auth: takes the Starlette `Request` and gives a `Principal`, or None to refuse.
            Without it the page stays closed.
    """
    from costmw.dashboard.asgi import DashboardASGI

    return DashboardASGI(meter, auth, request_for_auth=Request)
