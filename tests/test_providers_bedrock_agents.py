from __future__ import annotations

import json
from typing import Any

from costmw.capture.settle import judge
from costmw.events import Usage
from costmw.providers.bedrock_agents import NO_TRACE, AgentStream

HAIKU, SONNET = (
    "anthropic.claude-3-haiku-20240307-v1:0",
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
)


def asked(trace: str, model: str) -> Any:
    return {"modelInvocationInput": {"traceId": trace, "foundationModel": model, "text": "..."}}


def answered(trace: str, tokens_in: Any, tokens_out: Any) -> Any:
    usage = {"inputTokens": tokens_in, "outputTokens": tokens_out}
    return {"modelInvocationOutput": {"traceId": trace, "metadata": {"usage": usage}}}


def read(*traces: Any) -> AgentStream:
    stream = AgentStream()
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
