"""Any WSGI application: who asks, through call, body and close; and the page beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import Context, copy_context
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from costmw.context import Scope, Tags, request_scope
from costmw.errors import BudgetExceeded
from costmw.integrations.cost_headers import cost_headers, keep_costs
from costmw.integrations.page_place import place_of_page
from costmw.integrations.payment_required import payment_required, refusal_in

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

Given = tuple[str, list[tuple[str, str]], "OptExcInfo | None"]
RouteOf = Callable[["WSGIEnvironment"], str | None]


class CostMiddleware:
    """Binds every LLM call of a request to its tags.

    Args:
        app: the application.
        meter: where calls are recorded. Its store is checked at the first request.
        tags: takes the WSGI environment and gives tags; asked when an LLM call starts.
        route: takes the WSGI environment and gives the route's template, once known.
        explain_refusals: what a `BudgetExceeded` that the app lets pass tells whoever asked.
            The answer is 402 with problem+json, and `Retry-After` where the budget is renewed;
            the budget's name, its scope and amounts are told only if this is True.
        response_headers: add `X-LLM-Cost` (USD of the calls that ended before the response
            began; left out where one is of unknown cost) and `Server-Timing` to responses.
    """

    def __init__(
        self,
        app: WSGIApplication,
        meter: Meter,
        tags: Callable[[WSGIEnvironment], Tags] | None = None,
        route: RouteOf | None = None,
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

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        meter = self.meter
        if not meter.started:
            if not meter.enabled:
                return self.app(environ, start_response)
            meter.start()
        request = Scope(meter, self._sources, environ)
        if self.response_headers:
            keep_costs(request)
        context = copy_context()
        context.run(request_scope.set, request)
        head = _Head(start_response, request, self)
        try:
            body = context.run(self.app, environ, head.start)
        except (BudgetExceeded, BaseExceptionGroup) as error:
            return [head.refused(error)]
        # Complete lists and files run nothing of the app any more, and servers treat them apart.
        if type(body) in (list, tuple) or _is_file(body, environ):
            head.send()
            return body
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, context, head)

    def _route_of(self, environ: WSGIEnvironment) -> Tags:
        route = self.route(environ) if self.route is not None else None
        return {"route": route} if route else {}

    def _tags_of(self, environ: WSGIEnvironment) -> Tags:
        return self.tags(environ) if self.tags is not None else {}


class _Head:
    """The head of a response, kept back until its body begins: a refusal can still replace it."""

    __slots__ = ("_given", "_middleware", "_request", "_start_response", "_write")

    def __init__(
        self, start_response: StartResponse, request: Scope, middleware: CostMiddleware
    ) -> None:
        self._start_response = start_response
        self._request = request
        self._middleware = middleware
        self._given: Given | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """What the app calls for `start_response`."""
        if self._given is not None and exc_info is None:
            self.send()  # a second one is wrong, which the server shall say
        self._given = (status, headers, exc_info)
        if self._request.has_answered:
            self.send()
        return self._send_and_write

    def send(self) -> None:
        """Hand the head to the server, once, with what the request's calls cost."""
        given = self._given
        if given is None:
            return
        self._given = None
        request = self._request
        request.has_answered = True
        status, headers, exc_info = given
        if request.ended_calls:
            headers = [*headers, *cost_headers(request)]
        if exc_info is None:
            self._write = self._start_response(status, headers)
        else:
            self._write = self._start_response(status, headers, exc_info)

    def refused(self, error: BaseException) -> bytes:
        """Answer a refusal instead; gives the whole body.

        Raises:
            BaseException: the error itself where it is anything else, or the head is out.
        """
        refusal = refusal_in(error)
        if refusal is None or self._request.has_answered:
            raise error
        answer = payment_required(refusal, explain=self._middleware.explain_refusals)
        status = HTTPStatus(answer.status)
        self._given = (f"{status.value} {status.phrase}", list(answer.headers.items()), None)
        self.send()
        return answer.body

    def _send_and_write(self, data: bytes) -> object:
        self.send()
        return self._write(data)


class _Body:
    """A response body whose every step runs in the request's context."""

    def __init__(self, body: Iterable[bytes], context: Context, head: _Head) -> None:
        self._body = body
        self._context = context
        self._head = head
        self._steps: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._steps is None:
                self._steps = self._context.run(iter, self._body)
            piece = self._context.run(next, self._steps)
        except StopIteration:
            self._head.send()
            raise
        except (BudgetExceeded, BaseExceptionGroup) as error:
            piece, self._steps = self._head.refused(error), iter(())
        self._head.send()
        return piece

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


def with_page(
    app: WSGIApplication, meter: Meter, auth: Auth | None = None, path: str = "/_llmcost"
) -> WSGIApplication:
    """The application, with the page at a path in front of it.

    Args:
        app: gets every other request.
        meter: whose store is shown.
        auth: takes a `costmw.dashboard.messages.Request` and gives a `Principal`, or None to
            refuse. Without it the page stays closed.
        path: where the page is.

    Raises:
        ConfigError: when this is no path.
    """
    from costmw.dashboard.wsgi import DashboardWSGI

    page, place = DashboardWSGI(meter, auth), place_of_page(path)

    def app_with_page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        asked = environ.get("PATH_INFO", "")
        if not f"{asked}/".startswith(f"{place}/"):
            return app(environ, start_response)
        root = environ.get("SCRIPT_NAME", "") + place
        inside = {"SCRIPT_NAME": root, "PATH_INFO": asked.removeprefix(place)}
        return page({**environ, **inside}, start_response)

    return app_with_page
