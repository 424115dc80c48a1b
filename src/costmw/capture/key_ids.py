"""Which API key a call is billed to, without keeping the key."""

from __future__ import annotations

import time
from collections.abc import Callable

from costmw.errors import CostmwError

RETRY_AFTER = 60.0
"""Seconds before a secret that could not be loaded is asked for again."""


class KeyIds:
    """Keyed fingerprints of API keys; the secret lies beside the store.

    `load` gives the secret, `failed` takes the error when it cannot.
    """

    def __init__(self, load: Callable[[], bytes], failed: Callable[[CostmwError], None]) -> None:
        self._load = load
        self._failed = failed
        self._secret: bytes | None = None
        self._load_at = 0.0

    def prepare(self) -> bool:
        """Load the secret, which reads a file; False when it cannot be had now."""
        if self._secret is not None:
            return True
        now = time.monotonic()
        if now < self._load_at:
            return False
        self._load_at = now + RETRY_AFTER
        try:
            self._secret = self._load()
        except CostmwError as error:
            self._failed(error)
            return False
        return True

    def id_of(self, api_key: str | None) -> str | None:
        """The fingerprint of a key, 16 hexadecimal digits; None without a key or a secret."""
        if not api_key or not self.prepare() or self._secret is None:
            return None
        import hashlib  # takes milliseconds, which a start without calls need not

        return hashlib.blake2b(api_key.encode(), key=self._secret, digest_size=8).hexdigest()
