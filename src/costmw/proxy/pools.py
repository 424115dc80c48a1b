"""Connections to upstreams, kept between requests."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from costmw.errors import MissingExtra
from costmw.proxy.network import Backend

try:
    import httpcore2
    import httpx2
except ImportError as error:
    raise MissingExtra(package="httpx2", extra="proxy") from error

KEEP_FOR = 30.0
"""Seconds that a connection is kept unused; shorter than servers keep theirs."""

KEEP_AT_MOST = 100
"""Unused connections that are kept."""


class Pools:
    """The ways out: a pool for each proxy that the environment names, and one without.

    These are the pools inside of httpx2. What its clients add, such as cookies, redirects
    and URLs in the log, must not happen here; and `instrument_all()` sees none of it.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._ways: dict[str | None, httpcore2.AsyncConnectionPool] = {}
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._trust: ssl.SSLContext | None = None

    def to(self, way: str | None) -> httpcore2.AsyncConnectionPool:
        """The pool of one way out, for the running event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is None or self._loop() is not loop:
            # Connections belong to a loop. Those of one that has ended are closed with it.
            self._loop, self._ways = weakref.ref(loop), {}
        pool = self._ways.get(way)
        if pool is None:
            pool = self._ways[way] = self._make(way)
        return pool

    def _make(self, way: str | None) -> httpcore2.AsyncConnectionPool:
        if self._trust is None:
            self._trust = httpx2.create_ssl_context()
        proxy = None
        if way is not None:
            parts = urlsplit(way)
            auth = (unquote(parts.username or ""), unquote(parts.password or ""))
            address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
            proxy = httpcore2.Proxy(address, auth=auth if any(auth) else None)
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._trust,
            proxy=proxy,
            max_connections=self._max_connections,
            max_keepalive_connections=KEEP_AT_MOST,
            keepalive_expiry=KEEP_FOR,
            network_backend=Backend(),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        ways, self._ways = self._ways, {}
        if self._loop is not None and self._loop() is asyncio.get_running_loop():
            for pool in ways.values():
                await pool.aclose()


def way_to(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host (`HTTPS_PROXY`, `NO_PROXY`), or None."""
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if not found or proxy_bypass(host):
        return None
    return found if "://" in found else f"http://{found}"
