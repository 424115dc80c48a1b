"""Calls whose cost is known: the usage that a provider states, and the row that comes of it.

Unit prices are written down here by hand, from the providers' price pages, so that the
price list is checked as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from costmw.events import UsageEvent
from costmw.testing import Reply, RequestRecord

CHAT_USAGE = {
    "prompt_tokens": 1210,
    "completion_tokens": 345,
    "total_tokens": 1555,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0},
}
RESPONSE_USAGE = {
    "input_tokens": 2048,
    "input_tokens_details": {"cached_tokens": 512, "cache_write_tokens": 0},
    "output_tokens": 77,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 2125,
}
EMBEDDING_USAGE = {"prompt_tokens": 913, "total_tokens": 913}
MESSAGE_USAGE = {
    "input_tokens": 200,
    "cache_read_input_tokens": 1500,
    "cache_creation_input_tokens": 700,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400},
    "output_tokens": 55,
    "service_tier": "standard",
}

# USD for a million tokens.
GPT_5_MINI = {"input": "0.25", "cached": "0.025", "output": "2"}
EMBEDDING_3_SMALL = {"input": "0.02"}
HAIKU_4_5 = {"input": "1", "read": "0.10", "write_5m": "1.25", "write_1h": "2", "output": "5"}


def pico(*terms: tuple[int, str]) -> int:
    """Tokens times USD for a million, in pico-USD."""
    return int(sum(tokens * Decimal(usd) for tokens, usd in terms) * 10**6)


CHAT = (
    1210,
    345,
    pico(
        (1210 - 1024, GPT_5_MINI["input"]),
        (1024, GPT_5_MINI["cached"]),
        (345, GPT_5_MINI["output"]),
    ),
)
RESPONSE = (
    2048,
    77,
    pico(
        (2048 - 512, GPT_5_MINI["input"]), (512, GPT_5_MINI["cached"]), (77, GPT_5_MINI["output"])
    ),
)
EMBEDDING = (913, 0, pico((913, EMBEDDING_3_SMALL["input"])))
MESSAGE = (
    200 + 1500 + 700,
    55,
    pico(
        (200, HAIKU_4_5["input"]),
        (1500, HAIKU_4_5["read"]),
        (300, HAIKU_4_5["write_5m"]),
        (400, HAIKU_4_5["write_1h"]),
        (55, HAIKU_4_5["output"]),
    ),
)

Row = tuple[int | None, int | None, int | None]
"""Input tokens, output tokens, pico-USD."""


def row(event: UsageEvent) -> Row:
    return event.usage.input_tokens, event.usage.output_tokens, event.price.cost_pico_usd


def counted(rows: Iterable[Row]) -> str:
    """Rows in words, for a table: how many of each kind."""
    return "; ".join(
        f"{n} x {tokens_in} in, {tokens_out} out, {cost} pico-USD"
        for (tokens_in, tokens_out, cost), n in Counter(rows).items()
    )


_USAGE_BY_PATH = {
    "/chat/completions": CHAT_USAGE,
    "/responses": RESPONSE_USAGE,
    "/embeddings": EMBEDDING_USAGE,
    "/messages": MESSAGE_USAGE,
}


def stated(request: RequestRecord) -> Reply:
    """Answer a request with the usage above, each event of a stream in a chunk of its own.

    The connection is closed, since not every framework says how to close its client.
    """
    usage = next(
        (usage for path, usage in _USAGE_BY_PATH.items() if request.path.endswith(path)), None
    )
    return Reply(text="one two three", usage=usage, pace=0.002, headers={"connection": "close"})
