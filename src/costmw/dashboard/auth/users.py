"""Who is signed in to the host already: its session decides."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from costmw.dashboard.auth.gate import Auth, Principal, is_async
from costmw.dashboard.auth.rights import Allow, CanEdit, Rights, Scope
from costmw.errors import ConfigError


def signed_in(
    find: Callable[[Any], Any],
    *,
    allow: Allow | None = None,
    scope: Scope | None = None,
    can_edit: CanEdit = False,
) -> Auth:
    """Let in users that the app finds by itself: `signed_in(lambda request: ..., allow=...)`.

    Args:
        find: takes the request and gives the user, or None for nobody; async or not. One whose
            `is_authenticated` or `is_active` is false is nobody, too.
        allow: takes the user, says whether they may see the page.
        scope: takes the user, gives the tags that they are confined to, as
            `lambda user: {"tenant": user.tenant}`; `{}` confines to nothing, None refuses.
        can_edit: whether they may make and change budgets, or what says so of a user.

    Raises:
        ConfigError: when neither `allow` nor `scope` is given, or one cannot be called.
    """
    if not callable(find):
        raise ConfigError("signed_in() needs a function that takes the request and gives a user")
    return _by_user(find, Rights("signed_in()", allow, scope, can_edit))


def starlette_user(
    *, allow: Allow | None = None, scope: Scope | None = None, can_edit: CanEdit = False
) -> Auth:
    """Let in whom Starlette's AuthenticationMiddleware knows, as `request.user`.

    Args and errors are those of `signed_in`.
    """
    return _by_user(_user_of_request, Rights("starlette_user()", allow, scope, can_edit))


def flask_login_user(
    *, allow: Allow | None = None, scope: Scope | None = None, can_edit: CanEdit = False
) -> Auth:
    """Let in whom Flask-Login knows, as `current_user`; for the page as a blueprint.

    Args and errors are those of `signed_in`; also

    Raises:
        ConfigError: when Flask-Login is not installed.
    """
    rights = Rights("flask_login_user()", allow, scope, can_edit)
    try:
        from flask_login import current_user
    except ImportError as error:
        raise ConfigError(
            "flask_login_user() needs Flask-Login: pip install flask-login"
        ) from error

    def find(_: object) -> object:
        # It stands for None where Flask has no request, as in a dispatcher.
        user = current_user._get_current_object()
        if user is None:
            raise ConfigError(
                "flask_login_user() finds no request of Flask: show the page by LLMCost or as a "
                "blueprint, which current_user reaches into"
            )
        return user

    return _by_user(_checked(find), rights)


def django_user(
    *,
    permission: str | None = None,
    allow: Allow | None = None,
    scope: Scope | None = None,
    can_edit: CanEdit = False,
) -> Auth:
    """Let in who is signed in to Django, as `request.user`.

    Args:
        permission: what they must have, as `"billing.view_invoice"`.
        allow: takes the user, says whether they may see the page.
        scope: takes the user, gives the tags that they are confined to, as
            `lambda user: {"tenant": user.tenant}`; `{}` confines to nothing, None refuses.
        can_edit: whether they may make and change budgets, or what says so of a user.

    Raises:
        ConfigError: when there is no `permission`, `allow` or `scope`, or one cannot be used.
    """
    if permission is not None and (
        not isinstance(permission, str) or not all(permission.partition("."))
    ):
        raise ConfigError(
            f"django_user(): permission={permission!r} must be an app's label and a codename, as "
            "'billing.view_invoice'"
        )

    def may(user: Any) -> bool:
        has_it: bool = permission is None or user.has_perm(permission)
        return has_it and (allow is None or allow(user))

    asked = may if permission is not None else allow
    return _by_user(_user_of_request, Rights("django_user()", asked, scope, can_edit))


def _user_of_request(request: Any) -> object:
    return _known(request.user)


def _checked(find: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda request: _known(find(request))


def _known(user: Any, *, unless_told: bool = False) -> object:
    """The user; None for one who is not signed in, or not active any more.

    `unless_told` is whether somebody is signed in who says nothing of it.
    """
    for name, default in (("is_authenticated", unless_told), ("is_active", True)):
        value = getattr(user, name, default)
        if callable(value):
            raise ConfigError(
                f"{name} of {type(user).__name__} is a method, whose answer would be lost: make "
                "it a property"
            )
        if not value:
            return None
    return user


def _by_user(find: Callable[[Any], Any], rights: Rights) -> Auth:
    if is_async(find):

        async def ask_async(request: Any) -> Principal | None:
            found: Awaitable[object] = find(request)
            return _principal_of(await found, rights)

        return ask_async

    return lambda request: _principal_of(find(request), rights)


def _principal_of(user: Any, rights: Rights) -> Principal | None:
    if inspect.isawaitable(user):
        if inspect.iscoroutine(user):
            user.close()
        # It is no user, and would be let in as one.
        raise ConfigError(
            "what finds the user gave something to wait for: pass the async function itself, "
            "and not a function that calls it"
        )
    known = _known(user, unless_told=True) if user else None
    return None if known is None else rights.of(known)
