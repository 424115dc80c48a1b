"""The template of the route that Django found."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.contrib.admindocs.utils import (
    remove_non_capturing_groups,
    replace_metacharacters,
    replace_named_groups,
    replace_unnamed_groups,
)

if TYPE_CHECKING:
    from django.http import HttpRequest

_OF_EXPRESSIONS = frozenset("^$(\\")
_ESCAPED = re.compile(r"\\(\W)")


def route_template(request: HttpRequest) -> str | None:
    """The route with what includes stand before it: `/tickets/<int:id>/summary`.

    Expressions are made plain, as the documentation of Django's admin does: `/archive/<year>/`.
    None before routing, and for paths that no route has.
    """
    match = request.resolver_match
    if match is None:
        return None
    route = match.route
    if not _OF_EXPRESSIONS.isdisjoint(route):
        route = remove_non_capturing_groups(route)
        route = replace_unnamed_groups(replace_named_groups(route))
        route = _ESCAPED.sub(r"\1", replace_metacharacters(route))
    return "/" + route.removeprefix("/")
