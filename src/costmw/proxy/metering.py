"""One request as a call: the same capture that follows a client, on a request passing by.

Nothing of it reaches the request: what goes wrong is counted, and the bytes go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic_core import from_json

from costmw.capture.call import NO_REQUEST
from costmw.capture.clients.base import Capture, HttpRequest, is_retry, json_object
from costmw.capture.tee import Tee
from costmw.providers.base import Reading
from costmw.proxy.forms import form_fields
from costmw.proxy.headers import RawHeaders

if TYPE_CHECKING:
    from costmw.capture.call import Call


def text_headers(headers: RawHeaders) -> dict[str, str]:
    """Headers as text, by their names in small letters."""
    return {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in headers}


class MeteredCall:
    """The call of one exchange, if it is one; the bytes of its answer pass through `look`."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._call: Call | None = None
        self._tee: PassingTee | None = None
        self._retry = False
        self._asked = False

    def begin(
        self,
        method: str,
        host: str,
        path: bytes,
        query: bytes,
        headers: RawHeaders,
        content: bytes,
        *,
        is_whole: bool,
    ) -> bytes:
        """Start the call; gives the body to send, which may ask for usage.

        `headers` are those that are sent, with the key that pays. A body that is not
        whole stays as it is.
        """
        capture = self._capture
        if not capture.meter.enabled:
            return content
        try:
            sent = text_headers(headers)
            request = HttpRequest(
                method=method,
                host=host,
                path=path.decode("ascii"),
                headers=sent,
                params=dict(parse_qsl(query.decode("latin-1"))) if query else {},
                body=_body(content, sent, is_whole=is_whole),
                content=content,
                size=len(content) if is_whole else int(sent.get("content-length") or 0),
            )
            self._call = capture.begin(request)
            self._retry = is_retry(sent)
            if self._call is None:
                return content
            if not is_whole:
                self._call.request = NO_REQUEST  # a part of it says nothing of what it costs
                return content
            changed = capture.body_to_send(self._call, request, streamed=True)
            if changed is not None:
                self._asked = changed.asks_usage
                return changed.content
        except Exception as error:  # noqa: BLE001 - the request goes on unmetered
            capture.meter.fault(error, "a request")
        return content

    async def reserve(self) -> None:
        """Hold what the call may cost in the budgets that block it.

        Raises:
            BudgetExceeded: when it may not be sent.
        """
        if self._call is not None:
            await self._call.areserve()

    @property
    def is_one(self) -> bool:
        """Whether this is a call of an LLM that we know."""
        return self._call is not None

    @property
    def asked_for_usage(self) -> bool:
        """Whether a chunk of its answer is to be taken out, which then must not be compressed."""
        return self._asked

    @property
    def family(self) -> str | None:
        """The format family of the call, once it is known."""
        return self._call.start.match.format.api.partition(".")[0] if self._call else None

    def answered(self, status: int, headers: Mapping[str, str], stream: Any) -> bool:
        """Take the head of the answer; True when its bytes will not be those of the upstream."""
        if self._call is None:
            return False
        capture = self._capture
        try:
            if not capture.answered(self._call, status, headers, retry=self._retry):
                return False
            encoding = headers.get("content-encoding", "")
            tee = PassingTee(stream, self._call, capture.reader(self._call, headers, encoding))
            self._tee = tee
            return capture.follow(tee, headers, hide=encoding if self._asked else None)
        except Exception as error:  # noqa: BLE001 - the answer goes on unmetered
            capture.meter.fault(error, "a response")
            return False

    def look(self, chunk: bytes) -> bytes:
        """Take a chunk of the answer; gives the bytes to hand on."""
        return chunk if self._tee is None else self._tee.look(chunk)

    def end(self) -> bytes:
        """Take the end of the answer; gives what was held back."""
        return b"" if self._tee is None else self._tee.end()

    @property
    def is_settled(self) -> bool:
        """Whether there may be a commit to wait for."""
        return self._tee is None or self._tee.is_settled

    async def committed(self) -> None:
        """Wait for the commit of what is settled, at most `ack_timeout`."""
        if self._call is not None:
            await self._call.wait_async()

    def never_sent(self) -> None:
        """Take it that the upstream never had the request whole."""
        if self._call is not None:
            self._capture.failed(self._call, possibly_billed=False, retry=self._retry)

    def failed(self) -> None:
        """Take it that the upstream, or the way to it, failed: it may have worked, and may bill."""
        if self._tee is not None:
            self._tee.stop("failed")
        elif self._call is not None:
            self._capture.failed(self._call, possibly_billed=True, retry=self._retry)

    def left(self) -> None:
        """Take it that the client left before the end."""
        if self._tee is not None:
            self._tee.stop("closed")
        elif self._call is not None:
            self._call.settle(Reading(), "closed")


class PassingTee(Tee):
    """A tee whose chunks are handed to it one by one."""

    def look(self, chunk: bytes) -> bytes:
        """Read a chunk; gives the bytes to hand on."""
        return self._look(chunk)

    def end(self) -> bytes:
        """Take the end; gives what was held back."""
        return self._end()

    def stop(self, how: Any) -> None:
        """Settle before the end."""
        self._settle(how)

    @property
    def is_settled(self) -> bool:
        """Whether the end was seen."""
        return self._settled


def _body(content: bytes, headers: Mapping[str, str], *, is_whole: bool) -> Mapping[str, Any]:
    if not content:
        return {}
    content_type = headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        return form_fields(content, content_type)
    if is_whole:
        return json_object(content)
    try:
        started = from_json(content, allow_partial=True)
    except ValueError:
        return {}
    return started if isinstance(started, dict) else {}
