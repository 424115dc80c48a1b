"""Who is signed in, asked for as late as Django lets us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from costmw.context import Tags

_LOADED = "_costmw_user"


def user_tags(request: Any) -> Tags:
    """The tag of who is signed in: the user's primary key; none for nobody.

    Raises:
        Exception: what loading the user met.
    """
    user = getattr(request, _LOADED, None)
    if isinstance(user, Exception):
        raise user
    if user is None:
        user = getattr(request, "user", None)
    return {"user": user.pk} if user is not None and user.is_authenticated else {}


# Calls that start in an event loop cannot ask the database for the user any more.


def load_user(request: Any) -> None:
    """Find the user of a request whose calls will start in an event loop; never raises."""
    if _is_to_be_loaded(request, "user"):
        try:
            setattr(request, _LOADED, request.user if request.user.is_authenticated else None)
        except Exception as error:  # noqa: BLE001 - matters only if a call is made
            setattr(request, _LOADED, error)


async def load_user_async(request: Any) -> None:
    """The same, from an event loop."""
    if _is_to_be_loaded(request, "auser"):
        try:
            setattr(request, _LOADED, await request.auser())
        except Exception as error:  # noqa: BLE001 - matters only if a call is made
            setattr(request, _LOADED, error)


def _is_to_be_loaded(request: Any, name: str) -> bool:
    # Without the cookie nobody is signed in, which needs no database.
    has_session = settings.SESSION_COOKIE_NAME in request.COOKIES
    return has_session and hasattr(request, name) and not hasattr(request, _LOADED)
