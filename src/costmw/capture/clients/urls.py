"""Requests whose URL is text and whose headers are a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from costmw.capture.clients.base import HttpRequest, json_object


def host_of(url: object) -> str:
    """The host of a URL, with its port where it has one; empty where it makes no sense."""
    parts = url.split("/", 3) if isinstance(url, str) else ()
    if len(parts) < 3:
        return ""
    host = parts[2]
    if "?" in host or "#" in host:
        host = host.partition("?")[0].partition("#")[0]
    return host.rpartition("@")[2]


def host_and_port(host: str, port: int | None) -> str:
    """A host and its port in one text; an IPv6 address stands in brackets."""
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | str | None
) -> HttpRequest:
    """A request whose URL is text, as requests and botocore have it."""
    parts = urlsplit(url)
    content = body.encode() if isinstance(body, str) else body
    if not isinstance(content, bytes):
        content = None
    return HttpRequest(
        method=method,
        host=host_of(url),
        path=parts.path,
        headers=lower_names(headers),
        params=dict(parse_qsl(parts.query)),
        body=json_object(content),
        content=content,
        size=len(content or b""),
    )


def lower_names(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers by their names in lower case."""
    return {
        name.lower(): value.decode("latin-1") if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }
