"""What makes a thread may change: under gevent, threads are greenlets that take turns.

`gevent.monkey` puts greenlets in the place of threads, often after this package is
imported: a gunicorn worker does it when the app is loaded already. Two things follow.
A lock that was made before blocks all greenlets, where one made after lets others go on.
And what blocks in the system, as a file's lock does, stops all of them at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class MadeLate(Generic[T]):
    """An attribute that is made when it is first used, once, whoever uses it at one time.

    `make` is `lambda: threading.Lock()`: `threading.Lock` itself is what it is now.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> T:
        made: T = instance.__dict__.setdefault(self._name, self._make())
        return made

    @staticmethod
    def forget(instance: Any, *names: str) -> None:
        """Have the next use of these attributes make others."""
        for name in names:
            instance.__dict__.pop(name, None)


def in_a_thread(work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Do something that blocks, in a thread of the system where threads are greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return work(*args, **kwargs)
    from gevent import get_hub

    def outcome() -> tuple[Any, BaseException | None]:
        # What a thread of gevent's own raises is printed as well.
        try:
            return work(*args, **kwargs), None
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            return None, error

    done, error = get_hub().threadpool.apply(outcome)
    if error is not None:
        raise error
    result: R = done
    return result
