"""Answers about how long calls took."""

from __future__ import annotations

from datetime import datetime

from costmw.answers.base import Answer


class Quantiles(Answer):
    """How long calls took, in milliseconds: what 50, 90, 95 and 99 of 100 do not exceed.

    From a logarithmic histogram, exact to 9%. None without any call that was timed, and where
    no histogram is kept.
    """

    calls: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class DurationRow(Answer):
    """One value of what was grouped by; None for calls without it."""

    value: str | None
    latency: Quantiles
    time_to_first_chunk: Quantiles


class Durations(Answer):
    """How long calls took, whole and until something came, of the slowest values first.

    `from_rows`: no rollup had the answer, and the single calls were looked at.
    """

    by: str | None
    start: datetime
    stop: datetime
    rows: list[DurationRow]
    total: DurationRow
    from_rows: bool
