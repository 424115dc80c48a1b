"""People whom the host, or a proxy in front of it, has signed in already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import flask
import flask_login
import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.test import Client

from costmw import Meter
from costmw.dashboard import DashboardASGI, DashboardWSGI
from costmw.dashboard.auth import (
    Gate,
    Principal,
    ProxyUser,
    Refusal,
    django_user,
    flask_login_user,
    proxy_headers,
    signed_in,
    starlette_user,
)
from costmw.dashboard.messages import Request
from costmw.errors import ConfigError
from costmw.integrations.flask import LLMCost
from costmw.integrations.starlette import dashboard_app
from costmw.listening import listen


@dataclass
class User:
    """A user of any host's."""

    name: str
    tenant: str | None = None
    is_admin: bool = False
    is_authenticated: Any = True
    is_active: Any = True

    def get_id(self) -> str:
        return self.name


USERS = {
    "root": User("root", is_admin=True),
    "ann": User("ann", "acme"),
    "cho": User("cho", "globex"),
    "nobody": User("nobody", None),
    "gone": User("gone", "acme", is_admin=True, is_active=False),
}


def own_or_all(user: User) -> dict[str, Any]:
    return {} if user.is_admin else {"tenant": user.tenant}


def is_admin(user: User) -> bool:
    return user.is_admin


RIGHTS: dict[str, Any] = {"scope": own_or_all, "can_edit": is_admin}

# What each user may see; None for a page that stays closed.
SEEN = [
    ("root", ({}, True)),
    ("ann", ({"tenant": "acme"}, False)),
    ("cho", ({"tenant": "globex"}, False)),
    ("nobody", None),  # a scope without a value confines to nothing
    ("gone", None),
    ("unknown", None),
    ("", None),
]


def seen(response: Any) -> tuple[dict[str, str], bool] | None:
    """The scope and rights that the page's status tells."""
    if response.status_code != 200:
        return None
    told = response.json() if callable(response.json) else response.json
    return told["scope"], told["can_edit"]


# The host's own session.


def starlette_app(meter: Meter, auth: Any) -> Starlette:
    class Known(BaseUser):
        def __init__(self, user: User) -> None:
            self.__dict__.update(vars(user))

        is_authenticated = True

    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> Any:
            user = USERS.get(conn.session.get("user"))
            return None if user is None else (AuthCredentials(), Known(user))

    async def sign_in(request: Any) -> Response:
        request.session["user"] = request.path_params["name"]
        return Response()

    return Starlette(
        routes=[
            Route("/in/{name}", sign_in),
            Mount("/_llmcost", app=dashboard_app(meter, auth=auth)),
        ],
        middleware=[
            Middleware(SessionMiddleware, secret_key="for tests"),
            Middleware(AuthenticationMiddleware, backend=Backend()),
        ],
    )


async def find_async(request: Any) -> User | None:
    await asyncio.sleep(0)
    user = USERS.get(request.session.get("user", ""))
    return user if user is not None and user.is_active else None


def find(request: Any) -> User | None:
    user = USERS.get(request.session.get("user", ""))
    return user if user is not None and user.is_active else None


@pytest.mark.parametrize(
    "auth",
    [starlette_user(**RIGHTS), signed_in(find, **RIGHTS), signed_in(find_async, **RIGHTS)],
    ids=["request.user", "session", "session, async"],
)
def test_users_of_starlette(auth: Any, meter: Meter) -> None:
    app = starlette_app(meter, auth)

    async def visit(name: str) -> Any:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as http:
            if name:
                await http.get(f"/in/{name}")
            return seen(await http.get("/_llmcost/api/v1/status"))

    assert SEEN == [(name, asyncio.run(visit(name))) for name, _ in SEEN]


def flask_app(meter: Meter, auth: Any) -> flask.Flask:
    app = flask.Flask(__name__)
    app.secret_key = "for tests"
    manager = flask_login.LoginManager(app)
    manager.user_loader(USERS.get)
    LLMCost(app, meter=meter, auth=auth)

    @app.get("/in/<name>")
    def sign_in(name: str) -> str:
        flask.session["_user_id"] = name
        return ""

    return app


def test_users_of_flask_login(meter: Meter) -> None:
    app = flask_app(meter, flask_login_user(**RIGHTS))

    def visit(name: str) -> Any:
        client = app.test_client()
        if name:
            client.get(f"/in/{name}")
        return seen(client.get("/_llmcost/api/v1/status"))

    assert SEEN == [(name, visit(name)) for name, _ in SEEN]


def test_flask_login_s_user_is_out_of_reach_beside_the_app(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    page = DashboardWSGI(meter, flask_login_user(allow=is_admin))
    app = DispatcherMiddleware(flask.Flask("x"), {"/_llmcost": page})
    assert 500 == Client(app).get("/_llmcost/").status_code
    assert "show the page by LLMCost or as a blueprint" in caplog.text


def test_an_app_without_what_a_helper_asks_stays_closed(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"type": "http", "headers": [], "path": "/", "method": "GET"}
    asked = StarletteRequest(bare)
    for auth in (starlette_user(allow=is_admin), signed_in(find, allow=is_admin)):
        assert Refusal.FAILED is Gate(auth).ask(asked)
    assert "AuthenticationMiddleware must be installed" in caplog.text
    assert "SessionMiddleware must be installed" in caplog.text
    assert Refusal.FAILED is Gate(django_user(allow=is_admin)).ask(Request("GET", "/"))


@dataclass
class Asked:
    user: Any


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        (User("x", is_authenticated=lambda: False), "is_authenticated of User is a method"),
        (User("x", is_active=lambda: False), "is_active of User is a method"),
        (object(), None),
        (User("x", is_authenticated=0), None),
    ],
)
def test_a_user_who_may_not_be_signed_in_stays_outside(
    user: Any, problem: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    auth = django_user(allow=lambda _: True)
    expected = Refusal.FAILED if problem else Refusal.DENIED
    assert expected is Gate(auth).ask(Asked(user))
    assert (problem or "") in caplog.text


@pytest.mark.parametrize(
    ("rights", "problem"),
    [
        ({"allow": lambda user: user.get_id}, "allow gave a method"),
        ({"allow": lambda user: user}, "allow gave a User"),
        ({"allow": lambda user: None}, "allow gave a NoneType"),
        ({"scope": lambda user: "acme"}, "scope gave a str"),
        ({"scope": lambda user: {"tenant": None}}, "no value for 'tenant'"),
        ({"allow": is_admin, "can_edit": lambda user: 1}, "can_edit gave a int"),
    ],
)
def test_an_answer_that_is_no_answer_keeps_the_page_closed(
    rights: Any, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    auth = signed_in(lambda _: USERS["root"], **rights)
    assert Refusal.FAILED is Gate(auth).ask(None)
    assert problem in caplog.text


@pytest.mark.parametrize(
    "nobody",
    [None, False, "", User("x", is_authenticated=False), User("x", is_active=False)],
    ids=["None", "False", "an empty text", "not signed in", "not active"],
)
def test_whom_an_app_finds_may_be_nobody_in_many_ways(nobody: Any) -> None:
    async def find_nobody(_: Any) -> Any:
        return nobody

    for find_him in (lambda _: nobody, find_nobody):
        gate = Gate(signed_in(find_him, allow=lambda _: True, can_edit=True))
        assert Refusal.DENIED is asyncio.run(gate.ask_async(None))


def test_a_user_who_is_still_to_be_waited_for_is_not_let_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A lambda around an async function does not say that it is one."""
    gate = Gate(signed_in(lambda request: find_async(request), allow=lambda _: True))
    assert Refusal.FAILED is gate.ask(None)
    assert Refusal.FAILED is asyncio.run(gate.ask_async(None))
    assert "pass the async function itself" in caplog.text


def test_a_scope_of_none_refuses_and_allow_goes_first() -> None:
    def never(user: User) -> dict[str, str]:
        raise AssertionError

    ann = lambda _: USERS["ann"]  # noqa: E731
    assert Refusal.DENIED is Gate(signed_in(ann, scope=lambda user: None)).ask(None)
    assert Refusal.DENIED is Gate(signed_in(ann, allow=is_admin, scope=never)).ask(None)
    editing = signed_in(ann, allow=lambda _: True, can_edit=True)
    assert Principal(can_edit=True) == Gate(editing).ask(None)


def test_a_permission_and_allow_must_both_hold() -> None:
    class Able(User):
        def has_perm(self, name: str) -> bool:
            return name == "billing.view_invoice"

    ann, root = Able("ann"), Able("root", is_admin=True)
    for permission, expected in (("billing.view_invoice", Principal()), ("billing.x", None)):
        auth = django_user(permission=permission, allow=is_admin)
        assert expected == auth(Asked(root))
        assert auth(Asked(ann)) is None


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: starlette_user(), "everyone who is signed in.*pass allow="),
        (lambda: flask_login_user(can_edit=True), "pass allow="),
        (lambda: django_user(), "pass allow="),
        (lambda: signed_in(find), "pass allow="),
        (lambda: signed_in("find", allow=is_admin), "takes the request and gives a user"),  # type: ignore[arg-type]
        (lambda: starlette_user(allow=True), "allow= must be a function"),  # type: ignore[arg-type]
        (lambda: starlette_user(scope={"tenant": "a"}), "scope= must be a function"),  # type: ignore[arg-type]
        (lambda: starlette_user(allow=is_admin, can_edit="no"), "can_edit= must be True"),  # type: ignore[arg-type]
        (lambda: django_user(permission="view"), "an app's label and a codename"),
        (lambda: django_user(permission=""), "an app's label and a codename"),
    ],
)
def test_a_helper_that_cannot_be_safe_is_refused_when_it_is_made(
    make: Callable[[], Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()


def test_flask_login_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flask_login", None)
    with pytest.raises(ConfigError, match="pip install flask-login"):
        flask_login_user(allow=is_admin)


# A proxy's word.

USER = "X-Auth-Request-Email"
GROUPS = "X-Auth-Request-Groups"


def by_proxy(**more: Any) -> Any:
    more.setdefault("allow", lambda user: True)
    return proxy_headers(
        trusted=["10.0.0.0/8", "2001:db8::7"], user_header=USER, groups_header=GROUPS, **more
    )


def asked_by(peer: str | None, *headers: tuple[str, str], kind: str) -> Any:
    """The request that `auth` gets under an adapter, with these headers."""
    if kind in ("starlette", "asgi"):
        from costmw.dashboard.asgi import request_of

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "client": (peer, 50123) if peer is not None else None,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
        return StarletteRequest(scope) if kind == "starlette" else request_of(scope)
    environ: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value in headers:
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if kind == "flask":
        return flask.Request(environ)
    from costmw.dashboard.wsgi import request_of as request_of_wsgi

    return request_of_wsgi(environ)


KINDS = ["starlette", "asgi", "flask", "wsgi"]
ANN = (USER, "ann@acme.test")


@pytest.mark.parametrize("kind", KINDS)
def test_the_proxy_s_user_gets_in(kind: str) -> None:
    found: list[ProxyUser] = []
    auth = by_proxy(
        allow=lambda user: found.append(user) is None,
        scope=lambda user: {"tenant": user.name.partition("@")[2]},
        can_edit=lambda user: "finance" in user.groups,
    )
    expected = Principal(scope={"tenant": "acme.test"}, can_edit=True)
    groups = (GROUPS, "finance, staff,")
    for peer in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "2001:DB8:0::7"):
        client = ("X-Forwarded-For", "203.0.113.9, 110.1.2.3, 10.1.2.30")
        assert expected == Gate(auth).ask(asked_by(peer, ANN, groups, client, kind=kind))
    assert [ProxyUser("ann@acme.test", frozenset({"finance", "staff"}))] * 4 == found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("203.0.113.9", [ANN]),
        ("11.0.0.1", [ANN]),
        ("127.0.0.1", [ANN]),
        ("2001:db8::8", [ANN]),
        (None, [ANN]),
        ("", [ANN]),
        ("localhost", [ANN]),
        ("10.1.2.3, 203.0.113.9", [ANN]),
        ("203.0.113.9", [ANN, ("X-Forwarded-For", "10.1.2.3")]),
        ("203.0.113.9", [ANN, ("X-Real-IP", "10.1.2.3"), ("Forwarded", "for=10.1.2.3")]),
        # A server may have put the address of a header in the place of the connection's.
        ("10.1.2.3", [ANN, ("X-Forwarded-For", "10.1.2.3")]),
        ("10.1.2.3", [ANN, ("X-Forwarded-For", "10.1.2.3:4711, 203.0.113.9")]),
        ("10.1.2.3", [ANN, ("Forwarded", 'for="10.1.2.3:4711";proto=http')]),
        ("10.1.2.3", [ANN, ("X-Real-IP", "10.1.2.3")]),
        ("2001:db8::7", [ANN, ("X-Forwarded-For", "[2001:DB8::7]:4711")]),
        ("2001:db8::7", [ANN, ("X-Forwarded-For", "2001:db8:0:0::7, 203.0.113.9")]),
        ("10.1.2.3", [ANN, ("X-Forwarded-For", "::ffff:10.1.2.3")]),
        ("::ffff:10.1.2.3", [ANN, ("X-Forwarded-For", "10.1.2.3")]),
        ("10.1.2.3", []),
        ("10.1.2.3", [(USER, "")]),
        ("10.1.2.3", [(USER, "  ")]),
        ("10.1.2.3", [("X-Auth-Request-Groups", "finance")]),
        ("10.1.2.3", [(USER, "ann@acme.test,root@acme.test")]),
        ("10.1.2.3", [(USER, "root@acme.test"), ANN]),
        ("10.1.2.3", [(USER, "ann\x00@acme.test")]),
    ],
)
def test_on_every_doubt_a_proxy_s_word_counts_for_nothing(
    peer: str | None, headers: list[tuple[str, str]], kind: str
) -> None:
    assert Refusal.DENIED is Gate(by_proxy()).ask(asked_by(peer, *headers, kind=kind))


def test_groups_of_two_headers_are_none() -> None:
    groups = [(GROUPS, "staff"), (GROUPS, "finance")]
    auth = by_proxy(allow=lambda user: user.groups == frozenset())
    assert Principal() == auth(asked_by("10.1.2.3", ANN, *groups, kind="starlette"))


def test_proxy_fix_does_not_make_a_peer() -> None:
    """Werkzeug takes the address of a header, and keeps the connection's beside it."""
    answers: list[object] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        answers.append(Gate(by_proxy()).ask(flask.Request(environ)))
        start_response("200 OK", [])
        return []

    for peer, client in (("203.0.113.9", "10.1.2.3"), ("10.1.2.3", "203.0.113.9")):
        headers = {USER: "ann@acme.test", "X-Forwarded-For": client}
        Client(ProxyFix(app)).get("/", headers=headers, environ_base={"REMOTE_ADDR": peer})
    assert [Refusal.DENIED, Principal()] == answers


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_level="error", **options)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def test_a_forged_address_opens_nothing_under_uvicorn_that_believes_it(meter: Meter) -> None:
    """By default uvicorn takes the address of X-Forwarded-For from whoever is on this machine."""
    page = DashboardASGI(meter, by_proxy())
    forged = {USER: "root@acme.test"}
    with serving(page) as address, httpx2.Client(base_url=address) as http:
        for client in ("10.1.2.3", "10.1.2.3:4711", "203.0.113.9, 10.1.2.3", "::ffff:10.1.2.3"):
            headers = {**forged, "X-Forwarded-For": client}
            assert 403 == http.get("/api/v1/status", headers=headers).status_code
        assert 403 == http.get("/api/v1/status", headers=forged).status_code


def test_a_proxy_on_this_machine_is_believed_where_the_server_keeps_its_address(
    meter: Meter,
) -> None:
    auth = proxy_headers(trusted=["127.0.0.1"], user_header=USER, allow=lambda user: True)
    headers = {USER: "ann@acme.test", "X-Forwarded-For": "203.0.113.9"}
    statuses = []
    for believes in (False, True):
        with serving(DashboardASGI(meter, auth), proxy_headers=believes) as address:
            statuses.append(httpx2.get(f"{address}/api/v1/status", headers=headers).status_code)
    assert [200, 403] == statuses


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"trusted": []}, "names no proxy"),
        ({"trusted": ["proxy.internal"]}, "'proxy.internal' in trusted= is no address"),
        ({"trusted": ["10.0.0.1/8"]}, "has host bits set"),
        ({"trusted": [None]}, "None in trusted= is no address"),
        ({"trusted": ["0.0.0.0/0"]}, "every address there is"),
        ({"trusted": ["::/0"]}, "every address there is"),
        ({"user_header": ""}, "user_header='' is not the name of a header"),
        ({"user_header": "X User"}, "not the name of a header"),
        ({"groups_header": "X-Gröups"}, "groups_header="),
        ({"user_header": "X-Forwarded-For"}, "says where a request comes from"),
        ({"allow": None}, "everyone who is signed in"),
    ],
)
def test_a_proxy_that_cannot_be_trusted_is_refused_when_it_is_named(
    settings: dict[str, Any], problem: str
) -> None:
    usual: dict[str, Any] = {"trusted": ["10.0.0.7"], "user_header": USER, "allow": bool}
    with pytest.raises(ConfigError, match=problem):
        proxy_headers(**{**usual, **settings})
