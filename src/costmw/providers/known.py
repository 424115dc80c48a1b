"""The providers that are known by name: who bills, at which hosts, in which formats."""

from __future__ import annotations

from dataclasses import dataclass


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


def find_provider(name: str) -> Provider:
    """Look a provider up by its OpenTelemetry name or its id in the price base.

    Any other name is taken as it is: its prices then come from overrides.
    """
    known = _BY_NAME.get(name) or _BY_PRICE_ID.get(name)
    return known or Provider(name=name, hosts=(), families=(), price_id=name)
