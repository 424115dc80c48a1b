"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise MissingExtra(package="rich", extra="cli") from error
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total())
        yield lambda done: bar.advance(task, done)
