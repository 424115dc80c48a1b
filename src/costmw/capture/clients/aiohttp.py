"""Sessions of aiohttp.

A session is followed by wrapping the method that all its requests go through; aiohttp's
own middlewares see one request of a redirect chain at a time, and no stream.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from costmw.capture.clients.aiohttp_stream import ContentTee
from costmw.capture.clients.base import (
    Capture,
    Following,
    FollowingAll,
    HttpRequest,
    followed,
    is_retry,
)
from costmw.capture.clients.urls import host_of, lower_names, url_request

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
    call, sent, retry = _prepare(capture, session, method, url, options)
    if call is None:
        return await original(method, url, **options)
    try:
        with followed():
            response = await original(method, url, **sent)
    except BaseException as error:
        capture.failed(call, possibly_billed=_possibly_billed(error), retry=retry)
        raise
    try:
        headers = lower_names(response.headers)
        if capture.answered(call, response.status, headers, retry=retry):
            encoding = "" if _decodes(session, options) else headers.get("content-encoding", "")
            tee = ContentTee(response.content, call, capture.reader(call, headers, encoding))
            capture.follow(tee, headers, hide=None if sent is options else "")
            response.content = tee
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
    return response


def _prepare(
    capture: Capture, session: Any, method: str, url: Any, options: Mapping[str, Any]
) -> tuple[Call | None, Mapping[str, Any], bool]:
    """Start a call, give the options to send with, and whether this is a retry."""
    try:
        if not _watches(capture, session, url):
            return None, options, False
        request = _http_request(session, method, url, options)
        retry = is_retry(request.headers)
        call = capture.begin(request)
        if call is None:
            return None, options, retry
        content = capture.content_with_usage_asked(call, request)
        return call, options if content is None else _replaced(options, content), retry
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None, options, False


def _watches(capture: Capture, session: Any, url: Any) -> bool:
    try:
        if isinstance(url, str) and (host := host_of(url)):
            return capture.watches(host)
        # A relative one goes to the session's base.
        absolute = url if getattr(url, "absolute", False) else session._build_url(url)
        host, port = absolute.host or "", absolute.explicit_port
        return capture.watches(host if port is None else f"{host}:{port}")
    except Exception as error:  # noqa: BLE001 - aiohttp says itself what is wrong with a URL
        capture.meter.fault(error, "a request")
        return False


def _http_request(session: Any, method: str, url: Any, options: Mapping[str, Any]) -> HttpRequest:
    absolute = session._build_url(url)
    if params := options.get("params"):
        absolute = absolute.update_query(params)
    headers = {**lower_names(session.headers), **lower_names(dict(options.get("headers") or {}))}
    return url_request(method.upper(), str(absolute), headers, _content(options))


def _decodes(session: Any, options: Mapping[str, Any]) -> bool:
    """Whether aiohttp takes compression off the bytes as they come in."""
    asked = options.get("auto_decompress")
    return bool(session.auto_decompress if asked is None else asked)


def _content(options: Mapping[str, Any]) -> bytes | str | None:
    """The bytes that are sent; None for a form, a file or a stream."""
    if (value := options.get("json")) is not None:
        return to_json(value)
    data = options.get("data")
    return bytes(data) if isinstance(data, bytearray | memoryview) else data


def _replaced(options: Mapping[str, Any], content: bytes) -> Mapping[str, Any]:
    """The same request with another body, and an answer in bytes that are not compressed."""
    headers = {
        name: value
        for name, value in dict(options.get("headers") or {}).items()
        if str(name).lower() not in ("accept-encoding", "content-length")
    }
    if options.get("json") is not None:
        headers.setdefault("Content-Type", "application/json")
    headers["Accept-Encoding"] = "identity"
    return {**options, "json": None, "data": content, "headers": headers}


_NEVER_SENT = {"ClientConnectorError", "ConnectionTimeoutError", "InvalidURL"}
_SENT = {"CancelledError", "ClientError", "TimeoutError"}


def _possibly_billed(error: BaseException) -> bool:
    kinds = {cls.__name__ for cls in type(error).__mro__}
    return bool(kinds & _SENT) and not kinds & _NEVER_SENT
