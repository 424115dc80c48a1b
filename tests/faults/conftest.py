from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the long runs out unless they are asked for by `-m faults`."""
    return None if "faults" in config.getoption("markexpr") else True
