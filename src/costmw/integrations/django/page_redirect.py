"""Django's redirect to the page's slash, made relative: a proxy may have cut a prefix off."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from django.urls import Resolver404, resolve

from costmw.integrations.django.views import page
from costmw.integrations.relative import relative_to_slash

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase


def made_relative(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response; one that leads from `/_llmcost` to `/_llmcost/` does so relatively."""
    moved = response.status_code == HTTPStatus.MOVED_PERMANENTLY
    if moved and not request.path_info.endswith("/") and _is_before_page(request):
        response.headers["Location"] = relative_to_slash(response.headers["Location"])
    return response


def _is_before_page(request: HttpRequest) -> bool:
    try:
        found = resolve(request.path_info + "/", getattr(request, "urlconf", None))
    except Resolver404:
        return False
    return found.func is page and not found.kwargs["path"]
