"""Every client of the process, made before or after, whichever SDK sends through it.

The method that a library sends with is wrapped on its class, when the library is
imported. The wrapper asks each time who follows at present, so that switching on and
off is one assignment, whatever other threads are doing.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from costmw.capture.clients import aiohttp, botocore, httpx, requests
from costmw.capture.clients.base import Capture
from costmw.capture.clients.following import Following, FollowingAll

logger = logging.getLogger("costmw")

Wrap = Callable[[Callable[..., Any], FollowingAll], Callable[..., Any]]

_METHODS: dict[str, tuple[tuple[str, str, Wrap], ...]] = {
    "httpx": (
        ("Client", "send", httpx.wrap_sync),
        ("AsyncClient", "send", httpx.wrap_async),
    ),
    "httpx2": (
        ("Client", "send", httpx.wrap_sync),
        ("AsyncClient", "send", httpx.wrap_async),
    ),
    "requests.sessions": (("Session", "send", requests.wrap),),
    "aiohttp.client": (("ClientSession", "_request", aiohttp.wrap),),
    "botocore.httpsession": (("URLLib3Session", "send", botocore.wrap),),
}
"""By module: the class and the method that all its requests go through."""


@dataclass(frozen=True, slots=True)
class _Wrapped:
    owner: type
    name: str
    original: Callable[..., Any]
    wrapper: Callable[..., Any]

    @property
    def is_outermost(self) -> bool:
        return self.owner.__dict__.get(self.name) is self.wrapper


_following: FollowingAll = Following(None)
_wrapped: list[_Wrapped] = []
_lock = threading.RLock()
_hooked = False


def follow_all(capture: Capture) -> None:
    """Follow all clients; whoever followed them before does no more."""
    global _hooked
    import wrapt

    with _lock:
        before = _following.capture
        if before is not None and before.meter is not capture.meter:
            logger.warning("costmw: instrument_all() of a second meter replaces the first one's")
        _following.capture = capture
        if _hooked:
            for module in _METHODS:
                _wrap_module(sys.modules.get(module))
            return
        _hooked = True
    # Calls at once for what is imported already.
    for module in _METHODS:
        wrapt.register_post_import_hook(_wrap_module, module)


def follows_all() -> Capture | None:
    """Who follows all clients of the process at present."""
    return _following.capture


def unfollow_all(meter: object) -> None:
    """Follow no more, where this meter does, and put the libraries' own methods back.

    A wrapper that another tool has wrapped since stays where it is, and does nothing.
    """
    with _lock:
        capture = _following.capture
        if capture is None or capture.meter is not meter:
            return
        _following.capture = None
        for wrapped in list(_wrapped):
            if wrapped.is_outermost:
                setattr(wrapped.owner, wrapped.name, wrapped.original)
            if not _is_ours(getattr(wrapped.owner, wrapped.name)):
                _wrapped.remove(wrapped)


def _wrap_module(module: ModuleType | None) -> None:
    with _lock:
        if module is None or _following.capture is None:
            return
        for class_name, name, wrap in _METHODS[module.__name__]:
            owner = getattr(module, class_name)
            original = getattr(owner, name)
            if _is_ours(original):
                continue
            wrapper = wrap(original, _following)
            setattr(owner, name, wrapper)
            _wrapped.append(_Wrapped(owner, name, original, wrapper))


def _is_ours(method: Any) -> bool:
    """Whether a method is a wrapper of ours, or another tool's around one of ours."""
    ours = [wrapped.wrapper for wrapped in _wrapped]
    while method is not None:
        if method in ours:
            return True
        method = getattr(method, "__wrapped__", None)
    return False
