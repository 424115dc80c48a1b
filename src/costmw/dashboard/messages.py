"""A request and its response, as the dashboard sees them under any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the dashboard.

    `path` is relative to the mount and decoded: `"/"` is the page, `""` the mount
    without its slash. `query` is raw, without the question mark. The names in `headers`
    are lower-case. `root` is the path that the dashboard is mounted at, as far as the
    server knows it.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    root: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What to send back; every header that is to be sent is in `headers`."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
