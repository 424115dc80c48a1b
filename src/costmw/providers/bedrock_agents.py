"""Amazon Bedrock's agents, whose trace tells of every model that was asked.

Shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_InvokeAgent.html
and the `ModelInvocationInput` and `ModelInvocationOutput` of its trace. Without
`enableTrace` an answer says nothing of what it used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from costmw.events import Usage
from costmw.providers.base import (
    Json,
    Reading,
    UnreadableUsage,
    WireFormat,
    add,
    count,
    json_object,
    part,
    text,
)

NO_TRACE = "an agent tells its usage in its trace alone: pass enableTrace=True"


class AgentStream:
    """The chunks and trace of an answer; every invocation of a model is billed by itself.

    No event says that it was the last: a body is whole when it ends between two events,
    with an answer given and every model that was asked heard.
    """

    def __init__(self) -> None:
        self.reading = Reading(problem=NO_TRACE)
        self._answer_given = False
        self._open: set[str] = set()
        self._models: dict[str, str] = {}
        self._used: dict[str | None, Usage] = {}

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        self._answer_given = self._answer_given or event in ("chunk", "returnControl")
        if event != "trace":
            return
        for asked in _found(json_object(data), "modelInvocationInput"):
            if (trace := text(asked, "traceId")) and (model := _model(asked)):
                self._models[trace] = model
                self._open.add(trace)
        for answered in _found(json_object(data), "modelInvocationOutput"):
            self._open.discard(text(answered, "traceId") or "")
            self._take(answered)

    def end(self) -> None:
        """Sum up: the first model is the answer's, the others were asked on its behalf."""
        if self.reading.problem != NO_TRACE or not self._used:
            return
        if self._open or not self._answer_given:
            return
        (model, usage), *others = self._used.items()
        self.reading.response_model = model
        self.reading.usage, self.reading.problem = usage, None
        self.reading.side_usage = [(other or "unknown", used) for other, used in others]
        self.reading.finished = True

    def _take(self, answered: Json) -> None:
        usage = part(part(answered, "metadata"), "usage")
        if not usage:
            return
        model = self._models.get(text(answered, "traceId") or "")
        try:
            used = Usage(count(usage, "inputTokens"), count(usage, "outputTokens"))
        except UnreadableUsage as error:
            self.reading.problem = f"unreadable usage: {error}"
            return
        self._used[model] = add(self._used[model], used) if model in self._used else used


def _found(value: Any, name: str) -> Iterator[Json]:
    """The objects of this name, at any depth: traces of collaborators hold traces."""
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        if key == name and isinstance(inner, Mapping):
            yield inner
        else:
            yield from _found(inner, name)


def _model(asked: Json) -> str | None:
    model = text(asked, "foundationModel")
    return model.rsplit("/", 1)[-1] if model else None


FORMATS = (
    WireFormat(
        api="bedrock.agents",
        operation="invoke_agent",
        path=re.compile(r"/agents/[^/]+(?:/agentAliases/[^/]+/sessions/[^/]+/text)?$"),
        read=lambda _: Reading(finished=True, problem=NO_TRACE),
        stream=AgentStream,
    ),
)
