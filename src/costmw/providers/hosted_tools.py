"""Tools that a provider runs itself while it answers: what they add to a call's cost.

Each is billed by the use, and what it gives is read by the model in another round, as input
that is not in the request. Where a limit on the uses is documented: Anthropic `max_uses` of a
tool (/docs/agents-and-tools/tool-use/web-search-tool), OpenAI `max_tool_calls` of a response,
OpenRouter and xAI the number of results. Tools that the app runs cost no more than the tokens
of their description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

USES_ASSUMED = 10
"""Uses of a tool without a limit: a turn of Anthropic's server tools stops after so many."""

_RUN_BY_THE_APP = (
    *("function", "custom", "client", "bash", "text_editor", "computer", "memory"),
    *("local_shell", "apply_patch"),
)
"""Starts of the types of tools that the app runs itself."""

_OF_THE_APP = frozenset(
    {
        *("functionDeclarations", "function_declarations", "computerUse", "computer_use"),
        *("toolSpec", "cachePoint"),
    }
)
"""Keys of tools that the app runs itself, where each tool is a key: Gemini's and Bedrock's."""

_SHORT = (
    *("web_search", "file_search", "search", "tool_search", "code_", "advisor", "systemTool"),
    *("googleSearch", "google_search", "googleMaps", "google_maps", "enterprise", "fileSearch"),
    *("retrieval", "codeExecution"),
)
"""Starts of the names of tools whose results are short, unlike pages that are fetched."""

_FREE = (
    *("code_execution", "codeExecution", "urlContext", "url_context", "web_fetch"),
    *("mcp", "tool_search", "advisor"),
)
"""Starts of the names of tools that cost nothing but the tokens of their results."""

_SEARCHES_UNASKED: Mapping[str, int | None] = {
    "deep-research": None,
    "compound": None,
    "sonar": 1,
    "search-preview": 1,
    "search-api": 1,
    ":online": 1,
}
"""What is in the names of models that search by themselves, and how often, where that is told."""


@dataclass(frozen=True, slots=True)
class Advisor:
    """Another model that the answering one may ask: how often, and how long its answers are."""

    model: str
    uses: int
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class HostedTools:
    """How often a request's tools are used at most.

    `uses`: of all of them, and `billed_uses` of those that cost something by the use.
    `is_limited`: the request says so, it is not assumed. `results_are_short`: what they give
    are results of a search or of a program, and not whole pages.
    """

    uses: int = 0
    billed_uses: int = 0
    is_limited: bool = True
    results_are_short: bool = True
    advisors: tuple[Advisor, ...] = ()


NO_TOOLS = HostedTools()


def hosted_tools(body: Json, model: str | None) -> HostedTools:
    """Read which tools the provider may run for a request, and how often."""
    tools = [*_hosted(body), *_unasked(model)]
    if not tools:
        return NO_TOOLS
    limits = [_number(tool, "max_uses") for tool in tools]
    overall = _number(body, "max_tool_calls")
    uses = [USES_ASSUMED if limit is None else limit for limit in limits]
    billed = [use for use, tool in zip(uses, tools, strict=True) if not _is(tool, _FREE)]
    return HostedTools(
        uses=sum(uses) if overall is None else overall,
        billed_uses=sum(billed) if overall is None else overall if billed else 0,
        is_limited=overall is not None or None not in limits,
        results_are_short=all(_is(tool, _SHORT) for tool in tools),
        advisors=tuple(_advisors(tools)),
    )


def _unasked(model: str | None) -> Iterator[Json]:
    for name, uses in _SEARCHES_UNASKED.items():
        if model is not None and name in model:
            yield {"type": "web_search", "max_uses": uses}
            return


def _hosted(body: Json) -> Iterator[Json]:
    config = body.get("toolConfig")
    for holder in (body, config if isinstance(config, Mapping) else {}):
        tools = holder.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, Mapping):
                yield from _hosted_part(tool)
    for key in ("web_search_options", "search_parameters"):
        if isinstance(asked := body.get(key), Mapping) and asked.get("mode") != "off":
            yield {"type": "web_search"}
    plugins = body.get("plugins")
    for plugin in plugins if isinstance(plugins, list) else ():
        if isinstance(plugin, Mapping):
            # OpenRouter searches once, before the model is asked.
            yield {"type": "web_search", "max_uses": 1}
    for key in ("mcp_servers", "connectors"):
        if body.get(key):
            yield {"type": key}


def _hosted_part(tool: Json) -> Iterator[Json]:
    """What of a tool the provider runs: it, none of it, or some of its keys."""
    kind = tool.get("type")
    if isinstance(kind, str):
        if not kind.startswith(_RUN_BY_THE_APP):
            yield tool
    elif "name" not in tool and (own := tool.keys() - _OF_THE_APP):
        yield {key: tool[key] for key in own}


def _is(tool: Json, names: tuple[str, ...]) -> bool:
    """Whether a tool is one of these, by its type or, without one, by its keys."""
    kind = tool.get("type")
    if isinstance(kind, str):
        return kind.startswith(names)
    return all(key.startswith(names) for key in tool)


def _advisors(tools: list[Json]) -> Iterator[Advisor]:
    for tool in tools:
        model = tool.get("model")
        if str(tool.get("type")).startswith("advisor") and isinstance(model, str):
            uses = _number(tool, "max_uses")
            yield Advisor(
                model, USES_ASSUMED if uses is None else uses, _number(tool, "max_tokens")
            )


def _number(found: Json, key: str) -> int | None:
    value = found.get(key)
    return value if type(value) is int and value >= 0 else None
