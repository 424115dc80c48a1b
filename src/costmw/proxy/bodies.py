"""The body of a request: held where it is small enough to be read, passed on where not.

What is held at one time is bounded for each request and for all of them together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from costmw.proxy.headers import RawHeaders, values
from costmw.proxy.refusals import Refusal
from costmw.proxy.settings import ProxyConfig

Receive = Callable[[], Awaitable[Any]]

SLOWEST = 1024
"""Bytes a second that a client must send, beyond the first `body_timeout` seconds."""


class ClientLeft(Exception):
    """The client closed its connection before it had sent its request."""


class Buffers:
    """How many bytes all requests together may hold, and do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold so many more; False when there is no room."""
        if self.held + size > self._limit:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        """Hold so many less."""
        self.held -= size


class RequestBody:
    """One body as it comes from the client.

    content: what was read of it at first. is_whole: whether that is all. length: of the
    whole, as the client said; None when it comes in chunks.
    """

    def __init__(
        self, receive: Receive, headers: RawHeaders, config: ProxyConfig, buffers: Buffers
    ) -> None:
        self._receive = receive
        self._config = config
        self._buffers = buffers
        self._deadline = time.monotonic() + config.body_timeout
        self._received = 0
        self._held = 0
        lengths = values(headers, b"content-length")
        # The server has checked that they are digits; not every one does.
        self.length = int(lengths[0]) if lengths and lengths[0].isdigit() else None
        self.has_one = bool(self.length) or bool(values(headers, b"transfer-encoding"))
        self.content = b""
        self.is_whole = False

    async def read(self) -> None:
        """Read all of it, or as much as may be held.

        Raises:
            Refusal: when it is too large, or comes too slowly.
            ClientLeft: when the client does not send it.
        """
        limit = self._config.max_request_bytes
        if limit is not None and self.length is not None and self.length > limit:
            raise self._too_large()
        pieces = []
        while not self.is_whole:
            piece, self.is_whole = await self._next()
            pieces.append(piece)
            if not self._buffers.take(len(piece)):
                break
            self._held += len(piece)
            if self._held > self._config.read_limit:
                break
        self.content = b"".join(pieces) if len(pieces) > 1 else pieces[0]

    async def rest(self) -> AsyncIterator[bytes]:
        """The body, what was read at first and what comes after it, piece by piece."""
        first, self.content = self.content, b""
        if first:
            yield first
        del first
        self.let_go()
        while not self.is_whole:
            piece, self.is_whole = await self._next()
            if piece:
                yield piece

    def let_go(self) -> None:
        """Make room: what was held is sent, or will not be."""
        self._buffers.give_back(self._held)
        self._held = 0

    async def _next(self) -> tuple[bytes, bool]:
        """The next piece, and whether it is the last."""
        try:
            async with asyncio.timeout(
                self._deadline + self._received / SLOWEST - time.monotonic()
            ):
                message = await self._receive()
        except TimeoutError:
            raise Refusal(
                408,
                "http_request_error",
                "the request's body did not come in time",
                headers={"connection": "close"},
            ) from None
        if message["type"] != "http.request":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        self._received += len(piece)
        limit = self._config.max_request_bytes
        if limit is not None and self._received > limit:
            raise self._too_large()
        return piece, not message.get("more_body", False)

    def _too_large(self) -> Refusal:
        return Refusal(
            413,
            "http_request_error",
            f"the request's body is larger than {self._config.max_request_bytes} bytes",
            headers={"connection": "close"},
        )
