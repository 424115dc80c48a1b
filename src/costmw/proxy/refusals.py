"""What the proxy itself answers: an error in the shape that the provider's SDK reads."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from costmw.errors import BudgetExceeded
from costmw.integrations.payment_required import brief, seconds_until

NAME = "costmw"


class Refusal(Exception):
    """An answer of our own in place of the upstream's.

    `code` says why, in the words of RFC 9209 where it has some; where SDKs know another word
    for it, `proxy_error` is that of the RFC.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        proxy_error: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        self.proxy_error = proxy_error or code

    def body(self, family: str) -> bytes:
        """The error as the SDKs of a format family expect it: `openai`, `anthropic`, ..."""
        shape: dict[str, Any]
        match family:
            case "anthropic":
                kind = _ANTHROPIC.get(self.status, "api_error")
                shape = {"type": "error", "error": {"type": kind, "message": self.message}}
            case "google":
                name = _GOOGLE.get(self.status, "UNAVAILABLE")
                error = {"code": self.status, "message": self.message, "status": name}
                shape = {"error": error}
            case "cohere" | "mistral" | "ollama":
                # The three look at different keys of the same object.
                shape = {"message": self.message, "error": self.message, "type": self.code}
            case _:
                kind = _OPENAI.get(self.status, "server_error")
                error = {"message": self.message, "type": kind, "param": None, "code": self.code}
                shape = {"error": error}
        return to_json(shape)

    def messages(self, family: str) -> list[dict[str, Any]]:
        """The ASGI messages that say so."""
        body = self.body(family)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "date": formatdate(usegmt=True),
            "proxy-status": f"{NAME}; error={self.proxy_error}",
            **self.headers,
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return [
            {"type": "http.response.start", "status": self.status, "headers": raw},
            {"type": "http.response.body", "body": body},
        ]


def beyond_budget(refusal: BudgetExceeded, *, explain: bool) -> Refusal:
    """The answer to a call that does not fit a budget; no SDK tries it again."""
    headers = {"x-should-retry": "false", "cache-control": "no-store"}
    if refusal.resets_at is not None:
        headers["retry-after"] = str(seconds_until(refusal.resets_at))
    return Refusal(
        HTTPStatus.PAYMENT_REQUIRED.value,
        "budget_exceeded",
        refusal.reason if explain else brief(refusal),
        headers=headers,
        proxy_error="http_request_denied",
    )


_OPENAI = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
}

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    504: "timeout_error",
}

_GOOGLE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "INVALID_ARGUMENT",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    504: "DEADLINE_EXCEEDED",
}
