"""Django: an app for INSTALLED_APPS, a middleware, and the page's URLs.

`COSTMW` in the project's settings says the rest; see `settings`.
"""

from __future__ import annotations

from costmw.errors import MissingExtra

try:
    import django  # noqa: F401 - to say what is missing, before anything else does
except ImportError as error:
    raise MissingExtra(package="django", extra="django") from error

from costmw.integrations.django.settings import get_meter

__all__ = ["get_meter"]
