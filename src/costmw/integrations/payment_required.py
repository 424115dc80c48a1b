"""What a web request is answered when the app lets a refused LLM call pass: 402.

A problem in JSON (RFC 9457), the same for every web framework. What a budget holds is the
app's business, and not always that of whoever asked: amounts, the budget's name and its scope
are told only where the app says so.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from costmw.errors import BudgetExceeded
from costmw.money import format_usd, to_pico

TYPE = "urn:costmw:budget-exceeded"
"""The problem's type, which tells it from other answers with this status."""


@dataclass(frozen=True, slots=True)
class PaymentRequired:
    """The answer: its headers and its body."""

    headers: dict[str, str]
    body: bytes
    status: int = HTTPStatus.PAYMENT_REQUIRED.value


def payment_required(refusal: BudgetExceeded, *, explain: bool) -> PaymentRequired:
    """The answer to a request of which a call was refused.

    Args:
        refusal: why.
        explain: tell the budget, its scope and amounts in USD, too.
    """
    problem: dict[str, object] = {
        "type": TYPE,
        "title": "Budget exceeded",
        "status": HTTPStatus.PAYMENT_REQUIRED.value,
        "detail": refusal.reason if explain else brief(refusal),
    }
    if explain:
        problem |= {
            "budget": refusal.budget,
            "scope": refusal.scope,
            "limit_usd": format_usd(to_pico(refusal.limit)),
            "spent_usd": format_usd(to_pico(refusal.spent)),
            "held_usd": format_usd(to_pico(refusal.held)),
            "asked_usd": None if refusal.asked is None else format_usd(to_pico(refusal.asked)),
        }
    headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
    if refusal.resets_at is not None:
        problem["resets_at"] = _in_utc(refusal.resets_at)
        headers["Retry-After"] = str(seconds_until(refusal.resets_at))
    body = json.dumps(problem, ensure_ascii=False).encode()
    headers["Content-Length"] = str(len(body))
    return PaymentRequired(headers, body)


def refusal_in(error: BaseException) -> BudgetExceeded | None:
    """The refusal that an error is, or a group of nothing else; None for all other errors."""
    if isinstance(error, BudgetExceeded):
        return error
    if isinstance(error, BaseExceptionGroup):
        found = [refusal_in(inner) for inner in error.exceptions]
        return found[0] if None not in found else None
    return None


def brief(refusal: BudgetExceeded) -> str:
    """What may be told to everyone: no name, no amount."""
    if refusal.asked is None:
        return "A budget for language models does not allow this call."
    said = "This would cost more than what is left of a budget for language models."
    if refusal.resets_at is None:
        return said
    return f"{said} It is renewed at {_in_utc(refusal.resets_at)}."


def seconds_until(at: datetime) -> int:
    """How long it is until then, in seconds; 0 when it has passed."""
    return max(0, math.ceil((at - datetime.now(UTC)).total_seconds()))


def _in_utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
