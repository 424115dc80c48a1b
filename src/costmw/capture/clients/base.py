"""What all HTTP clients share: which requests are calls, and what comes of their answers.

A file beside this one knows one library: how its requests and responses look, and how
its method that sends is wrapped. Everything else is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from costmw.capture.clients.request_body import ChangedBody, changed_body
from costmw.capture.clients.sdk_errors import sdk_error
from costmw.capture.hiding import UsageChunkHider
from costmw.capture.reading import BodyReader, read_body
from costmw.capture.reserving import Request
from costmw.errors import BudgetExceeded
from costmw.providers import registry
from costmw.providers.base import Reading
from costmw.providers.known import Provider, find_provider
from costmw.providers.registry import Api

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.capture.tee import Tee
    from costmw.meter import Meter

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request in the words of HTTP, whichever library sends it.

    `host` carries a port where the URL does, `path` has no query, `headers` and
    `params` are looked up by `get`, header names in lower case. `body` is the JSON
    object that is sent, or the text fields of a form; `content` its bytes, where they
    are at hand, and `size` their number.
    """

    method: str
    host: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: Mapping[str, Any]
    content: bytes | None = None
    size: int = 0


class Capture:
    """Follows the requests of one client, or of all: what the user said of them.

    Args:
        meter: where calls are recorded.
        api: the wire format, or several; None leaves it to the host and path.
        provider: who bills, whatever the host.
        usual: who bills where the host says nothing.
        include_usage: ask chat streams for usage, which they leave out otherwise.
    """

    def __init__(
        self,
        meter: Meter,
        api: Api = None,
        provider: str | None = None,
        *,
        usual: str | None = None,
        include_usage: bool = True,
    ) -> None:
        self.meter = meter
        self.api = api
        self.provider = find_provider(provider) if provider else None
        self.usual = find_provider(usual) if usual else None
        self.include_usage = include_usage
        self._knows = lru_cache(maxsize=1024)(self._knows_host)

    def watches(self, host: str) -> bool:
        """Whether requests to a host, which may carry a port, are looked at. Quick."""
        return self.meter.enabled and self._knows(host)

    def _knows_host(self, host: str) -> bool:
        if self.api is not None or self.provider is not None or self.usual is not None:
            return True
        return registry.provider_of_host(host, self.meter.config.hosts) is not None

    def begin(self, request: HttpRequest) -> Call | None:
        """Start a call; None when the request is none of ours."""
        hosts = self.meter.config.hosts
        provider = self.provider
        if provider is None and self.usual is not None:
            provider = registry.provider_of_host(request.host, hosts) or self.usual
        match = registry.match(
            request.method, request.host, request.path, self.api, provider, hosts
        )
        if match is None:
            return None
        read_request = match.format.read_request
        return self.meter.start_call(
            match,
            match.model or _model(request.body),
            api_key_of(request.headers, request.params),
            request_bytes=request.size,
            request_usage=read_request(request.body) if read_request else None,
            body=request.body,
        )

    def body_to_send(
        self, call: Call, request: HttpRequest, *, streamed: bool
    ) -> ChangedBody | None:
        """What to send in place of the request's body; None where it is to stay as it is.

        It is given the limit on its answer that budgets want of requests without one, and
        asked for the usage of a stream that has none otherwise. `streamed` says that the
        answer is read as it comes: only then can the extra chunk be taken out again.
        """
        content, match = request.content, call.start.match
        limit = call.output_limit
        ask_usage = (
            streamed
            and self.include_usage
            and match.format.include_usage
            and _takes_stream_usage(match.provider, request.params)
        )
        if (limit is None and not ask_usage) or content is None or not _can_be_changed(request):
            return None
        try:
            changed = changed_body(
                content, request.body, match, output_limit=limit, ask_usage=ask_usage
            )
        except Exception as error:  # noqa: BLE001 - it is sent as it is, and still a call
            self.meter.fault(error, "the body of a request")
            return None
        if changed is not None:
            call.request = Request(changed.body, len(changed.content))
        return changed

    def refusal(
        self, call: Call, refusal: BudgetExceeded, headers: Mapping[str, str]
    ) -> BudgetExceeded:
        """What to raise for a refusal: an error of the SDK too, which `headers` tell."""
        try:
            return sdk_error(refusal, headers, call.start.match.format.api)
        except Exception as error:  # noqa: BLE001 - the refusal itself is what matters
            self.meter.fault(error, "a refusal")
            return refusal

    def answered(
        self, call: Call, status: int, headers: Mapping[str, str], *, retry: bool = False
    ) -> bool:
        """Take the head of an answer; says whether its body is to be read."""
        if 200 <= status < 300:
            return True
        if status in REDIRECTS and "location" in headers:
            call.redirected()
        else:
            call.not_billed(retry=retry)
        return False

    def read(self, call: Call, headers: Mapping[str, str], content: bytes) -> None:
        """Settle a call by a body that is there as a whole, decoded."""
        limit = self.meter.config.max_body_bytes
        call.settle(read_body(call.start.match.format, headers, content, limit), "end")

    def reader(self, call: Call, headers: Mapping[str, str], encoding: str) -> BodyReader:
        """Make a reader of a body that comes in chunks of this content encoding."""
        limit = self.meter.config.max_body_bytes
        return BodyReader(call.start.match.format, headers, encoding, limit)

    def follow(self, tee: Tee, headers: Mapping[str, str], *, hide: str | None) -> bool:
        """Remember a stream, and hide the usage chunk of one that we asked for.

        `hide` is the content encoding of the bytes, None where there is nothing to hide.
        Says whether the chunk is hidden, and the bytes handed on are decoded ones.
        """
        hides = hide is not None and _content_type(headers) == "text/event-stream"
        if hides:
            tee.hide_usage(UsageChunkHider(), hide or "")
        self.meter.follow(tee)
        return hides

    def failed(self, call: Call, *, possibly_billed: bool, retry: bool = False) -> None:
        """Take an exception instead of an answer.

        `possibly_billed`: the request was on its way, the provider may have worked.
        """
        try:
            if possibly_billed:
                call.settle(Reading(), "failed")
            else:
                call.not_billed(retry=retry)
        except Exception as fault:  # noqa: BLE001 - the host's own error is on its way
            self.meter.fault(fault, "a failed request")


def json_object(content: bytes | str | None) -> Mapping[str, Any]:
    """The JSON object in a body; an empty one when it is anything else."""
    if not content:
        return {}
    try:
        parsed = from_json(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def api_key_of(headers: Mapping[str, str], params: Mapping[str, str]) -> str | None:
    """The key that a request is billed to, wherever the providers look for it."""
    named = (
        headers.get("x-api-key")
        or headers.get("api-key")
        or headers.get("x-goog-api-key")
        or params.get("key")
    )
    if named:
        return named
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials
        case "aws4-hmac-sha256":
            # Credential=AKID/date/...: the id of the access key; the rest is a signature.
            return credentials.partition("Credential=")[2].partition("/")[0]
    return None


def is_retry(headers: Mapping[str, str]) -> bool:
    """Whether the SDK says that this is not its first attempt (Stainless SDKs do)."""
    return headers.get("x-stainless-retry-count", "0") not in ("", "0")


# Raised before anything is sent, by their names: none of the libraries is imported here.
_NEVER_SENT = {
    *("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol", "ProxyError"),
    *("LocalProtocolError", "InvalidURL", "InvalidSchema", "MissingSchema", "InvalidHeader"),
    *("RetryError", "SSLError", "TooManyRedirects"),
    *("ClientConnectorError", "ConnectionTimeoutError"),
    *("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"),
    *("AttributeError", "LookupError", "RuntimeError", "TypeError", "ValueError"),
}


def possibly_billed(error: BaseException) -> bool:
    """Whether a request may have reached the provider, which may have worked then.

    In doubt it has: a timeout or an interrupt may come at any time.
    """
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    if isinstance(status, int) and status:
        return 200 <= status < 300
    cause: Any = error.args[0] if error.args else None
    if type(cause).__name__ == "MaxRetryError":  # of urllib3, below requests
        return type(cause.reason).__name__ in ("ProtocolError", "ReadTimeoutError")
    return not _NEVER_SENT & {cls.__name__ for cls in type(error).__mro__}


_SIGNED = ("content-digest", "content-md5", "digest", "signature", "x-amz-content-sha256")


def _can_be_changed(request: HttpRequest) -> bool:
    """Whether its body is a JSON object that nothing vouches for."""
    return bool(request.content and request.body) and not _is_signed(request.headers)


def _is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the body may not be changed any more, since something vouches for it."""
    scheme = headers.get("authorization", "").partition(" ")[0].lower()
    return scheme not in ("", "basic", "bearer") or any(name in headers for name in _SIGNED)


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    return model[:256] if isinstance(model, str) else None


def _content_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _takes_stream_usage(provider: Provider | None, params: Mapping[str, str]) -> bool:
    if provider is None or not provider.stream_usage:
        return False
    version = params.get("api-version", "")
    since = provider.stream_usage
    return since is True or not version[:4].isdigit() or version >= since
