"""The page's URLs: `path("_llmcost/", include("costmw.integrations.django.urls"))`."""

from __future__ import annotations

from django.urls import re_path

from costmw.integrations.django.views import page

app_name = "costmw"
urlpatterns = [re_path(r"^(?P<path>.*)$", page, name="page")]
