"""What somebody whom the host knows may see and change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from costmw.dashboard.auth.gate import Principal
from costmw.errors import ConfigError

Allow = Callable[[Any], bool]
Scope = Callable[[Any], Mapping[str, object] | None]
CanEdit = bool | Callable[[Any], bool]


class Rights:
    """Gives the principal that a user of the host's is.

    Args:
        helper: the name of who asks, for errors.
        allow: takes the user, says whether they may see the page.
        scope: takes the user, gives the tags that they are confined to; `{}` confines to
            nothing, None refuses.
        can_edit: whether they may make and change budgets, or what says so of a user.

    Raises:
        ConfigError: when neither `allow` nor `scope` is given, or one cannot be called.
    """

    def __init__(
        self, helper: str, allow: Allow | None, scope: Scope | None, can_edit: CanEdit
    ) -> None:
        if allow is None and scope is None:
            raise ConfigError(
                f"{helper} would let in everyone who is signed in, to see everything: pass "
                "allow=, as in allow=lambda user: user.is_admin, or scope=, as in "
                "scope=lambda user: {'tenant': user.tenant}; for everyone, allow=lambda user: True"
            )
        for name, value in (("allow", allow), ("scope", scope)):
            if value is not None and not callable(value):
                raise ConfigError(f"{helper}: {name}= must be a function that takes the user")
        if not isinstance(can_edit, bool) and not callable(can_edit):
            raise ConfigError(f"{helper}: can_edit= must be True, False or a function")
        self._helper = helper
        self._allow = allow
        self._scope = scope
        self._can_edit = can_edit

    def of(self, user: object) -> Principal | None:
        """The principal of a user who is signed in; None for one who may not see the page.

        Raises:
            ConfigError: when a function gives something else than it must.
        """
        if self._allow is not None and not self._answer("allow", self._allow(user)):
            return None
        scope: object = {} if self._scope is None else self._scope(user)
        if scope is None:
            return None
        if not isinstance(scope, Mapping):
            raise ConfigError(
                f"{self._helper}: scope gave a {type(scope).__name__}; it must give a dict of "
                "tags, or None"
            )
        can_edit = self._can_edit(user) if callable(self._can_edit) else self._can_edit
        return Principal(scope=scope, can_edit=self._answer("can_edit", can_edit))

    def _answer(self, name: str, given: object) -> bool:
        # A method that was not called is true, as much else that is not meant.
        if not isinstance(given, bool):
            raise ConfigError(
                f"{self._helper}: {name} gave a {type(given).__name__}; it must give True or False"
            )
        return given
