"""The page, as one view below the path that its URLs are included at."""

from __future__ import annotations

import functools
from dataclasses import replace

from asgiref.sync import async_to_sync
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.db.transaction import non_atomic_requests
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from costmw.dashboard.auth import Gate, Principal, Refusal
from costmw.dashboard.auth.peers import peer_in_environ
from costmw.dashboard.core import Dashboard
from costmw.dashboard.messages import MOST_BODY, WITH_BODY, Request
from costmw.integrations.django.settings import Settings, read_settings


# The page asks for itself who it is, and where a change comes from: its scripts have no token
# of Django's, and those who call its API have no session.
@csrf_exempt
@login_not_required
@non_atomic_requests
def page(request: HttpRequest, path: str) -> HttpResponse:
    """Answer a request to the page, to its files or its API."""
    dashboard = _dashboard_of(read_settings())
    gate = dashboard.gate
    ask = async_to_sync(gate.ask_async) if gate.is_async else gate.ask
    principal = ask(request)
    asked = request_of(request, path)
    if request.method in WITH_BODY and isinstance(principal, Principal):
        asked = replace(asked, body=request.read(MOST_BODY + 1))
    answer = dashboard.handle(asked, principal)
    response = HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
    if "Content-Type" not in answer.headers:
        del response["Content-Type"]
    return response


def request_of(request: HttpRequest, path: str) -> Request:
    """The request as the dashboard sees it; `path` is what follows the place of its URLs."""
    root = request.path.removesuffix(path).removesuffix("/")
    return Request(
        method=request.method or "",
        path=request.path.removeprefix(root),
        query=request.META.get("QUERY_STRING", ""),
        headers={name.lower(): value for name, value in request.headers.items()},
        root=root,
        peer=peer_in_environ(request.META),
    )


class _Gate(Gate):
    """Knows the exceptions that Django's apps refuse by."""

    def refusal_of(self, error: Exception) -> Refusal:
        if isinstance(error, PermissionDenied | Http404):
            return self.denial
        return super().refusal_of(error)


@functools.lru_cache(maxsize=1)
def _dashboard_of(settings: Settings) -> Dashboard:
    dashboard = Dashboard(settings.meter, settings.auth)
    dashboard.gate = _Gate(settings.auth)
    return dashboard
