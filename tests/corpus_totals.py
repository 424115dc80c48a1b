"""What a body says of its own token totals, read by other means than costmw's readers.

Looks for the numbers anywhere in the bytes; gives every total that could be meant,
since providers state parts with and without cached and reasoning tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_OBJECTS = re.compile(r'"(?:usage|usageMetadata|usage_metadata|billed_units|tokens)"\s*:\s*\{')
_INVOCATION = re.compile(r'"amazon-bedrock-invocationMetrics"\s*:\s*\{')
_DECODER = json.JSONDecoder()

_TOTALS = ("total_tokens", "totalTokens", "totalTokenCount", "total_token_count")
_PARTS = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "inputTokens",
    "outputTokens",
    "promptTokenCount",
    "candidatesTokenCount",
    "prompt_eval_count",
    "eval_count",
    "prompt_token_count",
    "generation_token_count",
    "inputTokenCount",
    "outputTokenCount",
    "inputTextTokenCount",
    "search_units",
)
_TOP = ("prompt_eval_count", "eval_count", "prompt_token_count", "inputTextTokenCount")


def reported_total(body: bytes, headers: Mapping[str, str]) -> set[int] | None:
    """Totals that the response reports; None when it reports no usage at all.

    An empty set says that there is usage and no total to compare with; any total of
    the row's is then as good.
    """
    text = body.decode("utf-8", "replace")
    objects = [*_usage_objects(text)]
    if any(
        name.startswith("x-amzn-bedrock-") and name.endswith("-token-count") for name in headers
    ):
        counts = [
            int(v)
            for k, v in headers.items()
            if k.startswith("x-amzn-bedrock-") and k.endswith("-token-count")
        ]
        return {sum(counts)}
    if not objects:
        return None
    totals = {value for o in objects for value in _stated(o)}
    return totals or AnyTotal()


class AnyTotal(set[int]):
    """Usage without a total: whatever was read cannot be compared."""

    def __contains__(self, value: object) -> bool:
        return True


def _stated(found: Mapping[str, Any]) -> Iterator[int]:
    for name in _TOTALS:
        if isinstance(found.get(name), int):
            yield found[name]


def _usage_objects(text: str) -> Iterator[Mapping[str, Any]]:
    for match in (*_OBJECTS.finditer(text), *_INVOCATION.finditer(text)):
        try:
            found, _ = _DECODER.raw_decode(text, match.end() - 1)
        except ValueError:
            continue
        if any(isinstance(found.get(name), int | float) for name in (*_PARTS, *_TOTALS)):
            yield found
    for name in _TOP:
        if re.search(rf'"{name}"\s*:\s*\d', text):
            yield {name: 1}
            return
