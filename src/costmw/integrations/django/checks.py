"""What `manage.py check` says of the set-up."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's name
from django.utils.module_loading import import_string

from costmw.integrations.django.settings import find_problems

MIDDLEWARE = "costmw.integrations.django.middleware.CostMiddleware"


def check_settings(**_: Any) -> list[CheckMessage]:
    """Say what of `COSTMW` cannot be used."""
    return [
        Error(str(problem), hint=hint, obj="settings.COSTMW", id="costmw.E001")
        for problem, hint in find_problems()
    ]


def check_middleware(**_: Any) -> list[CheckMessage]:
    """Say so when no request would be bound to its calls."""
    from costmw.integrations.django.middleware import CostMiddleware

    for path in settings.MIDDLEWARE:
        try:
            found = import_string(path)
        except ImportError:  # which Django says itself
            continue
        if isinstance(found, type) and issubclass(found, CostMiddleware):
            return []
    return [
        Warning(
            "CostMiddleware is not in MIDDLEWARE: calls have no route and no user, and bind() "
            "does nothing.",
            hint=f"Put {MIDDLEWARE!r} first in MIDDLEWARE.",
            obj="settings.MIDDLEWARE",
            id="costmw.W001",
        )
    ]
