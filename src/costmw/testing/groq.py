"""Groq shapes: OpenAI's chat completions, with more to their usage and a place of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from costmw.testing import openai
from costmw.testing.framing import sse
from costmw.testing.wire import Answer, new_id, plain, stream

if TYPE_CHECKING:
    from costmw.testing.wire import Call

MODELS = ("llama-3.3-70b-versatile", "llama-3.1-8b-instant", "openai/gpt-oss-20b")


def chat(call: Call) -> Answer:
    """Answer a chat completion request; a stream has usage in `x_groq`, asked for or not."""
    usage = call.usage(lambda: _count(call))
    tier = call.reply.service_tier or call.payload.get("service_tier") or "on_demand"
    own = replace(call, reply=replace(call.reply, usage=usage, service_tier=str(tier)))
    name: dict[str, Any] = {"id": new_id("req_", 26)}
    if not call.streamed:
        return plain(openai.completion(own) | {"x_groq": name})
    chunks = openai.chunks(own)
    chunks[0]["x_groq"] = name
    if usage is not None:
        last = next(chunk for chunk in reversed(chunks) if chunk["choices"])
        last["x_groq"] = name | {"usage": usage}
    return stream(call, [*map(sse, chunks), sse("[DONE]")])


def models() -> Answer:
    """List a few models."""
    return openai.models(MODELS, "Meta")


def _count(call: Call) -> dict[str, Any]:
    times = {"queue_time": 0.001, "prompt_time": 0.002, "completion_time": 0.003}
    return openai.token_counts(call) | times | {"total_time": 0.005}
