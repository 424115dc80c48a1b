"""The dashboard without a framework: a request comes in, a response goes out.

Everything here blocks (it reads the store); the ASGI adapter runs it in a thread.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote
from uuid import UUID

from costmw.dashboard import assets
from costmw.dashboard.auth import Auth, Gate, Principal, Refusal
from costmw.dashboard.headers import REVALIDATE, completed, is_from_elsewhere
from costmw.dashboard.messages import Request, Response
from costmw.dashboard.problems import HttpProblem, problem
from costmw.dashboard.questions import Questions
from costmw.dashboard.refusals import refused
from costmw.errors import StoreBusy, StoreError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from costmw.meter import Meter

__all__ = ["Dashboard", "Request", "Response"]

logger = logging.getLogger("costmw")

MOST_CALLS = 200
"""Calls in one answer at most."""

LONGEST_TAG_KEY = 64


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

    def handle(self, request: Request, principal: Principal | Refusal) -> Response:
        """Answer a request; never raises."""
        return completed(request, self._answer(request, principal))

    def _answer(self, request: Request, principal: Principal | Refusal) -> Response:
        try:
            if isinstance(principal, Refusal):
                return refused(request, principal, self.gate.challenge)
            if request.method not in ("GET", "HEAD"):
                return problem(405, "Only GET and HEAD are allowed.", {"Allow": "GET, HEAD"})
            return self._route(request, principal)
        except HttpProblem as error:
            return error.response
        except StoreError as error:
            return self._unreadable(error, principal)
        except Exception:
            logger.exception("the dashboard could not answer %s", request.path)
            return problem(500, "An error inside costmw; the app's log has the details.")

    def _route(self, request: Request, principal: Principal) -> Response:
        match request.path.split("/")[1:]:
            case [] if request.root.rstrip("/"):
                return _to_the_slash(request)
            case [] | [""]:
                return assets.load().page_response()
            case ["static", digest, *name]:
                return assets.load().response(digest, "/".join(name)) or _not_found()
            case ["api", "v1", *path]:
                if is_from_elsewhere(request):
                    return problem(403, "Only pages of this origin may ask: open the dashboard.")
                return self._api(request, path, Questions(self.meter, principal))
        return _not_found()

    def _api(self, request: Request, path: list[str], questions: Questions) -> Response:
        parameters = _parameters(request.query)
        match path:
            case ["overview"]:
                return _overview(request, parameters, questions)
            case ["calls"]:
                limit = _whole(parameters, "limit", MOST_CALLS) or 50
                return _json(questions.calls(limit, _whole(parameters, "before", 2**62)))
            case ["calls", text]:
                call = questions.call(_uuid(text))
                if call is None:
                    return problem(404, "There is no such call, or not for you.")
                return _json(call)
            case ["status"]:
                return _json(questions.status(), exclude={"meter": {"store"}})
        return _not_found()

    def _unreadable(self, error: StoreError, principal: Principal | Refusal) -> Response:
        logger.warning("the dashboard cannot read the store: %s", error)
        # What the error names (files, hosts) is for those only who may see everything.
        sees_all = isinstance(principal, Principal) and not principal.scope
        detail = str(error) if sees_all else "The store cannot be read; the app's log says why."
        return problem(503, detail, {"Retry-After": "5" if isinstance(error, StoreBusy) else "60"})


def _overview(request: Request, parameters: Mapping[str, str], questions: Questions) -> Response:
    tag = parameters.get("tag") or "feature"
    if len(tag) > LONGEST_TAG_KEY:
        raise HttpProblem(400, f"tag must be a tag's key, at most {LONGEST_TAG_KEY} characters.")
    etag = _etag(tag, questions.version(datetime.now(UTC)))
    if etag in _etags(request.headers.get("if-none-match", "")):
        return Response(304, {"ETag": etag, "Cache-Control": REVALIDATE})
    overview = questions.overview(tag)
    # Calls may have come in between: the tag is that of what is sent.
    etag = _etag(tag, questions.version(overview.generated_at, overview.position))
    return _json(overview, {"ETag": etag})


def _etag(tag: str, version: tuple[object, ...]) -> str:
    seen = repr((assets.load().digest, tag, version))
    return f'"{hashlib.sha256(seen.encode()).hexdigest()[:32]}"'


def _etags(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",")}


def _json(
    answer: BaseModel, headers: Mapping[str, str] | None = None, exclude: Any = None
) -> Response:
    return Response(
        200,
        {"Content-Type": "application/json", "Cache-Control": REVALIDATE, **(headers or {})},
        answer.model_dump_json(exclude=exclude).encode(),
    )


def _to_the_slash(request: Request) -> Response:
    """Redirect `/_llmcost` to `/_llmcost/`, relative: a proxy may have cut a prefix off."""
    segment = request.root.rstrip("/").rpartition("/")[2]
    query = f"?{quote(request.query, safe='%=&+-._~/:@,;!*()')}" if request.query else ""
    location = f"{quote(segment, safe='')}/{query}"
    headers = {"Location": location, "Content-Type": "text/plain; charset=utf-8"}
    return Response(307, headers, f"See {location}\n".encode())


def _not_found() -> Response:
    return problem(404, "There is nothing here; the dashboard is at the path it is mounted at.")


def _parameters(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise HttpProblem(400, "The query has too many parameters.") from None


def _whole(parameters: Mapping[str, str], name: str, most: int) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= most):
        raise HttpProblem(400, f"{name} must be a whole number from 1 to {most}.")
    return int(text)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise HttpProblem(400, "This is not the id of a call: it must be a UUID.") from None
