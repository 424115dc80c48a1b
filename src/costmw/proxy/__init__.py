"""The proxy: calls of what is not Python, metered on their way.

`proxy_app(meter)` is an ASGI application, to be mounted or run alone; `costmw proxy` runs
it. A client changes its base URL from `https://api.openai.com/v1` to
`http://HOST:PORT/openai/v1`, and so on for each upstream.
"""

from costmw.proxy.app import ProxyApp, proxy_app
from costmw.proxy.settings import ProxyConfig, Token
from costmw.proxy.upstreams import Upstream

__all__ = ["ProxyApp", "ProxyConfig", "Token", "Upstream", "proxy_app"]
