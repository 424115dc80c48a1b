"""What Cohere's answers say of what they bill, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from costmw.capture.reading import BodyReader, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.base import Reading
from costmw.providers.cohere import FORMATS

BY_API = {wire.api: wire for wire in FORMATS}
SSE = {"content-type": "text/event-stream"}
LINES = {"content-type": "application/stream+json"}


def body(api: str, payload: Any) -> Reading:
    return read_json(BY_API[api], json.dumps(payload).encode())


def stream(api: str, headers: dict[str, str], data: bytes) -> Reading:
    reader = BodyReader(BY_API[api], headers, "", 1000)
    reader.feed(data)
    reader.end()
    return reader.reading


BILLED = {"input_tokens": 12, "output_tokens": 36}
USED = {"input_tokens": 212, "output_tokens": 38}


def test_what_is_billed_counts_and_not_what_the_model_saw() -> None:
    reading = body(
        "cohere.chat",
        {"id": "c-1", "usage": {"billed_units": BILLED, "tokens": USED, "cached_tokens": 208}},
    )
    assert (reading.usage, reading.response_id) == (Usage(12, 36), "c-1")
    assert reading.response_model is None
    assert judge(reading, "end") == ("ok", None)


@pytest.mark.parametrize("api", ["cohere.chat_v1", "cohere.generate", "cohere.summarize"])
def test_the_first_version_bills_in_its_meta(api: str) -> None:
    meta = {"api_version": {"version": "1"}, "billed_units": BILLED, "tokens": USED}
    reading = body(api, {"response_id": "r-1", "text": "hi", "meta": meta})
    assert (reading.usage, reading.response_id) == (Usage(12, 36), "r-1")


def test_whole_numbers_may_be_written_as_decimals() -> None:
    billed = {"input_tokens": 12.0, "output_tokens": 36.0}
    assert body("cohere.chat", {"usage": {"billed_units": billed}}).usage == Usage(12, 36)


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n".encode()


def spoken(text: str) -> dict[str, Any]:
    return {"message": {"content": {"text": text}}}


CHAT = b"".join(
    [
        event("message-start", id="c-1", delta={"message": {"role": "assistant"}}),
        event("content-start", index=0, delta=spoken("")),
        event("content-delta", index=0, delta=spoken("Ahoy")),
        event("content-delta", index=0, delta=spoken(" there")),
        event("content-end", index=0),
        event(
            "message-end",
            delta={"finish_reason": "COMPLETE", "usage": {"billed_units": BILLED, "tokens": USED}},
        ),
        b"data: [DONE]\n\n",
    ]
)


def test_a_stream_bills_in_its_message_end() -> None:
    reading = stream("cohere.chat", SSE, CHAT)
    assert (reading.usage, reading.response_id) == (Usage(12, 36), "c-1")
    assert reading.output_bytes == len("Ahoy there")
    assert judge(reading, "closed") == ("ok", None)


def test_events_are_told_by_their_data_where_the_name_is_missing() -> None:
    nameless = b"\n".join(line for line in CHAT.split(b"\n") if not line.startswith(b"event"))
    assert judge(stream("cohere.chat", {}, nameless), "end") == ("ok", None)


def test_a_stream_that_ends_in_an_error_is_unmetered() -> None:
    failed = event("message-end", delta={"finish_reason": "ERROR", "error": "out of memory"})
    assert judge(stream("cohere.chat", SSE, failed), "end") == (
        "unmetered",
        "the response carries no billed units",
    )


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


ANSWER = {"response_id": "r-1", "text": "Ahoy", "meta": {"billed_units": BILLED, "tokens": USED}}
CHAT_V1 = (
    line(is_finished=False, event_type="stream-start", generation_id="g-1")
    + line(is_finished=False, event_type="text-generation", text="Ah")
    + line(is_finished=False, event_type="text-generation", text="oy")
    + line(is_finished=True, event_type="stream-end", response=ANSWER, finish_reason="COMPLETE")
)


def test_the_first_version_streams_lines_and_bills_in_the_last() -> None:
    reading = stream("cohere.chat_v1", LINES, CHAT_V1)
    assert (reading.usage, reading.response_id) == (Usage(12, 36), "r-1")
    assert reading.output_bytes == len("Ahoy")
    assert judge(reading, "end") == ("ok", None)


def test_the_first_version_streams_events_when_it_is_asked_to() -> None:
    events = b"".join(b"data: " + one + b"\n\n" for one in CHAT_V1.splitlines())
    assert stream("cohere.chat_v1", SSE, events).usage == Usage(12, 36)


def test_a_line_that_speaks_of_an_end_is_not_one() -> None:
    talk = line(is_finished=False, text='"is_finished": true, "billed_units"')
    deep = line(is_finished=False, tool_calls=[{"parameters": {"is_finished": True}}])
    assert judge(stream("cohere.chat_v1", LINES, talk + deep), "end")[0] == "incomplete"


def test_without_a_content_type_a_whole_answer_is_told_from_a_stream() -> None:
    assert stream("cohere.chat_v1", {}, CHAT_V1).usage == Usage(12, 36)
    whole = stream("cohere.chat_v1", {}, json.dumps(ANSWER).encode())
    assert (whole.usage, judge(whole, "end")) == (Usage(12, 36), ("ok", None))


def test_a_generation_streams_lines_that_name_no_event() -> None:
    ended = line(is_finished=True, finish_reason="COMPLETE", response={"id": "g-1", **ANSWER})
    reading = stream("cohere.generate", LINES, line(text="Ah", is_finished=False) + ended)
    assert (reading.usage, reading.response_id) == (Usage(12, 36), "g-1")


@pytest.mark.parametrize(
    ("billed", "usage"),
    [
        ({"input_tokens": 208}, Usage(208, 0)),
        (
            {"input_tokens": 20, "image_tokens": 900},
            Usage(920, 0, detail={"input_image_tokens": 900}),
        ),
        ({"images": 1, "image_tokens": 900}, Usage(900, 0, detail={"input_image_tokens": 900})),
        (
            {"text_tokens": 20, "image_tokens": 900, "input_tokens": 920},
            Usage(920, 0, detail={"input_image_tokens": 900}),
        ),
        ({"images": 0, "input_tokens": 0}, Usage(0, 0)),
    ],
)
def test_embeddings_bill_text_and_images_in_tokens(billed: dict[str, int], usage: Usage) -> None:
    reading = body("cohere.embed", {"id": "e", "meta": {"billed_units": billed}})
    assert (reading.usage, judge(reading, "end")) == (usage, ("ok", None))


def test_a_rerank_is_billed_in_searches() -> None:
    reading = body("cohere.rerank", {"id": "r", "meta": {"billed_units": {"search_units": 2}}})
    assert reading.usage == Usage(0, 0, detail={"rerank_searches": 2})
    assert judge(reading, "end") == ("ok", None)


def test_a_parse_is_billed_in_pages() -> None:
    reading = body("cohere.parse", {"id": "p", "meta": {"billed_units": {"pages": 4}}})
    assert reading.usage == Usage(0, 0, detail={"input_document_pages": 4})


@pytest.mark.parametrize(
    ("api", "billed", "named"),
    [
        ("cohere.classify", {"classifications": 3}, "3 classifications"),
        ("cohere.embed", {"images": 2}, "2 images"),
    ],
)
def test_what_has_no_unit_price_is_unmetered_and_named(
    api: str, billed: dict[str, int], named: str
) -> None:
    reading = body(api, {"id": "x", "meta": {"billed_units": billed}})
    status, reason = judge(reading, "end")
    assert (status, reading.usage) == ("unmetered", None)
    assert named in str(reason)
    assert reading.unreadable, "or tokens would be estimated, which are not what is billed"


def test_output_without_input_is_unmetered() -> None:
    reading = body("cohere.chat", {"usage": {"billed_units": {"output_tokens": 5}}})
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(None, 5), "unmetered")
    assert reading.problem == "billed_units has no input_tokens"


@pytest.mark.parametrize(
    "usage",
    [
        {},
        [],
        {"tokens": USED},
        {"billed_units": None},
        {"billed_units": [12]},
        {"billed_units": {"input_tokens": "12"}},
        {"billed_units": {"input_tokens": 1.5}},
        {"billed_units": {"input_tokens": -1}},
        {"billed_units": {"input_tokens": 12, "output_tokens": True}},
    ],
)
@pytest.mark.parametrize("wire", FORMATS, ids=lambda wire: str(wire.api))
def test_other_usage_is_never_ok(wire: Any, usage: Any) -> None:
    key = "usage" if wire.api == "cohere.chat" else "meta"
    reading = read_json(wire, json.dumps({"id": "x", key: usage}).encode())
    assert judge(reading, "end")[0] == "unmetered"
    assert reading.problem


@pytest.mark.parametrize(
    ("api", "headers", "whole"), [("cohere.chat", SSE, CHAT), ("cohere.chat_v1", LINES, CHAT_V1)]
)
def test_a_stream_that_is_cut_is_exact_or_not_ok(
    api: str, headers: dict[str, str], whole: bytes
) -> None:
    for end in range(len(whole)):
        reading = stream(api, headers, whole[:end])
        assert judge(reading, "closed")[0] != "ok" or reading.usage == Usage(12, 36)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v2/chat", "cohere.chat"),
        ("/v1/chat", "cohere.chat_v1"),
        ("/v1/generate", "cohere.generate"),
        ("/v1/summarize", "cohere.summarize"),
        ("/v1/embed", "cohere.embed"),
        ("/v2/embed", "cohere.embed"),
        ("/v1/rerank", "cohere.rerank"),
        ("/v2/rerank", "cohere.rerank"),
        ("/v1/classify", "cohere.classify"),
        ("/v2/parse", "cohere.parse"),
        ("/v1/tokenize", None),
        ("/v1/embed-jobs", None),
        ("/v1/check-api-key", None),
        ("/compatibility/v1/chat/completions", None),
    ],
)
def test_a_path_has_one_format_or_none(path: str, api: str | None) -> None:
    assert [wire.api for wire in FORMATS if wire.path.search(path)] == [api] * (api is not None)
