"""Asks a dashboard without any server, for tests of what it answers."""

from __future__ import annotations

import json
from typing import Any

from costmw import Meter
from costmw.dashboard import Principal
from costmw.dashboard.core import Dashboard, Request, Response

EDITOR = Principal(can_edit=True)


class Client:
    """One reader of one dashboard; `headers` go with every request."""

    def __init__(
        self, dashboard: Dashboard | Meter, principal: Principal = EDITOR, **headers: str
    ) -> None:
        self.dashboard = Dashboard(dashboard) if isinstance(dashboard, Meter) else dashboard
        self.principal = principal
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """Anything, by its path below the mount."""
        path, _, query = path.partition("?")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(
            method, f"/{path}", query, {**self.headers, **named}, "/_llmcost", body=body
        )
        return self.dashboard.handle(request, self.principal)

    def api(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> Response:
        """Something of the API."""
        return self.ask(f"api/v1/{path}", method, body, **headers)

    def read(self, path: str) -> Any:
        """What the API answers, which has to be a success."""
        response = self.api(path)
        assert response.status == 200, response.body
        return json.loads(response.body)

    def put(self, name: str, budget: object, **headers: str) -> Response:
        """Send a budget, as the page does it."""
        allowed = {"sec_fetch_site": "same-origin", "content_type": "application/json", **headers}
        body = budget if isinstance(budget, bytes) else json.dumps(budget).encode()
        return self.api(f"budgets/{name}", "PUT", body, **allowed)

    def drop(self, name: str) -> Response:
        """Take a budget away, as the page does it."""
        return self.api(f"budgets/{name}", "DELETE", sec_fetch_site="same-origin")
