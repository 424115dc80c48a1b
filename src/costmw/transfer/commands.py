"""What `costmw export` and `costmw import` do, beyond their options."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from costmw.config import Config
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing
from costmw.store.layers import open_store
from costmw.transfer.exporting import export_to_file
from costmw.transfer.importing import Imported, import_file
from costmw.transfer.progress import progress
from costmw.transfer.spans import tags_of
from costmw.transfer.whole_file import STANDARD_OUTPUT

TOLD_AT_MOST = 100
"""Bad rows that are told of one by one."""


def export_calls(
    store: str, output: str, *, file_format: str, start: str, stop: str, where: Sequence[str]
) -> str:
    """Export to a file; gives what to say of it, nothing where the data itself is printed.

    Raises:
        CostmwError: when an option, the file or the store cannot be used.
    """
    signal.signal(signal.SIGTERM, _end)
    ledger = open_store(store or None, Config.from_environment())
    try:
        count = export_to_file(
            ledger,
            output,
            file_format=file_format,
            start=start,
            stop=stop,
            where=tags_of(where),
        )
    finally:
        ledger.close()
    return "" if output == STANDARD_OUTPUT else f"{_calls(count)} exported to {output}"


def import_calls(store: str, file: Path, *, provider: str, dry_run: bool, skip_bad: bool) -> str:
    """Import a file; gives what to say of it. Bad rows are told of on the standard error.

    Raises:
        CostmwError: when the file or the store cannot be used.
    """
    config = Config.from_environment()
    prices = load_overrides(config.price_file) if config.price_file else ()
    ledger = open_store(store or None, config)
    bad = 0

    def report(line: int, problem: str) -> None:
        nonlocal bad
        bad += 1
        if bad <= TOLD_AT_MOST:
            sys.stderr.write(f"{file}:{line}: {problem}\n")
        elif bad == TOLD_AT_MOST + 1:
            sys.stderr.write("... and more of them\n")

    def total() -> int:
        try:
            return file.stat().st_size * (1 if skip_bad else 2)
        except OSError:
            return 0  # said when it is opened

    try:
        with progress(f"Importing {file.name}", total) as advance:
            done = import_file(
                ledger,
                file,
                Pricing((*config.prices, *prices)),
                provider=provider or None,
                dry_run=dry_run,
                skip_bad=skip_bad,
                report=report,
                advance=advance,
            )
    finally:
        ledger.close()
    return _summary(done, dry_run=dry_run)


def _summary(done: Imported, *, dry_run: bool) -> str:
    told = [f"{_calls(done.new)} {'would be ' if dry_run else ''}imported"]
    if done.unpriced:
        told.append(f"{done.unpriced} of them without a cost")
    if done.known:
        told.append(f"{done.known} there already")
    if done.bad:
        told.append(f"{done.bad} left out")
    text = ", ".join(told)
    if done.left_out:
        text += f"\ncolumns left out: {', '.join(done.left_out)}"
    return text


def _calls(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"


def _end(signum: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does: what is half done is cleared away."""
    raise SystemExit(128 + signum)
