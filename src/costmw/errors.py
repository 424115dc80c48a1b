"""The errors of costmw: one small tree.

`BudgetExceeded` is the only one that a host's own LLM call may meet. The others
are raised where something is set up or asked for: by `Meter(...)`, at the first
start, by `record()` and by reports.
"""

from __future__ import annotations


class CostmwError(Exception):
    """Base of every error of this package; never raised itself."""


class ConfigError(CostmwError, ValueError):
    """A setting, budget, price or argument that cannot be used; says which and why."""


class StoreError(CostmwError):
    """The store cannot be opened, read or written; says what to do about it."""


class StoreBusy(StoreError):
    """Another process holds the store for longer than we wait, or its disk is full; passes."""


class StoreUnreachable(StoreBusy):
    """The database cannot be reached now; passes by itself once it is back."""


class MissingExtra(CostmwError, ImportError):
    """An optional package is needed and not installed; names the pip command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed. To enable this: pip install 'costmw[{extra}]'",
            name=package,
        )
        self.package = package
        self.extra = extra


class BudgetExceeded(CostmwError):
    """A blocking budget has no room left for this call; nothing was sent."""
