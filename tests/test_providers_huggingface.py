"""What a text generation server says of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.reading import BodyReader, read_body, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading
from costmw.providers.huggingface import FORMATS

BY_API = {wire.api: wire for wire in FORMATS}
GENERATE, ROOT = BY_API["huggingface.generate"], BY_API["huggingface.root"]
COUNTED = {"x-prompt-tokens": "16", "x-generated-tokens": "75"}


def details(**more: Any) -> dict[str, Any]:
    return {"finish_reason": "length", "generated_tokens": 75, "prefill": [], "tokens": [], **more}


def body(payload: Any, **headers: str) -> Reading:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_body(ROOT, names, json.dumps(payload).encode(), 1000)


def stream(data: bytes) -> Reading:
    reader = BodyReader(GENERATE, {"content-type": "text/event-stream"}, "", 1000)
    reader.feed(data)
    reader.end()
    return reader.reading


@pytest.mark.parametrize(
    "payload",
    [
        {"generated_text": "x"},
        {"generated_text": "x", "details": None},
        {"generated_text": "x", "details": details()},
        [{"generated_text": "x", "details": details()}],
        [{"generated_text": "x"}],
    ],
)
def test_the_headers_count_prompt_and_answer(payload: Any) -> None:
    reading = body(payload, x_prompt_tokens="16", x_generated_tokens="75")
    assert (reading.usage, judge(reading, "end")) == (Usage(16, 75), ("ok", None))


@pytest.mark.parametrize("sent", [None, "", "16.5", "-1", "many", "9" * 30])
def test_without_readable_headers_an_answer_is_unmetered(sent: str | None) -> None:
    headers = {} if sent is None else {"x_prompt_tokens": sent}
    reading = body([{"details": details()}], x_generated_tokens="75", **headers)
    assert (judge(reading, "end")[0], reading.usage) == ("unmetered", None)
    assert reading.problem


@pytest.mark.parametrize("more", [{"input_length": 3}, {"prefill": [{"id": n} for n in (1, 2, 3)]}])
def test_details_may_count_the_prompt(more: dict[str, Any]) -> None:
    assert body({"details": details(**more)}).usage == Usage(3, 75)
    answers = [{"details": details(**more)}, {"details": details(**more)}]
    assert body(answers).usage == Usage(6, 150)


def token(text: str, **last: Any) -> bytes:
    message = {
        "index": 1,
        "token": {"id": 9, "text": text, "logprob": -0.1, "special": False},
        "generated_text": None,
        "details": None,
        **last,
    }
    return f"data:{json.dumps(message)}\n\n".encode()


ENDED = {"finish_reason": "length", "generated_tokens": 2, "input_length": 5, "seed": None}
STREAM = token("Hel") + token("lo", generated_text="Hello", details=ENDED)


def test_a_stream_counts_in_its_last_message() -> None:
    reading = stream(STREAM)
    assert (reading.usage, reading.output_bytes) == (Usage(5, 2), len("Hello"))
    assert judge(reading, "closed") == ("ok", None)


def test_an_older_server_counts_only_what_it_says() -> None:
    reading = stream(token("Hi", generated_text="Hi", details={"generated_tokens": 1}))
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(None, 1), "unmetered")
    assert reading.problem


def test_a_stream_that_ends_in_an_error_is_incomplete() -> None:
    failed = token("Hel") + b'data:{"error":"overloaded","error_type":"overloaded"}\n\n'
    assert judge(stream(failed), "end")[0] == "incomplete"


def test_a_stream_that_is_cut_is_exact_or_not_ok() -> None:
    for end in range(len(STREAM)):
        reading = stream(STREAM[:end])
        assert judge(reading, "closed")[0] != "ok" or reading.usage == Usage(5, 2)


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {"details": [75]},
        {"details": details(generated_tokens="75", input_length=3)},
        {"details": details(generated_tokens=None, input_length=3)},
        {"details": details(input_length=-3)},
    ],
)
def test_other_details_are_never_ok(broken: Any) -> None:
    reading = read_json(ROOT, json.dumps(broken).encode())
    assert (judge(reading, "end")[0], reading.usage) == ("unmetered", None)


@pytest.mark.parametrize(
    ("path", "api", "model"),
    [
        ("/", "huggingface.root", None),
        ("/models/acme/tiny-7b", "huggingface.root", "acme/tiny-7b"),
        ("/generate", "huggingface.generate", None),
        ("/generate_stream", "huggingface.generate", None),
        ("/tokenize", None, None),
        ("/v1/chat/completions", None, None),
    ],
)
def test_a_path_has_one_format_or_none(path: str, api: str | None, model: str | None) -> None:
    found = [(wire.api, match) for wire in FORMATS if (match := wire.path.search(path))]
    assert [name for name, _ in found] == [api] * (api is not None)
    assert not found or found[0][1].groupdict().get("model") == model
