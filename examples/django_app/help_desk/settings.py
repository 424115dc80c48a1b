from __future__ import annotations

import os

from django.core.management.utils import get_random_secret_key

from costmw import Budget
from costmw.dashboard.auth import token

SECRET_KEY = os.environ.get("SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "help_desk.urls"
INSTALLED_APPS = ["costmw.integrations.django"]
MIDDLEWARE = [
    "costmw.integrations.django.middleware.CostMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "help_desk.people.identify",
]
USE_TZ = True

COSTMW = {
    "METER": {
        "store": os.environ.get("COSTMW_STORE", "sqlite:///llmcost.db"),
        "tags": {"environment": os.environ.get("APP_ENV", "development")},
        "budgets": [
            Budget("all of the app", "200", period="month"),
            Budget("each tenant", "80", per="tenant", period="month", action="block"),
        ],
    },
    "TAGS": "help_desk.people.tags_of",
    "AUTH": token(os.environ["LLMCOST_TOKEN"]) if "LLMCOST_TOKEN" in os.environ else None,
}
