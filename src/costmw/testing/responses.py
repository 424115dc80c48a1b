"""OpenAI shapes: the Responses API, plain and streamed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from costmw.testing.framing import dump, sse
from costmw.testing.openai import service_tier
from costmw.testing.wire import Answer, json_pieces, new_id, plain, stream, words

if TYPE_CHECKING:
    from costmw.testing.wire import Call

Json = dict[str, Any]

# What a response says of its request, with the values of a request that says nothing.
_ECHOED: Json = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def respond(call: Call) -> Answer:
    """Answer a Responses API request."""
    now = time.time()
    items = _items(call)
    opened = _response(call, now)
    done = opened | {"status": "completed", "output": items, "completed_at": int(now)}
    usage = call.usage(lambda: _count(call))
    if usage is None:
        del opened["usage"], done["usage"]
    else:
        done["usage"] = usage
    return stream(call, _events(opened, done, items)) if call.streamed else plain(done)


def _response(call: Call, now: float) -> Json:
    echo = {name: call.payload.get(name, usual) for name, usual in _ECHOED.items()}
    head = {
        "id": new_id("resp_", 32),
        "object": "response",
        "created_at": int(now),
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": call.model,
        "output": [],
        "service_tier": service_tier(call),
    }
    return head | echo | {"usage": None}


def _count(call: Call) -> Json:
    prompt, output = call.prompt_tokens, call.output_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }


def _items(call: Call) -> list[Json]:
    items: list[Json] = []
    if call.reply.said or call.reply.tool_call is None:
        items.append(
            {
                "id": new_id("msg_", 32),
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [_part(call.reply.said)],
            }
        )
    if call.reply.tool_call is not None:
        name, arguments = call.reply.tool_call
        items.append(
            {
                "id": new_id("fc_", 32),
                "type": "function_call",
                "status": "completed",
                "name": name,
                "call_id": new_id("call_"),
                "arguments": dump(arguments),
            }
        )
    return items


def _part(text: str) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _events(opened: Json, done: Json, items: list[Json]) -> list[bytes]:
    events: list[Json] = [
        {"type": "response.created", "response": opened},
        {"type": "response.in_progress", "response": opened},
    ]
    for index, item in enumerate(items):
        events += _message(index, item) if item["type"] == "message" else _function(index, item)
    events.append({"type": "response.completed", "response": done})
    return [
        sse(event | {"sequence_number": number}, event["type"])
        for number, event in enumerate(events)
    ]


def _message(index: int, item: Json) -> list[Json]:
    text = item["content"][0]["text"]
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    return [
        _added(index, item | {"content": []}),
        {"type": "response.content_part.added", **place, "part": _part("")},
        *(
            {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
            for piece in words(text)
        ),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": _part(text)},
        _finished(index, item),
    ]


def _function(index: int, item: Json) -> list[Json]:
    arguments = item["arguments"]
    place = {"item_id": item["id"], "output_index": index}
    return [
        _added(index, item | {"arguments": ""}),
        *(
            {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            for piece in json_pieces(arguments)
        ),
        {
            "type": "response.function_call_arguments.done",
            **place,
            "arguments": arguments,
        },
        _finished(index, item),
    ]


def _added(index: int, item: Json) -> Json:
    started = item | {"status": "in_progress"}
    return {"type": "response.output_item.added", "output_index": index, "item": started}


def _finished(index: int, item: Json) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}
