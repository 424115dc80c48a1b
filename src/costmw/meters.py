"""The meters of this process, and which of them is meant."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

from costmw import context

if TYPE_CHECKING:
    from costmw.meter import Meter

_meters: weakref.WeakSet[Meter] = weakref.WeakSet()
_newest: weakref.ref[Meter] | None = None


def remember(meter: Meter) -> None:
    """Know a meter, for as long as somebody else does."""
    global _newest
    _newest = weakref.ref(meter)
    _meters.add(meter)


def all_meters() -> list[Meter]:
    """The meters of this process, in no order."""
    return list(_meters)


def current_meter() -> Meter | None:
    """The meter of the current request, or else the one made last."""
    scope = context.current_scope()
    if scope is not None and scope.meter is not None:
        return scope.meter
    return _newest() if _newest is not None else None


def _after_fork_in_child() -> None:
    for meter in all_meters():
        meter.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
