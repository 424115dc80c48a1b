"""Where requests go: an upstream's address, who bills there, and whose key it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from costmw.errors import ConfigError
from costmw.providers.known import PROVIDERS, Provider, find_provider
from costmw.providers.registry import formats_of

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_PATH = re.compile(r"[!$&'()*+,;=:@\w.~%/-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One address that requests are sent on to.

    base_url: what stands before a request's own path; of a built-in upstream it may be left out.
    provider: who bills (`"openai"`); the host tells where it is left out.
    api: the wire format (`"openai"`, `"anthropic.messages"`), where the provider is unknown.
    key: the provider's key, put in the place of the client's; None leaves the client's.
    """

    base_url: str = ""
    provider: str | None = None
    api: str | None = None
    key: str | None = field(default=None, repr=False)


def built_in() -> dict[str, Upstream]:
    """The upstreams that need no configuration, by the name that their paths start with.

    The names are the provider's in the price list; the address is its first host of its own.
    """
    found: dict[str, Upstream] = {}
    for provider in PROVIDERS:
        hosts = [host for host in provider.hosts if not set(host) & {"*", ":"} and host[0] != "."]
        if hosts and not provider.self_hosted:
            upstream = Upstream(f"https://{hosts[0]}", provider.name)
            found.setdefault(provider.price_id, upstream)
    return found


BUILT_IN = built_in()


def completed(name: str, upstream: Upstream) -> Upstream:
    """The upstream with what was left out, checked.

    Raises:
        ConfigError: naming the upstream and what to change.
    """
    where = f"upstream {name!r}"
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: a name has small letters, digits, '.', '_' and '-'")
    if (usual := BUILT_IN.get(name)) is not None and not upstream.base_url:
        upstream = replace(
            upstream,
            base_url=usual.base_url,
            provider=upstream.provider or usual.provider,
        )
    _check_url(where, upstream.base_url)
    if upstream.api is not None:
        try:
            formats_of(upstream.api)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
    provider = provider_of(upstream) or (find_provider(usual.provider or "") if usual else None)
    if provider is None:
        raise ConfigError(f"{where}: say who bills, as in provider = 'openai'")
    if not provider.families and upstream.api is None:
        raise ConfigError(f"{where}: provider {provider.name!r} is not known: add api = 'openai'")
    if upstream.key is not None and not (upstream.key.isascii() and upstream.key.isprintable()):
        raise ConfigError(f"{where}: its key has characters that no header can carry")
    return replace(upstream, provider=provider.name)


def provider_of(upstream: Upstream) -> Provider | None:
    """Who bills: who was named, or whose host it is."""
    from costmw.providers.registry import provider_of_host

    if upstream.provider:
        return find_provider(upstream.provider)
    return provider_of_host(urlsplit(upstream.base_url).netloc.lower(), {})


def _check_url(where: str, base_url: str) -> None:
    if not base_url:
        raise ConfigError(f"{where}: base_url is missing, as in 'https://llm.internal'")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{where}: base_url is not a URL") from None
    # A URL may hold a password: it is not repeated.
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{where}: base_url must start with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{where}: base_url has a user or password in it; use key or key_env")
    if parts.query or parts.fragment:
        raise ConfigError(f"{where}: base_url must end before any '?' or '#'")
    if not _PATH.fullmatch(parts.path) or ".." in parts.path.split("/"):
        raise ConfigError(f"{where}: base_url has a path that cannot be used as it stands")
