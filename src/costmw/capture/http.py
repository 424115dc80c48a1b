"""httpx and httpx2 clients: every request that they send, seen from both ends.

The two libraries have the same interface and distinct types; both are supported by
their shape, and neither is imported here. A client is followed by wrapping its own
`send`, which survives a later change of its event hooks and sees one redirect chain
as one call; `event_hooks()` is for clients that are to be left alone.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from costmw.capture.hiding import UsageChunkHider, with_usage_asked
from costmw.capture.reading import BodyReader, read_body
from costmw.capture.tee import Tee, tee_around
from costmw.errors import ConfigError
from costmw.providers import registry
from costmw.providers.base import Reading
from costmw.providers.registry import Provider

if TYPE_CHECKING:
    from costmw.capture.call import Call
    from costmw.meter import Meter

logger = logging.getLogger("costmw")

MARK = "costmw.call"
"""Where a request in flight keeps its call, in the request's `extensions`."""


class ClientCapture:
    """Follows the requests of one client, or of those that use one set of hooks."""

    def __init__(
        self,
        meter: Meter,
        api: str | None = None,
        provider: str | None = None,
        *,
        include_usage: bool = True,
    ) -> None:
        self.meter = meter
        self.api = api
        self.provider = registry.find_provider(provider) if provider else None
        self.include_usage = include_usage

    def begin(self, request: Any) -> tuple[Call | None, Mapping[str, Any]]:
        """Start a call for a request, and give its parsed body.

        No call when the request is none of ours, or followed already.
        """
        if not self.meter.enabled or MARK in request.extensions:
            return None, {}
        url = request.url
        match = registry.match(
            request.method,
            url.host if url.port is None else f"{url.host}:{url.port}",
            url.path,
            self.api,
            self.provider,
            self.meter.config.hosts,
        )
        if match is None:
            return None, {}
        body = _request_body(request)
        read_request = match.format.read_request
        call = self.meter.start_call(
            match,
            match.model or _model(body),
            _api_key(request),
            request_bytes=int(request.headers.get("content-length") or 0),
            request_usage=read_request(body) if read_request else None,
        )
        request.extensions[MARK] = (self, call)
        return call, body

    def asked(self, request: Any, call: Call, body: Mapping[str, Any]) -> Any:
        """The request to send: one that asks for usage where a stream has none otherwise."""
        match = call.start.match
        if not (
            self.include_usage
            and match.format.include_usage
            and _takes_stream_usage(match.provider, request.url)
        ):
            return request
        changed = with_usage_asked(request.content, body) if body else None
        if changed is None:
            return request
        headers = request.headers.copy()
        headers.pop("content-length", None)
        # The extra chunk can only be taken out of bytes that are not compressed.
        headers["accept-encoding"] = "identity"
        replaced = type(request)(
            request.method,
            request.url,
            headers=headers,
            content=changed,
            extensions=request.extensions,
        )
        del request.extensions[MARK]
        return replaced

    def received(self, call: Call, response: Any, *, hide: bool) -> Tee | None:
        """Take a response: settle it if its body is here, or follow its stream."""
        if response.has_redirect_location:
            call.redirected()
            return None
        if not 200 <= response.status_code < 300:
            call.not_billed(retry=_is_retry(response.request))
            return None
        wire, limit = call.start.match.format, self.meter.config.max_body_bytes
        headers = response.headers
        if (content := _body_at_hand(response)) is not None:
            call.settle(read_body(wire, headers, content, limit), "end")
            return None
        encoding = headers.get("content-encoding", "")
        tee = tee_around(response, call, BodyReader(wire, headers, encoding, limit))
        if hide and headers.get("content-type", "").startswith("text/event-stream"):
            tee.hide_usage(UsageChunkHider(), encoding)
            if encoding:
                del headers["content-encoding"]
        response.stream = tee
        self.meter.follow(tee)
        return tee


def instrument_client(client: Any, capture: ClientCapture) -> None:
    """Wrap the client's `send`; a client that is wrapped already changes its meter."""
    present = client.__dict__.get("send")
    if isinstance(getattr(present, "costmw", None), ClientCapture):
        present.costmw = capture
        return
    # A reference to the client from its own attribute would keep it from being closed
    # when it is dropped, which the SDKs rely on.
    reference = weakref.ref(client)
    original = present or functools.partial(_class_send, reference)
    is_async = hasattr(client, "aclose")
    client.send = (_async_send if is_async else _sync_send)(original, capture)


def _class_send(reference: weakref.ref[Any], *args: Any, **kwargs: Any) -> Any:
    client: Any = reference()
    return type(client).send(client, *args, **kwargs)


def _sync_send(original: Callable[..., Any], capture: ClientCapture) -> Callable[..., Any]:
    def send(request: Any, **options: Any) -> Any:
        following: ClientCapture = send.costmw  # type: ignore[attr-defined]
        call, sent = _prepare(following, request, streamed=options.get("stream", False))
        if call is None:
            return original(request, **options)
        try:
            response = original(sent, **options)
        except BaseException as error:
            _failed(following, call, sent, error)
            raise
        finally:
            sent.extensions.pop(MARK, None)
        if _received(following, call, response, hide=sent is not request):
            call.wait()
        return response

    send.costmw = capture  # type: ignore[attr-defined]
    return send


def _async_send(original: Callable[..., Any], capture: ClientCapture) -> Callable[..., Any]:
    async def send(request: Any, **options: Any) -> Any:
        following: ClientCapture = send.costmw  # type: ignore[attr-defined]
        call, sent = _prepare(following, request, streamed=options.get("stream", False))
        if call is None:
            return await original(request, **options)
        try:
            response = await original(sent, **options)
        except BaseException as error:
            _failed(following, call, sent, error)
            raise
        finally:
            sent.extensions.pop(MARK, None)
        if _received(following, call, response, hide=sent is not request):
            await call.wait_async()
        return response

    send.costmw = capture  # type: ignore[attr-defined]
    return send


def _prepare(capture: ClientCapture, request: Any, *, streamed: bool) -> tuple[Call | None, Any]:
    """Start a call and give the request to send; whatever goes wrong, it is sent as it is."""
    try:
        call, body = capture.begin(request)
        if call is None:
            return None, request
        # Only what comes as a stream can have the extra chunk taken out again.
        return call, capture.asked(request, call, body) if streamed else request
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a request")
        return None, request


def _received(capture: ClientCapture, call: Call, response: Any, *, hide: bool) -> bool:
    """Take the response; True when its row is made and its commit can be waited for."""
    try:
        return capture.received(call, response, hide=hide) is None
    except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
        capture.meter.fault(error, "a response")
        return False


# Raised once a request is on its way: the provider may have worked, and may bill it.
_POSSIBLY_BILLED = {
    "CancelledError",
    "DecodingError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "WriteTimeout",
}


def _failed(capture: ClientCapture, call: Call, request: Any, error: BaseException) -> None:
    try:
        if type(error).__name__ in _POSSIBLY_BILLED:
            call.settle(Reading(), "failed")
        else:
            call.not_billed(retry=_is_retry(request))
    except Exception as fault:  # noqa: BLE001 - the host's own error is on its way
        capture.meter.fault(fault, "a failed request")


class _Done:
    """What a hook returns: nothing for a sync client, awaitable at once for an async one."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


def event_hooks(capture: ClientCapture) -> dict[str, list[Callable[[Any], Any]]]:
    """Hooks for `Client(event_hooks=...)`, sync and async alike."""
    done = _Done()

    def on_request(request: Any) -> _Done:
        try:
            capture.begin(request)
        except Exception as error:  # noqa: BLE001 - nothing of ours may reach the host's call
            capture.meter.fault(error, "a request")
        return done

    def on_response(response: Any) -> _Done:
        # A wrapped client takes its mark off itself, after the hooks have run.
        owner, call = response.request.extensions.get(MARK, (None, None))
        if owner is capture:
            del response.request.extensions[MARK]
            _received(capture, call, response, hide=False)
        return done

    return {"request": [on_request], "response": [on_response]}


def find_http_client(target: Any) -> tuple[Any, str | None]:
    """The HTTP client inside an SDK's client, or the object itself; and the API it implies.

    Raises:
        ConfigError: when it is neither.
    """
    if _is_http_client(target):
        return target, None
    for cls in type(target).__mro__:
        family = _SDKS.get(cls.__module__.partition(".")[0])
        inner = getattr(target, "_client", None)
        if family is not None and _is_http_client(inner):
            return inner, family
    raise ConfigError(
        f"cannot instrument a {type(target).__module__}.{type(target).__qualname__}; known are the "
        "clients of openai and anthropic (sync, async, Azure) and the Client and AsyncClient of "
        "httpx and httpx2"
    )


_SDKS = {"openai": "openai", "anthropic": "anthropic"}


def _is_http_client(target: Any) -> bool:
    return all(hasattr(target, name) for name in ("send", "build_request", "event_hooks"))


def _request_body(request: Any) -> Mapping[str, Any]:
    """The JSON object that is sent; an empty one when it is anything else, or a stream."""
    try:
        parsed = from_json(request.content)
    except (RuntimeError, ValueError):  # httpx: RequestNotRead is a RuntimeError
        return _form_fields(request)
    return parsed if isinstance(parsed, dict) else {}


def _form_fields(request: Any) -> dict[str, str]:
    """The text fields of a multipart request, whose files only the transport may read."""
    fields = getattr(request.stream, "fields", ())
    return {
        field.name: field.value
        for field in fields
        if isinstance(getattr(field, "name", None), str)
        and isinstance(getattr(field, "value", None), str)
    }


def _body_at_hand(response: Any) -> bytes | None:
    try:
        content: bytes = response.content
    except RuntimeError:  # httpx: ResponseNotRead
        return None
    return content


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    return model[:256] if isinstance(model, str) else None


def _api_key(request: Any) -> str | None:
    """The key that the request is billed to, wherever the providers look for it."""
    headers = request.headers
    bearer = headers.get("authorization", "")
    return (
        headers.get("x-api-key")
        or headers.get("api-key")
        or headers.get("x-goog-api-key")
        or request.url.params.get("key")
        or (bearer[7:] if bearer[:7].lower() == "bearer " else None)
    )


def _takes_stream_usage(provider: Provider | None, url: Any) -> bool:
    if provider is None or not provider.stream_usage:
        return False
    version = url.params.get("api-version", "")
    since = provider.stream_usage
    return since is True or not version[:4].isdigit() or version >= since


def _is_retry(request: Any) -> bool:
    """Whether the SDK says that this is not its first attempt (Stainless SDKs do)."""
    return request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
