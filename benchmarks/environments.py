"""Environments of their own for other libraries: the newest version that pip finds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECONDS = 300.0
"""How long making one may take."""


def environment(name: str, packages: Sequence[str], folder: Path) -> tuple[Path, str]:
    """The interpreter of a package's environment, and the version of the package in it.

    `packages` are what pip installs; none for what is installed here already.

    Raises:
        SubprocessError: when pip cannot install them.
    """
    python = Path(sys.executable)
    if packages:
        place = folder.absolute() / name
        python = place / "bin" / "python"
        if not python.exists():
            _done([sys.executable, "-m", "venv", str(place)])
        _done([str(python), "-m", "pip", "install", "--quiet", "--upgrade", *packages])
    asked = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    return python, _done([str(python), "-c", asked, name]).strip()


def reason(error: Exception) -> str:
    """The last line of what an error, or the command that it is of, said."""
    said = str(getattr(error, "stderr", None) or error).strip()
    return said.splitlines()[-1] if said else repr(error)


def _done(command: Sequence[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=True
    )
    return done.stdout
