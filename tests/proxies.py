"""Proxies on real servers, and upstreams that say byte by byte what they are told to."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from costmw import Meter
from costmw.proxy import ProxyConfig, Upstream, proxy_app
from costmw.proxy.app import ProxyApp
from costmw.proxy.protocol import ProxyProtocol
from costmw.proxy.server import listen, server_of

DEADLINE = 20.0

BODY = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}).encode()

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-5-mini",
        "choices": [],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
).encode()


class Proxy:
    """A proxy that is being served."""

    def __init__(self, app: ProxyApp, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._loop = loop

    def tasks(self) -> set[str]:
        """The tasks of its event loop, by what they run."""

        async def names() -> set[str]:
            own = asyncio.current_task()
            return {repr(t.get_coro()) for t in asyncio.all_tasks() if t is not own}

        return asyncio.run_coroutine_threadsafe(names(), self._loop).result(DEADLINE)

    def is_quiet(self) -> bool:
        """Whether nothing of a request is left: no request, no held body, no open answer."""
        pools = self.app._pools._ways.values()
        return (
            self.app.in_flight == 0
            and self.app._buffers.held == 0
            and not any("_serve" in name or "_watch" in name for name in self.tasks())
            and all(c.is_idle() or c.is_closed() for pool in pools for c in pool.connections)
        )


@contextmanager
def serve(
    meter: Meter,
    config: ProxyConfig | None = None,
    *,
    app: Any = None,
    head_seconds: float = 15.0,
    port: int = 0,
) -> Iterator[Proxy]:
    """Serve a proxy as the command does; `app` is one that it is mounted in, if any."""
    proxy = proxy_app(meter, config)

    class Protocol(ProxyProtocol):
        pass

    Protocol.head_seconds = head_seconds
    listener = listen("127.0.0.1", port)
    port = listener.getsockname()[1]
    server = server_of(app(proxy) if app else proxy, Protocol)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield Proxy(proxy, port, loops[0])
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        assert not thread.is_alive()


def to(url: str, **settings: Any) -> ProxyConfig:
    """Settings with one upstream named openai, at `url`."""
    return ProxyConfig(upstreams={"openai": Upstream(url, "openai")}, built_in=False, **settings)


def wait_until(holds: Callable[[], object], seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def request(
    path: str = "/openai/v1/chat/completions",
    body: bytes = BODY,
    headers: str = "",
    method: str = "POST",
) -> bytes:
    """A request, its headers each ending in a line feed."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    lines = headers.replace("\n", "\r\n")
    return f"{method} {path} HTTP/1.1\r\nHost: proxy\r\n{length}{lines}\r\n".encode() + body


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), DEADLINE)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers and body; status 0 when there is none."""
    with connection.makefile("rb") as answer:
        line = answer.readline()
        if not line:
            return 0, {}, b""
        headers: dict[str, str] = {}
        while (header := answer.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        status = int(line.split()[1])
        if "content-length" in headers:
            return status, headers, answer.read(int(headers["content-length"]))
        if "transfer-encoding" not in headers:
            return status, headers, answer.read()
        body = b""
        while size := answer.readline():
            piece = answer.read(int(size, 16))
            answer.readline()
            if not piece:
                return status, headers, body
            body += piece
        return status, headers, body + b"<cut>"


def exchange(port: int, *pieces: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and read one answer."""
    with connect(port) as connection:
        for piece in pieces:
            with suppress(OSError):
                connection.sendall(piece)
        try:
            return read_answer(connection)
        except ConnectionError:
            return 0, {}, b""


def answer(
    body: bytes = ANSWER, headers: str = "Content-Type: application/json\n", status: str = "200 OK"
) -> bytes:
    """An answer with a length, its headers each ending in a line feed."""
    lines = headers.replace("\n", "\r\n")
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class RawUpstream:
    """Keeps what it was sent, and answers with the bytes that it is told to.

    requests: heads and bodies as they came. play: takes the connection once a request is
    there and says what follows; the connection is closed if it returns True.
    """

    def __init__(self, play: Callable[[socket.socket], object] | bytes | None = None) -> None:
        self.requests: list[bytes] = []
        self.gone = threading.Event()
        self.play = play if play is not None else answer()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> RawUpstream:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                received = bytearray()
                while data := connection.recv(1 << 20):
                    received += data
                    while (end := _end_of_request(received)) is not None:
                        self.requests.append(bytes(received[:end]))
                        del received[:end]
                        if isinstance(self.play, bytes):
                            connection.sendall(self.play)
                        elif self.play(connection):
                            return
                self.gone.set()
        except OSError:
            self.gone.set()
        finally:
            self._open.discard(connection)


def _end_of_request(received: bytearray) -> int | None:
    blank = received.find(b"\r\n\r\n")
    if blank < 0:
        return None
    lower = bytes(received[: blank + 2]).lower()
    if b"transfer-encoding: chunked" in lower:
        return len(received) if received.endswith(b"\r\n0\r\n\r\n") else None
    length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
    end = blank + 4 + length
    return end if len(received) >= end else None


def is_closed_by_peer(connection: socket.socket) -> bool:
    """Whether the other end has hung up, read to the end of what it said."""
    connection.settimeout(DEADLINE)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    return True
