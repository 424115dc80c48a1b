"""Where in an app the middleware is, found without importing a framework.

An app is a chain of objects that hold the next one, with branches where others are
mounted. Every name below is an attribute that some framework keeps the next one under.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costmw.meter import Meter

INSIDE = (
    "app",
    "wsgi_app",
    "asgi_app",
    "application",
    "wsgi_application",
    "other_asgi_app",
    # Django's handlers and middlewares, and what asgiref puts between sync and async ones.
    "_middleware_chain",
    "get_response",
    "func",
    "awaitable",
)
"""Attributes that hold the application behind a wrapper."""

DEEPEST = 50

_PAGES_OF_FASTAPI = {"openapi", "swagger_ui_html", "swagger_ui_redirect", "redoc_html"}


@dataclass(frozen=True, slots=True)
class Bound:
    """One CostMiddleware: `around` says how many others are around it, `mounted` whether
    it is behind a mount, and so around a part of the app only."""

    meter: Meter | None
    around: int
    mounted: bool


def find_middlewares(app: object) -> list[Bound]:
    """Every CostMiddleware of an app, the outermost first."""
    return list(_look(app, 0, False, set(), 0))


def has_own_routes(app: object) -> bool:
    """Whether an app answers by itself, and not only through what is mounted in it."""
    for _ in range(DEEPEST):
        routes = _get(app, "routes")
        if isinstance(routes, list):
            return any(
                not _is_mount(route) and _get(route, "name") not in _PAGES_OF_FASTAPI
                for route in routes
            )
        app = _get(app, "app")
    return True


def _look(node: Any, around: int, mounted: bool, seen: set[int], depth: int) -> Iterator[Bound]:
    if node is None or id(node) in seen or depth > DEEPEST:
        return
    seen.add(id(node))
    if _is_middleware(type(node)):
        yield Bound(_get(node, "meter"), around, mounted)
        around += 1
    declared = _get(node, "user_middleware")
    for one in declared if isinstance(declared, list) else ():
        cls = _get(one, "cls")
        if isinstance(cls, type) and _is_middleware(cls):
            args, options = _get(one, "args") or (), _get(one, "kwargs") or {}
            yield Bound(options.get("meter", args[0] if args else None), around, mounted)
            around += 1
    for inside, is_mount in _inside(node):
        yield from _look(inside, around, mounted or is_mount, seen, depth + 1)


def _inside(node: Any) -> Iterator[tuple[Any, bool]]:
    """What is behind an object, and whether only a part of the paths leads there."""
    if isinstance(node, MethodType):
        return
    if isinstance(node, FunctionType):
        for cell in node.__closure__ or ():
            try:
                held = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if callable(held) and not isinstance(held, type):
                yield held, False
        return
    for name in INSIDE:
        yield _get(node, name), False
    mounts = _get(node, "mounts")
    if isinstance(mounts, dict):
        yield from ((mount, True) for mount in mounts.values())
    routes = _get(node, "routes")
    if isinstance(routes, list):
        yield from ((_get(route, "app"), True) for route in routes if _is_mount(route))


def _is_middleware(cls: type) -> bool:
    return any(
        base.__name__ == "CostMiddleware" and base.__module__.startswith("costmw.integrations.")
        for base in cls.__mro__
    )


def _is_mount(route: Any) -> bool:
    return any(base.__name__ in ("Mount", "Host") for base in type(route).__mro__)


def _get(target: Any, name: str) -> Any:
    try:
        return getattr(target, name, None)
    except Exception:  # noqa: BLE001 - a property of the app's, which may raise anything
        return None
