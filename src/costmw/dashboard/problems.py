"""Errors as problem+json (RFC 9457), saying what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from costmw.dashboard.messages import Response


class HttpProblem(Exception):
    """Ends the handling of a request with an error response."""

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **members: str,
    ) -> None:
        super().__init__(detail)
        self.response = problem(status, detail, headers, **members)


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: str
) -> Response:
    """An error response; `detail` says what to do, `members` add to it."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(
        status,
        {"Content-Type": "application/problem+json", **(headers or {})},
        json.dumps(body).encode(),
    )
