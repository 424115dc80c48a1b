"""Embedding vectors that depend on their text alone."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any

from costmw.testing.framing import dump


def unit_vector(given: Any, size: int) -> list[float]:
    """Return a vector of length 1 for any JSON value."""
    digest = hashlib.shake_128(dump(given).encode()).digest(size * 2)
    raw = [value / 32768 for value in struct.unpack(f"<{size}h", digest)]
    length = math.sqrt(sum(value * value for value in raw)) or 1.0
    return [value / length for value in raw]


def packed(vector: list[float]) -> str:
    """Return a vector as base64 of its 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def input_list(given: Any) -> list[Any]:
    """Return what is to be embedded as a list, with an item for each vector."""
    # A bare list of token ids is one input, a list of anything else one input per item.
    if isinstance(given, list) and not all(isinstance(item, int) for item in given):
        return given
    return [given]
