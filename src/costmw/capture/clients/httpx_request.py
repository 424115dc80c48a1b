"""Requests of httpx and httpx2, in the words of HTTP and with another body."""

from __future__ import annotations

from typing import Any

from costmw.capture.clients.base import Capture, HttpRequest, json_object
from costmw.capture.clients.request_body import ChangedBody
from costmw.capture.clients.urls import host_and_port


def watches(capture: Capture, request: Any) -> bool:
    """Whether the request's host is looked at. Quick."""
    try:
        url = request.url
        port = url.port
        return capture.watches(url.host if port is None else host_and_port(url.host, port))
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return False


def http_request(request: Any) -> HttpRequest:
    """The request in the words of HTTP."""
    url = request.url
    content = _content(request)
    body = json_object(content)
    return HttpRequest(
        method=request.method,
        host=host_and_port(url.host, url.port),
        path=url.path,
        headers=request.headers,
        params=url.params,
        body=body if content is not None else _form_fields(request),
        content=content,
        size=int(request.headers.get("content-length") or 0),
    )


def _content(request: Any) -> bytes | None:
    """The bytes that are sent; None for a form or a stream, which only the transport may read."""
    try:
        content: bytes = request.content
    except RuntimeError:  # httpx: RequestNotRead
        return None
    return content


def _form_fields(request: Any) -> dict[str, str]:
    """The text fields of a multipart request, whose files only the transport may read."""
    fields = getattr(request.stream, "fields", ())
    return {
        field.name: field.value
        for field in fields
        if isinstance(getattr(field, "name", None), str)
        and isinstance(getattr(field, "value", None), str)
    }


def replaced(request: Any, changed: ChangedBody) -> Any:
    """The same request with another body; a chunk is hidden in bytes that are not compressed."""
    headers = request.headers.copy()
    headers.pop("content-length", None)
    if changed.asks_usage:
        headers["accept-encoding"] = "identity"
    return type(request)(
        request.method,
        request.url,
        headers=headers,
        content=changed.content,
        extensions=request.extensions,
    )
