"""Hosts as every library is understood to write them: one form for each."""

from __future__ import annotations

import re

from costmw.errors import ConfigError

_PATTERN = re.compile(r"\.?[^\s/?#@\\:\[\]]+(?::\d+)?|\[[0-9a-f:.]+\](?::\d+)?")


def normal_host(host: str) -> str:
    """A host in lower case, without a dot at its end or a usual port, names in ASCII (IDNA).

    An IPv6 address stands in brackets: `[::1]:8000`.
    """
    host = host.lower()
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    name, colon, port = host, "", ""
    if not host.endswith("]"):
        name, colon, port = host.rpartition(":") if ":" in host else (host, "", "")
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return host
    name = name.rstrip(".")
    return name if port in ("", "80", "443") else f"{name}{colon}{port}"


def own_host(host: str) -> str:
    """A host of the user's, in its normal form; `.internal` and `*.llm.internal` are patterns.

    Raises:
        ConfigError: when it is a URL, or no host at all.
    """
    normal = normal_host(host.strip())
    if not _PATTERN.fullmatch(normal):
        shown = "a URL with a user" if "@" in host else repr(host)
        raise ConfigError(
            f"hosts has {shown}; use a host such as 'llm.internal', 'llm.internal:8000' or "
            "'.internal', without a scheme or path"
        )
    return normal
