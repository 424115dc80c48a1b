"""Tasks that one process does at a time: written down in the ledger, for seconds only.

Who has claimed a task claims it again before its time is over; another goes on where it ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Execute = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
"""Runs a statement with a `?` for each value, inside of a transaction; gives its rows."""

LONGEST_CLAIM = 3_600.0
"""Seconds for which a task can be claimed."""


def claim(execute: Execute, task: str, owner: str, seconds: float, now: float) -> bool:
    """Write down that a task is an owner's for so long; False while it is another's.

    `now` is in seconds since 1970, by the clock that all who claim it go by.
    """
    key = f"claim:{task}"
    found = execute("SELECT value FROM settings WHERE key = ?", (key,))
    if found:
        other, until = json.loads(found[0][0])
        # A clock that was put back does not keep a task from everyone.
        if other != owner and now < until < now + LONGEST_CLAIM:
            return False
    execute(
        "INSERT INTO settings (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, json.dumps([owner, now + seconds])),
    )
    return True
