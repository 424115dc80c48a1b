"""A refusal for the SDKs that take whatever `send` raises for a connection that failed.

Those that Stainless generates wrap it, and try again. So `send` gives them an answer, which
raises the refusal when they ask it whether all went well; that passes through. One that does
not ask finds a status and a body that say the same, and that it is not to be tried again.
"""

from __future__ import annotations

import functools
import sys
from typing import Any, NoReturn

from costmw.capture.clients.sdk_errors import STATUS
from costmw.errors import BudgetExceeded


def refusing_answer(request: Any, refusal: BudgetExceeded) -> Any:
    """An answer of the library that the request is of, which raises the refusal."""
    kind = {"message": refusal.reason, "type": "budget_exceeded", "code": "budget_exceeded"}
    answer = _answer_class(_library(request))(
        STATUS,
        headers={"x-should-retry": "false"},
        json={"type": "error", "error": kind},
        request=request,
    )
    answer.refusal = refusal
    return answer


class _Refusing:
    refusal: BudgetExceeded

    def raise_for_status(self) -> NoReturn:
        raise self.refusal

    @property
    def is_success(self) -> NoReturn:
        raise self.refusal


@functools.cache
def _answer_class(library: str) -> type[Any]:
    return type("Response", (_Refusing, sys.modules[library].Response), {})


def _library(request: Any) -> str:
    """httpx or httpx2, of which the request's class is, or is derived from."""
    return next(
        cls.__module__.partition(".")[0]
        for cls in type(request).__mro__
        if cls.__name__ == "Request"
    )
