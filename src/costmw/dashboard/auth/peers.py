"""What each framework's request says of the connection, and of its headers one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def peer_of(request: Any) -> str | None:
    """The address that the connection is from; None where the server does not say."""
    scope = _scope(request)
    if scope is not None:
        return peer_in_scope(scope)
    environ = _environ(request)
    if environ is not None:
        return peer_in_environ(environ)
    found: str | None = request.peer
    return found


def peer_in_scope(scope: Mapping[str, Any]) -> str | None:
    """The same from an ASGI scope."""
    client = scope.get("client")
    return client[0] if client else None


def peer_in_environ(environ: Mapping[str, Any]) -> str | None:
    """The same from a WSGI environment; werkzeug's ProxyFix keeps it beside that of a header."""
    before_fix = environ.get("werkzeug.proxy_fix.orig") or {}
    return before_fix.get("REMOTE_ADDR") or environ.get("REMOTE_ADDR") or None


def header_values(request: Any, name: str) -> list[str]:
    """All values of a header; joined by commas under WSGI, and in a `messages.Request`."""
    scope = _scope(request)
    if scope is not None:
        raw = name.lower().encode()
        return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == raw]
    environ = _environ(request)
    if environ is not None:
        value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
    else:
        value = request.headers.get(name.lower())
    return [] if value is None else [value]


def _scope(request: Any) -> Mapping[str, Any] | None:
    # Django's request has the scope of ASGI, too: below `META`, which is there always.
    found = None if hasattr(request, "META") else getattr(request, "scope", None)
    return found if isinstance(found, Mapping) else None


def _environ(request: Any) -> Mapping[str, Any] | None:
    found = getattr(request, "META", None) or getattr(request, "environ", None)
    return found if isinstance(found, Mapping) else None
