"""The page in a Django project, for WSGI and ASGI servers."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.urls import include, path

from costmw.dashboard.auth import token

settings.configure(
    SECRET_KEY="for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["costmw.integrations.django"],
    MIDDLEWARE=[
        "costmw.integrations.django.middleware.CostMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    COSTMW={"AUTH": token(os.environ["LLMCOST_TOKEN"])},
    USE_TZ=True,
)
django.setup()

urlpatterns = [path("_llmcost/", include("costmw.integrations.django.urls"))]

wsgi = WSGIHandler()
asgi = ASGIHandler()
