"""Takes the usage chunk that we asked for out of a chat stream again.

With `stream_options.include_usage` a last chunk comes with `choices: []`, which code
that did not ask for it may index.
"""

from __future__ import annotations

import re

from costmw.capture.framing import ServerSentEvents

_USAGE_CHUNK = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_USAGE_OBJECT = re.compile(rb'"usage"\s*:\s*\{')


class UsageChunkHider:
    """Passes whole events on, the usage chunk left out.

    Bytes of an event that is not complete yet are held back: a client cannot use them.
    """

    def __init__(self) -> None:
        self._framing = ServerSentEvents()
        self._passed = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take decoded bytes; gives those to hand on.

        Raises:
            FramingError: when they are no such stream; `end()` then gives all that is left.
        """
        if self._framing.is_whole(data) and not _USAGE_CHUNK.search(data):
            return data
        for block in self._framing.blocks(data):
            if not (_USAGE_CHUNK.search(block) and _USAGE_OBJECT.search(block)):
                self._passed += block
        return self._take()

    def end(self) -> bytes:
        """Give what was held back."""
        return self._take() + self._framing.rest()

    def _take(self) -> bytes:
        taken = bytes(self._passed)
        self._passed.clear()
        return taken
