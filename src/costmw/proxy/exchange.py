"""One request, from its head to the last byte of its answer."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from costmw.errors import BudgetExceeded, MissingExtra
from costmw.proxy.bodies import ClientLeft, RequestBody
from costmw.proxy.credentials import with_key, without_keys
from costmw.proxy.failures import BROKEN, refusal_for, was_never_sent
from costmw.proxy.headers import (
    RawHeaders,
    readable_encodings,
    to_client,
    to_upstream,
    values,
)
from costmw.proxy.leaving import ClientWatch
from costmw.proxy.metering import MeteredCall, text_headers
from costmw.proxy.refusals import Refusal, beyond_budget

try:
    import httpcore2
except ImportError as error:
    raise MissingExtra(package="httpx2", extra="proxy") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Set

    from costmw.proxy.bodies import Receive
    from costmw.proxy.destinations import Destination
    from costmw.proxy.paths import Scope

logger = logging.getLogger("costmw")


class Exchange:
    """Sends one request on and hands its answer back.

    Args:
        destination: where to.
        rest: the request's path after the upstream's name.
        headers: as they came from the client.
        body: of the request, not read yet.
        drop: headers that end here, beside those that always do.
        replace_key: whether the client's keys are taken out.
        explain_refusals: whether the client is told which budget a call does not fit.
        timeout: of the connection to the upstream, in the pool's terms.
        via: what the proxy adds to the header of that name.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Any,
        *,
        destination: Destination,
        rest: bytes,
        headers: RawHeaders,
        body: RequestBody,
        drop: Set[bytes],
        replace_key: bool,
        explain_refusals: bool,
        timeout: dict[str, float],
        via: bytes,
    ) -> None:
        self._method: str = scope["method"]
        self._query: bytes = scope.get("query_string", b"")
        self._send = send
        self._destination = destination
        self._path = destination.path_of(rest)
        self._headers = headers
        self._body = body
        self._drop = drop
        self._replace_key = replace_key
        self._explain_refusals = explain_refusals
        self._timeout = timeout
        self._via = via
        self._watch = ClientWatch(receive)
        self._call = MeteredCall(destination.capture)
        self._response: httpcore2.Response | None = None
        self._started = False

    @property
    def family(self) -> str:
        """The format family whose errors the client reads."""
        return self._call.family or self._destination.family

    async def run(self, pool: httpcore2.AsyncConnectionPool) -> None:
        """Do it; nothing is left open.

        Raises:
            Refusal: when there is no answer to hand on, and nothing of one was sent.
            ClientLeft: when the client did not send its request.
        """
        try:
            await self._body.read()
            request = self._request()
            with self._watch:
                if self._body.is_whole:
                    self._watch.start()
                await self._exchange(pool, request)
            if self._watch.left:
                self._call.left()
        except asyncio.CancelledError:
            self._call.left()
            raise
        finally:
            self._body.let_go()
            if self._response is not None:
                await self._response.stream.aclose()  # type: ignore[union-attr]

    def _request(self) -> httpcore2.Request:
        body, destination = self._body, self._destination
        headers = to_upstream(
            self._headers,
            host=destination.host.encode(),
            drop=self._drop,
            via=self._via,
        )
        if destination.key is not None:
            headers = with_key(headers, self._headers, destination.key, destination.family)
        elif self._replace_key:
            headers = without_keys(headers)
        content = self._call.begin(
            self._method,
            destination.host,
            self._path,
            self._query,
            headers,
            body.content,
            is_whole=body.is_whole,
        )
        sent: bytes | AsyncIterator[bytes] = content
        if body.is_whole:
            if content or body.has_one or values(self._headers, b"content-length"):
                headers.append((b"content-length", b"%d" % len(content)))
        else:
            if body.length is None:
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                headers.append((b"content-length", b"%d" % body.length))
            sent = self._upload()
        if (encodings := self._encodings()) is not None:
            headers.append((b"accept-encoding", encodings))
        return destination.request(
            self._method, self._path, self._query, headers, sent, self._timeout
        )

    def _encodings(self) -> bytes | None:
        if self._call.asked_for_usage:
            return b"identity"  # the extra chunk is taken out of bytes as they come
        if self._call.is_one:
            return readable_encodings(self._headers)
        asked = values(self._headers, b"accept-encoding")
        return b", ".join(asked) if asked else None

    async def _upload(self) -> AsyncIterator[bytes]:
        async for piece in self._body.rest():
            yield piece
        self._watch.start()

    async def _exchange(
        self, pool: httpcore2.AsyncConnectionPool, request: httpcore2.Request
    ) -> None:
        try:
            await self._call.reserve()
        except BudgetExceeded as refusal:
            raise beyond_budget(refusal, explain=self._explain_refusals) from None
        try:
            response = self._response = await pool.handle_async_request(request)
        except (ClientLeft, Refusal):
            self._call.never_sent()
            raise
        except Exception as error:  # noqa: BLE001 - each becomes an answer
            if was_never_sent(error):
                self._call.never_sent()
            else:
                self._call.failed()
            # The row is there before its answer here too.
            await self._call.committed()
            raise refusal_for(error, self._destination.name) from None
        if not 200 <= response.status < 600:
            self._call.failed()
            raise Refusal(
                502,
                "http_protocol_error",
                f"upstream {self._destination.name!r} answered with a status of no meaning here",
            )
        headers = text_headers(response.headers)
        changed = self._call.answered(response.status, headers, response.stream)
        length = None if changed or self._method == "HEAD" else _length(headers)
        try:
            await self._relay(response, length, changed=changed)
        except BROKEN as error:
            self._call.failed()
            logger.warning(
                "costmw proxy: upstream %r ended an answer early (%s)",
                self._destination.name,
                type(error).__name__,
            )
            await self._call.committed()
            if not self._started:
                raise refusal_for(error, self._destination.name) from None

    async def _relay(
        self, response: httpcore2.Response, length: int | None, *, changed: bool
    ) -> None:
        """Hand the answer on as it comes; its last byte once the row is committed.

        `length` is what the client is told of it, None where it is not.
        """
        call, send = self._call, self._send
        drop = {b"content-length", b"content-encoding"} if changed else frozenset()
        start = {
            "type": "http.response.start",
            "status": response.status,
            "headers": to_client(response.headers, drop),
        }
        if length is None:
            # A stream's head is news of its own; any other goes out with its first bytes.
            await self._begin(start)
        received = 0
        last = b""
        async for chunk in response.stream:  # type: ignore[union-attr]
            received += len(chunk)
            passed = call.look(chunk)
            if received == length:
                # The client would take this for the whole: the end is next.
                last += passed
                continue
            if call.is_settled:
                await call.committed()
            if passed:
                await self._begin(start)
                await send({"type": "http.response.body", "body": passed, "more_body": True})
        last += call.end()
        await call.committed()
        self._watch.expect_no_more()
        await self._begin(start)
        await send({"type": "http.response.body", "body": last})

    async def _begin(self, start: dict[str, Any]) -> None:
        if not self._started:
            self._started = True
            await self._send(start)


def _length(headers: Mapping[str, str]) -> int | None:
    length = headers.get("content-length", "")
    return int(length) if length.isdigit() and "transfer-encoding" not in headers else None
