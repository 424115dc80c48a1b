from __future__ import annotations

import json
import struct
import zlib
from typing import Any

from costmw.capture.reading import read_body
from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.bedrock_agents import FORMATS, NO_TRACE, AgentStream

HAIKU, SONNET = (
    "anthropic.claude-3-haiku-20240307-v1:0",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
)


def asked(trace: str, model: str) -> Any:
    return {"modelInvocationInput": {"traceId": trace, "foundationModel": model, "text": "..."}}


def answered(trace: str, tokens_in: Any, tokens_out: Any) -> Any:
    usage = {"inputTokens": tokens_in, "outputTokens": tokens_out}
    return {"modelInvocationOutput": {"traceId": trace, "metadata": {"usage": usage}}}


def read(*traces: Any, answer: bool = True) -> AgentStream:
    stream = AgentStream()
    if answer:
        stream.message("chunk", b'{"bytes":"eA=="}')
    for trace in traces:
        stream.message("trace", json.dumps({"trace": {"orchestrationTrace": trace}}).encode())
    stream.end()
    return stream


def test_every_invocation_of_the_trace_is_summed_by_its_model() -> None:
    reading = read(
        asked("a", HAIKU),
        answered("a", 922, 144),
        asked("b", SONNET),
        answered("b", 1055, 167),
        asked("c", HAIKU),
        answered("c", 449, 132),
    ).reading
    assert (reading.response_model, reading.usage) == (HAIKU, Usage(1371, 276))
    assert reading.side_usage == [(SONNET, Usage(1055, 167))]
    assert judge(reading, "end") == ("ok", None)


def test_an_answer_without_a_trace_says_how_to_get_one() -> None:
    reading = read().reading
    assert reading.usage is None
    assert reading.problem == NO_TRACE


def test_a_damaged_count_makes_the_answer_unmetered() -> None:
    reading = read(asked("a", HAIKU), answered("a", "many", 1), answered("a", 5, 5)).reading
    assert reading.usage is None
    assert "unreadable usage: inputTokens is 'many'" in str(reading.problem)


def test_a_cut_answer_is_never_exact() -> None:
    unheard = read(asked("a", HAIKU), answered("a", 5, 5), asked("b", HAIKU)).reading
    unsaid = read(asked("a", HAIKU), answered("a", 5, 5), answer=False).reading
    for reading in (unheard, unsaid):
        assert judge(reading, "end")[0] == "incomplete"


def test_an_answer_cut_inside_of_an_event_is_never_exact() -> None:
    def frame(event: str, payload: Any) -> bytes:
        name, data = event.encode(), json.dumps(payload).encode()
        headers = b"\x0b:event-type\x07" + struct.pack(">H", len(name)) + name
        start = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
        body = start + struct.pack(">I", zlib.crc32(start)) + headers + data
        return body + struct.pack(">I", zlib.crc32(body))

    traces = (asked("a", HAIKU), answered("a", 5, 5), asked("b", HAIKU), answered("b", 7, 7))
    body = frame("chunk", {"bytes": "eA=="}) + b"".join(
        frame("trace", {"trace": {"orchestrationTrace": trace}}) for trace in traces
    )
    headers = {"content-type": "application/vnd.amazon.eventstream"}

    def status(data: bytes) -> tuple[str, Usage | None]:
        reading = read_body(FORMATS[0], headers, data, 1000)
        return judge(reading, "end")[0], reading.usage

    assert status(body) == ("ok", Usage(12, 12))
    whole_events = 0
    for cut in range(len(body)):
        if status(body[:cut])[0] == "ok":
            whole_events += 1
    # Between two events, with all that was asked answered, a cut cannot be told.
    assert whole_events == 1
