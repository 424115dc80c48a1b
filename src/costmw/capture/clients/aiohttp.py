"""Sessions of aiohttp.

A session is followed by wrapping the method that all its requests go through; aiohttp's
own middlewares see one request of a redirect chain at a time, and no stream.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from costmw.capture.clients.aiohttp_stream import ContentTee
from costmw.capture.clients.base import Capture, HttpRequest, is_retry, possibly_billed
from costmw.capture.clients.following import LOW, Following, FollowingAll, followed
from costmw.capture.clients.request_body import ChangedBody
from costmw.capture.clients.urls import host_and_port, host_of, lower_names, url_request
from costmw.errors import BudgetExceeded

if TYPE_CHECKING:
    from costmw.capture.call import Call


def is_session(target: object) -> bool:
    """Whether it is a session of aiohttp."""
    return any(
        cls.__name__ == "ClientSession" and cls.__module__ == "aiohttp.client"
        for cls in type(target).__mro__
    )


def instrument_session(session: Any, capture: Capture) -> None:
    """Wrap the session's `_request`; one that is wrapped already changes its meter."""
    present = session.__dict__.get("_request")
    if isinstance(following := getattr(present, "costmw", None), Following):
        following.capture = capture
        return
    reference = weakref.ref(session)
    original = present or functools.partial(_class_request, reference)
    following = Following(capture)

    async def request(method: str, url: Any, **options: Any) -> Any:
        return await _request(following.capture, original, reference(), method, url, options)

    request.costmw = following  # type: ignore[attr-defined]
    # In development mode aiohttp warns of attributes that are set the usual way.
    object.__setattr__(session, "_request", request)


async def _class_request(reference: weakref.ref[Any], method: str, url: Any, **options: Any) -> Any:
    session: Any = reference()
    return await type(session)._request(session, method, url, **options)


def wrap(original: Callable[..., Any], following: FollowingAll) -> Callable[..., Any]:
    """Wrap `ClientSession._request`, for all sessions of the process."""

    @functools.wraps(original)
    async def request(self: Any, method: str, str_or_url: Any, **options: Any) -> Any:
        capture = following.capture
        if capture is None or not _watches(capture, self, str_or_url):
            return await original(self, method, str_or_url, **options)
        send = functools.partial(original, self)
        return await _request(capture, send, self, method, str_or_url, options)

    return request


async def _request(
    capture: Capture,
    original: Callable[..., Any],
    session: Any,
    method: str,
    url: Any,
    options: Mapping[str, Any],
) -> Any:
    prepared = _prepare(capture, session, method, url, options)
    if prepared is None:
        return await original(method, url, **options)
    call, retry = prepared.call, is_retry(prepared.headers)
    try:
        await call.areserve()
    except BudgetExceeded as refusal:
        raise capture.refusal(call, refusal, prepared.headers) from None
    try:
        with followed(LOW, session):
            response = await original(method, url, **prepared.options)
    except BaseException as error:
        capture.failed(call, possibly_billed=possibly_billed(error), retry=retry)
        raise
    try:
        headers = lower_names(response.headers)
        if not capture.answered(call, response.status, headers, retry=retry):
            await call.wait_async()
        elif (body := response._body) is not None:  # a middleware has read it
            capture.read(call, headers, body)
            await call.wait_async()
        else:
            encoding = "" if _decodes(session, options) else headers.get("content-encoding", "")
            tee = ContentTee(response.content, call, capture.reader(call, headers, encoding))
            capture.follow(tee, headers, hide="" if prepared.asks_usage else None)
            response.content = tee
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
    return response


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A call that has started: the request's headers, and the options to send it with."""

    call: Call
    headers: Mapping[str, str]
    options: Mapping[str, Any]
    asks_usage: bool = False


def _prepare(
    capture: Capture, session: Any, method: str, url: Any, options: Mapping[str, Any]
) -> _Prepared | None:
    """Start a call; None where there is none, or whatever goes wrong: it is sent as it is."""
    try:
        if not _watches(capture, session, url) or followed.already(LOW, session):
            return None
        request = _http_request(session, method, url, options)
        call = capture.begin(request)
        if call is None:
            return None
        changed = capture.body_to_send(call, request, streamed=True)
        if changed is None:
            return _Prepared(call, request.headers, options)
        sent = _replaced(options, changed)
        return _Prepared(call, request.headers, sent, changed.asks_usage)
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None


def _watches(capture: Capture, session: Any, url: Any) -> bool:
    try:
        if isinstance(url, str) and (host := host_of(url)):
            return capture.watches(host)
        # A relative one goes to the session's base.
        absolute = url if getattr(url, "absolute", False) else session._build_url(url)
        return capture.watches(host_and_port(absolute.host or "", absolute.explicit_port))
    except (TypeError, ValueError):
        return False  # aiohttp says itself what is wrong with a URL
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return False


def _http_request(session: Any, method: str, url: Any, options: Mapping[str, Any]) -> HttpRequest:
    absolute = session._build_url(url)
    if params := options.get("params"):
        absolute = absolute.update_query(params)
    headers = {**lower_names(session.headers), **lower_names(dict(options.get("headers") or {}))}
    asked = url_request(method.upper(), str(absolute), headers, _content(session, options))
    value = options.get("json")
    return asked if value is None else replace(asked, body=value if isinstance(value, dict) else {})


def _decodes(session: Any, options: Mapping[str, Any]) -> bool:
    """Whether aiohttp takes compression off the bytes as they come in."""
    asked = options.get("auto_decompress")
    return bool(session.auto_decompress if asked is None else asked)


def _content(session: Any, options: Mapping[str, Any]) -> bytes | str | None:
    """The bytes that are sent; None for a form, a file or a stream."""
    if (value := options.get("json")) is not None:
        text: str | bytes = session.json_serialize(value)
        return text
    data = options.get("data")
    return bytes(data) if isinstance(data, bytearray | memoryview) else data


def _replaced(options: Mapping[str, Any], changed: ChangedBody) -> Mapping[str, Any]:
    """The same request with another body; a chunk is hidden in bytes that are not compressed."""
    given = options.get("headers") or {}
    written = {"content-length", "accept-encoding"} if changed.asks_usage else {"content-length"}
    headers = [
        (name, value)
        for name, value in (given.items() if hasattr(given, "items") else given)
        if str(name).lower() not in written
    ]
    names = {str(name).lower() for name, _ in headers}
    if options.get("json") is not None and "content-type" not in names:
        headers.append(("Content-Type", "application/json"))
    if changed.asks_usage:
        headers.append(("Accept-Encoding", "identity"))
    return {**options, "json": None, "data": changed.content, "headers": headers}
