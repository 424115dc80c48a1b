"""A request and its response, as the dashboard sees them under any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_BODY = 64 * 1024
"""Bytes that the body of a request may have."""

WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""Methods whose body is read."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the dashboard.

    `path` is relative to the mount and decoded: `"/"` is the page, `""` the mount
    without its slash. `query` is raw, without the question mark. The names in `headers`
    are lower-case. `root` is the path that the dashboard is mounted at, and `peer` the
    address that the connection is from, as far as the server knows them. `body` is read for
    methods that have one: at most `MOST_BODY` bytes, and one more to tell that there are.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    root: str = ""
    peer: str | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What to send back; every header that is to be sent is in `headers`.

    `gzipped` is the body compressed, where somebody has kept that.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    gzipped: bytes | None = None
