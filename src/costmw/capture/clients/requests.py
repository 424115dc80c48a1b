"""Sessions of requests.

A session is followed by wrapping its own `send`, through which it also sends again for
a redirect: a chain is one call, whose answer is the last one.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.base import Capture, is_retry, possibly_billed
from costmw.capture.clients.following import HIGH, Following, FollowingAll, followed
from costmw.capture.clients.request_body import ChangedBody
from costmw.capture.clients.urllib3_stream import follow_raw
from costmw.capture.clients.urls import host_of, lower_names, url_request
from costmw.errors import BudgetExceeded
from costmw.providers.base import Reading

if TYPE_CHECKING:
    from costmw.capture.call import Call


def is_session(target: object) -> bool:
    """Whether it is a session of requests."""
    return any(
        cls.__name__ == "Session" and cls.__module__ == "requests.sessions"
        for cls in type(target).__mro__
    )


def instrument_session(session: Any, capture: Capture) -> None:
    """Wrap the session's `send`; one that is wrapped already changes its meter."""
    present = session.__dict__.get("send")
    if isinstance(following := getattr(present, "costmw", None), Following):
        following.capture = capture
        return
    reference = weakref.ref(session)
    original = present or functools.partial(_class_send, reference)
    following = Following(capture)

    def send(request: Any, **options: Any) -> Any:
        session = reference()
        stream = options.get("stream", getattr(session, "stream", False))
        return _send(following.capture, original, session, request, options, bool(stream))

    session.send = send
    session.send.costmw = following


def _class_send(reference: weakref.ref[Any], request: Any, **options: Any) -> Any:
    session: Any = reference()
    return type(session).send(session, request, **options)


def wrap(original: Callable[..., Any], following: FollowingAll) -> Callable[..., Any]:
    """Wrap `Session.send`, for all sessions of the process."""

    @functools.wraps(original)
    def send(self: Any, request: Any, **options: Any) -> Any:
        capture = following.capture
        if capture is None or not _watches(capture, request):
            return original(self, request, **options)
        stream = options.get("stream", self.stream)
        send = functools.partial(original, self)
        return _send(capture, send, self, request, options, bool(stream))

    return send


def _send(
    capture: Capture,
    original: Callable[..., Any],
    session: object,
    request: Any,
    options: Mapping[str, Any],
    streamed: bool,
) -> Any:
    call, sent, asks_usage = _prepare(capture, session, request, streamed=streamed)
    if call is None:
        return original(request, **options)
    try:
        call.reserve()
    except BudgetExceeded as refusal:
        raise capture.refusal(call, refusal, lower_names(request.headers)) from None
    try:
        with followed(HIGH, session, sent):
            response = original(sent, **options)
    except BaseException as error:
        capture.failed(
            call, possibly_billed=possibly_billed(error), retry=is_retry(request.headers)
        )
        raise
    try:
        if not capture.answered(
            call, response.status_code, response.headers, retry=is_retry(request.headers)
        ):
            call.wait()
        elif not streamed or getattr(response, "_content_consumed", False):
            capture.read(call, lower_names(response.headers), response.content)
            call.wait()
        elif hasattr(response.raw, "stream"):
            follow_raw(capture, call, response, hide=asks_usage)
        else:
            what = type(response.raw).__name__
            call.settle(Reading(unreadable=True, problem=f"its body is a {what}, unread"), "end")
            call.wait()
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
    return response


def _prepare(
    capture: Capture, session: object, request: Any, *, streamed: bool
) -> tuple[Call | None, Any, bool]:
    """Start a call, give the request to send, and whether it asks for usage on our behalf.

    Whatever goes wrong, it is sent as it is.
    """
    try:
        if not _watches(capture, request) or followed.already(HIGH, session, request):
            return None, request, False
        neutral = url_request(request.method, request.url, request.headers, request.body)
        call = capture.begin(neutral)
        changed = None if call is None else capture.body_to_send(call, neutral, streamed=streamed)
        if changed is None:
            return call, request, False
        return call, _replaced(request, changed), changed.asks_usage
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None, request, False


def _watches(capture: Capture, request: Any) -> bool:
    return capture.watches(host_of(getattr(request, "url", None)))


def _replaced(request: Any, changed: ChangedBody) -> Any:
    """The same request with another body; a chunk is hidden in bytes that are not compressed."""
    replaced = request.copy()
    replaced.body = changed.content
    replaced.headers["content-length"] = str(len(changed.content))
    if changed.asks_usage:
        replaced.headers["accept-encoding"] = "identity"
    return replaced
