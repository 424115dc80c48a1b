"""What is stored once and referred to by many events: kinds of calls, prices, tags."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from costmw.events import Price, UsageEvent

CALL_KIND = (
    "operation",
    "api",
    "provider",
    "request_model",
    "response_model",
    "api_key_id",
    "price_context",
)
"""Columns of `call_kinds`."""

PRICE = ("source", "ref", "units")
"""Columns of `prices`."""

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

InternedRow = tuple[str | None, ...]


def call_kind_of(event: UsageEvent) -> InternedRow:
    """The row of `call_kinds` that an event refers to."""
    context = event.price_context
    return (
        event.operation,
        event.api,
        event.provider,
        event.request_model,
        event.response_model,
        event.api_key_id,
        json_text(context) if context else None,
    )


def price_of(price: Price) -> InternedRow:
    """The row of `prices` that an event refers to."""
    return price.source, price.ref, json_text(price.units)


def digest_of_row(row: InternedRow) -> bytes:
    """What tells a row from others; NULL and the empty text are not the same."""
    return digest_of(*("" if text is None else f"={text}" for text in row))


def digest_of_tags(tags: Mapping[str, str]) -> tuple[str, bytes]:
    """Tags as they are stored, and what tells them from others."""
    text = json_text(tags)
    return text, digest_of(text)


def json_text(value: Mapping[str, Any]) -> str:
    """JSON that is the same for equal mappings."""
    return _encode(value)


def digest_of(*parts: str) -> bytes:
    """Sixteen bytes that tell texts apart."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
