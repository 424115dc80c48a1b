"""Answers that all viewers share: one computation for all who ask the same in 2 seconds."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FRESH = 2.0
"""Seconds for which an answer is given again."""

KEPT_AT_MOST = 64
"""Answers that are kept."""

T = TypeVar("T")


@dataclass(slots=True)
class _Kept(Generic[T]):
    began: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    answer: T | None = None
    error: Exception | None = None
    failed: float = 0.0

    def is_over(self, fresh: float) -> bool:
        """Whether nobody makes it now, and nobody is given it again."""
        return self.began < fresh and not self.lock.locked()


class _OfProcess(Generic[T]):
    """What one process keeps: a child's parent may have been inside of a lock."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()


class Shared(Generic[T]):
    """Makes an answer once for all who ask the same question at about the same time.

    Of those who ask at once, one makes it and the others wait. An answer is given again only
    if it was begun at most `FRESH` seconds before the question came, and an error only to those
    who waited: they would meet it one after the other.
    """

    def __init__(self) -> None:
        self._state: _OfProcess[T] | None = None

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The answer of this key; `make` is called when there is none that is fresh."""
        now = time.monotonic()
        fresh = now - FRESH
        kept = self._kept(key, now)
        with kept.lock:
            if kept.error is not None and now < kept.failed:
                raise kept.error
            if kept.answer is None or kept.began < fresh:
                kept.began, kept.answer, kept.error = time.monotonic(), None, None
                try:
                    kept.answer = make()
                except Exception as error:
                    kept.error, kept.failed = error, time.monotonic()
                    raise
            return kept.answer

    def forget(self) -> None:
        """Have everything made anew: something was changed."""
        self._state = None

    def _kept(self, key: Hashable, now: float) -> _Kept[T]:
        state = self._state
        # Made by the first question: the locks of a server may be replaced after the import.
        if state is None or state.pid != os.getpid():
            state = self._state = _OfProcess()
        with state.lock:
            old = [k for k, one in state.kept.items() if k != key and one.is_over(now - FRESH)]
            for other in old:
                del state.kept[other]
            kept = state.kept.setdefault(key, _Kept(now))
            state.kept.move_to_end(key)
            if len(state.kept) > KEPT_AT_MOST:
                state.kept.popitem(last=False)
            return kept
