"""Who calls, by their API key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse


@dataclass(frozen=True)
class Person:
    name: str
    tenant: str


# A real app looks them up in its database.
PEOPLE = {
    "key-ann": Person("ann", "acme"),
    "key-bob": Person("bob", "acme"),
    "key-cho": Person("cho", "globex"),
    "key-dee": Person("dee", "initech"),
}


def identify(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[..., HttpResponse]:
    """Let in who has a key; the page at /_llmcost asks for itself."""

    def answer(request: Any) -> HttpResponse:
        if not request.path_info.startswith("/_llmcost"):
            key = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if key not in PEOPLE:
                return HttpResponse("unknown API key", status=401)
            request.person = PEOPLE[key]
        return get_response(request)

    return answer


def tags_of(request: Any) -> dict[str, str]:
    """The tags of the LLM calls of a request."""
    return {"user": request.person.name, "tenant": request.person.tenant}
