"""A server of our own: where it listens, and until when it runs."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable

from costmw.errors import ConfigError

BACKLOG = 2048
"""Connections that may wait to be taken."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: when the address cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"host {host!r} cannot be listened on: {error.strerror}") from None
    # asyncio turns Nagle's delay off only for sockets that name their protocol.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"port {port} on {host} cannot be had: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def shown(listener: socket.socket) -> str:
    """The address of a socket, as the beginning of a URL: `http://127.0.0.1:4000`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_told(run: Callable[[], None]) -> None:
    """Run a server of uvicorn until SIGTERM or Ctrl-C, which is no failure."""
    # uvicorn raises the signal again once it has stopped.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run()
    finally:
        signal.signal(signal.SIGTERM, before)
