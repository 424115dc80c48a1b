"""Texts of cells into values, told apart by what they look like."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from costmw.errors import ConfigError
from costmw.money import MAX_PICO, parse_usd, to_pico
from costmw.transfer.spans import BEGINNING, END
from costmw.transfer.table import UnreadableRow

LARGEST = 2**63 - 1
"""The largest number that a row can hold."""

_EPOCH = re.compile(r"\d{9,17}(?:\.\d+)?\Z")
_ZONE_NAMES = re.compile(r" ?(?:UTC|GMT)\Z", re.IGNORECASE)

# Seconds, milliseconds or microseconds since 1970, by how large a number of this age is.
_PER_SECOND = ((11, 1), (14, 1_000), (17, 1_000_000))


def integer(text: str, name: str) -> int:
    """A whole number, also as `12.0` or `1.2e3`."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number.adjusted() > 18 or number % 1:
        raise UnreadableRow(f"{name} is {_shown(text)}, not a whole number")
    if abs(number) > LARGEST:
        raise UnreadableRow(f"{name} is {_shown(text)}, which is too large")
    return int(number)


def milliseconds(text: str, name: str) -> int:
    """A duration in milliseconds, rounded to a whole number."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or not 0 <= number < 10**15:
        raise UnreadableRow(f"{name} is {_shown(text)}, not a number of milliseconds")
    return round(number)


def pico_usd(text: str, name: str) -> int:
    """An amount of USD, with or without `$`, in pico-USD, rounded at 1e-12 USD."""
    try:
        pico = to_pico(parse_usd(text.replace("$", "", 1), name))
    except ConfigError:
        raise UnreadableRow(f"{name} is {_shown(text)}, not an amount of USD") from None
    if abs(pico) > MAX_PICO:
        raise UnreadableRow(f"{name} is {_shown(text)}, more than a row can hold")
    return pico


def moment(text: str, name: str) -> datetime:
    """A moment in ISO 8601 or as seconds, ms or us since 1970; without a zone it is UTC."""
    try:
        found = _since_1970(text) if _EPOCH.match(text) else _written(text)
    except (ValueError, OverflowError):
        raise UnreadableRow(
            f"{name} is {_shown(text)}; use ISO 8601, as 2026-11-01T12:00:00Z, or seconds since "
            "1970"
        ) from None
    if not BEGINNING <= found < END:
        raise UnreadableRow(f"{name} is {_shown(text)}, and no time of a call")
    return found


def _since_1970(text: str) -> datetime:
    digits = len(text.partition(".")[0])
    per_second = next(per for most, per in _PER_SECOND if digits <= most)
    micros = int(Decimal(text) * (1_000_000 // per_second))
    return BEGINNING + timedelta(microseconds=micros)


def _written(text: str) -> datetime:
    found = datetime.fromisoformat(_ZONE_NAMES.sub("+00:00", text))
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)


def json_object(text: str, name: str) -> Mapping[str, Any]:
    """A JSON object; numbers stay the texts that they are."""
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
        json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnreadableRow(f"{name} is {_shown(text)}, not a JSON object")
    return found


def as_tag(value: object) -> str | None:
    """A value of a JSON object as the value of a tag; null is none."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}...")
