"""Inputs that fuzzing found interesting, read again; and new ones from hypothesis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costmw.capture.reading import read_json
from costmw.capture.settle import judge
from costmw.providers.registry import FAMILIES

SEEDS = (Path(__file__).parent / "fuzz_seeds.txt").read_text().split()
FORMATS = [wire for formats in FAMILIES.values() for wire in formats]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_the_fuzzer_is_read_without_an_error(seed: str) -> None:
    from readers import read_fuzzed

    read_fuzzed(bytes.fromhex(seed))


KEYS = st.sampled_from(
    [
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "input_tokens",
        "output_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "cache_creation",
        "iterations",
        "usageMetadata",
        "promptTokenCount",
        "totalTokenCount",
        "meta",
        "billed_units",
        "response",
        "background",
        "choices",
        "predictions",
        "embeddings",
        "id",
        "model",
        "object",
        "status",
        "type",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["completed", "batch", "thread.run", "x" * 300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300)
@given(st.sampled_from(FORMATS), st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_object_is_read_as_usage_or_a_reason(wire: Any, body: dict[str, Any]) -> None:
    reading = read_json(wire, json.dumps(body).encode())
    status, reason = judge(reading, "end")
    if status == "ok":
        assert reading.usage is not None
        assert min(reading.usage.input_tokens or 0, reading.usage.output_tokens or 0) >= 0
    else:
        assert reason or reading.not_billed
