"""What a request may use at most, as far as it says so itself: what a cap has to hold for it.

Where each provider documents the limit of an answer: OpenAI `max_completion_tokens`,
`max_tokens`, `n` (chat), `max_output_tokens` (responses), all of which include reasoning;
Anthropic `max_tokens`, which includes thinking; Gemini `generationConfig.maxOutputTokens`,
`candidateCount` (thoughts are within the limit: https://github.com/googleapis/python-genai,
issue 2062); Bedrock `inferenceConfig.maxTokens` (Converse), and each model's own name in
InvokeModel; Mistral, Groq and Cohere `max_tokens`; Ollama `options.num_predict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costmw.providers.beyond_text import BeyondText, beyond_text
from costmw.providers.hosted_tools import HostedTools, hosted_tools

Json = Mapping[str, Any]
Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on what one request uses.

    `output_tokens`: of all answers together, None when the request sets no limit.
    `answers`: how many of them are asked for. `prompts`: how many separate inputs there are.
    `has_tools`: tools are described to the model. `beyond_text` and `tools`: what the request
    brings in beside its text, and which tools the provider runs for it.
    """

    output_tokens: int | None
    answers: int
    prompts: int
    has_tools: bool
    beyond_text: BeyondText
    tools: HostedTools


_MAX_TOKENS: tuple[Path, ...] = (("max_tokens",),)
_OPENAI: tuple[Path, ...] = (("max_completion_tokens",), ("max_tokens",))
_RESPONSES: tuple[Path, ...] = (("max_output_tokens",),)
_GEMINI: tuple[Path, ...] = (
    ("generationConfig", "maxOutputTokens"),
    ("generation_config", "max_output_tokens"),
    ("generationConfig", "max_output_tokens"),
    ("generation_config", "maxOutputTokens"),
)

_OUTPUT: Mapping[str, tuple[Path, ...]] = {
    "openai.chat": _OPENAI,
    "openai.completions": _MAX_TOKENS,
    "openai.responses": _RESPONSES,
    "openai.runs": (("max_completion_tokens",),),
    "anthropic.messages": _MAX_TOKENS,
    "anthropic.complete": (("max_tokens_to_sample",),),
    "google.generate": _GEMINI,
    "google.chat": _MAX_TOKENS,
    "google.anthropic": _MAX_TOKENS,
    "google.interactions": (("generation_config", "max_output_tokens"), *_GEMINI),
    "bedrock.converse": (
        ("inferenceConfig", "maxTokens"),
        ("additionalModelRequestFields", "max_tokens"),
        ("additionalModelRequestFields", "inferenceConfig", "maxTokens"),
    ),
    "bedrock.invoke": (
        *_OPENAI,
        ("max_tokens_to_sample",),
        ("max_gen_len",),
        ("maxTokens",),
        ("max_new_tokens",),
        ("inferenceConfig", "maxTokens"),
        ("inferenceConfig", "max_new_tokens"),
        ("textGenerationConfig", "maxTokenCount"),
    ),
    "mistral.chat": _MAX_TOKENS,
    "mistral.fim": _MAX_TOKENS,
    "mistral.responses": _RESPONSES,
    "mistral.conversations": (("completion_args", "max_tokens"),),
    "cohere.chat": _MAX_TOKENS,
    "cohere.chat_v1": _MAX_TOKENS,
    "cohere.generate": _MAX_TOKENS,
    "ollama.chat": (("options", "num_predict"),),
    "ollama.generate": (("options", "num_predict"),),
    "huggingface.generate": (("parameters", "max_new_tokens"),),
    "huggingface.root": (("parameters", "max_new_tokens"),),
    "writer.chat": _MAX_TOKENS,
}
"""Where a request says how long its answer may be, by the wire format."""

_KNOWN_AS_COMPLETION_TOKENS = frozenset(
    {"openai", "azure.ai.openai", "groq", "cerebras", "x_ai", "aws.bedrock"}
)
"""Who documents `max_completion_tokens` for chats; the others `max_tokens`."""

_INVOKED: Mapping[str, Path] = {
    "inputText": ("textGenerationConfig", "maxTokenCount"),
    "schemaVersion": ("inferenceConfig", "maxTokens"),
    "anthropic_version": ("max_tokens",),
}
"""What tells the format of a model that is invoked on Bedrock, and where its limit stands."""

_ANSWERS: tuple[Path, ...] = (
    ("n",),
    ("best_of",),
    ("num_generations",),
    ("generationConfig", "candidateCount"),
    ("generation_config", "candidate_count"),
)

_WITHOUT_TOKENS = ("embed", "rerank", "classify", "moderations", "parse", "ocr", "predict")
"""In the names of formats that answer without tokens."""


def limits_of(api: str, body: Json, model: str | None = None) -> RequestLimits:
    """Read what a request may use at most from its JSON.

    Args:
        api: its wire format.
        body: its JSON object.
        model: the model that is asked, where that is not in the body.
    """
    prompts = _prompts(body)
    answers = prompts * max(_count(body, path) or 1 for path in _ANSWERS)
    return RequestLimits(
        output_tokens=_output_tokens(api, body, answers),
        answers=answers,
        prompts=prompts,
        has_tools=any(body.get(key) for key in ("tools", "functions", "toolConfig")),
        beyond_text=beyond_text(body),
        tools=hosted_tools(body, model or _text(body.get("model"))),
    )


def place_of_limit(api: str, body: Json, provider: str | None = None) -> Path | None:
    """Where in a request a limit on its answer would stand; None where there is no place.

    `provider` is its OpenTelemetry name: the formats of some have more than one.
    """
    paths = _OUTPUT.get(api)
    if not paths or api == "huggingface.root":
        return None
    if api == "bedrock.invoke":
        return next((path for key, path in _INVOKED.items() if key in body), None)
    if api == "openai.chat" and provider not in _KNOWN_AS_COMPLETION_TOKENS:
        return ("max_tokens",)
    # A part that is there already tells how its keys are written.
    return next((path for path in paths if len(path) > 1 and path[0] in body), paths[0])


def with_output_limit(
    api: str, body: Json, tokens: int, provider: str | None = None
) -> dict[str, Any] | None:
    """The request with a limit on its answer, in tokens; the request itself is not changed.

    Returns:
        None where its format has no place for one, or it has a limit already.
    """
    path = place_of_limit(api, body, provider)
    if path is None or _limits_given(api, body):
        return None
    *outer, name = path
    changed = dict(body)
    inner = changed
    for key in outer:
        within = inner.get(key)
        inner[key] = dict(within) if isinstance(within, Mapping) else {}
        inner = inner[key]
    inner[name] = tokens
    return changed


def _output_tokens(api: str, body: Json, answers: int) -> int | None:
    if any(name in api for name in _WITHOUT_TOKENS):
        return 0
    known = _limits_given(api, body)
    if not known:
        return None
    # What was predicted of an answer and is not in it is billed as if it were.
    return max(known) * answers + len(str(body.get("prediction") or ""))


def _limits_given(api: str, body: Json) -> list[int]:
    """The limits that a request sets; 0 is one for Claude, and none, or an error, elsewhere."""
    given = (_count(body, path) for path in _OUTPUT.get(api, ()))
    least = 0 if "anthropic" in api else 1
    return [count for count in given if count is not None and count >= least]


def _prompts(body: Json) -> int:
    """How many prompts a completion is asked for at once: of text, or of lists of tokens."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):
        return 1
    return len(prompt)


def _count(body: Json, path: Path) -> int | None:
    *outer, name = path
    for key in outer:
        inner = body.get(key)
        if not isinstance(inner, dict):
            return None
        body = inner
    value = body.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
