"""`costmw serve`: the page of a ledger on a server of its own. It records and changes nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from costmw.dashboard import DashboardASGI
from costmw.dashboard.auth import token
from costmw.errors import ConfigError, MissingExtra, StoreError
from costmw.listening import is_loopback, listen, run_until_told, shown
from costmw.meter import Meter
from costmw.transfer.absence import is_absent

if TYPE_CHECKING:
    import socket

    from costmw.dashboard.asgi import Receive, Scope, Send
    from costmw.dashboard.auth import Auth

SHUTDOWN_SECONDS = 5
"""That answers under way may take once the server is told to stop."""


def serve_page(
    store: str | None,
    *,
    token_env: str,
    host: str = "127.0.0.1",
    port: int = 4001,
    root_path: str = "",
) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Args:
        store: the ledger's URL; `COSTMW_STORE` when left out.
        token_env: the environment's variable with the secret that opens the page.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        root_path: the path that a proxy shows the page at, whether it cuts it off or not.

    Raises:
        ConfigError: when an argument cannot be used, or the address cannot be had.
        StoreError: when there is no ledger, or it cannot be read.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(package="uvicorn", extra="serve") from error

    auth = _auth_of(token_env)
    meter = _meter_of(store)
    try:
        root_path = _checked(root_path)
        page = _Below(root_path, DashboardASGI(meter, auth))
        listener = listen(host, port)
        # The address of who connects stays that of the connection: nobody may choose it.
        config = uvicorn.Config(
            page,
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        say_where(listener, root_path)
        run_until_told(lambda: uvicorn.Server(config).run(sockets=[listener]))
    finally:
        meter.close()


class _Below:
    """The page below a path: behind a proxy that cuts it off, and behind one that does not."""

    def __init__(self, root_path: str, page: DashboardASGI) -> None:
        self._root_path = root_path
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._page({**scope, "root_path": self._root_path}, receive, send)


def _auth_of(token_env: str) -> Auth:
    secret = os.environ.get(token_env)
    if not secret:
        raise ConfigError(
            f"the environment has no {token_env}, the secret that opens the page. Make one with: "
            f'export {token_env}=$(python -c "import secrets; print(secrets.token_urlsafe(32))")'
        )
    return token(secret, can_edit=False)


def _meter_of(store: str | None) -> Meter:
    """A meter that is never started: it answers questions, and has no thread."""
    meter = Meter(store)
    if is_absent(meter.store):
        raise StoreError(
            f"there is no store at {meter.store.url}: an app makes it with its first call. Name "
            "the store of the app by --store or COSTMW_STORE"
        )
    try:
        with meter.store.snapshot():
            return meter
    except StoreError:
        meter.close()
        raise


def _checked(root_path: str) -> str:
    path = root_path.rstrip("/")
    if path and (not path.startswith("/") or any(part in path for part in "?#%")):
        raise ConfigError(f"--root-path {root_path!r} must be a plain path, as /llmcost")
    return path


def say_where(listener: socket.socket, root_path: str) -> None:
    """Say on the standard error where the page is, and what to mind."""
    host: str = listener.getsockname()[0]
    if not is_loopback(host):
        sys.stderr.write(
            f"WARNING: listening on {host} without TLS: the secret crosses the network in the "
            "clear, unless a proxy with TLS is in front.\n"
        )
    sys.stderr.write(
        f"costmw serve at {shown(listener)}{root_path}/, any name, the secret as the password\n"
    )
    sys.stderr.flush()
