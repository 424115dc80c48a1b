"""An upstream made ready: its address, its capture, and the request that it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from costmw.capture.clients.base import Capture
from costmw.errors import MissingExtra
from costmw.providers.known import find_provider
from costmw.proxy.headers import RawHeaders
from costmw.proxy.pools import way_to
from costmw.proxy.settings import ProxyConfig
from costmw.proxy.upstreams import Upstream

try:
    import httpcore2
except ImportError as error:
    raise MissingExtra(package="httpx2", extra="proxy") from error

if TYPE_CHECKING:
    from costmw.meter import Meter


class Destination:
    """One upstream: what never changes from request to request.

    way: the proxy that the environment names for it, or None.
    """

    def __init__(self, name: str, upstream: Upstream, meter: Meter, config: ProxyConfig) -> None:
        parts = urlsplit(upstream.base_url)
        self.name = name
        self.key = upstream.key
        self.host = parts.netloc.lower()
        self.way = way_to(parts.scheme, parts.hostname or "")
        self._url = httpcore2.URL(f"{parts.scheme}://{self.host}/")
        self._path = parts.path.rstrip("/").encode("ascii")
        provider = find_provider(upstream.provider or "")
        self.needs_no_key = provider.self_hosted
        families = (upstream.api.partition(".")[0],) if upstream.api else provider.families
        self.family = families[0] if families else "openai"
        """The format family whose errors the clients of this upstream read."""
        self.capture = Capture(
            meter, upstream.api, upstream.provider, include_usage=config.include_usage
        )

    def path_of(self, rest: bytes) -> bytes:
        """The path at the upstream."""
        return self._path + rest or b"/"

    def request(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: RawHeaders,
        body: bytes | AsyncIterator[bytes],
        timeout: Mapping[str, float],
    ) -> httpcore2.Request:
        """The request to send: the target byte for byte, and the headers as they are given."""
        url = self._url
        return httpcore2.Request(
            method,
            httpcore2.URL(
                scheme=url.scheme,
                host=url.host,
                port=url.port,
                target=path + b"?" + query if query else path,
            ),
            headers=headers,
            content=body,
            extensions={"timeout": timeout},
        )
