"""Serve an ASGI application from a thread, started and stopped in no time."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as missing:
    from costmw.errors import MissingExtra

    raise MissingExtra(package="uvicorn", extra="testing") from missing

if TYPE_CHECKING:
    from costmw.testing.app import ProviderApp

START_SECONDS = 10.0
STOP_SECONDS = 10.0

_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 60

_logger = logging.getLogger("costmw.testing.server")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what uvicorn reports of connections that are cut on purpose."""
    return "without completing response" not in record.getMessage()


_logger.addFilter(_is_news)


class _QuietProtocol(H11Protocol):
    """Keeps its own log.

    uvicorn's log settings are the same for all servers of a process, and the host's
    server may be one of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _logger
        self.access_log = False


def _listen(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's delay off only for sockets that name their protocol, and with it
    # on, a client that keeps its connection waits 40 ms for every response.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class ThreadedServer:
    """One server on one socket, in a daemon thread of its own."""

    def __init__(self, app: ProviderApp, *, host: str, port: int) -> None:
        """Bind the socket, and return when it is being served; port 0 is any free port."""
        # Bound here, so that a port already taken is the caller's exception.
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._config = uvicorn.Config(
            app,
            http=_QuietProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._serving = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="costmw-fake-provider", daemon=True)
        self._thread.start()
        self._ready.wait(START_SECONDS)
        if not self._serving:
            self._socket.close()
            raise RuntimeError("the fake provider's server did not start")

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"the fake provider did not stop within {STOP_SECONDS:g} seconds")

    def _run(self) -> None:
        try:
            # The one kind of loop that lets a listener be paused, on every platform.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._config.load()
        server = uvicorn.Server(self._config)
        server.lifespan = self._config.lifespan_class(self._config)
        await server.startup(sockets=[self._socket])
        self._serving = True
        self._ready.set()
        await self._stopping.wait()
        await self._hang_up(server)

    async def _hang_up(self, server: uvicorn.Server) -> None:
        """Close everything at once; uvicorn's own shutdown would wait for clients to leave."""
        # A connection accepted a moment ago takes a few turns of the loop to show up, and
        # is left open for good if its listener is closed meanwhile.
        asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(4):
            await asyncio.sleep(0)
        for listener in server.servers:
            listener.close()
        state = server.server_state
        while state.connections or state.tasks:
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.001)
