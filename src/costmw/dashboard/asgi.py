"""The dashboard as an ASGI application, to be mounted or run alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmw.dashboard.auth.gate import Principal
from costmw.dashboard.auth.peers import peer_in_scope
from costmw.dashboard.core import Dashboard
from costmw.dashboard.messages import MOST_BODY, WITH_BODY, Request, Response

if TYPE_CHECKING:
    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

AT_ONCE = 8
"""Answers that are made at once; others wait for them."""


class DashboardASGI:
    """Serves the dashboard: `app.mount("/_llmcost", DashboardASGI(meter, auth))`.

    Args:
        meter: the meter whose store is shown.
        auth: says who a request is from, async or not; None keeps the page closed.
        request_for_auth: makes the request that `auth` is called with from the ASGI
            scope; a `messages.Request` when left out.
    """

    def __init__(
        self,
        meter: Meter,
        auth: Auth | None = None,
        request_for_auth: Callable[[Scope], Any] | None = None,
    ) -> None:
        self._dashboard = Dashboard(meter, auth, request_for_auth or request_of)
        self._threads = _Threads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        match scope["type"]:
            case "http":
                principal = await self._dashboard.gate.ask_async(scope)
                request = request_of(scope)
                if request.method in WITH_BODY and isinstance(principal, Principal):
                    request = replace(request, body=await _body(receive))
                response = await self._threads.run(
                    lambda: self._dashboard.handle(request, principal)
                )
                await _send(send, response)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})
            case "lifespan":
                await _live(receive, send)


class _Threads:
    """Threads of the page's own, made when first needed, and anew in a forked process.

    Those of the event loop the host needs, be it to look up the name of a provider.
    """

    def __init__(self) -> None:
        self._made: tuple[int, ThreadPoolExecutor] | None = None

    async def run(self, work: Callable[[], Response]) -> Response:
        """Do what blocks in one of them."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), ThreadPoolExecutor(AT_ONCE, "costmw-page")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._made[1], copy_context().run, work)


def request_of(scope: Scope) -> Request:
    """The request of an ASGI scope."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(
        method=scope["method"],
        path=_path_in_mount(scope),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        root=scope.get("root_path", ""),
        peer=peer_in_scope(scope),
    )


def _path_in_mount(scope: Scope) -> str:
    """The path below the mount.

    A mount adds its prefix to `root_path` and leaves `path` whole. A prefix that a proxy
    has cut off is in `root_path` (as `app_root_path`) and may be missing in `path`.
    """
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    outside = scope.get("app_root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(outside)):
        if path == prefix or path.startswith(f"{prefix}/"):
            return path[len(prefix) :]
    return path


async def _body(receive: Receive) -> bytes:
    """The body, as far as it may go."""
    body = b""
    while len(body) <= MOST_BODY:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body[: MOST_BODY + 1]


async def _send(send: Send, response: Response) -> None:
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
