"""`costmw proxy`: the proxy on a server of its own, with limits on slow clients."""

from __future__ import annotations

import contextlib
import ipaddress
import signal
import socket
import sys
from typing import TYPE_CHECKING

from costmw.errors import ConfigError, MissingExtra
from costmw.proxy.app import ProxyApp
from costmw.proxy.headers import LARGEST_HEAD
from costmw.proxy.protocol import ProxyProtocol

try:
    import uvicorn
except ImportError as error:
    raise MissingExtra(package="uvicorn", extra="proxy") from error

if TYPE_CHECKING:
    from costmw.meter import Meter
    from costmw.proxy.settings import ProxyConfig


KEEP_ALIVE_SECONDS = 75
"""That a connection is kept between two requests."""

SHUTDOWN_SECONDS = 30
"""That answers under way may take once the proxy is told to stop."""

SWITCH_SECONDS = 0.0005
"""That a thread of the server's process runs while another one waits."""

_BACKLOG = 2048


def server_of(app: ProxyApp, protocol: type[ProxyProtocol] = ProxyProtocol) -> uvicorn.Server:
    """A server for the proxy, which adds nothing to its answers."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=LARGEST_HEAD,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            backlog=_BACKLOG,
        )
    )


def run_proxy(
    meter: Meter, config: ProxyConfig, *, host: str = "127.0.0.1", port: int = 4000
) -> None:
    """Serve until SIGTERM or Ctrl-C; then answers under way may end, and all is committed.

    Raises:
        ConfigError: when the address cannot be listened on.
        StoreError: when the store cannot be used.
    """
    meter.start()
    # The thread that commits would wait up to 5 ms for its turn between two requests.
    sys.setswitchinterval(SWITCH_SECONDS)
    app = ProxyApp(meter, config)
    listener = listen(host, port)
    allow_many_files()
    server = server_of(app)
    _say_where(listener, config)
    # uvicorn raises the signal again once it has stopped: that is no failure.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
        meter.close()


def allow_many_files() -> None:
    """Allow as many open connections as the system lets this process have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS: its own limit may be lower
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"port {port} on {host} cannot be had: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _say_where(listener: socket.socket, config: ProxyConfig) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say = sys.stderr.write
    if not is_loopback(host) and not config.tokens:
        pays = sorted(name for name, upstream in config.upstreams.items() if upstream.key)
        what = f" and spend the keys of {', '.join(pays)}" if pays else ""
        say(
            f"WARNING: listening on {host} without tokens: whoever reaches this address can "
            f"use the proxy{what}. Set [[tokens]] in the configuration, or --token-env.\n"
        )
    say(f"costmw proxy at http://{shown}:{port}, base URLs such as ")
    say(f"http://{shown}:{port}/{'openai/v1' if 'openai' in config.upstreams else '...'}\n")
    sys.stderr.flush()
