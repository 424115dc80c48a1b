"""The proxy as an ASGI application, to be mounted or run alone."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from costmw.context import Scope as RequestScope
from costmw.context import current_scope, enter_scope
from costmw.errors import CostmwError
from costmw.proxy.bodies import Buffers, ClientLeft, RequestBody
from costmw.proxy.credentials import Door, check_origin
from costmw.proxy.destinations import Destination
from costmw.proxy.exchange import Exchange
from costmw.proxy.headers import RawHeaders, check_head, values, via
from costmw.proxy.paths import Scope, split_path
from costmw.proxy.pools import Pools
from costmw.proxy.refusals import Refusal
from costmw.proxy.settings import ProxyConfig
from costmw.proxy.tags import tags_of

if TYPE_CHECKING:
    from costmw.meter import Meter

logger = logging.getLogger("costmw")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


def proxy_app(meter: Meter, config: ProxyConfig | None = None) -> ProxyApp:
    """Make the proxy: `app.mount("/llm", proxy_app(meter))`, or an app of its own.

    Args:
        meter: where calls are recorded; started with the app, or at the first request.
        config: settings; the built-in upstreams with the clients' own keys when left out.
    """
    return ProxyApp(meter, config or ProxyConfig())


class ProxyApp:
    """Hands requests on to upstreams by the first segment of their path.

    Runs on asyncio. `config` are its settings.
    """

    def __init__(self, meter: Meter, config: ProxyConfig) -> None:
        self.config = config
        self._meter = meter
        self._door = Door(config.tokens)
        self._destinations = {
            name: Destination(name, upstream, meter, config)
            for name, upstream in config.upstreams.items()
        }
        # One more than requests, so that none ever waits for a connection.
        self._pools = Pools(config.max_concurrent + 1)
        self._buffers = Buffers(config.buffer_limit)
        self._tag_headers = frozenset(name.encode() for name in config.tag_headers)
        self._via = via(secrets.token_hex(4))
        self._timeout = {
            "connect": config.connect_timeout,
            "read": config.read_timeout,
            "write": config.write_timeout,
            "pool": config.connect_timeout,
        }
        self.in_flight = 0
        """Requests that are being handled."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1000})
            case "lifespan":
                await self._live(receive, send)

    async def aclose(self) -> None:
        """Settle the streams under way, commit what waits, and close the connections."""
        self._meter.end_streams()
        await self._pools.aclose()
        await asyncio.to_thread(self._meter.flush)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        before = current_scope()
        family = "openai"
        exchange = None
        self.in_flight += 1
        try:
            if self._meter.enabled and not self._meter.started:
                await self._start_meter()
            headers: RawHeaders = scope["headers"]
            destination, rest = self._find(scope, headers)
            family = destination.family
            self._enter(headers, destination)
            exchange = Exchange(
                scope,
                receive,
                send,
                destination=destination,
                rest=rest,
                headers=headers,
                body=RequestBody(receive, headers, self.config, self._buffers),
                drop=self._tag_headers,
                replace_key=not self._door.is_open,
                explain_refusals=self.config.explain_refusals,
                timeout=self._timeout,
                via=self._via,
            )
            await exchange.run(self._pools.to(destination.way))
        except Refusal as refusal:
            for message in refusal.messages(exchange.family if exchange else family):
                await send(message)
        except ClientLeft:
            pass
        finally:
            self.in_flight -= 1
            enter_scope(before)

    def _find(self, scope: Scope, headers: RawHeaders) -> tuple[Destination, bytes]:
        """Where a request goes, and with what path.

        Raises:
            Refusal: when it goes nowhere.
        """
        check_head(headers)
        name, rest = split_path(scope)
        destination = self._destinations.get(name)
        if destination is None:
            raise Refusal(404, "destination_not_found", self._unknown(name))
        if scope["method"] in ("CONNECT", "TRACE"):
            raise Refusal(405, "http_request_error", f"no {scope['method']} through this proxy")
        if any(self._via in value for value in values(headers, b"via")):
            raise Refusal(508, "proxy_loop_detected", f"upstream {name!r} leads back to this proxy")
        if self.in_flight > self.config.max_concurrent:
            raise Refusal(
                503,
                "connection_limit_reached",
                "the proxy has as many requests under way as it may have",
                headers={"retry-after": "1"},
            )
        return destination, rest

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self._destinations))
        shown = f"{name[:64]!r} is" if name else "an empty path names"
        return f"{shown} no upstream; paths start with one of: {known}"

    def _enter(self, headers: RawHeaders, destination: Destination) -> None:
        """Find out who asks, and make it the request that calls are recorded for.

        Raises:
            Refusal: when it may not, or its tags cannot be read.
        """
        config = self.config
        known: Mapping[str, str] = {}
        if not self._door.is_open:
            known = self._door.admit(headers).tags
            if destination.key is None and not destination.needs_no_key:
                raise Refusal(
                    404,
                    "destination_unavailable",
                    f"upstream {destination.name!r} has no key of its own here: set its key_env",
                )
        elif destination.key is not None:
            check_origin(headers)
        said = tags_of(
            headers, accept_header=config.accept_tags_header, tag_headers=config.tag_headers
        )
        outer = current_scope()
        scope = outer if outer is not None else RequestScope(self._meter)
        # A header may add to what is known, and change none of it.
        scope.sources = (lambda _: said, *scope.sources, lambda _: known)
        enter_scope(scope)

    async def _start_meter(self) -> None:
        try:
            await asyncio.to_thread(self._meter.start)
        except CostmwError as error:
            # Said once; requests go on, and rows wait in memory.
            logger.error("costmw proxy: %s", error)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await asyncio.to_thread(self._meter.start)
                except CostmwError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                for destination in self._destinations.values():
                    self._pools.to(destination.way)
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return
