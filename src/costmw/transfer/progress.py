"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from costmw.errors import MissingExtra

Advance = Callable[[int], None]
"""Takes how much more is done."""


@contextmanager
def progress(what: str, total: Callable[[], int], *, shown: bool = True) -> Iterator[Advance]:
    """Show on the standard error how far something is, when that is a terminal.

    `total` says how much there is to do; it is asked only when somebody looks.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda done: None
        return
    rich = _rich()
    columns = ("{task.description}", rich.BarColumn(), rich.TaskProgressColumn())
    with _on_stderr(*columns, rich.TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total())
        yield lambda done: bar.advance(task, done)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show in the same way that something is done which does not say how far it is."""
    if not sys.stderr.isatty():
        yield
        return
    rich = _rich()
    with _on_stderr(rich.SpinnerColumn(), "{task.description}", rich.TimeElapsedColumn()) as bar:
        bar.add_task(what, total=None)
        yield


def _on_stderr(*columns: Any) -> Any:
    from rich.console import Console

    return _rich().Progress(*columns, console=Console(stderr=True), transient=True)


def _rich() -> Any:
    try:
        import rich.progress
    except ImportError as error:
        raise MissingExtra(package="rich", extra="cli") from error
    return rich.progress
