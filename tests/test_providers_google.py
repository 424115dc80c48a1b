"""What Gemini's and Vertex AI's answers say of usage, in payloads of the documented shapes."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from costmw.capture.reading import BodyReader, read_body, read_json
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers import google, google_interactions
from costmw.providers.base import Reading
from costmw.providers.google import PROVISIONED

FORMATS = (*google.FORMATS, *google_interactions.FORMATS)
BY_API = {wire.api: wire for wire in FORMATS}
SSE = {"content-type": "text/event-stream"}


def body(api: str, payload: Any) -> Reading:
    return read_json(BY_API[api], json.dumps(payload).encode())


def events(*chunks: Any, end: str = "\r\n") -> bytes:
    lines = []
    for chunk in chunks:
        if isinstance(chunk, dict) and "event_type" in chunk:
            lines.append(f"event: {chunk['event_type']}{end}")
        lines.append(f"data: {chunk if chunk == '[DONE]' else json.dumps(chunk)}{end}{end}")
    return "".join(lines).encode()


def stream(api: str, *chunks: Any) -> Reading:
    return read_body(BY_API[api], SSE, events(*chunks), 10_000)


def generated(meta: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    found = {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "Tea."}]}, "finishReason": "STOP"}
        ],
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r1",
        **more,
    }
    return found if meta is None else {**found, "usageMetadata": meta}


def usage_of(**meta: Any) -> Usage | None:
    return body("google.generate", generated(meta)).usage


def test_thoughts_are_output_and_cached_tokens_are_input() -> None:
    reading = body(
        "google.generate",
        generated(
            {
                "promptTokenCount": 900,
                "cachedContentTokenCount": 700,
                "candidatesTokenCount": 30,
                "thoughtsTokenCount": 250,
                "totalTokenCount": 1180,
            }
        ),
    )
    assert reading.usage == Usage(900, 280, 700, 0, 250)
    assert (reading.response_model, reading.response_id) == ("gemini-2.5-flash", "r1")
    assert reading.output_bytes == 4
    assert judge(reading, "end") == ("ok", None)


@pytest.mark.parametrize(("total", "read"), [(165, 140), (125, 100), (None, 140)])
def test_the_total_tells_whether_what_tools_gave_is_in_the_prompt(
    total: int | None, read: int
) -> None:
    usage = usage_of(
        promptTokenCount=100,
        toolUsePromptTokenCount=40,
        candidatesTokenCount=5,
        thoughtsTokenCount=20,
        totalTokenCount=total,
    )
    assert usage == Usage(read, 25, 0, 0, 20)


def test_thoughts_that_only_the_total_counts_are_output() -> None:
    usage = usage_of(promptTokenCount=10, candidatesTokenCount=5, totalTokenCount=75)
    assert usage == Usage(10, 65, 0, 0, 60)
    assert usage_of(promptTokenCount=10, totalTokenCount=75) == Usage(10, 65)


def test_zeros_may_be_left_out() -> None:
    assert usage_of(promptTokenCount=5, totalTokenCount=9, thoughtsTokenCount=4) == Usage(
        5, 4, 0, 0, 4
    )
    assert usage_of(totalTokenCount=9, candidatesTokenCount=4, thoughtsTokenCount=0) == Usage(5, 4)


def test_an_input_that_nothing_tells_is_not_taken_for_none() -> None:
    reading = body("google.generate", generated({"candidatesTokenCount": 18}))
    assert reading.usage == Usage(None, 18)
    assert judge(reading, "end") == ("unmetered", "usageMetadata has no promptTokenCount")


@pytest.mark.parametrize(
    "meta",
    [
        {"promptTokenCount": "ten"},
        {"promptTokenCount": -1},
        {"promptTokenCount": 10, "cachedContentTokenCount": 11},
        {"promptTokenCount": 10, "thoughtsTokenCount": 1, "totalTokenCount": 30},
        {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 14},
        {"promptTokenCount": 10, "promptTokensDetails": {"modality": "AUDIO"}},
        {"promptTokenCount": 10, "promptTokensDetails": [{"modality": 4, "tokenCount": 1.5}]},
        [1],
    ],
)
def test_malformed_usage_is_a_problem_and_no_usage(meta: Any) -> None:
    for reading in (
        body("google.generate", generated(meta)),
        stream("google.generate", generated(meta)),
    ):
        status, reason = judge(reading, "end")
        assert (reading.usage, status) == (None, "unmetered")
        assert reason


@pytest.mark.parametrize("number", [False, True])
def test_modalities_are_told_by_name_or_by_number(number: bool) -> None:
    numbers = {"TEXT": 1, "IMAGE": 2, "VIDEO": 3, "AUDIO": 4, "DOCUMENT": 5}

    def tokens(modality: str, n: int) -> dict[str, Any]:
        return {"modality": numbers[modality] if number else modality, "tokenCount": n}

    usage = usage_of(
        promptTokenCount=1000,
        toolUsePromptTokenCount=50,
        candidatesTokenCount=400,
        totalTokenCount=1450,
        promptTokensDetails=[
            tokens("TEXT", 300),
            tokens("AUDIO", 200),
            tokens("IMAGE", 258),
            tokens("DOCUMENT", 42),
            tokens("VIDEO", 200),
        ],
        toolUsePromptTokensDetails=[tokens("TEXT", 20), tokens("IMAGE", 30)],
        candidatesTokensDetails=[tokens("IMAGE", 390), tokens("TEXT", 10)],
    )
    assert usage == Usage(
        1050,
        400,
        detail={
            "input_audio_tokens": 200,
            "input_image_tokens": 330,
            "input_video_tokens": 200,
            "output_image_tokens": 390,
        },
    )


def test_what_is_both_cached_and_audio_is_said_even_when_it_is_nothing() -> None:
    meta = {
        "promptTokenCount": 1000,
        "cachedContentTokenCount": 600,
        "promptTokensDetails": [
            {"modality": "AUDIO", "tokenCount": 300},
            {"modality": "IMAGE", "tokenCount": 258},
        ],
    }
    cached = [{"modality": "AUDIO", "tokenCount": 100}, {"modality": "TEXT", "tokenCount": 500}]
    usage = usage_of(**meta, cacheTokensDetails=cached)
    assert usage is not None
    assert usage.detail == {
        "input_audio_tokens": 300,
        "cache_audio_read_tokens": 100,
        "input_image_tokens": 258,
        "cache_image_read_tokens": 0,
    }


@pytest.mark.parametrize(
    ("meta", "context", "notes"),
    [
        ({"serviceTier": "standard"}, {"service_tier": "standard"}, []),
        ({"serviceTier": "flex"}, {"service_tier": "flex"}, []),
        ({"serviceTier": "SERVICE_TIER_PRIORITY"}, {"service_tier": "priority"}, []),
        ({"serviceTier": "unspecified"}, {}, []),
        ({"trafficType": "ON_DEMAND"}, {}, []),
        ({"trafficType": 1}, {}, []),
        ({"trafficType": 0}, {}, []),
        ({"trafficType": "ON_DEMAND_FLEX"}, {"service_tier": "flex"}, []),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, {"service_tier": "priority"}, []),
        ({"trafficType": 77}, {"service_tier": "number_77"}, []),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, {}, [PROVISIONED]),
        ({"trafficType": 2}, {}, [PROVISIONED]),
    ],
)
def test_the_way_of_processing_chooses_the_price(
    meta: dict[str, Any], context: dict[str, str], notes: list[str]
) -> None:
    reading = body("google.generate", generated({"promptTokenCount": 1, **meta}))
    assert (reading.price_context, reading.notes) == (context, notes)


def grounded(model: str | None, **grounding: Any) -> Reading:
    candidate = {"finishReason": "STOP", "groundingMetadata": grounding}
    meta = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    return body("google.generate", generated(meta, candidates=[candidate], modelVersion=model))


@pytest.mark.parametrize(
    ("model", "searches"),
    [("gemini-2.5-flash", 1), ("gemini-3-flash-preview", 2), ("gemini-3.5-flash", 2)],
)
def test_searches_are_billed_by_prompt_or_by_distinct_query(model: str, searches: int) -> None:
    reading = grounded(model, webSearchQueries=["tea", "", "green tea", "tea"])
    assert reading.usage == Usage(10, 5, detail={"web_searches": searches})
    assert grounded(model, webSearchQueries=[]).usage == Usage(10, 5)


def test_what_cannot_be_counted_is_noted() -> None:
    reading = grounded(None, webSearchQueries=["tea"], groundingChunks=[{"maps": {"uri": "u"}}])
    assert reading.usage == Usage(10, 5)
    assert sorted(reading.notes) == [
        "Google searches are billed beside the tokens",
        "grounding by google_maps is billed beside the tokens",
    ]


def chunk(said: str, meta: dict[str, Any] | None = None, **candidate: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": said}]}
    found: dict[str, Any] = {"candidates": [{"content": content, "index": 0, **candidate}]}
    return found if meta is None else {**found, "usageMetadata": meta}


RUNNING = {"promptTokenCount": 8, "totalTokenCount": 169, "thoughtsTokenCount": 161}
LAST = {
    "promptTokenCount": 8,
    "candidatesTokenCount": 6,
    "thoughtsTokenCount": 65,
    "totalTokenCount": 79,
}
STREAMED = (
    chunk("Te", RUNNING),
    chunk("a", RUNNING),
    {**chunk(".", LAST, finishReason="STOP"), "modelVersion": "gemini-3-flash", "responseId": "r"},
)


def test_the_last_usage_of_a_stream_counts() -> None:
    reading = stream("google.generate", *STREAMED)
    assert reading.usage == Usage(8, 71, 0, 0, 65)
    assert (reading.response_model, reading.response_id) == ("gemini-3-flash", "r")
    assert reading.output_bytes == 4
    assert judge(reading, "closed") == ("ok", None)


def test_a_stream_is_as_well_one_array_and_content_types_may_be_missing() -> None:
    for data in (json.dumps(STREAMED, indent=2).encode(), events(*STREAMED)):
        for headers in ({}, {"content-type": "application/json"} if data[:1] == b"[" else SSE):
            reading = read_body(BY_API["google.generate"], headers, data, 10_000)
            assert (reading.usage, judge(reading, "end")[0]) == (Usage(8, 71, 0, 0, 65), "ok")


@pytest.mark.parametrize("form", ["events", "array"])
def test_a_stream_that_is_cut_is_never_exact(form: str) -> None:
    data = events(*STREAMED) if form == "events" else json.dumps(STREAMED).encode()
    for end in range(len(data)):
        reader = BodyReader(BY_API["google.generate"], SSE if form == "events" else {}, "", 10_000)
        reader.feed(data[: end // 2])
        reader.feed(data[end // 2 : end])
        reader.end()
        is_whole = data[end:].strip() == b""
        assert (judge(reader.reading, "end")[0] == "ok") == is_whole


def test_an_array_that_ends_in_an_error_is_incomplete() -> None:
    reading = body("google.generate", [*STREAMED[:2], {"error": {"code": 503}}])
    assert judge(reading, "end")[0] == "incomplete"
    assert reading.usage == Usage(8, 161, 0, 0, 161)


def test_chunks_of_vertex_ai_have_counts_in_the_last_alone() -> None:
    on_demand = {"trafficType": "ON_DEMAND"}
    first, last = chunk("Tea", on_demand), chunk(".", {**LAST, **on_demand}, finishReason="STOP")
    reading = stream("google.generate", first, last)
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(8, 71, 0, 0, 65), "ok")
    reading = stream("google.generate", first)
    assert (reading.usage, judge(reading, "end")[0]) == (None, "incomplete")


def test_a_stream_ends_with_the_last_of_its_candidates() -> None:
    both = chunk("a", RUNNING)
    both["candidates"].append({"index": 1, "content": {"parts": [{"text": "b"}]}})
    first, second = (chunk("", LAST, finishReason="STOP", index=index) for index in (0, 1))
    assert judge(stream("google.generate", both, first), "end")[0] == "incomplete"
    assert judge(stream("google.generate", both, first, second), "end")[0] == "ok"


def test_counts_from_before_the_last_words_are_not_final() -> None:
    last = chunk(".", finishReason="STOP")
    assert judge(stream("google.generate", chunk("Tea", RUNNING), last), "end")[0] == "incomplete"
    reading = stream("google.generate", chunk("Tea", RUNNING), last, {"usageMetadata": LAST})
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(8, 71, 0, 0, 65), "ok")


def test_a_stream_without_usage_is_unmetered() -> None:
    reading = stream("google.generate", chunk("Tea"), chunk(".", finishReason="STOP"), "[DONE]")
    assert judge(reading, "end") == ("unmetered", "the response carries no usage")
    assert judge(body("google.generate", generated()), "end")[0] == "unmetered"


def test_a_prompt_that_is_blocked_was_read() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12},
    }
    for reading in (body("google.generate", blocked), stream("google.generate", blocked)):
        assert (reading.usage, judge(reading, "end")[0]) == (Usage(12, 0), "ok")


def test_reasons_to_finish_may_be_numbers() -> None:
    assert judge(stream("google.generate", chunk("", LAST, finishReason=1)), "end")[0] == "ok"
    for unspecified in (0, "FINISH_REASON_UNSPECIFIED"):
        reading = stream("google.generate", chunk("", LAST, finishReason=unspecified))
        assert judge(reading, "end")[0] == "incomplete"


def test_function_calls_are_part_of_the_answers_length() -> None:
    parts = [{"functionCall": {"name": "f", "args": {"a": 1}}}]
    reading = body("google.generate", {"candidates": [{"content": {"parts": parts}}]})
    assert reading.output_bytes == len('{"name":"f","args":{"a":1}}')


def test_embeddings_have_an_input_alone() -> None:
    meta = {
        "promptTokenCount": 262,
        "promptTokenDetails": [
            {"modality": "TEXT", "tokenCount": 4},
            {"modality": "IMAGE", "tokenCount": 258},
        ],
    }
    reading = body("google.embed", {"embeddings": [{"values": [0.1]}], "usageMetadata": meta})
    assert reading.usage == Usage(262, 0, detail={"input_image_tokens": 258})
    assert judge(reading, "end") == ("ok", None)
    reading = body("google.embed", {"embedding": {"values": [0.1]}})
    assert judge(reading, "end") == ("unmetered", "the response carries no usage")


def predicted(*tokens: Any) -> dict[str, Any]:
    embeddings = [{"statistics": {"token_count": n}, "values": [0.1]} for n in tokens]
    return {
        "predictions": [{"embeddings": embedding} for embedding in embeddings],
        "metadata": {"billableCharacterCount": 31},
    }


def test_predicted_embeddings_count_tokens_by_input_and_characters_of_all() -> None:
    payload = predicted(4, 5.0)
    assert body("google.predict", payload).usage == Usage(9, 0, detail={"input_characters": 31})
    assert body("google.predict.gemini", payload).usage == Usage(9, 0)


@pytest.mark.parametrize("tokens", [(), (4, None), (4, "five")])
def test_predicted_embeddings_that_are_not_all_counted_are_unmetered(tokens: Any) -> None:
    assert judge(body("google.predict", predicted(*tokens)), "end")[0] == "unmetered"


INTERACTION: dict[str, Any] = {
    "id": "v1_a",
    "object": "interaction",
    "status": "completed",
    "model": "gemini-3-flash",
    "service_tier": "flex",
    "usage": {
        "total_tokens": 420,
        "total_input_tokens": 300,
        "input_tokens_by_modality": [
            {"modality": "text", "tokens": 42},
            {"modality": "image", "tokens": 258},
        ],
        "total_cached_tokens": 20,
        "total_output_tokens": 15,
        "total_tool_use_tokens": 5,
        "total_thought_tokens": 100,
        "grounding_tool_count": [{"type": "google_search", "count": 3}],
    },
}
READ = Usage(305, 115, 20, 0, 100, {"input_image_tokens": 258, "web_searches": 3})


def test_an_interaction() -> None:
    reading = body("google.interactions", INTERACTION)
    assert reading.usage == READ
    assert (reading.response_model, reading.result_id) == ("gemini-3-flash", "v1_a")
    assert reading.price_context == {"service_tier": "flex"}
    assert judge(reading, "end") == ("ok", None)


def test_a_streamed_interaction_has_its_usage_in_its_last_event() -> None:
    created = {
        "event_type": "interaction.created",
        "interaction": {"id": "v1_a", "status": "in_progress", "model": "gemini-3-flash"},
        "metadata": {"usage": {"total_tokens": 79, "total_input_tokens": 11}},
    }
    delta = {"event_type": "step.delta", "index": 0, "delta": {"text": "Tea.", "type": "text"}}
    completed = {"event_type": "interaction.completed", "interaction": INTERACTION}
    done = "[DONE]"
    reading = stream("google.interactions", created, delta, completed)
    assert (reading.usage, reading.output_bytes) == (READ, 4)
    assert judge(reading, "closed") == ("ok", None)
    data = events(created, delta) + b"event: done\r\ndata: " + done.encode() + b"\r\n\r\n"
    reading = read_body(BY_API["google.interactions"], SSE, data, 10_000)
    assert (reading.usage, reading.response_id) == (None, "v1_a")
    assert judge(reading, "end")[0] == "incomplete"


def test_interaction_events_are_told_by_their_data_where_the_name_is_missing() -> None:
    completed = {"interaction": INTERACTION, "event_type": "interaction.completed"}
    data = f"data: {json.dumps(completed)}\n\n".encode()
    assert read_body(BY_API["google.interactions"], SSE, data, 10_000).usage == READ


def test_an_interaction_in_the_background_is_pending() -> None:
    started = {"id": "v1_a", "status": "in_progress", "agent": "deep-research-1"}
    reading = body("google.interactions", started)
    assert (reading.pending, reading.result_id) == (True, "v1_a")
    assert reading.response_model == "deep-research-1"
    later = body("google.interactions.retrieve", INTERACTION)
    assert (later.pending, later.result_id, later.usage) == (False, "v1_a", READ)


def test_groundings_of_an_interaction_that_have_no_unit_are_noted() -> None:
    counts = [{"type": "google_maps", "count": 1}]
    usage = {**INTERACTION["usage"], "grounding_tool_count": counts}
    reading = body("google.interactions", {**INTERACTION, "usage": usage})
    assert reading.notes == ["grounding by google_maps is billed beside the tokens"]


@pytest.mark.parametrize("usage", [{"total_input_tokens": "many"}, {"total_tokens": []}, "none"])
def test_malformed_usage_of_an_interaction_is_a_problem(usage: Any) -> None:
    reading = body("google.interactions", {**INTERACTION, "usage": usage})
    assert (reading.usage, judge(reading, "end")[0]) == (None, "unmetered")


def test_partners_models_are_read_in_their_own_formats() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 3}
    assert body("google.anthropic", {"usage": usage}).usage == Usage(14, 3, 4)
    chat = {"usage": {"prompt_tokens": 10, "completion_tokens": 3}}
    assert body("google.chat", chat).usage == Usage(10, 3)
    started = {"type": "message_start", "message": {"id": "m", "usage": usage}}
    delta = {"type": "message_delta", "usage": {"output_tokens": 9}}
    reading = stream("google.anthropic", started, delta, {"type": "message_stop"})
    assert (reading.usage, judge(reading, "end")[0]) == (Usage(14, 9, 4), "ok")
    assert judge(stream("google.anthropic", started, delta), "end")[0] == "incomplete"
    last = {"id": "c", "choices": [{"finish_reason": "stop"}], **chat}
    assert judge(stream("google.chat", last, "[DONE]"), "end")[0] == "ok"


VERTEX = "/v1/projects/p/locations/us-east5"


@pytest.mark.parametrize(
    ("path", "api", "model"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", "generate", "gemini-2.5-flash"),
        ("/v1beta/models/gemini-2.5-flash%3AgenerateContent", "generate", "gemini-2.5-flash"),
        ("/v1beta/models/g:streamGenerateContent", "generate", "g"),
        ("/v1beta/tunedModels/mine:generateContent", "generate", "mine"),
        (f"{VERTEX}/publishers/google/models/g-1:generateContent", "generate", "g-1"),
        (f"{VERTEX}/endpoints/4711:streamGenerateContent", "generate", None),
        ("/v1beta/models/gemini-embedding-2:embedContent", "embed", "gemini-embedding-2"),
        ("/v1beta/models/gemini-embedding-2:batchEmbedContents", "embed", "gemini-embedding-2"),
        (
            f"{VERTEX}/publishers/google/models/gemini-embedding-001:predict",
            "predict.gemini",
            "gemini-embedding-001",
        ),
        (
            f"{VERTEX}/publishers/google/models/text-embedding-005:predict",
            "predict",
            "text-embedding-005",
        ),
        (
            f"{VERTEX}/publishers/anthropic/models/claude-sonnet-4-5%4020250929:rawPredict",
            "anthropic",
            "claude-sonnet-4-5@20250929",
        ),
        (
            f"{VERTEX}/publishers/anthropic/models/claude-opus-4-6:streamRawPredict",
            "anthropic",
            "claude-opus-4-6",
        ),
        (f"{VERTEX}/publishers/mistralai/models/codestral-2:rawPredict", "chat", "codestral-2"),
        ("/v1beta/interactions", "interactions", None),
        ("/v1beta/models/gemini-2.5-flash:countTokens", None, None),
        (f"{VERTEX}/publishers/google/models/g:countTokens", None, None),
        (f"{VERTEX}/publishers/google/models/g:computeTokens", None, None),
        (f"{VERTEX}/publishers/anthropic/models/count-tokens:rawPredict", None, None),
        ("/v1beta/models/g:batchGenerateContent", None, None),
        ("/v1beta/models/g:asyncBatchEmbedContent", None, None),
        (f"{VERTEX}/publishers/google/models/imagen-4:predict", None, None),
        ("/v1beta/interactions/v1_a/cancel", None, None),
        ("/v1beta/models", None, None),
        ("/v1beta/cachedContents", None, None),
    ],
)
def test_formats_by_path(path: str, api: str | None, model: str | None) -> None:
    for wire in FORMATS:
        if wire.method == "POST" and (found := wire.path.search(path)):
            named = found.groupdict().get("model")
            assert (wire.api, unquote(named) if named else None) == (f"google.{api}", model)
            return
    assert api is None


def test_an_interaction_is_polled_by_its_id() -> None:
    wire = BY_API["google.interactions.retrieve"]
    assert wire.method == "GET"
    assert wire.path.search("/v1beta/interactions/v1_a")
