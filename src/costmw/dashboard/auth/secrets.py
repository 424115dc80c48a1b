"""Who knows a secret, or comes by the browser's own prompt; and everyone."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from typing import Any

from costmw.dashboard.auth.gate import Auth, Principal
from costmw.errors import ConfigError

logger = logging.getLogger("costmw")

SHORTEST_TOKEN = 16
"""Characters that a token must have at least."""

SHORTEST_PASSWORD = 8
"""Characters that a password must have at least."""

CHALLENGE = 'Basic realm="costmw", charset="UTF-8"'
"""Asks a browser for a name and a password (RFC 7617)."""


def token(secret: str, *, can_edit: bool = True) -> Auth:
    """Let in who knows `secret`: as a bearer token, or as the password in a browser's prompt.

    Args:
        secret: at least 16 characters.
        can_edit: whether they may make and change budgets.

    Raises:
        ConfigError: when the secret is shorter than 16 characters.
    """
    if not isinstance(secret, str) or len(secret) < SHORTEST_TOKEN:
        raise ConfigError(
            f"the dashboard's token must have at least {SHORTEST_TOKEN} characters. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return _Token(secret, can_edit)


def basic(username: str, password: str) -> Auth:
    """Let in one user, by the browser's own prompt.

    Raises:
        ConfigError: when there is no name, it has a colon, or the password is too short.
    """
    if not isinstance(username, str) or not username or ":" in username:
        raise ConfigError("basic() needs a username, without a colon")
    if not isinstance(password, str) or len(password) < SHORTEST_PASSWORD:
        raise ConfigError(
            f"the dashboard's password must have at least {SHORTEST_PASSWORD} characters"
        )
    return _Basic(username, password)


def anonymous() -> Auth:
    """Let everyone in, to look; for development on one's own machine. Logs a warning."""
    logger.warning(
        "the dashboard is open to everyone who reaches this server: auth=anonymous() is for "
        "development only"
    )
    return _everyone


def is_anonymous(auth: object) -> bool:
    """Whether this is what `anonymous()` gives."""
    return auth is _everyone


def _everyone(request: object) -> Principal:
    return Principal()


class _Token:
    challenge = CHALLENGE

    def __init__(self, secret: str, can_edit: bool) -> None:
        self._secret = secret.encode()
        self._principal = Principal(can_edit=can_edit)

    def __call__(self, request: Any) -> Principal | None:
        return self._principal if self._knows(request) else None

    def _knows(self, request: Any) -> bool:
        scheme, credentials = _authorization(request)
        if scheme == "bearer":
            return hmac.compare_digest(credentials.encode(), self._secret)
        if scheme == "basic":
            _, password = _name_and_password(credentials)
            return hmac.compare_digest(password, self._secret)
        return False


class _Basic:
    challenge = CHALLENGE

    def __init__(self, username: str, password: str) -> None:
        self._username = username.encode()
        self._password = password.encode()

    def __call__(self, request: Any) -> bool:
        scheme, credentials = _authorization(request)
        if scheme != "basic":
            return False
        name, password = _name_and_password(credentials)
        # Both are compared always, so that the time taken tells nothing of the name.
        is_name = hmac.compare_digest(name, self._username)
        return hmac.compare_digest(password, self._password) and is_name


def _authorization(request: Any) -> tuple[str, str]:
    header: str = request.headers.get("authorization") or ""
    scheme, _, credentials = header.partition(" ")
    return scheme.lower(), credentials.strip()


def _name_and_password(credentials: str) -> tuple[bytes, bytes]:
    try:
        text = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return b"", b""
    name, _, password = text.partition(b":")
    return name, password
