"""What is found, and how it is told."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["error", "warning", "info"]
"""`error`: calls or money are lost, or the page is open. `warning`: likely so, or soon.
`info`: good to know, and often meant so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a set-up, and how to mend it.

    `code` names the kind, `"client-not-instrumented"`, and stays the same over versions.
    """

    level: Level
    code: str
    problem: str
    mend: str


_TITLES: dict[Level, str] = {"error": "Errors", "warning": "Warnings", "info": "Good to know"}


def as_text(findings: Sequence[Finding]) -> str:
    """Findings for people to read, the worst first; the last line counts them."""
    lines: list[str] = []
    for level, title in _TITLES.items():
        found = [finding for finding in findings if finding.level == level]
        if found:
            lines.append(title)
            for finding in found:
                lines += _wrapped(f"{finding.code}: {finding.problem}", "  ", "    ")
                lines += _wrapped(finding.mend, "    -> ", "       ")
            lines.append("")
    return "\n".join([*lines, summary(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    """Findings as a JSON array of objects with the fields of `Finding`."""
    return json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2)


def summary(findings: Sequence[Finding]) -> str:
    """How many errors and warnings there are, in one line."""
    levels = [finding.level for finding in findings]
    counts = [
        f"{count} {level}{'s' if count > 1 else ''}"
        for level in ("error", "warning")
        if (count := levels.count(level))
    ]
    return ", ".join(counts) or "nothing wrong found"


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith(" "):  # a snippet to paste stays as it is
            lines.append(f"{rest}{line}")
        else:
            lines += textwrap.wrap(
                line,
                width=96,
                initial_indent=rest if lines else first,
                subsequent_indent=rest,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines
