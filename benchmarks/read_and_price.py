"""One JSON answer, read and priced, warm: against parsing it, and against genai-prices itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from pydantic_core import from_json

from benchmarks.measure import compare, main, show
from costmw.capture.reading import read_json
from costmw.events import Usage
from costmw.pricing import Pricing
from costmw.providers.registry import FAMILIES

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CHAT = next(wire for wire in FAMILIES["openai"] if wire.api == "openai.chat")


def answer(words: int) -> bytes:
    """A chat completion with an answer of so many words."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "gpt-5-mini-2025-08-07",
            "service_tier": "default",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "word " * words},
                }
            ],
            "usage": {
                "prompt_tokens": 1210,
                "completion_tokens": 345,
                "total_tokens": 1555,
                "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0},
            },
        }
    ).encode()


def run() -> dict[str, Any]:
    """Time them for answers of three lengths."""
    pricing = Pricing()
    listed = get_snapshot().find_provider(None, "openai", None)
    usage = Usage(1210, 345, 1024, 0, 128)
    context = {"service_tier": "default"}

    def price(used: Usage) -> object:
        return pricing.price(used, provider="openai", model="gpt-5-mini", at=NOW, context=context)

    figures = {}
    for words in (50, 350, 3000):
        body = answer(words)

        def parse(body: bytes = body) -> object:
            return from_json(body)

        def read_and_price(body: bytes = body) -> object:
            reading = read_json(CHAT, body)
            assert reading.usage is not None
            return price(reading.usage)

        def by_genai_prices(body: bytes = body) -> object:
            model, used = listed.extract_usage(from_json(body), api_flavor="chat")
            return calc_price(used, model or "", provider_id="openai", price_context=context)

        medians = compare(
            {
                "from_json": parse,
                "one price product": lambda: price(usage),
                "from_json + one price product": lambda: (parse(), price(usage)),
                "costmw: read and price": read_and_price,
                "genai-prices: extract and calc": by_genai_prices,
            },
            calls=300,
        )
        show(f"{len(body)} bytes", medians, "from_json + one price product")
        figures[f"{len(body)} bytes"] = medians
    return figures


if __name__ == "__main__":
    main("read_and_price", lambda _: run())
