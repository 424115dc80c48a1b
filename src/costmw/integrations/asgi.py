"""Any ASGI application: who asks, what a refused call is answered, and the page beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags, leave_scope, request_scope
from costmw.errors import BudgetExceeded, CostmwError
from costmw.integrations.cost_headers import cost_headers, keep_costs
from costmw.integrations.page_place import place_of_page
from costmw.integrations.payment_required import payment_required, refusal_in

if TYPE_CHECKING:
    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

TEMPORARY_REDIRECT = 307

AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class CostMiddleware:
    """Binds every LLM call of a request to its tags.

    Args:
        app: the application.
        meter: where calls are recorded. Its store is checked when the app starts, or at the
            first request where the server has no lifespan.
        tags: takes the ASGI scope and gives tags; asked when an LLM call starts.
        route: takes the ASGI scope and gives the route's template, once known.
        explain_refusals: what a `BudgetExceeded` that the app lets pass tells whoever asked.
            The answer is 402 with problem+json, and `Retry-After` where the budget is renewed;
            the budget's name, its scope and amounts are told only if this is True.
        response_headers: add `X-LLM-Cost` (USD of the calls that ended before the response
            began; left out where one is of unknown cost) and `Server-Timing` to responses.
    """

    def __init__(
        self,
        app: AsgiApp,
        meter: Meter,
        tags: Callable[[AsgiScope], Tags] | None = None,
        route: Callable[[AsgiScope], str | None] | None = None,
        *,
        explain_refusals: bool = False,
        response_headers: bool = False,
    ) -> None:
        self.app = app
        self.meter = meter
        self.tags = tags
        self.route = route
        self.explain_refusals = explain_refusals
        self.response_headers = response_headers
        self._sources = (self._route_of, self._tags_of)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request, websocket or lifespan."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        meter = self.meter
        if not meter.enabled or kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if not meter.started:
            await self.in_thread(meter.start)
        request = Scope(meter, self._sources, scope)
        if self.response_headers:
            keep_costs(request)
        request.has_answered = kind != "http"  # a websocket has no response to be a refusal

        # No coroutine of its own, which would cost every message as much as all of this.
        def send_on(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                request.has_answered = True
                if request.ended_calls or message["status"] == TEMPORARY_REDIRECT:
                    message = self.start_of_response(message, request)
            return send(message)

        token = request_scope.set(request)
        try:
            await self.app(scope, receive, send_on)
        except (BudgetExceeded, BaseExceptionGroup) as error:
            refusal = refusal_in(error)
            if request.has_answered or refusal is None:
                raise
            await self._refuse(refusal, send_on)
        finally:
            leave_scope(token)

    async def in_thread(self, work: Callable[[], object]) -> None:
        """Do what blocks beside the event loop."""
        await asyncio.to_thread(work)

    def start_of_response(self, message: Message, request: Scope) -> Message:
        """What the head of a response becomes that has calls behind it, or is a redirect."""
        costs = _raw(cost_headers(request))
        return {**message, "headers": [*message.get("headers", ()), *costs]} if costs else message

    async def _refuse(self, refusal: BudgetExceeded, send: Send) -> None:
        answer = payment_required(refusal, explain=self.explain_refusals)
        start = {"status": answer.status, "headers": _raw(answer.headers.items())}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": answer.body})

    def _route_of(self, scope: AsgiScope) -> Tags:
        route = self.route(scope) if self.route is not None else None
        return {"route": route} if route else {}

    def _tags_of(self, scope: AsgiScope) -> Tags:
        return self.tags(scope) if self.tags is not None else {}

    async def _lifespan(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        async def start_first() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.in_thread(self.meter.start)
                except CostmwError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def flush_last(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self.meter.end_streams()
                await self.in_thread(self.meter.flush)
            await send(message)

        await self.app(scope, start_first, flush_last)


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]


def with_page(
    app: AsgiApp, meter: Meter, auth: Auth | None = None, path: str = "/_llmcost"
) -> AsgiApp:
    """The application, with the page at a path in front of it.

    Args:
        app: gets every other request, and the lifespan.
        meter: whose store is shown.
        auth: takes a `costmw.dashboard.messages.Request` and gives a `Principal`, or None to
            refuse. Without it the page stays closed.
        path: where the page is.

    Raises:
        ConfigError: when this is no path.
    """
    from costmw.dashboard.asgi import DashboardASGI

    page, place = DashboardASGI(meter, auth), place_of_page(path)

    async def app_with_page(scope: AsgiScope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "").rstrip("/")
        asked = scope.get("path", "")
        if root and asked.startswith(f"{root}/"):  # a server may leave it in the path, or not
            asked = asked.removeprefix(root)
        if scope["type"] == "http" and f"{asked}/".startswith(f"{place}/"):
            scope = {"app_root_path": root, **scope, "root_path": root + place}
            await page(scope, receive, send)
        else:
            await app(scope, receive, send)

    return app_with_page
