"""Run the faults: `python -m tests.faults [NAME ...] [--rounds N] [--seed N]`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import random
import sys
from collections.abc import Sequence

from . import Result, __path__

HELPERS = {
    "__main__",
    "callers",
    "conftest",
    "ledgers",
    "mirror",
    "simulator_model",
    "test_faults",
    "worker",
}


def names() -> list[str]:
    """All faults there are: one file each."""
    return sorted({module.name for module in pkgutil.iter_modules(__path__)} - HELPERS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--rounds", type=int, help="how often each variant is broken")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names()):
        parser.error(f"no fault {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    print(f"seed {chosen.seed}", flush=True)
    results = []
    for name in chosen.names or names():
        fault = importlib.import_module(f".{name}", __package__)
        options = {} if chosen.rounds is None else {"rounds": chosen.rounds}
        for result in fault.run(seed=chosen.seed, **options):
            print(f"{result.fault}: {result.variant} done", file=sys.stderr, flush=True)
            results.append(result)
    print(table(results))
    return 1 if any(result.violations for result in results) else 0


def table(results: Sequence[Result]) -> str:
    """All results, one line each, the figures of a fault under its headings."""
    lines: list[str] = []
    for fault in dict.fromkeys(result.fault for result in results):
        rows = [result for result in results if result.fault == fault]
        headings = list(dict.fromkeys(heading for row in rows for heading in row.figures))
        cells = [[fault, "variant", *headings, ""]]
        for row in rows:
            figures = [_text(row.figures.get(heading, "")) for heading in headings]
            cells.append(["", row.variant, *figures, "; ".join(row.violations) or "as it must be"])
        widths = [max(len(line[n]) for line in cells) for n in range(len(cells[0]))]
        for line in cells:
            left, right, last = line[:2], line[2:-1], line[-1]
            lines.append(
                "  ".join(
                    [
                        *(cell.ljust(widths[n]) for n, cell in enumerate(left)),
                        *(cell.rjust(widths[n + 2]) for n, cell in enumerate(right)),
                        last,
                    ]
                ).rstrip()
            )
        lines.append("")
    return "\n".join(lines)


def _text(figure: object) -> str:
    return f"{figure:,}" if isinstance(figure, int) else str(figure)


if __name__ == "__main__":
    sys.exit(main())
