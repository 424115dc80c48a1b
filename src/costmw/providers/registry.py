"""Which wire format an exchange is in, and who bills it: by host and path, never by guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from urllib.parse import unquote

from costmw.errors import ConfigError
from costmw.events import NO_TAGS
from costmw.hosts import normal_host
from costmw.providers import (
    anthropic,
    bedrock,
    bedrock_agents,
    cohere,
    google,
    google_interactions,
    huggingface,
    mistral,
    ollama,
    openai,
    openai_media,
    openai_responses,
    openai_runs,
    voyage,
    writer,
)
from costmw.providers.base import Match, WireFormat
from costmw.providers.known import PROVIDERS, Provider, find_provider

FAMILIES: Mapping[str, tuple[WireFormat, ...]] = {
    "openai": (
        *openai.FORMATS,
        *openai_responses.FORMATS,
        *openai_media.FORMATS,
        *openai_runs.FORMATS,
    ),
    "anthropic": anthropic.FORMATS,
    "google": (*google.FORMATS, *google_interactions.FORMATS),
    "bedrock": (*bedrock.FORMATS, *bedrock_agents.FORMATS),
    "mistral": mistral.FORMATS,
    "cohere": cohere.FORMATS,
    "voyage": voyage.FORMATS,
    "huggingface": huggingface.FORMATS,
    "ollama": ollama.FORMATS,
    "writer": writer.FORMATS,
}
"""Format families by name; the part of an `api` before the dot."""


Api = str | tuple[str, ...] | None
"""A wire format or family of them, several, or whatever the provider speaks."""


def _host_pattern(host: str) -> str:
    pattern = re.escape(host).replace(r"\*", "[a-z0-9-]+")
    pattern = rf"[a-z0-9.-]+{pattern}" if host.startswith(".") else pattern
    has_port = ":" in host and not host.endswith("]")
    return pattern if has_port else rf"{pattern}(?::\d+)?"


_HOSTS = [
    (re.compile("|".join(map(_host_pattern, provider.hosts)), re.IGNORECASE), provider)
    for provider in PROVIDERS
]


def provider_of_host(host: str, hosts: Mapping[str, str]) -> Provider | None:
    """Who bills calls to `host`; `hosts` are the user's own, as `Config` has them."""
    host = normal_host(host)
    for own, name in hosts.items():
        if own == host or re.fullmatch(_host_pattern(own), host):
            known = find_provider(name)
            # A gateway that nobody knows may speak any format: the path tells.
            return known if known.families else replace(known, families=tuple(FAMILIES))
    return _known_provider(host)


@lru_cache(maxsize=1024)
def _known_provider(host: str) -> Provider | None:
    return next((provider for hosts, provider in _HOSTS if hosts.fullmatch(host)), None)


def formats_of(api: str) -> tuple[WireFormat, ...]:
    """The formats that `api` names: a family (`openai`) or one format (`openai.chat`).

    Raises:
        ConfigError: when there is no such family or format.
    """
    family, _, _ = api.partition(".")
    formats = FAMILIES.get(family, ())
    found = formats if api == family else tuple(f for f in formats if f.api == api)
    if not found:
        known = sorted({*FAMILIES, *(f.api for fs in FAMILIES.values() for f in fs)})
        raise ConfigError(f"api={api!r} is not known; use one of {', '.join(known)}")
    return found


def match(
    method: str,
    host: str,
    path: str,
    api: Api = None,
    provider: Provider | None = None,
    hosts: Mapping[str, str] = NO_TAGS,
) -> Match | None:
    """Find the format of a request; None when it is not an LLM call that we know.

    `host` may carry a port. `api` and `provider` are what the user or the SDK's class
    said, if anything.
    """
    billed_by = provider or provider_of_host(host, hosts)
    if api is not None:
        names = (api,) if isinstance(api, str) else api
        candidates = tuple(wire for name in names for wire in formats_of(name))
    elif billed_by is not None:
        candidates = tuple(f for family in billed_by.families for f in FAMILIES[family])
    else:
        return None
    for candidate in candidates:
        if candidate.method == method and (found := candidate.path.search(path)):
            named = found.groupdict()
            model = named.get("model")
            return Match(
                candidate,
                billed_by,
                unquote(model)[:256] if model else None,
                named.get("submission"),
            )
    return None
