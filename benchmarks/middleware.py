"""What a middleware adds to a request that makes no LLM call, ASGI and WSGI, beside others.

The app answers at once, so that nothing but the middleware is timed; a middleware that only
calls on is the limit. Each peer runs in its newest version in an environment of its own, with
costmw beside it, as its README says: every row is a difference to the bare app of the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.environments import environment, reason
from benchmarks.measure import main

PEERS = {
    "asgi-correlation-id": ("asgi-correlation-id",),
    "starlette-context": ("starlette-context",),
    "opentelemetry-instrumentation-asgi": (
        "opentelemetry-instrumentation-asgi",
        "opentelemetry-sdk",
    ),
    "opentelemetry-instrumentation-wsgi": (
        "opentelemetry-instrumentation-wsgi",
        "opentelemetry-sdk",
    ),
}
ROOT = Path(__file__).parents[1]


def run(folder: Path | None = None) -> dict[str, Any]:
    """Measure all in their environments, and print microseconds added a request."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="costmw-middleware-") as name:
            return run(Path(name))
    figures: dict[str, Any] = {}
    for peer, packages in PEERS.items():
        try:
            python, version = environment(peer, (*packages, f"{ROOT}[fastapi]"), folder)
            figures[f"{peer} {version}"] = measured(python, peer)
        except (OSError, subprocess.SubprocessError) as error:
            figures[peer] = {"error": reason(error)}
    show(figures)
    return figures


def measured(python: Path, peer: str) -> dict[str, float]:
    """Microseconds a request takes: bare, and with each middleware."""
    done = subprocess.run(
        [python, "-m", "benchmarks.peers.middlewares", peer],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show(figures: dict[str, Any]) -> None:
    """Print what each adds to the bare app of its run."""
    for title, found in figures.items():
        print(f"\n{title}")
        if "error" in found:
            print(f"  {found['error']}")
            continue
        for name, time in found.items():
            print(f"  {name:<44}{time:>8.2f} us{time - found['bare']:>+8.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--environments", type=Path, help="a folder to keep environments in")
    main("middleware", lambda options: run(options.environments), parser)
