"""Who asks: through a view, sync or async, its streamed body and its close."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpResponse, StreamingHttpResponse

from costmw.context import Scope, Tags, enter_scope
from costmw.integrations.cost_headers import cost_headers, keep_costs
from costmw.integrations.django.page_redirect import made_relative
from costmw.integrations.django.routes import route_template
from costmw.integrations.django.settings import read_settings
from costmw.integrations.django.users import load_user, load_user_async, user_tags
from costmw.integrations.payment_required import payment_required, refusal_in

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


class CostMiddleware:
    """Binds every LLM call of a request to its route, the user and tags; first in MIDDLEWARE.

    What it does `COSTMW` says; see `costmw.integrations.django.settings`. A `BudgetExceeded`
    that a view lets pass is answered with 402.

    Raises:
        ConfigError: when a setting cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.settings = read_settings()
        self.meter = self.settings.meter
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        if self.settings.user:
            self.process_view = self._before_view_async if self._is_async else self._before_view

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle one request."""
        if self._is_async:
            return self._respond_async(request)
        if not self.meter.enabled:
            return made_relative(request, self.get_response(request))
        if not self.meter.started:
            self.meter.start()
        scope = self._scope_of(request)
        with _inside(scope):
            response = self.get_response(request)
        if self.settings.user and _is_async_stream(response):
            load_user(request)
        return self._completed(request, response, scope)

    async def _respond_async(self, request: HttpRequest) -> HttpResponseBase:
        if not self.meter.enabled:
            return made_relative(request, await self.get_response(request))
        if not self.meter.started:
            await sync_to_async(self.meter.start, thread_sensitive=False)()
        scope = self._scope_of(request)
        with _inside(scope):
            response = await self.get_response(request)
        if self.settings.user and _is_async_stream(response):
            await load_user_async(request)
        return self._completed(request, response, scope)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer a refused call; Django makes a 500 of it otherwise."""
        refusal = refusal_in(error)
        if refusal is None:
            return None
        answer = payment_required(refusal, explain=self.settings.explain_refusals)
        return HttpResponse(answer.body, status=answer.status, headers=answer.headers)

    def _before_view(self, request: HttpRequest, view: Callable[..., Any], *_: Any) -> None:
        if iscoroutinefunction(view):
            load_user(request)

    async def _before_view_async(
        self, request: HttpRequest, view: Callable[..., Any], *_: Any
    ) -> None:
        if iscoroutinefunction(view):
            await load_user_async(request)

    def _scope_of(self, request: HttpRequest) -> Scope:
        scope = Scope(self.meter, (_route_of, self._user_of, self._tags_of), request)
        if self.settings.response_headers:
            keep_costs(scope)
        return scope

    def _user_of(self, request: HttpRequest) -> Tags:
        return user_tags(request) if self.settings.user else {}

    def _tags_of(self, request: HttpRequest) -> Tags:
        return self.settings.tags(request) if self.settings.tags is not None else {}

    def _completed(
        self, request: HttpRequest, response: HttpResponseBase, scope: Scope
    ) -> HttpResponseBase:
        for name, value in cost_headers(scope):
            before = response.headers.get(name)
            response.headers[name] = f"{before}, {value}" if before else value
        # A file makes no calls, and servers send it by themselves.
        if isinstance(response, StreamingHttpResponse) and not hasattr(response, "file_to_stream"):
            body: Any = response.streaming_content
            response.streaming_content = (
                _steps_async(body, scope) if response.is_async else _Steps(body, scope)
            )
            close = response.close

            def close_inside() -> None:
                with _inside(scope):
                    close()

            response.close = close_inside  # type: ignore[method-assign]
        return made_relative(request, response)


def _is_async_stream(response: HttpResponseBase) -> bool:
    return isinstance(response, StreamingHttpResponse) and response.is_async


def _route_of(request: HttpRequest) -> Tags:
    route = route_template(request)
    return {"route": route} if route else {}


@contextmanager
def _inside(scope: Scope) -> Iterator[None]:
    before = enter_scope(scope)
    try:
        yield
    finally:
        enter_scope(before)


class _Steps:
    """A streamed body, whose every step belongs to its request."""

    def __init__(self, body: Iterator[bytes], scope: Scope) -> None:
        self._body = body
        self._scope = scope

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with _inside(self._scope):
            return next(self._body)


async def _steps_async(body: AsyncIterator[bytes], scope: Scope) -> AsyncIterator[bytes]:
    while True:
        with _inside(scope):
            try:
                piece = await anext(body)
            except StopAsyncIteration:
                return
        yield piece
