"""Asks an app's `auth` about a request, and reads its answer; every doubt means closed."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from costmw.errors import ConfigError

logger = logging.getLogger("costmw")


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
        self.is_async = is_async(auth)
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
            return self.denial
        if isinstance(answer, Principal):
            return answer
        logger.error(
            "the dashboard stays closed: auth gave a %s; it must give a Principal, True, False "
            "or None%s",
            type(answer).__name__,
            ", and must not be async under WSGI" if inspect.isawaitable(answer) else "",
        )
        return Refusal.FAILED

    @property
    def denial(self) -> Refusal:
        """What somebody meets whom `auth` does not let in."""
        return Refusal.NOT_SIGNED_IN if self.challenge else Refusal.DENIED

    def refusal_of(self, error: Exception) -> Refusal:
        """What an exception of `auth` means; apps often refuse by one, as with `abort(403)`."""
        status = getattr(error, "status_code", getattr(error, "code", None))
        return self.denial if status in (401, 403, 404) else Refusal.FAILED

    def _read_error(self, error: Exception) -> Refusal:
        refusal = self.refusal_of(error)
        if refusal is Refusal.FAILED:
            logger.error("the dashboard stays closed: auth raised an exception", exc_info=error)
        return refusal


def is_async(auth: object) -> bool:
    """Whether calling this gives something to wait for."""
    while isinstance(auth, functools.partial):
        auth = auth.func
    return inspect.iscoroutinefunction(auth) or inspect.iscoroutinefunction(
        getattr(auth, "__call__", None)  # noqa: B004 - an object with an async __call__
    )
