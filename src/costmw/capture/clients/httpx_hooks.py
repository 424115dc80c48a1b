"""Event hooks for clients of httpx and httpx2 that are to be left alone.

A hook cannot change a request: what budgets or `include_usage` would have asked of it is not
asked, and SDKs that take whatever is raised for a lost connection do so with a refusal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.base import Capture
from costmw.capture.clients.following import HIGH, Following, followed
from costmw.capture.clients.httpx import received
from costmw.capture.clients.httpx_request import http_request, watches
from costmw.errors import BudgetExceeded

if TYPE_CHECKING:
    from costmw.capture.call import Call

_MARK = "costmw.call"
"""Where the call of a request in flight is kept, in the request's `extensions`."""


class _Done:
    """What a hook returns: nothing for a sync client, awaitable at once for an async one."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def event_hooks(capture: Capture) -> dict[str, list[Callable[[Any], Any]]]:
    """Hooks for `Client(event_hooks=...)`, sync and async alike."""
    done = _Done()

    def on_request(request: Any) -> Any:
        if _MARK in request.extensions:
            return done
        call = _begin_hooked(capture, request)
        if call is None:
            return done
        if _is_coroutine(inspect.currentframe()):
            return _areserve_hooked(capture, call, request)
        try:
            call.reserve()
        except BudgetExceeded as refusal:
            raise _refused_hooked(capture, call, request, refusal) from None
        return done

    def on_response(response: Any) -> _Done:
        owner, call = response.request.extensions.get(_MARK, (None, None))
        if owner is capture:
            del response.request.extensions[_MARK]
            received(capture, call, response, hide=False)
        return done

    on_request.costmw = Following(capture)  # type: ignore[attr-defined]
    return {"request": [on_request], "response": [on_response]}


def _is_coroutine(hook: FrameType | None) -> bool:
    """Whether a hook is called by an async client: nothing else tells, and one must not block."""
    caller = hook.f_back if hook is not None else None
    return caller is not None and bool(caller.f_code.co_flags & inspect.CO_COROUTINE)


def _begin_hooked(capture: Capture, request: Any) -> Call | None:
    try:
        if not watches(capture, request) or followed.already(HIGH, None, request):
            return None
        call = capture.begin(http_request(request))
        if call is not None:
            request.extensions[_MARK] = (capture, call)
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None
    return call


async def _areserve_hooked(capture: Capture, call: Call, request: Any) -> None:
    try:
        await call.areserve()
    except BudgetExceeded as refusal:
        raise _refused_hooked(capture, call, request, refusal) from None


def _refused_hooked(
    capture: Capture, call: Call, request: Any, refusal: BudgetExceeded
) -> BudgetExceeded:
    del request.extensions[_MARK]
    return capture.refusal(call, refusal, request.headers)
