"""Where a list of calls goes on, told in a way that nobody can read anything from.

Positions count the calls of the whole ledger: from their distance, somebody who is confined
to a tenant would see how much the others do. So they are enciphered, for each scope with a
key of its own, and what another scope was given leads nowhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping

_ROUNDS = 4
_HALF = 32


class Secret:
    """What positions are enciphered by, read once: a store may have writers wait meanwhile."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._known: bytes | None = None

    def __call__(self) -> bytes:
        """The secret.

        Raises:
            StoreError: when it cannot be read.
        """
        if self._known is None:
            self._known = self._read()
        return self._known


class Cursors:
    """Enciphers positions for those with one scope (a Feistel network over 64 bits)."""

    def __init__(self, secret: bytes, scope: Mapping[str, str]) -> None:
        told = repr(("costmw cursor", sorted(scope.items()))).encode()
        self._key = hmac.digest(secret, told, "sha256")

    def text_of(self, position: int) -> str:
        """The text of a position: 16 hexadecimal digits."""
        left, right = divmod(position, 1 << _HALF)
        for number in range(_ROUNDS):
            left, right = right, left ^ self._mixed(number, right)
        return f"{left << _HALF | right:016x}"

    def position_of(self, text: str) -> int:
        """The position that a text is of; some position for any other text."""
        left, right = divmod(int(text, 16), 1 << _HALF)
        for number in reversed(range(_ROUNDS)):
            left, right = right ^ self._mixed(number, left), left
        return (left << _HALF | right) & ((1 << 63) - 1)

    def _mixed(self, number: int, half: int) -> int:
        told = bytes([number]) + half.to_bytes(_HALF // 8)
        return int.from_bytes(hmac.digest(self._key, told, "sha256")[: _HALF // 8])
