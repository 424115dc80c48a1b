"""Any WSGI application: who asks, through the call, every step of the body, and its close."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags, enter_scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from costmw.meter import Meter

RouteOf = Callable[["WSGIEnvironment"], str | None]


class CostMiddleware:
    """Binds every LLM call of a request to its tags.

    Args:
        app: the application.
        meter: where calls are recorded. Its store is checked at the first request.
        tags: takes the WSGI environment and gives tags; asked when an LLM call starts.
        route: takes the WSGI environment and gives the route's template, once known.
    """

    def __init__(
        self,
        app: WSGIApplication,
        meter: Meter,
        tags: Callable[[WSGIEnvironment], Tags] | None = None,
        route: RouteOf | None = None,
    ) -> None:
        self.app = app
        self.meter = meter
        self.tags = tags
        self.route = route

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        if not self.meter.enabled:
            return self.app(environ, start_response)
        if not self.meter.started:
            self.meter.start()
        context = copy_context()
        request = Scope(self.meter, lambda: self._route_of(environ), lambda: self._tags_of(environ))
        context.run(enter_scope, request)
        body = context.run(self.app, environ, start_response)
        # Complete lists and files run nothing of the app any more, and servers treat them apart.
        if type(body) in (list, tuple) or _is_file(body, environ):
            return body
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, context)

    def _route_of(self, environ: WSGIEnvironment) -> Tags:
        route = self.route(environ) if self.route is not None else None
        return {"route": route} if route else {}

    def _tags_of(self, environ: WSGIEnvironment) -> Tags:
        return self.tags(environ) if self.tags is not None else {}


class _Body:
    """A response body whose every step runs in the request's context."""

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context
        self._steps: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._steps is None:
            self._steps = self._context.run(iter, self._body)
        return self._context.run(next, self._steps)

    def __getattr__(self, name: str) -> Any:
        # `close` exists where the body has it.
        value = getattr(self.__dict__["_body"], name)
        return functools.partial(self._context.run, value) if name == "close" else value


class _SizedBody(_Body):
    """Servers take the length of a response from a body that has one part."""

    _body: Collection[bytes]

    def __len__(self) -> int:
        return self._context.run(len, self._body)


def _is_file(body: object, environ: WSGIEnvironment) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
