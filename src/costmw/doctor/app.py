"""The process of an app: its meters, its middleware, its page."""

from __future__ import annotations

import dis
import gc
import re
from collections.abc import Iterator, Mapping
from types import FunctionType

from costmw.capture.clients.process import follows_all
from costmw.dashboard.auth import Principal, is_anonymous
from costmw.dashboard.core import Dashboard
from costmw.doctor.case import Case, counted
from costmw.doctor.clients import captures, used
from costmw.doctor.finding import Finding
from costmw.doctor.urls import told
from costmw.doctor.wrapping import find_middlewares, has_own_routes

ADD_MIDDLEWARE = (
    "FastAPI and Starlette: app.add_middleware(CostMiddleware, meter=meter). Flask: "
    "LLMCost(app, meter=meter). Django: 'costmw.integrations.django.middleware.CostMiddleware' "
    "first in MIDDLEWARE. Another WSGI or ASGI app: CostMiddleware(application, meter), of "
    "costmw.integrations.wsgi or .asgi."
)

LOOPBACK = ("127.", "localhost", "[::1]", "::1")


def check_meters(case: Case) -> Iterator[Finding]:
    """Whether there is a meter, switched on, and how recording goes."""
    if not case.in_process:
        return
    if not case.meters:
        yield Finding(
            "warning",
            "no-meter",
            "The app makes no Meter when it is imported, so nothing is recorded, unless it makes "
            "one when it starts.",
            "meter = Meter('sqlite:////var/lib/myapp/llmcost.db'), where the app is made.",
        )
    elif not case.metering:
        yield Finding(
            "warning",
            "metering-off",
            "Metering is switched off, by COSTMW_ENABLED or Meter(enabled=False): nothing is "
            "recorded.",
            "Unset COSTMW_ENABLED, unless this is meant.",
        )
    for meter in case.meters:
        status = meter.status()
        lost = status.dropped + status.rejected
        last = f" The last error: {status.last_error}." if status.last_error else ""
        if lost:
            yield Finding(
                "error",
                "calls-lost",
                f"{counted(lost, 'record')} could not be kept: {status.dropped:,} since the queue "
                f"was full, {status.rejected:,} that the store refused.{last}",
                "See what is said of the store; Config(queue_size=...) lets more of them wait.",
            )
        if status.faults:
            yield Finding(
                "warning",
                "faults",
                f"costmw failed {counted(status.faults, 'time')} in this process, and kept it "
                f"from the app.{last}",
                "The app's log has the details, under the name costmw.",
            )
        if status.late or status.store_failures:
            yield Finding(
                "warning",
                "store-slow",
                f"{counted(status.late, 'call')} went on before their row was committed, and the "
                f"store failed {counted(status.store_failures, 'time')}.{last}",
                "See what is said of the store; a slow or shared disk is the usual reason.",
            )


def check_middleware(case: Case) -> Iterator[Finding]:
    """Whether calls are bound to the web request that they are made in."""
    if case.app is None or not case.metering:
        return
    found = find_middlewares(case.app)
    if not found:
        yield Finding(
            "error",
            "context-not-bound",
            "No CostMiddleware is around the app: calls have no route, and bind() does nothing.",
            ADD_MIDDLEWARE,
        )
    elif all(bound.mounted for bound in found) and has_own_routes(case.app):
        yield Finding(
            "warning",
            "context-not-bound",
            "CostMiddleware is around mounted apps only: calls of the app's own routes have no "
            "route, and bind() does nothing there.",
            "Add it to the outermost app instead.",
        )
    if any(bound.around for bound in found):
        yield Finding(
            "warning",
            "middleware-twice",
            "One request passes two CostMiddlewares: the inner one wins, so tags of the outer "
            "one are lost, and one request counts as two.",
            "Leave one of them, around the outermost app.",
        )


def check_pages(case: Case) -> Iterator[Finding]:
    """Who may see the page, and whose numbers it shows."""
    if not case.in_process:
        return
    pages = [page for page in gc.get_objects() if type(page) is Dashboard]
    pages = [page for page in pages if any(page.meter is meter for meter in case.meters)]
    for auth in {id(page.gate.auth): page.gate.auth for page in pages}.values():
        if auth is None:
            yield Finding(
                "info",
                "page-closed",
                "The page has no auth, and so shows nothing to anybody.",
                "Pass auth=token(os.environ['LLMCOST_TOKEN']), or a function that takes the "
                "request and gives a Principal.",
            )
        elif lets_everyone_in(auth):
            local = _bound_to_loopback(case.environ)
            yield Finding(
                "warning" if local else "error",
                "page-open",
                "The page is open to everyone who reaches the server"
                + (
                    ", which listens on this machine only: a proxy in front opens it to the world."
                    if local
                    else "."
                ),
                "Pass auth=token(os.environ['LLMCOST_TOKEN']), or a function that asks who it is.",
            )
    yield from _other_stores(case, pages)


def _other_stores(case: Case, pages: list[Dashboard]) -> Iterator[Finding]:
    shown = {told(page.meter.store.url) for page in pages}
    everywhere = follows_all()
    filled = {
        told(captured[0].meter.store.url)
        for client in case.clients
        for http in used(client)
        if (captured := captures(http, everywhere))
    }
    if shown and filled - shown:
        yield Finding(
            "warning",
            "page-of-other-store",
            f"Calls are recorded to {', '.join(sorted(filled - shown))}, which no page shows; "
            f"the page is of {', '.join(sorted(shown))}.",
            "Give the clients and the page the same meter.",
        )


def lets_everyone_in(auth: object) -> bool:
    """Whether an `auth` is `anonymous()`, or a function that lets in without a look.

    Only a function that looks at nothing is called: neither at the request, nor at
    anything else but `Principal`.
    """
    if is_anonymous(auth):
        return True
    if not isinstance(auth, FunctionType):
        return False
    code = auth.__code__
    names = (auth.__globals__.get(name) for name in code.co_names)
    if code.co_freevars or code.co_flags & _NOT_PLAIN or any(n is not Principal for n in names):
        return False
    loaded = {
        one.argval for one in dis.get_instructions(code) if one.opname.startswith("LOAD_FAST")
    }
    if loaded or code.co_argcount != 1:
        return False
    try:
        answer = auth(None)
    except Exception:  # noqa: BLE001 - the app's own function
        return False
    return answer is True or isinstance(answer, Principal)


_NOT_PLAIN = 0x20 | 0x80 | 0x100 | 0x200
"""Generators, coroutines and their kin (`inspect.CO_*`)."""


def _bound_to_loopback(environ: Mapping[str, str]) -> bool:
    """Whether the server's own variables say that it listens on this machine only."""
    bind = re.search(r"(?:-b|--bind)[ =]?(\S+)", environ.get("GUNICORN_CMD_ARGS", ""))
    hosts = [environ.get("UVICORN_HOST"), environ.get("FLASK_RUN_HOST"), bind[1] if bind else None]
    known = [host for host in hosts if host]
    return bool(known) and all(host.startswith(LOOPBACK) for host in known)
