"""Files of settings in TOML."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from costmw.errors import ConfigError


def read_toml(path: Path | str, what: str) -> dict[str, Any]:
    """What a file has, numbers with a point as decimals: money is never a float.

    Args:
        path: the file.
        what: what it is, for the error: `the price file`.

    Raises:
        ConfigError: when it cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not TOML: {error}") from error
