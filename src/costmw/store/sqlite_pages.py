"""Reads the rows of an SQLite file page by page, without SQLite.

SQLite finds a row by way of other pages, and gives up where one of them is damaged.
Here every page is looked at by itself: what is whole on it is found, whatever happened
to the others (https://www.sqlite.org/fileformat2.html).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from costmw.store.sqlite_log import Log, read_log

_MAGIC = b"SQLite format 3\0"
_USUAL_SIZE = 4096

# The first byte of a page says what it is.
_TABLE, _INDEX, _INNER_INDEX = 0x0D, 0x0A, 0x02
_CHILD = 4
"""Bytes before a cell of an inner page that name another page."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was stored; `rowid` is None in a table that has none."""

    rowid: int | None
    values: tuple[Any, ...]


class Pages:
    """The pages of a database and its write-ahead log as of the last commit."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as opened:
            self._file = opened.enter_context(path.open("rb"))
            log = Path(f"{path}-wal")
            self._log_file = opened.enter_context(log.open("rb")) if log.exists() else None
            self._log = read_log(self._log_file) if self._log_file else Log()
            self._opened = opened.pop_all()
        self._size = self._log.page_size or _USUAL_SIZE
        head = self.page(1)[:100]
        size = int.from_bytes(head[16:18])
        size = 65_536 if size == 1 else size
        self._has_head = head.startswith(_MAGIC) and size >= 512 and size & (size - 1) == 0
        if self._has_head:
            self._size = size
        self._usable = self._size - (head[20] if self._has_head else 0)
        in_file = -(-path.stat().st_size // self._size)
        self.count = max(self._log.page_count, in_file)
        self.damaged = 0
        self._free = set(self._free_pages()) if self._has_head else set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._opened.close()

    def page(self, number: int) -> bytes:
        """A page, whatever is on it; empty when it cannot be read."""
        offset = self._log.pages.get(number)
        file = self._file if offset is None else self._log_file
        assert file is not None
        try:
            file.seek((number - 1) * self._size if offset is None else offset)
            return file.read(self._size)
        except OSError:  # this place of the disk cannot be read
            self.damaged += 1
            return b""

    def rows(self, number: int) -> Iterator[Row]:
        """The rows that are whole on a page; `damaged` counts what is not."""
        page = self.page(number)
        start = 100 if number == 1 else 0
        kind = page[start] if len(page) > start + 8 else 0
        if kind not in (_TABLE, _INDEX, _INNER_INDEX) or number in self._free:
            return
        head = 12 if kind == _INNER_INDEX else 8
        cells = int.from_bytes(page[start + 3 : start + 5])
        first = start + head
        if first + 2 * cells > len(page):
            self.damaged += 1
            return
        for at in range(first, first + 2 * cells, 2):
            try:
                yield self._row(page, int.from_bytes(page[at : at + 2]), kind)
            except (ValueError, IndexError, struct.error):
                self.damaged += 1

    def _row(self, page: bytes, at: int, kind: int) -> Row:
        if kind == _INNER_INDEX:
            at += _CHILD
        length, at = _varint(page, at)
        rowid = None
        if kind == _TABLE:
            rowid, at = _varint(page, at)
        return Row(rowid, _values(self._payload(page, at, length, is_table=kind == _TABLE)))

    def _payload(self, page: bytes, at: int, length: int, *, is_table: bool) -> bytes:
        """What a cell holds, with what is on overflow pages."""
        usable = self._usable
        most = usable - 35 if is_table else (usable - 12) * 64 // 255 - 23
        if length <= most:
            payload = page[at : at + length]
        else:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (usable - 4)
            local = local if local <= most else least
            pieces = [page[at : at + local]]
            following = int.from_bytes(page[at + local : at + local + 4])
            missing = length - local
            while missing > 0 and 0 < following <= self.count:
                more = self.page(following)
                following = int.from_bytes(more[:4])
                pieces.append(more[4 : 4 + min(missing, usable - 4)])
                missing -= usable - 4
            payload = b"".join(pieces)
        if len(payload) != length:
            raise ValueError("a cell goes beyond its page")
        return payload

    def _free_pages(self) -> Iterator[int]:
        """Pages that hold nothing any more, but may still have what was deleted."""
        trunk = int.from_bytes(self.page(1)[32:36])
        seen: set[int] = set()
        while 0 < trunk <= self.count and trunk not in seen:
            seen.add(trunk)
            yield trunk
            page = self.page(trunk)
            listed = int.from_bytes(page[4:8])
            for at in range(8, min(8 + 4 * listed, len(page) - 3), 4):
                yield int.from_bytes(page[at : at + 4])
            trunk = int.from_bytes(page[:4])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    value = value << 8 | data[at]
    return value - (1 << 64) if value >> 63 else value, at + 1


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _values(payload: bytes) -> tuple[Any, ...]:
    """The values of a record.

    Raises:
        ValueError, IndexError: when it is none.
    """
    head, at = _varint(payload, 0)
    kinds = []
    while at < head:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        if kind >= 12:
            length = (kind - 12) >> 1
            piece = payload[at : at + length]
            values.append(piece.decode() if kind & 1 else piece)
        elif kind in _INTEGERS:
            length = _INTEGERS[kind]
            values.append(int.from_bytes(payload[at : at + length], signed=True))
        elif kind in (0, 8, 9):
            length = 0
            values.append(None if kind == 0 else kind - 8)
        elif kind == 7:
            length = 8
            values.append(struct.unpack(">d", payload[at : at + 8])[0])
        else:
            raise ValueError("no such kind of value")
        at += length
    if at != len(payload) or head > len(payload):
        raise ValueError("a record does not fill its cell")
    return tuple(values)
