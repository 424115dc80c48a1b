"""URLs as they may be shown: without users, passwords, queries."""

from __future__ import annotations

from urllib.parse import urlsplit


def told(url: str) -> str:
    """A URL, or something like one, without what may be secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(not a URL)"
    host = parts.netloc.rpartition("@")[2]
    if not parts.scheme:
        return url.partition("?")[0].rpartition("@")[2]
    return f"{parts.scheme}:{'//' if '//' in url else ''}{host}{parts.path}"


def host_in(text: str) -> str:
    """The host of a URL, or of a text that may be one, in small letters; with its port."""
    try:
        found = urlsplit(text if "//" in text else f"//{text}").netloc
    except ValueError:
        return ""
    return found.rpartition("@")[2].lower()
