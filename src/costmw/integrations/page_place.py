"""Where the page stands beside an application."""

from __future__ import annotations

from costmw.errors import ConfigError


def place_of_page(path: str) -> str:
    """The path without a slash at its end.

    Raises:
        ConfigError: when it does not begin with a slash, or is nothing else.
    """
    place = path.rstrip("/")
    if not place.startswith("/"):
        raise ConfigError(f"the page cannot be at {path!r}; name a path, as /_llmcost")
    return place
