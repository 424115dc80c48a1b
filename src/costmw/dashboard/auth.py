"""Who may see the dashboard: closed unless the app says otherwise.

An `auth` is any callable that takes the request and gives a `Principal`, True for one
that sees everything, or None or False to refuse. Whatever else happens in it, the page
stays closed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hmac
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from costmw.errors import ConfigError

logger = logging.getLogger("costmw")

SHORTEST_TOKEN = 16
"""Characters that a token must have at least."""

SHORTEST_PASSWORD = 8
"""Characters that a password must have at least."""

CHALLENGE = 'Basic realm="costmw", charset="UTF-8"'
"""Asks a browser for a name and a password (RFC 7617)."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who may see the dashboard.

    `scope` are tags that every number shown is confined to, such as
    `{"tenant": "acme"}`; empty for everything. `can_edit` allows changes.

    Raises:
        ConfigError: when a value of the scope is None, which would confine to nothing.
    """

    scope: Mapping[str, str] = field(default_factory=dict)
    can_edit: bool = False

    def __post_init__(self) -> None:
        for key, value in self.scope.items():
            if value is None:
                raise ConfigError(f"the scope of a principal has no value for {key!r}")
        text = {str(key): str(value) for key, value in self.scope.items()}
        object.__setattr__(self, "scope", MappingProxyType(text))


class Refusal(Enum):
    """Why a request is not let in."""

    NOT_SET_UP = "no auth was given"
    NOT_SIGNED_IN = "a name and password are asked for"
    DENIED = "auth refused"
    FAILED = "auth failed"


Answer = Principal | bool | None
Auth = Callable[[Any], Answer | Awaitable[Answer]]
"""Takes the request, says who it is from. An attribute `challenge`, if there is one, is
sent as `WWW-Authenticate` with a refusal."""


class Gate:
    """Asks `auth` about a request and reads its answer; every doubt means closed.

    Args:
        auth: who may come in; None for nobody.
        request_for_auth: makes what `auth` is called with from what `ask` is called with.
    """

    def __init__(
        self, auth: Auth | None, request_for_auth: Callable[[Any], Any] | None = None
    ) -> None:
        self.auth = auth
        self._shape = request_for_auth or (lambda request: request)
        self.is_async = _is_async(auth)
        self.challenge: str | None = getattr(auth, "challenge", None)

    def ask(self, request: object) -> Principal | Refusal:
        """Ask a blocking `auth`."""
        if self.auth is None:
            return Refusal.NOT_SET_UP
        try:
            answer = self.auth(self._shape(request))
            if inspect.iscoroutine(answer):
                answer.close()
            return self._read(answer)
        except Exception as error:  # noqa: BLE001 - the app's callable may raise anything
            return self._read_error(error)

    async def ask_async(self, request: object) -> Principal | Refusal:
        """Ask an `auth` of either kind; a blocking one runs in a thread."""
        if self.auth is None:
            return Refusal.NOT_SET_UP
        try:
            shaped = self._shape(request)
            if self.is_async:
                answer = self.auth(shaped)
            else:
                answer = await asyncio.to_thread(self.auth, shaped)
            return self._read(await answer if inspect.isawaitable(answer) else answer)
        except Exception as error:  # noqa: BLE001 - the app's callable may raise anything
            return self._read_error(error)

    def _read(self, answer: object) -> Principal | Refusal:
        if answer is True:
            return Principal(can_edit=True)
        if answer is None or answer is False:
            return Refusal.NOT_SIGNED_IN if self.challenge else Refusal.DENIED
        if isinstance(answer, Principal):
            return answer
        logger.error(
            "the dashboard stays closed: auth gave a %s; it must give a Principal, True, False "
            "or None%s",
            type(answer).__name__,
            ", and must not be async under WSGI" if inspect.isawaitable(answer) else "",
        )
        return Refusal.FAILED

    def _read_error(self, error: Exception) -> Refusal:
        # Apps often refuse by their framework's own exception, as with abort(403).
        status = getattr(error, "status_code", getattr(error, "code", None))
        if status in (401, 403, 404):
            return Refusal.NOT_SIGNED_IN if self.challenge else Refusal.DENIED
        logger.error("the dashboard stays closed: auth raised an exception", exc_info=error)
        return Refusal.FAILED


def token(secret: str) -> Auth:
    """Let in who knows `secret`: as a bearer token, or as the password in a browser's prompt.

    Raises:
        ConfigError: when the secret is shorter than 16 characters.
    """
    if not isinstance(secret, str) or len(secret) < SHORTEST_TOKEN:
        raise ConfigError(
            f"the dashboard's token must have at least {SHORTEST_TOKEN} characters. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return _Token(secret)


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

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __call__(self, request: Any) -> bool:
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


def _is_async(auth: object) -> bool:
    while isinstance(auth, functools.partial):
        auth = auth.func
    return inspect.iscoroutinefunction(auth) or inspect.iscoroutinefunction(
        getattr(auth, "__call__", None)  # noqa: B004 - an object with an async __call__
    )
