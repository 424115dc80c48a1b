"""Which wire format an exchange is in, and who bills it: by host and path, never by guess."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from costmw.providers.base import WireFormat

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


@dataclass(frozen=True, slots=True)
class Provider:
    """Who bills: the OpenTelemetry name, the hosts, the formats spoken there.

    In a host `*` stands for one label, or a part of one; a host that starts with a dot
    for every host that ends in it; a host with a port for that port alone. `price_id`
    is the provider's id in the price list; `model_prefixes` are what it puts before the
    names of models, and the list does not.
    `stream_usage` says that the provider documents `stream_options.include_usage`, so
    that asking for it is safe: always, or from an `api-version` on (`"2024-09-01"`).
    `own_cost` says that the cost in its responses is what it bills. `self_hosted`
    servers bill nobody: a model without a price of the user's says so.
    """

    name: str
    hosts: tuple[str, ...]
    families: tuple[str, ...]
    price_id: str
    stream_usage: bool | str = False
    model_prefixes: tuple[str, ...] = ()
    own_cost: bool = False
    self_hosted: bool = False


PROVIDERS = (
    Provider(
        name="openai",
        hosts=("api.openai.com", ".api.openai.com"),
        families=("openai",),
        price_id="openai",
        stream_usage=True,
    ),
    Provider(
        name="anthropic",
        hosts=(
            "api.anthropic.com",
            # Run by Anthropic, billed through the cloud.
            "aws-external-anthropic.*.api.aws",
            "claude.googleapis.com",
        ),
        families=("anthropic",),
        price_id="anthropic",
    ),
    Provider(
        name="azure.ai.openai",
        hosts=(".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
        families=("openai", "anthropic"),
        price_id="azure",
        stream_usage="2024-09-01",
    ),
    Provider(
        name="gcp.gemini",
        hosts=("generativelanguage.googleapis.com",),
        families=("google", "openai"),
        price_id="google",
        model_prefixes=("models/",),
        stream_usage=True,
    ),
    Provider(
        name="gcp.vertex_ai",
        hosts=(
            "aiplatform.googleapis.com",
            "*-aiplatform.googleapis.com",
            "aiplatform.*.rep.googleapis.com",
        ),
        families=("google", "openai"),
        price_id="google",
        model_prefixes=("google/",),
        stream_usage=True,
    ),
    Provider(
        name="aws.bedrock",
        hosts=(
            "bedrock-runtime.*.amazonaws.com",
            "bedrock-runtime-fips.*.amazonaws.com",
            "bedrock-runtime.*.api.aws",
            "bedrock-runtime-fips.*.api.aws",
            "bedrock-runtime.*.amazonaws.com.cn",
            "*.bedrock-runtime.*.vpce.amazonaws.com",
            "bedrock-mantle.*.api.aws",
            "bedrock-agent-runtime.*.amazonaws.com",
        ),
        families=("bedrock", "openai", "anthropic"),
        price_id="aws",
    ),
    Provider(
        name="mistral_ai",
        hosts=(
            "api.mistral.ai",
            "api.eu.mistral.ai",
            "api.us.mistral.ai",
            "codestral.mistral.ai",
        ),
        families=("mistral",),
        price_id="mistral",
    ),
    Provider(
        name="cohere",
        hosts=("api.cohere.com", "api.cohere.ai"),
        families=("cohere", "openai"),
        price_id="cohere",
    ),
    Provider(
        name="voyageai",
        hosts=("api.voyageai.com", "ai.mongodb.com"),
        families=("voyage",),
        price_id="voyageai",
    ),
    Provider(
        name="writer",
        hosts=("api.writer.com",),
        families=("writer", "openai"),
        price_id="writer",
    ),
    Provider(
        name="huggingface",
        hosts=(
            ".endpoints.huggingface.cloud",
            "router.huggingface.co",
            "api-inference.huggingface.co",
        ),
        families=("huggingface", "openai"),
        price_id="huggingface",
    ),
    Provider(
        name="ollama",
        hosts=("localhost:11434", "127.0.0.1:11434"),
        families=("ollama", "openai", "anthropic"),
        price_id="ollama",
        self_hosted=True,
    ),
    Provider(
        name="groq",
        hosts=("api.groq.com",),
        families=("openai",),
        price_id="groq",
        stream_usage=True,
    ),
    Provider(
        name="deepseek",
        hosts=("api.deepseek.com",),
        families=("openai", "anthropic"),
        price_id="deepseek",
        stream_usage=True,
    ),
    Provider(
        name="openrouter",
        hosts=("openrouter.ai",),
        families=("openai", "anthropic"),
        price_id="openrouter",
        stream_usage=True,
        own_cost=True,
    ),
    Provider(
        name="x_ai",
        hosts=("api.x.ai", ".api.x.ai"),
        families=("openai", "anthropic"),
        price_id="x-ai",
        stream_usage=True,
        own_cost=True,
    ),
    Provider(
        name="together",
        hosts=("api.together.xyz", "api.together.ai"),
        families=("openai",),
        price_id="together",
        stream_usage=True,
    ),
    Provider(
        name="fireworks",
        hosts=("api.fireworks.ai",),
        families=("openai", "anthropic"),
        price_id="fireworks",
        stream_usage=True,
    ),
    Provider(
        name="cerebras",
        hosts=("api.cerebras.ai",),
        families=("openai",),
        price_id="cerebras",
        stream_usage=True,
    ),
    Provider(
        name="perplexity",
        hosts=("api.perplexity.ai",),
        families=("openai",),
        price_id="perplexity",
        own_cost=True,
    ),
    Provider(
        name="moonshot_ai",
        hosts=("api.moonshot.ai", "api.moonshot.cn"),
        families=("openai", "anthropic"),
        price_id="moonshotai",
        stream_usage=True,
    ),
)

_BY_NAME = {provider.name: provider for provider in PROVIDERS}
# Where two share an id of the price list, the one that stands first has it.
_BY_PRICE_ID = {provider.price_id: provider for provider in reversed(PROVIDERS)}


def _host_pattern(host: str) -> str:
    pattern = re.escape(host).replace(r"\*", "[a-z0-9-]+")
    pattern = rf"[a-z0-9.-]+{pattern}" if host.startswith(".") else pattern
    has_port = ":" in host and not host.endswith("]")
    return pattern if has_port else rf"{pattern}(?::\d+)?"


_HOSTS = [
    (re.compile("|".join(map(_host_pattern, provider.hosts)), re.IGNORECASE), provider)
    for provider in PROVIDERS
]


@dataclass(frozen=True, slots=True)
class Match:
    """The format of an exchange and who bills it; no provider when the host is unknown.

    `model` is the model that the path names, where it does, and `submission` the id
    under which the results were asked for.
    """

    format: WireFormat
    provider: Provider | None
    model: str | None = None
    submission: str | None = None


def find_provider(name: str) -> Provider:
    """Look a provider up by its OpenTelemetry name or its id in the price base.

    Any other name is taken as it is: its prices then come from overrides.
    """
    known = _BY_NAME.get(name) or _BY_PRICE_ID.get(name)
    return known or Provider(name=name, hosts=(), families=(), price_id=name)


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
