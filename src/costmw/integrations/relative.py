"""Where a redirect to the page's slash leads, relative: a proxy may have cut a prefix off."""

from __future__ import annotations

from urllib.parse import urlsplit


def relative_to_slash(location: str) -> str:
    """`http://app.test/pre/_llmcost/?range=7d` as `_llmcost/?range=7d`.

    A location that does not end in a slash is given back as it is.
    """
    parts = urlsplit(location)
    if not parts.path.endswith("/"):
        return location
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.path[:-1].rpartition('/')[2]}/{query}"
