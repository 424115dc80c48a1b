"""What every LLM call in a web app costs, by route, user, tenant and feature."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costmw.budgets import Budget as Budget
    from costmw.capture.decorator import metered as metered
    from costmw.config import Config as Config
    from costmw.context import bind as bind
    from costmw.context import carry as carry
    from costmw.context import tag as tag
    from costmw.errors import BudgetExceeded as BudgetExceeded
    from costmw.meter import Meter as Meter
    from costmw.price_overrides import PriceOverride as PriceOverride

__version__ = "0.1.0"

# What is not asked for is not loaded: who only tags calls does not wait for the meter.
_MODULES = {
    "Budget": "costmw.budgets",
    "BudgetExceeded": "costmw.errors",
    "Config": "costmw.config",
    "Meter": "costmw.meter",
    "PriceOverride": "costmw.price_overrides",
    "bind": "costmw.context",
    "carry": "costmw.context",
    "metered": "costmw.capture.decorator",
    "tag": "costmw.context",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'costmw' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
