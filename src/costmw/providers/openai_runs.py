"""OpenAI's assistants and batches: results that are read later, and may be read often.

Shapes: https://platform.openai.com/docs/api-reference/runs and /batch. A run's usage is
there once it has ended; a batch's results are a file of JSON lines, each with a whole
response body of the API that was asked.
"""

from __future__ import annotations

import re

from costmw.providers.base import Json, Reading, WireFormat, event_type, json_object, part, text
from costmw.providers.openai import NO_USAGE, note, read_chat, take_chat_usage
from costmw.providers.openai_responses import read_response

_RUNNING = ("queued", "in_progress", "requires_action", "cancelling")
_ENDED = ("completed", "incomplete", "failed", "cancelled", "expired")


def read_run(body: Json) -> Reading:
    """Read a `thread.run`."""
    reading = Reading(finished=True, problem=NO_USAGE)
    if body.get("object") != "thread.run":
        reading.not_billed = True
        return reading
    note(reading, body)
    reading.result_id = reading.response_id
    reading.pending = body.get("status") in _RUNNING
    take_chat_usage(reading, body)
    return reading


class RunStream:
    """The events of a run up to the one that ends it."""

    def __init__(self) -> None:
        self.reading = Reading(problem="the stream ended before the run did")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one event."""
        name = event or event_type(data, _KNOWN)
        if name == "thread.run.created":
            created = read_run(json_object(data))
            self.reading.response_model = created.response_model
            self.reading.response_id = self.reading.result_id = created.response_id
        elif name in _LAST:
            self.reading = read_run(json_object(data))
        elif name == "thread.run.requires_action":
            # The run goes on when its tools have answered, in another stream.
            self.reading = read_run(json_object(data))


_LAST = tuple(f"thread.run.{ended}" for ended in _ENDED)
_KNOWN = re.compile(rb'"event"\s*:\s*"(thread\.run\.[a-z_]+)"')


def read_batch(body: Json) -> Reading:
    """Read a `batch`, when it is made and when its state is asked for: nothing is billed yet."""
    reading = Reading(finished=True, not_billed=body.get("object") != "batch", pending=True)
    reading.result_id = text(body, "id")
    if output := text(body, "output_file_id"):
        reading.also_known_as.append(output)
    return reading


class BatchLines:
    """The lines of a batch's output file."""

    def __init__(self) -> None:
        self.reading = Reading(not_billed=True, problem="not a batch's output")

    def message(self, event: str | None, data: bytes) -> None:
        """Take one line."""
        line = json_object(data)
        response = part(line, "response")
        body = part(response, "body")
        result_id = text(response, "request_id") or text(line, "id")
        if "custom_id" not in line or response.get("status_code") != 200 or not result_id:
            return
        reading = read_response(body) if body.get("object") == "response" else read_chat(body)
        reading.result_id = result_id
        reading.pending = False
        reading.price_context["processing"] = "batch"
        # The batch is the tier: what the line says of one is not charged.
        reading.price_context.pop("service_tier", None)
        self.reading.parts.append(reading)
        self.reading.not_billed = False


FORMATS = (
    WireFormat(
        api="openai.runs",
        operation="invoke_agent",
        path=re.compile(r"/threads(?:/[^/]+)?/runs(?:/[^/]+/submit_tool_outputs)?$"),
        read=read_run,
        stream=RunStream,
    ),
    WireFormat(
        api="openai.runs.retrieve",
        operation="invoke_agent",
        path=re.compile(r"/threads/[^/]+/runs/[^/]+$"),
        read=read_run,
        method="GET",
    ),
    WireFormat(
        api="openai.batches",
        operation="chat",
        path=re.compile(r"/batches$"),
        read=read_batch,
    ),
    WireFormat(
        api="openai.batches.retrieve",
        operation="chat",
        path=re.compile(r"/batches/[^/]+$"),
        read=read_batch,
        method="GET",
    ),
    WireFormat(
        api="openai.batches.results",
        operation="chat",
        path=re.compile(r"/files/(?P<submission>[^/]+)/content$"),
        read=lambda _: Reading(not_billed=True),
        stream=BatchLines,
        lines=True,
        method="GET",
    ),
)
