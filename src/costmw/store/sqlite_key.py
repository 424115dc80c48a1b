"""The secret that API keys are fingerprinted with: a file beside the store's."""

from __future__ import annotations

import os
import secrets
from contextlib import AbstractContextManager
from pathlib import Path

from costmw.errors import StoreError

KEY_BYTES = 32


class Key:
    """`<file>.key`, readable by its owner alone; made when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: bytes | None = None

    def read_or_make(self, turn: AbstractContextManager[None]) -> bytes:
        """The secret; `turn` keeps other processes from making one meanwhile.

        Raises:
            StoreError: when it cannot be read or made.
        """
        try:
            if not self._path.exists():
                with turn:
                    if not self._path.exists():
                        # Ids of keys stay the same when it is removed with the store's file.
                        _write(self._path, self._read or secrets.token_bytes(KEY_BYTES))
            key = self._path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read or make {self._path}: {error.strerror}") from error
        if len(key) < KEY_BYTES:
            raise StoreError(f"{self._path} is damaged: remove it to start new key ids")
        self._read = key
        return key


def _write(path: Path, key: bytes) -> None:
    """Make a key that is there whole or not at all."""
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    # Never one that somebody else has made: it would be theirs to read.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
