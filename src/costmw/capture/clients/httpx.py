"""httpx and httpx2 clients: every request that they send, seen from both ends.

The two libraries have the same interface and distinct types; both are supported by
their shape, and neither is imported here. A client is followed by wrapping its own
`send`, which survives a later change of its event hooks and sees one redirect chain
as one call.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.base import Capture, is_retry, possibly_billed
from costmw.capture.clients.following import HIGH, Following, FollowingAll, followed
from costmw.capture.clients.httpx_refusal import refusing_answer
from costmw.capture.clients.httpx_request import http_request, replaced, watches
from costmw.capture.clients.httpx_stream import tee_around
from costmw.capture.clients.sdk_errors import is_stainless
from costmw.errors import BudgetExceeded

if TYPE_CHECKING:
    from costmw.capture.call import Call


def is_client(target: object) -> bool:
    """Whether it is a client of httpx or httpx2, sync or async, or made like one."""
    return not isinstance(target, type) and all(
        hasattr(target, name) for name in ("send", "build_request", "event_hooks")
    )


def instrument_client(client: Any, capture: Capture) -> None:
    """Wrap the client's `send`; a client that is wrapped already changes its meter."""
    present = client.__dict__.get("send")
    if isinstance(following := getattr(present, "costmw", None), Following):
        following.capture = capture
        return
    # A reference to the client from its own attribute would keep it from being closed
    # when it is dropped, which the SDKs rely on.
    reference = weakref.ref(client)
    original = present or functools.partial(_class_send, reference)
    following = Following(capture)

    def send(request: Any, **options: Any) -> Any:
        return _sync_send(following.capture, original, reference(), request, options)

    async def asend(request: Any, **options: Any) -> Any:
        return await _async_send(following.capture, original, reference(), request, options)

    client.send = asend if hasattr(client, "aclose") else send
    client.send.costmw = following


def _class_send(reference: weakref.ref[Any], request: Any, **options: Any) -> Any:
    client: Any = reference()
    return type(client).send(client, request, **options)


def wrap_sync(original: Callable[..., Any], following: FollowingAll) -> Callable[..., Any]:
    """Wrap `Client.send`, for all clients of the process."""

    @functools.wraps(original)
    def send(self: Any, request: Any, **options: Any) -> Any:
        capture = following.capture
        if capture is None or not watches(capture, request):
            return original(self, request, **options)
        return _sync_send(capture, functools.partial(original, self), self, request, options)

    return send


def wrap_async(original: Callable[..., Any], following: FollowingAll) -> Callable[..., Any]:
    """Wrap `AsyncClient.send`, for all clients of the process."""

    @functools.wraps(original)
    async def send(self: Any, request: Any, **options: Any) -> Any:
        capture = following.capture
        if capture is None or not watches(capture, request):
            return await original(self, request, **options)
        send = functools.partial(original, self)
        return await _async_send(capture, send, self, request, options)

    return send


def _sync_send(
    capture: Capture,
    original: Callable[..., Any],
    client: object,
    request: Any,
    options: Mapping[str, Any],
) -> Any:
    call, sent, asks_usage = _prepare(
        capture, client, request, streamed=options.get("stream", False)
    )
    if call is None:
        return original(request, **options)
    try:
        call.reserve()
    except BudgetExceeded as refusal:
        return _refused(capture, call, request, refusal)
    try:
        with followed(HIGH, client, sent):
            response = original(sent, **options)
    except BaseException as error:
        _failed(capture, call, sent, error)
        raise
    if received(capture, call, response, hide=asks_usage):
        call.wait()
    return response


async def _async_send(
    capture: Capture,
    original: Callable[..., Any],
    client: object,
    request: Any,
    options: Mapping[str, Any],
) -> Any:
    call, sent, asks_usage = _prepare(
        capture, client, request, streamed=options.get("stream", False)
    )
    if call is None:
        return await original(request, **options)
    try:
        await call.areserve()
    except BudgetExceeded as refusal:
        return _refused(capture, call, request, refusal)
    try:
        with followed(HIGH, client, sent):
            response = await original(sent, **options)
    except BaseException as error:
        _failed(capture, call, sent, error)
        raise
    if received(capture, call, response, hide=asks_usage):
        await call.wait_async()
    return response


def _prepare(
    capture: Capture, client: object, request: Any, *, streamed: bool
) -> tuple[Call | None, Any, bool]:
    """Start a call, give the request to send, and whether it asks for usage on our behalf.

    Whatever goes wrong, it is sent as it is.
    """
    try:
        if not watches(capture, request) or followed.already(HIGH, client, request):
            return None, request, False
        neutral = http_request(request)
        call = capture.begin(neutral)
        changed = None if call is None else capture.body_to_send(call, neutral, streamed=streamed)
        if changed is None:
            return call, request, False
        return call, replaced(request, changed), changed.asks_usage
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None, request, False


def _refused(capture: Capture, call: Call, request: Any, refusal: BudgetExceeded) -> Any:
    """Raise the refusal, or give an answer that does, as the SDK needs it.

    Raises:
        BudgetExceeded: unless the SDK takes an answer.
    """
    error = capture.refusal(call, refusal, request.headers)
    if not is_stainless(request.headers):
        raise error from None
    try:
        return refusing_answer(request, error)
    except Exception as fault:  # noqa: BLE001 - the refusal itself is what matters
        capture.meter.fault(fault, "a refusal")
        raise error from None


def received(capture: Capture, call: Call, response: Any, *, hide: bool) -> bool:
    """Take the response; True when its row is made and its commit can be waited for."""
    try:
        headers = response.headers
        if not capture.answered(
            call, response.status_code, headers, retry=is_retry(response.request.headers)
        ):
            return True
        if (content := _body_at_hand(response)) is not None:
            capture.read(call, headers, content)
            return True
        encoding = headers.get("content-encoding", "")
        tee = tee_around(response, call, capture.reader(call, headers, encoding))
        if capture.follow(tee, headers, hide=encoding if hide else None) and encoding:
            del headers["content-encoding"]
        response.stream = tee
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
    return False


def _failed(capture: Capture, call: Call, request: Any, error: BaseException) -> None:
    capture.failed(call, possibly_billed=possibly_billed(error), retry=is_retry(request.headers))


def _body_at_hand(response: Any) -> bytes | None:
    try:
        content: bytes = response.content
    except RuntimeError:  # httpx: ResponseNotRead
        return None
    return content
