"""Records as JSON and back, for what has to wait on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID

from costmw.events import (
    Amendment,
    Outcome,
    Price,
    Record,
    Release,
    Renewal,
    Submission,
    Usage,
    UsageEvent,
)

KINDS: dict[str, type[Record]] = {
    "event": UsageEvent,
    "amendment": Amendment,
    "submission": Submission,
    "outcome": Outcome,
    "release": Release,
    "renewal": Renewal,
}
"""What a record is, as it is told beside its JSON."""

_NAMES = {kind: name for name, kind in KINDS.items()}
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in (*_NAMES, Usage, Price)}

_READERS: dict[str, Callable[[Any], Any]] = {
    "id": UUID,
    "event_id": UUID,
    "request_id": UUID,
    "created_at": datetime.fromisoformat,
    "at": datetime.fromisoformat,
    "expires_at": datetime.fromisoformat,
    "as_id": UUID,
    "usage": lambda said: Usage(**said),
    "price": lambda said: Price(**said),
}


def encode(record: Record) -> tuple[str, str]:
    """The kind of a record, and its JSON in ASCII.

    Raises:
        TypeError: when there is something in it that is no value of a record.
    """
    return _NAMES[type(record)], json.dumps(_said(record), default=_plain)


def decode(kind: str, text: str) -> Record:
    """The record that was encoded.

    Raises:
        ValueError: when it is none of ours.
    """
    try:
        said = json.loads(text)
        return KINDS[kind](
            **{name: _READERS.get(name, _as_it_is)(value) for name, value in said.items()}
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no {kind} of this version of costmw: {error}") from error


def retagged(text: str, key: str, value: str, name: str) -> str | None:
    """The JSON of a record with another value of a tag; None when it has not this one."""
    try:
        said = json.loads(text)
        if said["tags"][key] != value:
            return None
        said["tags"][key] = name
    except (ValueError, KeyError, TypeError):  # no record, or none with this tag
        return None
    return json.dumps(said)


def _said(value: Any) -> dict[str, Any]:
    """The fields that say something."""
    said = {name: getattr(value, name) for name in _FIELDS[type(value)]}
    return {name: found for name, found in said.items() if found is not None or name in _NEEDED}


_NEEDED = {"provider", "model", "request_model", "response_model", "cost_pico_usd"}


def _plain(value: Any) -> Any:
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case Usage() | Price():
            return _said(value)
        case Mapping():
            return dict(value)
        case _:
            raise TypeError(f"{type(value).__name__} is no value of a record")


def _as_it_is(value: Any) -> Any:
    return value
