"""The dashboard as a WSGI application, to be mounted or run alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from costmw.dashboard.auth.gate import Principal
from costmw.dashboard.auth.peers import peer_in_environ
from costmw.dashboard.core import Dashboard
from costmw.dashboard.messages import MOST_BODY, WITH_BODY, Request
from costmw.errors import ConfigError

if TYPE_CHECKING:
    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

Environ = dict[str, Any]


class DashboardWSGI:
    """Serves the dashboard: `DispatcherMiddleware(app, {"/_llmcost": DashboardWSGI(meter, auth)})`.

    Args:
        meter: the meter whose store is shown.
        auth: says who a request is from; None keeps the page closed.
        request_for_auth: makes the request that `auth` is called with from the WSGI
            environment; a `messages.Request` when left out.

    Raises:
        ConfigError: when `auth` is async, which WSGI cannot wait for.
    """

    def __init__(
        self,
        meter: Meter,
        auth: Auth | None = None,
        request_for_auth: Callable[[Environ], Any] | None = None,
    ) -> None:
        self._dashboard = Dashboard(meter, auth, request_for_auth or request_of)
        if self._dashboard.gate.is_async:
            raise ConfigError("the dashboard's auth is async, which works under ASGI only")

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        principal = self._dashboard.gate.ask(environ)
        request = request_of(environ)
        # Read once, since a server may wait for more; and nothing from those it is not open to.
        if request.method in WITH_BODY and isinstance(principal, Principal):
            request = replace(request, body=_body(environ))
        response = self._dashboard.handle(request, principal)
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        start_response(status, list(response.headers.items()))
        return [response.body]


def request_of(environ: Environ) -> Request:
    """The request of a WSGI environment."""
    return Request(
        method=environ["REQUEST_METHOD"],
        path=_text(environ.get("PATH_INFO", "")),
        query=environ.get("QUERY_STRING", ""),
        headers={
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name == "CONTENT_TYPE"
        },
        root=_text(environ.get("SCRIPT_NAME", "")),
        peer=peer_in_environ(environ),
    )


def _body(environ: Environ) -> bytes:
    """The body, as far as it may go; without a length none, unless the server ends it."""
    length = environ.get("CONTENT_LENGTH") or ""
    most = int(length) if length.isdecimal() else 0
    if environ.get("wsgi.input_terminated"):
        most = MOST_BODY + 1
    body: bytes = environ["wsgi.input"].read(min(most, MOST_BODY + 1)) if most else b""
    return body


def _text(raw: str) -> str:
    # WSGI hands over the bytes of a path as Latin-1 (PEP 3333).
    return raw.encode("latin-1").decode("utf-8", "replace")
