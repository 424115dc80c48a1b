"""Tokens from bytes, where a provider does not say: learnt from the same model's exact calls."""

from __future__ import annotations

from dataclasses import dataclass

from costmw.events import Usage

MODELS_AT_MOST = 10_000
CALLS_REMEMBERED = 1_000
"""Older calls lose their weight by halves: how a model is used changes."""


@dataclass(slots=True)
class _Seen:
    """Sums over exact calls: bytes sent and answered, tokens counted."""

    calls: int = 0
    input_bytes: int = 0
    input_tokens: int = 0
    output_bytes: int = 0
    output_tokens: int = 0

    def halve(self) -> None:
        self.calls //= 2
        self.input_bytes //= 2
        self.input_tokens //= 2
        self.output_bytes //= 2
        self.output_tokens //= 2


class TokenRatios:
    """Tokens for a byte of request and of answer, by model.

    No lock: two threads that learn at once may lose one call of a thousand, which an
    estimate can bear, and a finalizer or a fork cannot hang.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str | None, str], _Seen] = {}

    def learn(
        self,
        provider: str | None,
        model: str | None,
        usage: Usage,
        *,
        input_bytes: int,
        output_bytes: int,
    ) -> None:
        """Take an exact call: how many tokens its bytes were."""
        if model is None or usage.input_tokens is None or usage.output_tokens is None:
            return
        key = (provider, model)
        if key not in self._seen and len(self._seen) >= MODELS_AT_MOST:
            self._seen.clear()
        seen = self._seen.setdefault(key, _Seen())
        if seen.calls >= CALLS_REMEMBERED:
            seen.halve()
        seen.calls += 1
        if input_bytes:
            seen.input_bytes += input_bytes
            seen.input_tokens += usage.input_tokens
        if output_bytes:
            seen.output_bytes += output_bytes
            seen.output_tokens += usage.output_tokens

    def estimate(
        self,
        provider: str | None,
        model: str | None,
        known: Usage | None,
        *,
        input_bytes: int,
        output_bytes: int,
    ) -> Usage | None:
        """Work out what a call used, as far as `known` leaves it open.

        None when this model's exact calls say nothing about it yet.
        """
        seen = self._seen.get((provider, model or ""))
        if seen is None:
            return None
        known = known or Usage()
        tokens_in, tokens_out = known.input_tokens, known.output_tokens
        if tokens_in is None and seen.input_bytes:
            tokens_in = round(input_bytes * seen.input_tokens / seen.input_bytes)
        if tokens_out is None and seen.output_bytes:
            tokens_out = round(output_bytes * seen.output_tokens / seen.output_bytes)
        if tokens_in is None or tokens_out is None:
            return None
        return Usage(
            tokens_in,
            tokens_out,
            known.cache_read_input_tokens,
            known.cache_write_input_tokens,
            known.reasoning_output_tokens,
            known.detail,
        )
