"""Flask: who asks, and the page as a blueprint."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from costmw.context import Tags
from costmw.errors import BudgetExceeded, MissingExtra
from costmw.integrations.payment_required import payment_required
from costmw.integrations.wsgi import CostMiddleware

try:
    from flask import Blueprint, Flask, Request, Response, has_request_context, request
except ImportError as error:
    raise MissingExtra(package="flask", extra="flask") from error

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from costmw.dashboard.auth import Auth
    from costmw.meter import Meter

URL_PREFIX = "/_llmcost"
"""Where the page is, unless told otherwise."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
"""Those of requests that the page answers by itself, be it to refuse them."""


class LLMCost:
    """Meters a Flask app and shows the page: `LLMCost(app, meter=meter, tags=..., auth=...)`.

    Args:
        app: the app; or leave it out and call `init_app(app)` later.
        meter: where calls are recorded.
        tags: takes Flask's `request` and gives tags. It is asked when an LLM call starts,
            inside the request, so it may use `current_user`, `session` and `g`.
        auth: takes Flask's `request` and gives a `Principal`, or None to refuse. Without
            it the page stays closed.
        url_prefix: where the page is; None for no page.
        explain_refusals: what a `BudgetExceeded` that the app lets pass tells whoever asked.
            The answer is 402 with problem+json, and `Retry-After` where the budget is renewed;
            the budget's name, its scope and amounts are told only if this is True. A handler
            of the app's own, `@app.errorhandler(BudgetExceeded)`, comes first.
        response_headers: add `X-LLM-Cost` (USD of the calls that ended before the response
            began; left out where one is of unknown cost) and `Server-Timing` to responses.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        meter: Meter,
        tags: Callable[[Request], Tags] | None = None,
        auth: Auth | None = None,
        url_prefix: str | None = URL_PREFIX,
        explain_refusals: bool = False,
        response_headers: bool = False,
    ) -> None:
        self.meter = meter
        self.tags = tags
        self.auth = auth
        self.url_prefix = url_prefix
        self.explain_refusals = explain_refusals
        self.response_headers = response_headers
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the middleware, the answer to refused calls and the page to an app."""
        app.extensions["llmcost"] = self
        app.before_request(_keep_request)
        app.after_request(self._keep_tags)
        app.wsgi_app = CostMiddleware(  # type: ignore[method-assign]
            app.wsgi_app,
            self.meter,
            tags=self._tags_of,
            route=_route_of,
            explain_refusals=self.explain_refusals,
            response_headers=self.response_headers,
        )
        if BudgetExceeded not in app.error_handler_spec[None][None]:
            app.register_error_handler(BudgetExceeded, self._refused)
        if self.url_prefix is not None:
            app.register_blueprint(
                dashboard_blueprint(self.meter, auth=self.auth), url_prefix=self.url_prefix
            )

    def _refused(self, refusal: BudgetExceeded) -> Response:
        # Here, since Flask makes a 500 of it before the middleware hears of it.
        answer = payment_required(refusal, explain=self.explain_refusals)
        return Response(answer.body, answer.status, answer.headers)

    def _tags_of(self, environ: WSGIEnvironment) -> Tags:
        found = _request_of(environ)
        if self.tags is None or found is None:
            return {}
        if _TAGS in environ and not _is_current(environ):
            kept: Tags | Exception = environ[_TAGS]
            if isinstance(kept, Exception):
                raise kept
            return kept
        return self.tags(found)

    def _keep_tags(self, response: Response) -> Response:
        # A streamed body runs on when the request's context is gone, and with it
        # `current_user` and `session`: ask now. A file makes no calls.
        asked = self.tags is not None and self.meter.enabled
        if asked and response.is_streamed and not response.direct_passthrough:
            try:
                request.environ[_TAGS] = self._tags_of(request.environ)
            except Exception as error:  # noqa: BLE001 - matters only if the body makes a call
                request.environ[_TAGS] = error
        return response


_REQUEST = "costmw.request"
_TAGS = "costmw.tags"


def _keep_request() -> None:
    # A generator body outlives the request context; the request itself is enough by then.
    request.environ[_REQUEST] = request._get_current_object()  # type: ignore[attr-defined]


def _is_current(environ: WSGIEnvironment) -> bool:
    return has_request_context() and request.environ is environ


def _request_of(environ: WSGIEnvironment) -> Request | None:
    if _is_current(environ):
        _keep_request()
    return environ.get(_REQUEST)


def _route_of(environ: WSGIEnvironment) -> str | None:
    found = _request_of(environ)
    rule = found.url_rule if found is not None else None
    return rule.rule if rule is not None else None


def dashboard_blueprint(
    meter: Meter, auth: Auth | None = None, *, name: str = "llmcost"
) -> Blueprint:
    """The page as a blueprint: `app.register_blueprint(dashboard_blueprint(meter, auth=...),
    url_prefix="/_llmcost")`.

    Args:
        meter: whose store is shown.
        auth: takes Flask's `request` and gives a `Principal`, or None to refuse.
        name: the blueprint's name.
    """
    from costmw.dashboard.wsgi import DashboardWSGI

    page = DashboardWSGI(meter, auth, request_for_auth=lambda environ: request)
    blueprint = Blueprint(name, __name__)

    @blueprint.route("", defaults={"path": ""}, methods=METHODS)
    @blueprint.route("/", defaults={"path": "/"}, methods=METHODS)
    @blueprint.route("/<path:path>", methods=METHODS)
    def serve(path: str) -> Any:
        environ = dict(request.environ)
        # Flask gives the path as text, WSGI its bytes as Latin-1 (PEP 3333).
        inside = ("/" + path.lstrip("/") if path else "").encode().decode("latin-1")
        outside = environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]
        environ["SCRIPT_NAME"] = outside.removesuffix(inside)
        environ["PATH_INFO"] = inside
        return Response.from_app(page, environ)

    return blueprint
