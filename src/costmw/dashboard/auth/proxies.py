"""Whom a reverse proxy has signed in: its word counts if it comes from the proxy itself."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from costmw.dashboard.auth.gate import Auth, Principal
from costmw.dashboard.auth.peers import header_values, peer_of
from costmw.dashboard.auth.rights import Allow, CanEdit, Rights, Scope
from costmw.errors import ConfigError

logger = logging.getLogger("costmw")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
"""Headers that servers and middlewares take the address of a client from; anyone can send them."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class ProxyUser:
    """Who the proxy says it is, and the groups that it says they are in."""

    name: str
    groups: frozenset[str] = frozenset()


def proxy_headers(
    *,
    trusted: Iterable[str],
    user_header: str,
    groups_header: str | None = None,
    allow: Allow | None = None,
    scope: Scope | None = None,
    can_edit: CanEdit = False,
) -> Auth:
    """Let in whom a reverse proxy has signed in, as oauth2-proxy or Authelia do.

    The proxy must set these headers itself in every request, over whatever a client sent.

    Args:
        trusted: the addresses and networks of the proxy, as `["10.0.0.0/8"]`. What counts is
            who the connection is from; where the server has put the address of
            `X-Forwarded-For` in its place, nobody gets in (uvicorn: `--no-proxy-headers`).
        user_header: the header with the user's name, as `"X-Auth-Request-Email"`.
        groups_header: the header with their groups, separated by commas.
        allow: takes a `ProxyUser`, says whether they may see the page.
        scope: takes a `ProxyUser`, gives the tags that they are confined to; `{}` confines to
            nothing, None refuses.
        can_edit: whether they may make and change budgets, or what says so of a `ProxyUser`.

    Raises:
        ConfigError: when one of these cannot be used.
    """
    rights = Rights("proxy_headers()", allow, scope, can_edit)
    networks = _networks(trusted)
    _check_name("user_header", user_header)
    if groups_header is not None:
        _check_name("groups_header", groups_header)

    def ask(request: Any) -> Principal | None:
        doubt = _doubt_about_peer(request, networks)
        if doubt is not None:
            logger.warning("the dashboard stays closed: %s", doubt)
            return None
        names = header_values(request, user_header)
        if not names:
            return None
        # Two values, or one with a comma: one of them may be what a client has sent.
        if len(names) > 1 or "," in names[0] or not names[0].strip() or not names[0].isprintable():
            logger.warning("the dashboard stays closed: %s does not name one user", user_header)
            return None
        return rights.of(ProxyUser(names[0].strip(), _groups(request, groups_header)))

    return ask


def _groups(request: Any, header: str | None) -> frozenset[str]:
    values = header_values(request, header) if header is not None else []
    if len(values) != 1:
        return frozenset()
    return frozenset(group.strip() for group in values[0].split(",") if group.strip())


def _doubt_about_peer(request: Any, networks: list[Network]) -> str | None:
    peer = peer_of(request)
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return (
            "proxy_headers() does not know who the connection is from; the proxy must connect "
            "by TCP"
        )
    address = _plain(address)
    if not any(address in network for network in networks):
        return f"the connection is from {peer}, which is not a trusted proxy of proxy_headers()"
    for name in FORWARDED:
        if any(address in _addresses_in(value) for value in header_values(request, name)):
            return (
                f"the address {peer} may come from the header {name}: let the server keep the "
                "connection's own (uvicorn: --no-proxy-headers)"
            )
    return None


def _addresses_in(value: str) -> Iterator[Address]:
    """The addresses that a header names, with a port or without."""
    for word in re.split(r'[\s,;="\[\]]+', value):
        for text in (word, word.rpartition(":")[0]):
            with contextlib.suppress(ValueError):
                yield _plain(ipaddress.ip_address(text))


def _plain(address: Address) -> Address:
    return getattr(address, "ipv4_mapped", None) or address


def _networks(trusted: Iterable[str]) -> list[Network]:
    given = [trusted] if isinstance(trusted, str) else list(trusted)
    networks: list[Network] = []
    for text in given:
        try:
            networks.append(ipaddress.ip_network(text))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"proxy_headers(): {text!r} in trusted= is no address or network, as "
                f"'10.0.0.0/8': {error}"
            ) from None
        if networks[-1].prefixlen == 0:
            raise ConfigError(
                f"proxy_headers(): {text!r} in trusted= is every address there is, so that "
                "everyone could be the proxy"
            )
    if not networks:
        raise ConfigError("proxy_headers(): trusted= names no proxy; as in trusted=['10.0.0.7']")
    return networks


def _check_name(argument: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"proxy_headers(): {argument}={name!r} is not the name of a header, as "
            "'X-Auth-Request-Email'"
        )
    if name.lower() in FORWARDED:
        raise ConfigError(f"proxy_headers(): {argument}={name!r} says where a request comes from")
