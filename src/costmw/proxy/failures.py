"""What goes wrong on the way to an upstream: what the client is told, and who may bill."""

from __future__ import annotations

from costmw.errors import MissingExtra
from costmw.proxy.refusals import Refusal

try:
    import httpcore2
except ImportError as error:
    raise MissingExtra(package="httpx2", extra="proxy") from error

BROKEN = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
"""What ends an answer before its end."""

BROKEN = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
"""What ends an answer before its end."""

_TOLD: tuple[tuple[type[Exception], int, str, str], ...] = (
    (httpcore2.ConnectTimeout, 504, "connection_timeout", "could not be reached in time"),
    (httpcore2.ReadTimeout, 504, "http_response_timeout", "did not answer in time"),
    (httpcore2.WriteTimeout, 504, "connection_write_timeout", "did not take the request in time"),
    (httpcore2.PoolTimeout, 503, "connection_limit_reached", "has no connection left"),
    (httpcore2.ConnectError, 502, "connection_refused", "cannot be reached"),
    (httpcore2.ProxyError, 502, "destination_unavailable", "cannot be reached through the proxy"),
    (httpcore2.LocalProtocolError, 400, "http_request_error", "cannot be sent such a request"),
    (httpcore2.RemoteProtocolError, 502, "http_protocol_error", "did not answer in HTTP"),
)

_NEVER_SENT = (
    httpcore2.ConnectError,
    httpcore2.ConnectTimeout,
    httpcore2.LocalProtocolError,
    httpcore2.PoolTimeout,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
)


def refusal_for(error: Exception, upstream: str) -> Refusal:
    """What to answer when no answer came; the error's own text stays here."""
    for kind, status, code, what in _TOLD:
        if isinstance(error, kind):
            return Refusal(status, code, f"upstream {upstream!r} {what}")
    return Refusal(502, "connection_terminated", f"the connection to upstream {upstream!r} failed")


def was_never_sent(error: Exception) -> bool:
    """Whether the upstream cannot have seen the request."""
    return isinstance(error, _NEVER_SENT)
