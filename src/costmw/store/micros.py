"""Moments as microseconds since 1970, in UTC: exact, and the same in every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(moment: int) -> datetime:
    """The moment of so many microseconds since 1970, in UTC."""
    return EPOCH + moment * MICROSECOND
