"""The app: `"costmw.integrations.django"` in INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from costmw.integrations.django.checks import check_middleware, check_settings
from costmw.integrations.django.settings import forget_settings


class CostmwConfig(AppConfig):
    """Registers the checks; the meter starts at the first request or call."""

    name = "costmw.integrations.django"
    label = "costmw"
    verbose_name = "LLM cost"

    def ready(self) -> None:
        """Register what Django calls by itself."""
        checks.register(check_settings)
        checks.register(check_middleware)
        setting_changed.connect(forget_settings, dispatch_uid="costmw")
