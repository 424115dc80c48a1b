"""Responses as gzip, for those who accept it."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace

from costmw.dashboard.messages import Request, Response

LEAST = 1024
"""Bytes below which compressing is not worth it."""

_TEXT = re.compile(r"text/|application/(problem\+)?json|image/svg")


def encoded(request: Request, response: Response) -> Response:
    """The response as the client accepts it."""
    if len(response.body) < LEAST or not _TEXT.match(response.headers.get("Content-Type", "")):
        return response
    headers = {**response.headers, "Vary": "Accept-Encoding"}
    if not accepts_gzip(request.headers.get("accept-encoding", "")):
        return replace(response, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return replace(response, headers=headers, body=response.gzipped or compressed(response.body))


def compressed(body: bytes) -> bytes:
    """The same bytes as gzip, the same whenever it is made."""
    return gzip.compress(body, 6, mtime=0)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding allows gzip (RFC 9110)."""
    weights = {}
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = not re.fullmatch(r"\s*q=0(\.0{0,3})?\s*", weight)
    return weights.get("gzip", weights.get("*", False))
