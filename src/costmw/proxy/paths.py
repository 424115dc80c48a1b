"""The path of a request: which upstream it names, and what is sent on of it.

It goes on byte for byte: whatever an upstream might read as a way out of its base is
refused, and nothing is put in order.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from costmw.proxy.refusals import Refusal

Scope = MutableMapping[str, Any]

# The characters of a path (RFC 3986) and those that clients send although they should not.
_SENDABLE = re.compile(rb"/[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]*")
_SUSPECT = re.compile(rb"%|/\.|\x00")
LONGEST_PATH = 16 * 1024
"""Bytes of a path at most."""

_SLASHES = re.compile(rb"[/\\]")


def split_path(scope: Scope) -> tuple[str, bytes]:
    """The name of the upstream, and the path to ask it for, as it came.

    Raises:
        Refusal: when it names none, or must not be sent on.
    """
    path = _raw_path_in_mount(scope)
    if len(path) + len(scope.get("query_string", b"")) > LONGEST_PATH:
        raise Refusal(414, "http_request_error", "the path and query are too long")
    if not _SENDABLE.fullmatch(path):
        raise _bad("the request target must be a path, such as /openai/v1/models")
    name, slash, rest = path[1:].partition(b"/")
    rest = slash + rest
    if _SUSPECT.search(rest):
        _check_segments(rest)
    if rest.startswith(b"//"):
        raise _bad("the path has two slashes after the upstream's name")
    return name.decode("ascii"), rest


def _check_segments(path: bytes) -> None:
    # Twice: some servers decode once more than they should.
    for _ in range(2):
        path = unquote_to_bytes(path)
        if b"\0" in path or b"\r" in path or b"\n" in path or b"\\" in path:
            raise _bad("the path has characters that must not be in one")
        if not {b".", b".."}.isdisjoint(_SLASHES.split(path)):
            raise _bad("the path has a '.' or '..' segment")


def _raw_path_in_mount(scope: Scope) -> bytes:
    raw: bytes | None = scope.get("raw_path")
    path: str = scope["path"]
    if raw is None:  # it is optional in ASGI
        raw = quote(path, safe="/!$&'()*+,;=:@").encode()
    raw = raw.partition(b"?")[0]  # some servers and test clients leave the query in
    # See dashboard/asgi.py: a mount adds to `root_path` and leaves `path` whole; a prefix
    # that another proxy has cut off is in `root_path` and may be missing in `path`.
    root = scope.get("root_path", "").rstrip("/")
    outside = scope.get("app_root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(outside)):
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            return _without(raw, prefix)
    return raw


def _without(raw: bytes, prefix: str) -> bytes:
    """Take a prefix off, however its characters were encoded."""
    segments = raw.split(b"/")
    count = prefix.count("/") + 1
    if unquote_to_bytes(b"/".join(segments[:count])) != prefix.encode():
        raise _bad("the path of the mount must not have encoded slashes")
    return b"/" + b"/".join(segments[count:])


def _bad(message: str) -> Refusal:
    return Refusal(400, "http_request_error", message)
