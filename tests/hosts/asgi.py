"""The page in ASGI apps."""

from __future__ import annotations

from typing import Any

import quart
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette
from starlette.routing import Mount

from costmw import Meter
from costmw.dashboard import DashboardASGI
from costmw.dashboard.auth import Auth
from costmw.integrations import asgi
from costmw.integrations.starlette import CostMiddleware, dashboard_app


def fastapi_mount(meter: Meter, auth: Auth) -> Any:
    app = FastAPI()
    app.add_middleware(CostMiddleware, meter=meter)
    app.mount("/_llmcost", dashboard_app(meter, auth=auth))
    return app


def starlette_nested(meter: Meter, auth: Auth) -> Any:
    inner = Starlette(routes=[Mount("/_llmcost", app=dashboard_app(meter, auth=auth))])
    app = Starlette(routes=[Mount("/admin", app=inner)])
    app.add_middleware(CostMiddleware, meter=meter)
    return app


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body"})


def plain(meter: Meter, auth: Auth) -> Any:
    return asgi.with_page(asgi.CostMiddleware(_nothing, meter), meter, auth=auth)


def litestar(meter: Meter, auth: Auth) -> Any:
    return asgi.with_page(
        asgi.CostMiddleware(Litestar(logging_config=None), meter), meter, auth=auth
    )


def quart_app(meter: Meter, auth: Auth) -> Any:
    app = quart.Quart(__name__)
    metered = asgi.CostMiddleware(app.asgi_app, meter)
    app.asgi_app = asgi.with_page(metered, meter, auth=auth)  # type: ignore[method-assign]
    return app


def alone(meter: Meter, auth: Auth) -> Any:
    return DashboardASGI(meter, auth)
