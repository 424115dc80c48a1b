"""A file that is there whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from costmw.errors import ConfigError

STANDARD_OUTPUT = "-"


@contextmanager
def whole_file(output: str) -> Iterator[IO[bytes]]:
    """Open `output` to write to; it is replaced once everything is written and on disk.

    Where something goes wrong meanwhile it stays as it was. `-` is the standard output;
    that and devices get the bytes as they come.

    Raises:
        ConfigError: when the file cannot be made.
    """
    if output == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output).resolve()
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from error
