"""A fake provider that counts what is spent there: the judge of who holds a cap."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from costmw.testing import FakeProvider, Reply

PROMPT_TOKENS, OUTPUT_TOKENS = 100, 900
COST = Decimal(PROMPT_TOKENS + OUTPUT_TOKENS) / 1_000_000
"""What a call costs, in USD: a token costs a millionth, whichever way it goes."""

LONG_TOKENS = 200_000
"""What an answer has that nobody limits."""


class Spending:
    """What was spent at the provider, by who asked; a call counts when it arrives."""

    def __init__(self, delay: float) -> None:
        self._lock = threading.Lock()
        self._delay = delay
        self.calls: Counter[str] = Counter()
        self.usd: dict[str, Decimal] = {}

    def answer(self, record: Any) -> Reply:
        """Count a request, and answer it."""
        request = record.json
        limit = request.get("max_completion_tokens")
        tokens = LONG_TOKENS if limit is None else min(OUTPUT_TOKENS, limit)
        who = request.get("user", "")
        with self._lock:
            self.calls[who] += 1
            cost = Decimal(PROMPT_TOKENS + tokens) / 1_000_000
            self.usd[who] = self.usd.get(who, Decimal(0)) + cost
        usage = {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": tokens,
            "total_tokens": PROMPT_TOKENS + tokens,
        }
        return Reply(usage=usage, delay=self._delay)

    def of(self, *scope: str) -> Decimal:
        """What callers spent whose tags begin like this."""
        return sum(
            (usd for who, usd in self.usd.items() if tuple(who.split("/"))[: len(scope)] == scope),
            Decimal(0),
        )


@contextmanager
def provider_that_counts(delay: float) -> Iterator[tuple[FakeProvider, Spending]]:
    """A provider that answers after `delay` seconds, and what is spent there."""
    with FakeProvider(keep=10) as provider:
        spending = Spending(delay)
        provider.responder = spending.answer
        yield provider, spending
