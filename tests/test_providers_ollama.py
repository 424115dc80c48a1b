"""What Ollama's answers say of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.reading import BodyReader, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading
from costmw.providers.ollama import FORMATS

BY_API = {wire.api: wire for wire in FORMATS}
LINES = {"content-type": "application/x-ndjson"}
APIS = ("ollama.chat", "ollama.generate")


def body(api: str, **payload: Any) -> Reading:
    return read_json(BY_API[api], json.dumps(payload).encode())


def stream(api: str, data: bytes, headers: dict[str, str] = LINES) -> Reading:
    reader = BodyReader(BY_API[api], headers, "", 1000)
    reader.feed(data)
    reader.end()
    return reader.reading


def line(**fields: Any) -> bytes:
    # Without blanks, as the server writes it.
    return json.dumps({"model": "llama3.2:1b", **fields}, separators=(",", ":")).encode() + b"\n"


DONE: dict[str, Any] = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 912345678,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 130000000,
    "eval_count": 11,
    "eval_duration": 720000000,
}


@pytest.mark.parametrize("api", APIS)
def test_an_answer_counts_prompt_and_answer(api: str) -> None:
    reading = body(api, model="llama3.2:1b", **DONE)
    assert (reading.usage, reading.response_model) == (Usage(26, 11), "llama3.2:1b")
    assert judge(reading, "end") == ("ok", None)


def test_cached_tokens_are_part_of_the_prompt() -> None:
    assert body("ollama.chat", **DONE, prompt_eval_cached_count=20).usage == Usage(26, 11, 20)
    reading = body("ollama.chat", **DONE, prompt_eval_cached_count=27)
    assert reading.usage is None
    assert "exceed" in str(reading.problem)


def test_a_prompt_that_was_not_counted_is_unknown_and_not_empty() -> None:
    counted = {key: value for key, value in DONE.items() if key != "prompt_eval_count"}
    reading = body("ollama.generate", model="llama3", **counted)
    assert reading.usage == Usage(None, 11)
    status, reason = judge(reading, "end")
    assert (status, "prompt_eval_count" in str(reason)) == ("unmetered", True)


def test_an_empty_answer_leaves_its_count_out() -> None:
    reading = body("ollama.chat", done=True, done_reason="stop", prompt_eval_count=26)
    assert (reading.usage, judge(reading, "end")) == (Usage(26, 0), ("ok", None))


@pytest.mark.parametrize("reason", ["load", "unload"])
def test_loading_a_model_uses_no_tokens(reason: str) -> None:
    reading = body("ollama.generate", response="", done=True, done_reason=reason)
    assert (reading.usage, judge(reading, "end")) == (Usage(0, 0), ("ok", None))


CHAT = (
    line(message={"role": "assistant", "content": "", "thinking": "Hm"}, done=False)
    + line(message={"role": "assistant", "content": "Hello"}, done=False)
    + line(message={"role": "assistant", "content": ""}, **DONE)
)
GENERATE = (
    line(response="Hel", done=False)
    + line(response="lo", done=False)
    + line(response="", context=[1, 2, 3], **DONE)
)


@pytest.mark.parametrize(
    ("api", "whole", "length"), [("ollama.chat", CHAT, 7), ("ollama.generate", GENERATE, 5)]
)
@pytest.mark.parametrize("headers", [LINES, {}])
def test_a_stream_has_its_counts_in_the_line_that_is_done(
    api: str, whole: bytes, length: int, headers: dict[str, str]
) -> None:
    reading = stream(api, whole, headers)
    assert (reading.usage, reading.response_model) == (Usage(26, 11), "llama3.2:1b")
    assert reading.output_bytes == length
    assert judge(reading, "closed") == ("ok", None)


def test_the_model_may_be_named_in_the_first_line_alone() -> None:
    done = json.dumps(DONE).encode()
    reading = stream("ollama.generate", line(response="Hi", done=False) + done)
    assert (reading.usage, reading.response_model) == (Usage(26, 11), "llama3.2:1b")


def test_a_whole_answer_without_a_content_type_is_a_stream_of_one_line() -> None:
    reading = stream("ollama.chat", CHAT.splitlines()[-1], {})
    assert (reading.usage, judge(reading, "end")) == (Usage(26, 11), ("ok", None))


def test_a_line_that_speaks_of_being_done_is_not_done() -> None:
    talk = line(response='{"done":true,"eval_count":1}', done=False)
    assert judge(stream("ollama.generate", talk), "end")[0] == "incomplete"


def test_a_stream_that_ends_in_an_error_is_incomplete() -> None:
    failed = line(response="Hel", done=False) + b'{"error":"model runner has stopped"}\n'
    reading = stream("ollama.generate", failed)
    assert (judge(reading, "end")[0], reading.response_model) == ("incomplete", "llama3.2:1b")


@pytest.mark.parametrize(("api", "whole"), [("ollama.chat", CHAT), ("ollama.generate", GENERATE)])
def test_a_stream_that_is_cut_is_exact_or_not_ok(api: str, whole: bytes) -> None:
    for end in range(len(whole)):
        reading = stream(api, whole[:end])
        assert judge(reading, "closed")[0] != "ok" or reading.usage == Usage(26, 11)


def test_embed_counts_its_input() -> None:
    reading = body("ollama.embed", model="all-minilm", embeddings=[[0.1]], prompt_eval_count=8)
    assert (reading.usage, reading.response_model) == (Usage(8, 0), "all-minilm")


def test_the_older_embeddings_api_says_which_one_counts() -> None:
    status, reason = judge(body("ollama.embeddings", embedding=[0.1]), "end")
    assert (status, reason) == ("unmetered", "api/embeddings reports no usage: api/embed does")


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"prompt_eval_count": "26", "eval_count": 11},
        {"prompt_eval_count": 26, "eval_count": -1},
        {"prompt_eval_count": 26.5, "eval_count": 11},
        {"prompt_eval_count": [26], "eval_count": 11},
    ],
)
@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: str(wire.api))
def test_other_counts_are_never_ok(wire: Any, counts: dict[str, Any]) -> None:
    payload = {"model": "llama3", "done": True, **counts}
    reading = read_json(wire, json.dumps(payload).encode())
    assert (judge(reading, "end")[0], reading.usage) == ("unmetered", None)
    assert reading.problem


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/api/chat", "ollama.chat"),
        ("/api/generate", "ollama.generate"),
        ("/api/embed", "ollama.embed"),
        ("/api/embeddings", "ollama.embeddings"),
        ("/api/pull", None),
        ("/api/show", None),
        ("/v1/chat/completions", None),
    ],
)
def test_a_path_has_one_format_or_none(path: str, api: str | None) -> None:
    assert [wire.api for wire in FORMATS if wire.path.search(path)] == [api] * (api is not None)
