"""`costmw proxy`: the proxy on a server of its own, with limits on slow clients."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

from costmw.errors import MissingExtra
from costmw.listening import BACKLOG, is_loopback, listen, run_until_told, shown
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
            backlog=BACKLOG,
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
    try:
        run_until_told(lambda: server.run(sockets=[listener]))
    finally:
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


def _say_where(listener: socket.socket, config: ProxyConfig) -> None:
    host, address = listener.getsockname()[0], shown(listener)
    say = sys.stderr.write
    if not is_loopback(host) and not config.tokens:
        pays = sorted(name for name, upstream in config.upstreams.items() if upstream.key)
        what = f" and spend the keys of {', '.join(pays)}" if pays else ""
        say(
            f"WARNING: listening on {host} without tokens: whoever reaches this address can "
            f"use the proxy{what}. Set [[tokens]] in the configuration, or --token-env.\n"
        )
    say(f"costmw proxy at {address}, base URLs such as ")
    say(f"{address}/{'openai/v1' if 'openai' in config.upstreams else '...'}\n")
    sys.stderr.flush()
