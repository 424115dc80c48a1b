"""The write-ahead log of an SQLite file: which pages it has, as of the last commit.

SQLite reads a log up to the first frame that is damaged. Here each frame is judged by
itself: the sum of the one before it stands in that one's own head.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import BinaryIO

_MAGIC = 0x377F0682
_HEAD = 32
_FRAME_HEAD = 24
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Log:
    """Where in the log the newest version of each page is, and how many pages there are."""

    page_size: int | None = None
    pages: dict[int, int] = field(default_factory=dict)
    page_count: int = 0


def read_log(file: BinaryIO) -> Log:
    """Find the pages of a log up to its last commit that is whole."""
    head = file.read(_HEAD)
    if len(head) < _HEAD:
        return Log()
    magic, _, page_size, _, *rest = struct.unpack(">8I", head)
    salts, order = rest[:2], ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or page_size not in _SIZES:
        return Log()
    sums = tuple(rest[2:])
    found: dict[int, int] = {}
    committed: dict[int, int] = {}
    page_count = 0
    offset = _HEAD
    while len(frame := file.read(_FRAME_HEAD + page_size)) == _FRAME_HEAD + page_size:
        number, size_after, *frame_salts, first, second = struct.unpack(">6I", frame[:24])
        if frame_salts != salts:
            break
        whole = _summed(sums, order, frame[:8], frame[_FRAME_HEAD:]) == (first, second)
        sums = (first, second)
        if whole:
            found[number] = offset + _FRAME_HEAD
            if size_after:
                committed.update(found)
                found.clear()
                page_count = size_after
        offset += len(frame)
    return Log(page_size, committed, page_count)


_SIZES = frozenset(2**power for power in range(9, 17))


def _summed(sums: Iterable[int], order: str, *parts: bytes) -> tuple[int, int]:
    first, second = sums
    for part in parts:
        words = struct.unpack(f"{order}{len(part) // 4}I", part)
        for one, other in zip(words[::2], words[1::2], strict=True):
            first = (first + one + second) & _MASK
            second = (second + other + first) & _MASK
    return first, second
