"""Connections to upstreams on asyncio, for httpx2's connection pool.

What is written is gathered until an answer is read, so that a head and its body are one
system call; and whether a kept connection was closed is known without asking the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from costmw.errors import MissingExtra
from costmw.proxy.connecting import first_connected

try:
    import httpcore2
except ImportError as error:
    raise MissingExtra(package="httpx2", extra="proxy") from error

AT_ONCE = 64 * 1024
"""Bytes that are gathered, and bytes that wait to be read, before anyone has to wait."""


class Backend(httpcore2.AsyncNetworkBackend):
    """Makes connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host, by whichever of its addresses answers first."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                connected = await first_connected(addresses)
                try:
                    _, stream = await loop.create_connection(Stream, sock=connected)
                except BaseException:
                    connected.close()
                    raise
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        return stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Stream(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes] = []
        self._held_size = 0
        self._received = bytearray()
        self._reading = True
        self._ended = False
        self._error: Exception | None = None
        self._full = False
        self._waiter: asyncio.Future[bool] | None = None

    # What asyncio says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Keep what came, and take no more than fits."""
        self._received += data
        if len(self._received) > AT_ONCE and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._wake(in_time=True)

    def eof_received(self) -> None:
        """Note that no more comes."""
        self._ended = True
        self._wake(in_time=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the connection is gone."""
        self._ended, self._error = True, exc
        self._full = False
        self._wake(in_time=True)

    def pause_writing(self) -> None:
        """Wait with what is written next."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._wake(in_time=True)

    # What the pool asks for.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Give what came, once there is something; nothing at the end."""
        if self._held:
            # A server may answer before it has read all, and close.
            with contextlib.suppress(httpcore2.WriteError):
                await self._flush(timeout)
        while not self._received and not self._ended:
            if not await self._wait(timeout):
                raise httpcore2.ReadTimeout
        if not self._received:
            if self._error is not None:
                raise httpcore2.ReadError(str(self._error))
            return b""
        if len(self._received) <= max_bytes:
            data, self._received = bytes(self._received), bytearray()
        else:
            data = bytes(self._received[:max_bytes])
            del self._received[:max_bytes]
        if not self._reading and not self._ended:
            self._reading = True
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, by the next read at the latest."""
        if buffer:
            self._held.append(buffer)
            self._held_size += len(buffer)
            if self._held_size > AT_ONCE:
                await self._flush(timeout)

    async def aclose(self) -> None:
        """Close at once: nobody waits for what was not sent or read."""
        self._held.clear()
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Encrypt what follows."""
        try:
            async with asyncio.timeout(timeout):
                transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except TimeoutError as error:
            self._transport.abort()
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:  # ssl.SSLError is one
            self._transport.abort()
            raise httpcore2.ConnectError(str(error)) from error
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        if transport is None:
            raise httpcore2.ConnectError("the connection was lost")
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        """What the pool wants to know of a connection."""
        match info:
            case "is_readable":
                return bool(self._received) or self._ended
            case "ssl_object" | "socket":
                return self._transport.get_extra_info(info)
            case "client_addr":
                return self._transport.get_extra_info("sockname")
            case "server_addr":
                return self._transport.get_extra_info("peername")
        return None

    async def _flush(self, timeout: float | None) -> None:
        held = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held.clear()
        self._held_size = 0
        if self._ended:
            raise httpcore2.WriteError("the connection was closed")
        self._transport.write(held)
        while self._full:
            if not await self._wait(timeout):
                raise httpcore2.WriteTimeout
        if self._error is not None:
            raise httpcore2.WriteError(str(self._error))

    async def _wait(self, timeout: float | None) -> bool:
        """Wait until something happens; False when nothing does for so long."""
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiter = waiter
        late = self._loop.call_later(timeout, self._wake) if timeout is not None else None
        try:
            return await waiter
        finally:
            self._waiter = None
            if late is not None:
                late.cancel()

    def _wake(self, *, in_time: bool = False) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(in_time)
