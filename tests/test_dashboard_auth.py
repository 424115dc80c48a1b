"""Who gets in: nobody, unless auth says so in as many words."""

from __future__ import annotations

import base64
import functools
import logging
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from costmw.dashboard import Principal, anonymous, basic, token
from costmw.dashboard.auth import Gate, Refusal
from costmw.dashboard.messages import Request
from costmw.errors import ConfigError

SECRET = "correct horse battery"


def request(authorization: str | None = None) -> Request:
    headers = {} if authorization is None else {"authorization": authorization}
    return Request("GET", "/", headers=headers)


def basic_header(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def ask(auth: Any, asked: object = None) -> Principal | Refusal:
    """What both ways of asking answer; they must agree."""
    blocking = Gate(auth).ask(asked)
    assert anyio.run(Gate(auth).ask_async, asked) == blocking
    return blocking


def test_without_auth_nobody_gets_in() -> None:
    assert ask(None) is Refusal.NOT_SET_UP


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Principal(scope={"tenant": "a"}), Principal(scope={"tenant": "a"})),
        (True, Principal(can_edit=True)),
        (None, Refusal.DENIED),
        (False, Refusal.DENIED),
    ],
)
def test_what_auth_may_answer(answer: Any, expected: object) -> None:
    assert ask(lambda _: answer) == expected


@pytest.mark.parametrize("answer", [1, "yes", {"tenant": "a"}, object(), (), "", 0, Principal])
def test_any_other_answer_stays_closed_and_is_logged(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(lambda _: answer) is Refusal.FAILED
    assert "auth gave a" in caplog.text


def test_an_exception_in_auth_stays_closed_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def auth(_: object) -> bool:
        raise RuntimeError("no database")

    assert ask(auth) is Refusal.FAILED
    assert {record.name for record in caplog.records} == {"costmw"}
    assert "no database" in caplog.text


def test_refusing_by_the_framework_s_own_exception_is_a_refusal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from starlette.exceptions import HTTPException
    from werkzeug.exceptions import Forbidden, InternalServerError

    def raising(error: Exception) -> Callable[[object], bool]:
        def auth(_: object) -> bool:
            raise error

        return auth

    assert ask(raising(HTTPException(401))) is Refusal.DENIED
    assert ask(raising(Forbidden())) is Refusal.DENIED
    assert caplog.records == []
    assert ask(raising(HTTPException(500))) is Refusal.FAILED
    assert ask(raising(InternalServerError())) is Refusal.FAILED


def test_an_async_auth_is_awaited() -> None:
    async def auth(_: object) -> Principal:
        await anyio.sleep(0.001)
        return Principal()

    class AsyncObject:
        async def __call__(self, _: object) -> bool:
            return False

    async def with_more(_: str, asked: object) -> bool:
        return True

    for one in (auth, AsyncObject(), functools.partial(with_more, "x")):
        assert Gate(one).is_async
    assert anyio.run(Gate(auth).ask_async, None) == Principal()
    assert anyio.run(Gate(AsyncObject()).ask_async, None) is Refusal.DENIED
    assert anyio.run(Gate(lambda asked: auth(asked)).ask_async, None) == Principal()


def test_an_async_auth_that_is_asked_blocking_stays_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def auth(_: object) -> bool:
        return True

    hidden: Any = lambda asked: auth(asked)  # noqa: E731 - looks blocking until it is called
    assert Gate(hidden).ask(None) is Refusal.FAILED
    assert "must not be async under WSGI" in caplog.text


def test_auth_is_called_with_what_the_host_makes_of_the_request() -> None:
    seen: list[object] = []

    def auth(asked: object) -> bool:
        seen.append(asked)
        return True

    Gate(auth, lambda raw: f"request of {raw}").ask("environ")
    assert seen == ["request of environ"]


def test_making_the_request_may_fail_and_stays_closed() -> None:
    assert Gate(lambda _: True, lambda raw: raw["missing"]).ask({}) is Refusal.FAILED


def test_a_principal_s_scope_is_text_and_cannot_change() -> None:
    tags = {"tenant": 7}
    principal = Principal(scope=tags)  # type: ignore[arg-type]
    tags["tenant"] = 8
    assert principal.scope == {"tenant": "7"}
    with pytest.raises(TypeError):
        principal.scope["tenant"] = "8"  # type: ignore[index]


def test_a_scope_without_a_value_is_refused_and_keeps_the_page_closed() -> None:
    with pytest.raises(ConfigError, match="no value for 'tenant'"):
        Principal(scope={"tenant": None})  # type: ignore[dict-item]
    assert ask(lambda _: Principal(scope={"tenant": None})) is Refusal.FAILED  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {SECRET}", f"bearer  {SECRET}", basic_header("anyone", SECRET)],
)
def test_a_token_is_taken_as_bearer_and_as_password(authorization: str) -> None:
    assert ask(token(SECRET), request(authorization)) == Principal(can_edit=True)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {SECRET}x",
        f"Token {SECRET}",
        SECRET,
        "Bearer \xe4\xf6\xfc",
        "Basic",
        "Basic !!!",
        "Basic \xe4",
        basic_header(SECRET, ""),
        basic_header(SECRET, "wrong"),
        "Basic " + base64.b64encode(SECRET.encode()).decode(),
        f"Bearer {SECRET}, Bearer {SECRET}",
    ],
)
def test_a_token_that_is_wrong_or_missing_is_asked_for(authorization: str | None) -> None:
    gate = Gate(token(SECRET))
    assert gate.ask(request(authorization)) is Refusal.NOT_SIGNED_IN
    assert gate.challenge is not None
    assert gate.challenge.startswith('Basic realm="costmw"')


@pytest.mark.parametrize("secret", ["", "short", "x" * 15, None, 1234567890123456])
def test_a_weak_token_is_refused_with_a_way_to_make_one(secret: Any) -> None:
    with pytest.raises(ConfigError, match="at least 16 characters.*secrets.token_urlsafe"):
        token(secret)


def test_a_ready_made_auth_does_not_show_its_secret() -> None:
    assert SECRET not in repr(token(SECRET)) + repr(basic("ann", SECRET))


def test_basic_takes_one_name_and_password() -> None:
    auth = basic("änn", "p:ss wörd")
    assert ask(auth, request(basic_header("änn", "p:ss wörd"))) == Principal(can_edit=True)
    for name, password in (("änn", "wrong"), ("bob", "p:ss wörd"), ("", ""), ("änn", "")):
        assert ask(auth, request(basic_header(name, password))) is Refusal.NOT_SIGNED_IN
    assert ask(auth, request("Bearer p:ss wörd")) is Refusal.NOT_SIGNED_IN
    assert ask(auth, request()) is Refusal.NOT_SIGNED_IN


@pytest.mark.parametrize(
    ("name", "password"),
    [("", "long enough"), ("a:b", "long enough"), ("ann", ""), ("ann", "short")],
)
def test_basic_refuses_what_cannot_be_safe(name: str, password: str) -> None:
    with pytest.raises(ConfigError):
        basic(name, password)


def test_ready_made_auth_reads_the_requests_of_the_frameworks() -> None:
    import flask
    from starlette.requests import Request as StarletteRequest

    header = f"Bearer {SECRET}"
    starlette = StarletteRequest({"type": "http", "headers": [(b"authorization", header.encode())]})
    with flask.Flask("x").test_request_context(headers={"Authorization": header}):
        for asked in (starlette, flask.request):
            assert ask(token(SECRET), asked) == Principal(can_edit=True)


def test_anonymous_lets_everyone_look_and_says_so_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    auth = anonymous()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "open to everyone" in caplog.text
    assert ask(auth, request()) == Principal(can_edit=False)
    assert len(caplog.records) == 1
