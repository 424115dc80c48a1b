"""Who follows a wrapped client, and which of its requests are part of one that is followed."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from costmw.capture.clients.base import Capture

Who = TypeVar("Who", bound="Capture | None")


class Following(Generic[Who]):
    """Who follows the requests of a wrapped client, or of a class, at present."""

    __slots__ = ("capture",)

    def __init__(self, capture: Who) -> None:
        self.capture = capture


FollowingAll = Following["Capture | None"]


_sending: ContextVar[followed | None] = ContextVar("costmw_sending", default=None)


class followed:  # noqa: N801 - reads as what it says: `with followed(...): send(request)`
    """Send a request that is followed: what is sent for it beneath is no other call.

    That is whatever the same client sends (a redirect), what is sent of the same request,
    and all that goes through a lower library; `level` is the library's. A task that is
    started meanwhile inherits the context, but not for longer than the request takes.
    """

    __slots__ = ("_active", "_client", "_level", "_request", "_token")

    def __init__(self, level: int, client: object, request: object = None) -> None:
        self._level = level
        self._client = client
        self._request = request

    def __enter__(self) -> None:
        self._active = True
        self._token = _sending.set(self)

    def __exit__(self, *error: object) -> None:
        self._active = False
        # Whoever steps the host's coroutine by hand may end it in another context.
        with suppress(ValueError):
            _sending.reset(self._token)

    @staticmethod
    def already(level: int, client: object, request: object = None) -> bool:
        """Whether a request that is to be sent belongs to one that is followed above."""
        above = _sending.get()
        return (
            above is not None
            and above._active
            and (
                level < above._level
                or (client is not None and client is above._client)
                or (request is not None and request is above._request)
            )
        )


HIGH, LOW = 2, 1
"""Levels of libraries: some send through aiohttp, and none of these through another."""
