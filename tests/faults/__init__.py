"""Long runs that break things on purpose, and count what was lost: `python -m tests.faults`.

One file a fault. Each has `run(rounds, seed)`, which gives a `Result` for every variant.
A variant that must lose something is a control: it shows that the run can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Result:
    """What one variant of a fault came to."""

    fault: str
    variant: str
    figures: Mapping[str, object]
    violations: list[str] = field(default_factory=list)
