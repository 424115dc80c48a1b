"""What Voyage's answers say of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.reading import read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading
from costmw.providers.voyage import FORMATS

BY_API = {wire.api: wire for wire in FORMATS}


def body(api: str, usage: Any) -> Reading:
    payload = {"object": "list", "data": [], "model": "voyage-x", "usage": usage}
    return read_json(BY_API[api], json.dumps(payload).encode())


@pytest.mark.parametrize("api", BY_API)
def test_text_is_counted_by_its_total(api: str) -> None:
    reading = body(api, {"total_tokens": 57})
    assert (reading.usage, reading.response_model) == (Usage(57, 0), "voyage-x")
    assert judge(reading, "end") == ("ok", None)


def test_text_alone_in_a_multimodal_embedding_is_its_total() -> None:
    usage = {"text_tokens": 13, "image_pixels": 0, "video_pixels": 0, "total_tokens": 13}
    assert body("voyage.multimodalembeddings", usage).usage == Usage(13, 0)


def test_pixels_are_counted_as_pixels_and_not_as_tokens_too() -> None:
    usage = {"text_tokens": 13, "image_pixels": 560_000, "total_tokens": 1013}
    reading = body("voyage.multimodalembeddings", usage)
    assert reading.usage == Usage(13, 0, detail={"input_pixels": 560_000})


def test_pixels_of_images_and_video_are_one_count() -> None:
    usage = {"text_tokens": 0, "image_pixels": 100, "video_pixels": 50, "total_tokens": 1}
    reading = body("voyage.multimodalembeddings", usage)
    assert reading.usage == Usage(0, 0, detail={"input_pixels": 150})


def test_pixels_without_tokens_of_text_are_refused() -> None:
    usage = {"image_pixels": 560_000, "total_tokens": 1013}
    assert "no text_tokens" in str(body("voyage.multimodalembeddings", usage).problem)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        57,
        {"total_tokens": "57"},
        {"total_tokens": 5.7},
        {"total_tokens": -57},
        {"total_tokens": 57, "image_pixels": 100},
        {"total_tokens": 57, "text_tokens": 58},
        {"total_tokens": 57, "text_tokens": 3, "image_pixels": "100"},
    ],
)
@pytest.mark.parametrize("api", BY_API)
def test_other_usage_is_never_ok(api: str, usage: Any) -> None:
    reading = body(api, usage)
    assert (judge(reading, "end")[0], reading.usage) == ("unmetered", None)
    assert reading.problem


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/embeddings", "voyage.embeddings"),
        ("/v1/multimodalembeddings", "voyage.multimodalembeddings"),
        ("/v1/contextualizedembeddings", "voyage.contextualizedembeddings"),
        ("/v1/rerank", "voyage.rerank"),
        ("/v1/files", None),
        ("/v1/batches", None),
    ],
)
def test_a_path_has_one_format_or_none(path: str, api: str | None) -> None:
    assert [wire.api for wire in FORMATS if wire.path.search(path)] == [api] * (api is not None)
