"""What every LLM call in a web app costs, by route, user, tenant and feature."""

from costmw.budgets import Budget
from costmw.capture.decorator import metered
from costmw.config import Config
from costmw.context import bind, carry, tag
from costmw.errors import BudgetExceeded
from costmw.meter import Meter
from costmw.price_overrides import PriceOverride

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "BudgetExceeded",
    "Config",
    "Meter",
    "PriceOverride",
    "bind",
    "carry",
    "metered",
    "tag",
]
