"""The dashboard without a framework: a request comes in, a response goes out.

Everything here blocks (it reads the store); the ASGI adapter runs it in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from costmw.dashboard import assets
from costmw.dashboard.api import Ask, allowed, operations_at
from costmw.dashboard.auth import Auth, Gate, Principal, Refusal
from costmw.dashboard.cursors import Secret
from costmw.dashboard.headers import completed, is_followed_link, is_from_elsewhere
from costmw.dashboard.messages import Request, Response
from costmw.dashboard.monthly import report
from costmw.dashboard.parameters import Parameters
from costmw.dashboard.problems import HttpProblem, problem
from costmw.dashboard.questions import Questions
from costmw.dashboard.refusals import refused
from costmw.dashboard.responses import Told
from costmw.dashboard.shared import Shared
from costmw.errors import ConfigError, StoreBusy, StoreError

if TYPE_CHECKING:
    from costmw.meter import Meter

__all__ = ["Dashboard", "Request", "Response"]

logger = logging.getLogger("costmw")


class Dashboard:
    """Answers requests about one meter, from whoever `auth` lets in.

    An adapter asks `gate` who a request is from, then hands both to `handle`.

    Args:
        meter: the meter whose store is shown.
        auth: says who a request is from; None keeps the page closed. See `auth.Auth`.
        request_for_auth: makes what `auth` is called with from what the adapter has.
    """

    def __init__(
        self,
        meter: Meter,
        auth: Auth | None = None,
        request_for_auth: Callable[[Any], Any] | None = None,
    ) -> None:
        self.meter = meter
        self.gate = Gate(auth, request_for_auth)
        self._shared: Shared[Told] = Shared()
        self._secret = Secret(lambda: meter.store.fingerprint_key())

    def handle(self, request: Request, principal: Principal | Refusal) -> Response:
        """Answer a request; never raises."""
        return completed(request, self._answer(request, principal))

    def _answer(self, request: Request, principal: Principal | Refusal) -> Response:
        try:
            if isinstance(principal, Refusal):
                return refused(request, principal, self.gate.challenge)
            return self._route(request, principal)
        except HttpProblem as error:
            return error.response
        except ConfigError as error:
            return problem(400, f"{error}.")
        except StoreError as error:
            return self._unreadable(error, principal)
        except Exception:
            logger.exception("the dashboard could not answer %s", request.path)
            return problem(500, "An error inside costmw; the app's log has the details.")

    def _route(self, request: Request, principal: Principal) -> Response:
        path = request.path.split("/")[1:]
        questions = Questions(self.meter, principal, self._secret)
        if path[:2] == ["api", "v1"] and path[2:]:
            return self._api(request, path[2:], questions)
        if request.method not in ("GET", "HEAD"):
            return _not_allowed("GET, HEAD")
        match path:
            case [] if request.root.rstrip("/"):
                return _to_the_slash(request)
            case [] | [""]:
                return assets.load().page_response()
            case ["static", digest, *name]:
                return assets.load().response(digest, "/".join(name)) or _not_found()
            case ["report"]:
                if not is_followed_link(request):
                    _check_elsewhere(request)
                return report(request, questions)
        return _not_found()

    def _api(self, request: Request, path: list[str], questions: Questions) -> Response:
        _check_elsewhere(request)
        operations, name = operations_at(path)
        if not operations:
            raise HttpProblem(404, _NOT_FOUND)
        operation = operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            return _not_allowed(allowed(operations))
        parameters = Parameters(request.query)
        return operation.handle(Ask(request, questions, self._shared, parameters, name))

    def _unreadable(self, error: StoreError, principal: Principal | Refusal) -> Response:
        logger.warning("the dashboard cannot read the store: %s", error)
        # What the error names (files, hosts) is for those only who may see everything.
        sees_all = isinstance(principal, Principal) and not principal.scope
        detail = str(error) if sees_all else "The store cannot be read; the app's log says why."
        return problem(503, detail, {"Retry-After": "5" if isinstance(error, StoreBusy) else "60"})


def _to_the_slash(request: Request) -> Response:
    """Redirect `/_llmcost` to `/_llmcost/`, relative: a proxy may have cut a prefix off."""
    segment = request.root.rstrip("/").rpartition("/")[2]
    query = f"?{quote(request.query, safe='%=&+-._~/:@,;!*()')}" if request.query else ""
    location = f"{quote(segment, safe='')}/{query}"
    headers = {"Location": location, "Content-Type": "text/plain; charset=utf-8"}
    return Response(307, headers, f"See {location}\n".encode())


_NOT_FOUND = "There is nothing here; the dashboard is at the path it is mounted at."


def _not_found() -> Response:
    return problem(404, _NOT_FOUND)


def _not_allowed(methods: str) -> Response:
    return problem(405, f"Only {methods} are allowed.", {"Allow": methods})


def _check_elsewhere(request: Request) -> None:
    """Answer no page of another origin.

    Raises:
        HttpProblem: 403, to such a page.
    """
    if is_from_elsewhere(request):
        raise HttpProblem(403, "Only pages of this origin may ask: open the dashboard.")
