"""The page in a Django project, over the ledger that STORE names; prints where it listens."""

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import include, path
from werkzeug.serving import make_server

from costmw import Budget
from costmw.dashboard import Principal


def let_in(_: object) -> Principal:
    return Principal(can_edit=True)


BUDGETS = [Budget("all", "100"), Budget("each tenant", "0.20", per="tenant", period="total")]

settings.configure(
    SECRET_KEY="for tests",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["costmw.integrations.django"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],  # adds the slash
    COSTMW={"METER": {"store": os.environ["STORE"], "budgets": BUDGETS}, "AUTH": let_in},
)
django.setup()
urlpatterns = [path("_llmcost/", include("costmw.integrations.django.urls"))]

if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, WSGIHandler(), threaded=True)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
