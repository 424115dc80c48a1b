"""The errors of costmw: one small tree.

`BudgetExceeded` is the only one that a host's own LLM call may meet. The others
are raised where something is set up or asked for: by `Meter(...)`, at the first
start, by `record()` and by reports.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any


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
    """A blocking budget has no room left for this call; nothing was sent, nothing is billed.

    `budget` is its name, and `scope` the tags that this limit of it is for: empty for a budget
    that is not split. Amounts are in USD: `limit` is the limit, `spent` what is used up of it,
    `held` what calls in flight may still cost, `asked` what this call may cost at most (None
    when nothing bounds it). `resets_at` is when the budget's period ends, None for one that
    never does. `reason` says it in a sentence.
    """

    def __init__(
        self,
        reason: str,
        *,
        budget: str,
        scope: Mapping[str, str],
        limit: Decimal,
        spent: Decimal,
        held: Decimal,
        asked: Decimal | None,
        resets_at: datetime | None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.budget = budget
        self.scope = dict(scope)
        self.limit = limit
        self.spent = spent
        self.held = held
        self.asked = asked
        self.resets_at = resets_at

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are copied and pickled by their positional arguments otherwise.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]
