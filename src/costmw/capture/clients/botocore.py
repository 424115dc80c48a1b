"""Clients of boto3 and botocore, at the session of botocore that sends over HTTP.

There an attempt is a request and an answer like any other, with the bytes that the
formats of Bedrock are read from; retries are botocore's, above it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.base import Capture, possibly_billed
from costmw.capture.clients.following import HIGH, Following, FollowingAll, followed
from costmw.capture.clients.urllib3_stream import follow_raw
from costmw.capture.clients.urls import host_of, lower_names, url_request
from costmw.errors import BudgetExceeded

if TYPE_CHECKING:
    from costmw.capture.call import Call

SERVICES = ("bedrock-runtime", "bedrock-agent-runtime")


def is_client(target: object) -> bool:
    """Whether it is a client of boto3 or botocore, of whichever service."""
    return _is_a(target, "BaseClient", "botocore.client")


def is_session(target: object) -> bool:
    """Whether it is a session of boto3 or botocore, which clients are made from."""
    return _is_a(target, "Session", "boto3.session") or _is_a(target, "Session", "botocore.session")


def is_async(client: Any) -> bool:
    """Whether it is a client of aiobotocore, which sends through aiohttp."""
    return inspect.iscoroutinefunction(client._endpoint.http_session.send)


def _is_a(target: object, name: str, module: str) -> bool:
    return any(cls.__name__ == name and cls.__module__ == module for cls in type(target).__mro__)


def instrument_client(client: Any, capture: Capture) -> None:
    """Wrap the `send` of the client's HTTP session; one that is wrapped changes its meter."""
    session = client._endpoint.http_session
    present = session.send
    if isinstance(following := getattr(present, "costmw", None), Following):
        following.capture = capture
        return
    following = Following(capture)

    def send(request: Any) -> Any:
        return _send(following.capture, present, request)

    session.send = send
    session.send.costmw = following


def instrument_session(session: Any, capture: Capture) -> None:
    """Follow the clients of Bedrock that the session makes from now on.

    Adding a base to a client's class is how botocore is meant to be extended.
    """

    class Instrumented:
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            try:
                if not is_async(self):
                    instrument_client(self, capture)
            except Exception as error:  # noqa: BLE001 - the app's client is made in any case
                capture.meter.fault(error, "a client of a boto3 session")

    def add_base(base_classes: list[type], **_: Any) -> None:
        base_classes.insert(0, Instrumented)

    events = session.events if hasattr(session, "events") else session
    for service in SERVICES:
        event, name = f"creating-client-class.{service}", f"costmw.{service}"
        events.unregister(event, unique_id=name)
        events.register(event, add_base, unique_id=name)


def wrap(original: Callable[..., Any], following: FollowingAll) -> Callable[..., Any]:
    """Wrap `URLLib3Session.send`, for all clients of the process."""

    @functools.wraps(original)
    def send(self: Any, request: Any) -> Any:
        capture = following.capture
        if capture is None or not capture.watches(host_of(getattr(request, "url", None))):
            return original(self, request)
        return _send(capture, functools.partial(original, self), request)

    return send


def _send(capture: Capture, original: Callable[[Any], Any], request: Any) -> Any:
    call = _begin(capture, request)
    if call is None:
        return original(request)
    try:
        call.reserve()
    except BudgetExceeded as refusal:
        raise capture.refusal(call, refusal, lower_names(request.headers)) from None
    retry = _is_retry(request)
    try:
        with followed(HIGH, None, request):
            response = original(request)
    except BaseException as error:
        capture.failed(call, possibly_billed=possibly_billed(error), retry=retry)
        raise
    try:
        headers = lower_names(response.headers)
        if not capture.answered(call, response.status_code, headers, retry=retry):
            call.wait()
        elif request.stream_output:
            follow_raw(capture, call, response, hide=False)
        else:
            capture.read(call, headers, response.content)
            call.wait()
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
    return response


def _begin(capture: Capture, request: Any) -> Call | None:
    try:
        if not capture.watches(host_of(getattr(request, "url", None))):
            return None
        if followed.already(HIGH, None, request):
            return None
        neutral = url_request(request.method, request.url, request.headers, request.body)
        return capture.begin(neutral)
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None


def _is_retry(request: Any) -> bool:
    """Whether botocore says that this is not its first attempt: `attempt=2; max=5`."""
    stated = lower_names(request.headers).get("amz-sdk-request", "")
    attempt = re.search(r"\battempt=(\d+)", stated)
    return attempt is not None and int(attempt[1]) > 1
