"""Timing pieces of code against each other: in turn, several rounds, medians."""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def compare(
    pieces: Mapping[str, Callable[[], object]], *, calls: int, rounds: int = 9
) -> dict[str, float]:
    """Run each piece `calls` times in each of `rounds` rounds, in turn.

    Returns:
        The median time of one call of each piece, in microseconds.
    """
    times: dict[str, list[float]] = {name: [] for name in pieces}
    for piece in pieces.values():
        piece()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, piece in pieces.items():
                started = time.perf_counter()
                for _ in range(calls):
                    piece()
                times[name].append((time.perf_counter() - started) / calls * 1e6)
    finally:
        gc.enable()
    return {name: statistics.median(found) for name, found in times.items()}


def show(title: str, medians: Mapping[str, float], against: str) -> None:
    """Print a table: microseconds, and the ratio to the piece named `against`."""
    print(f"\n{title}")
    for name, median in medians.items():
        print(f"  {name:<44}{median:>10.2f} us{median / medians[against]:>8.2f} x")


def main(
    name: str,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    parser: argparse.ArgumentParser | None = None,
) -> None:
    """Run one benchmark from the command line, with `--json FILE` beside its own options."""
    parser = parser or argparse.ArgumentParser()
    parser.prog = f"python -m benchmarks.{name}"
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = run(options)
    if options.json:
        about = {"python": platform.python_version(), "machine": platform.machine()}
        options.json.write_text(json.dumps({**about, name: figures}, indent=2) + "\n")
