"""The page in WSGI apps, as gunicorn loads them: `tests.hosts.wsgi:blueprint`."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from costmw import Meter
from costmw.dashboard import DashboardWSGI
from costmw.dashboard.auth import token
from costmw.integrations import wsgi
from costmw.integrations.flask import LLMCost

meter = Meter()
auth = token(os.environ["LLMCOST_TOKEN"])

blueprint = Flask(__name__)
LLMCost(blueprint, meter=meter, auth=auth)

dispatched = DispatcherMiddleware(Flask(__name__), {"/_llmcost": DashboardWSGI(meter, auth)})


def _nothing(environ: Any, start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [])
    return []


plain = wsgi.with_page(wsgi.CostMiddleware(_nothing, meter), meter, auth=auth)
