"""Django: the route and the user of every call, sync and async, and the page among its URLs."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import django
import httpx2
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.test import RequestFactory, override_settings
from django.urls import include, path, re_path
from django.utils.functional import lazystr
from openai import AsyncOpenAI, OpenAI
from werkzeug.test import Client

FOLDER = tempfile.TemporaryDirectory()
MIDDLEWARE = [
    "costmw.integrations.django.middleware.CostMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
if not settings.configured:
    settings.configure(
        SECRET_KEY="for tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "costmw.integrations.django",
        ],
        MIDDLEWARE=MIDDLEWARE,
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{FOLDER.name}/db"}
        },
        LANGUAGES=[("en", "English"), ("de", "German")],
        USE_TZ=True,
    )
    django.setup()

from django.conf.urls.i18n import i18n_patterns  # noqa: E402 - needs the settings
from django.contrib.auth.models import Permission, User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.core.exceptions import PermissionDenied  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402

from conftest import events_of  # noqa: E402
from costmw import Budget, BudgetExceeded, Meter, bind, carry, metered, tag  # noqa: E402
from costmw.dashboard.auth import Principal, django_user, token  # noqa: E402
from costmw.doctor.wrapping import Bound, find_middlewares  # noqa: E402
from costmw.errors import ConfigError, StoreError  # noqa: E402
from costmw.integrations.django import get_meter  # noqa: E402
from costmw.integrations.django.routes import route_template  # noqa: E402
from costmw.testing import FakeProvider  # noqa: E402

SECRET = "0123456789abcdef"
SIGNED_IN = {"Authorization": f"Bearer {SECRET}"}
HANDLERS: list[type[WSGIHandler | ASGIHandler]] = [WSGIHandler, ASGIHandler]

llms: tuple[OpenAI, AsyncOpenAI]


@pytest.fixture(scope="module", autouse=True)
def people() -> Iterator[dict[str, str]]:
    """A database with users, and the cookies of their sessions."""
    call_command("migrate", verbosity=0)
    sessions = {}
    for name in ("ann", "bob"):
        user = User.objects.create_user(name, password=None)
        session = SessionStore()
        session["_auth_user_id"] = str(user.pk)
        session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
        session["_auth_user_hash"] = user.get_session_auth_hash()
        session.save()
        sessions[name] = f"sessionid={session.session_key}"
    permission = Permission.objects.get(codename="view_user")
    User.objects.get(username="ann").user_permissions.add(permission)
    yield sessions
    connection.close()


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as fake:
        yield fake


@pytest.fixture
def calling(meter: Meter, fake: FakeProvider) -> Iterator[Meter]:
    """A meter whose clients the views below use."""
    global llms
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    with OpenAI(base_url=fake.openai_url, api_key="k") as client:
        llms = (client, AsyncOpenAI(base_url=fake.openai_url, api_key="k", http_client=http))
        for one in llms:
            meter.instrument(one, provider="openai")
        yield meter


def ask() -> str:
    return llms[0].responses.create(model="gpt-5-mini", input="hello").output_text


async def ask_async() -> str:
    return (await llms[1].responses.create(model="gpt-5-mini", input="hello")).output_text


# The views.


def sync_view(request: Any, **_: Any) -> HttpResponse:
    bind(feature="bound")
    return HttpResponse(ask())


async def async_view(request: Any) -> HttpResponse:
    bind(feature="bound")
    return HttpResponse(await ask_async())


def thread_view(request: Any) -> HttpResponse:
    bind(feature="bound")
    with ThreadPoolExecutor(1) as pool:
        return HttpResponse(pool.submit(carry(ask)).result())


async def task_view(request: Any) -> HttpResponse:
    bind(feature="bound")
    return HttpResponse(await asyncio.create_task(ask_async()))


def sync_stream(request: Any) -> StreamingHttpResponse:
    def body() -> Iterator[str]:
        yield "Hello "
        bind(feature="bound")
        yield ask()

    return StreamingHttpResponse(body())


async def async_stream(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        yield "Hello "
        bind(feature="bound")
        yield await ask_async()

    return StreamingHttpResponse(body())


def mixed_stream(request: Any) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[str]:
        bind(feature="bound")
        yield await ask_async()

    return StreamingHttpResponse(body())


def closing_stream(request: Any) -> StreamingHttpResponse:
    class Body:
        def __iter__(self) -> Iterator[str]:
            yield "Hello"

        def close(self) -> None:
            bind(feature="bound")
            ask()

    return StreamingHttpResponse(Body())


def quiet_view(request: Any) -> HttpResponse:
    return HttpResponse("no call")


async def quiet_async_view(request: Any) -> HttpResponse:
    return HttpResponse("no call")


def refused_view(request: Any) -> HttpResponse:
    User.objects.create_user("made before the refusal", password=None)
    meter = get_meter()
    never = metered(usage=lambda _: None, meter=meter)(lambda: "never")
    try:
        return HttpResponse(never())
    except BudgetExceeded as error:
        if "grouped" in request.GET:
            raise ExceptionGroup("one", [error]) from None
        raise


async def refused_async_view(request: Any) -> HttpResponse:
    return HttpResponse(metered(usage=lambda _: None, meter=get_meter())(lambda: "never")())


def failing_view(request: Any) -> HttpResponse:
    ask()
    raise RuntimeError("the view's own")


def file_view(request: Any) -> FileResponse:
    return FileResponse(Path(__file__).open("rb"))


def timed_view(request: Any) -> HttpResponse:
    return HttpResponse(ask(), headers={"Server-Timing": "db;dur=1"})


tickets = [
    path("<int:id>/summary", sync_view),
    re_path(r"^archive/(?P<year>[0-9]{4})/(?:page-\d+/)?$", sync_view),
]
page = include("costmw.integrations.django.urls")
urlpatterns = [
    path("", sync_view),
    path("sync", sync_view),
    path("async", async_view),
    path("thread", thread_view),
    path("task", task_view),
    path("sync-stream", sync_stream),
    path("async-stream", async_stream),
    path("mixed-stream", mixed_stream),
    path("closing", closing_stream),
    path("quiet", quiet_view),
    path("quiet-async", quiet_async_view),
    path("refused", refused_view),
    path("refused-async", refused_async_view),
    path("failing", failing_view),
    path("file", file_view),
    path("timed", timed_view),
    path("tickets/", include(tickets)),
    path("teams/<slug:team>/", include([path("tickets/", include(tickets))])),
    re_path(r"^old/(\d+)\.html$", lambda request, number: sync_view(request)),
    *i18n_patterns(path(lazystr("chat/<uuid:id>/"), sync_view)),
    path("_llmcost/", page),
    path("admin/costs/", include("costmw.integrations.django.urls", namespace="costs")),
    re_path("^bare", include("costmw.integrations.django.urls", namespace="bare")),
]


# Requests.


def get(handler: type, where: str, **headers: str) -> httpx2.Response:
    return send(handler, "GET", where, headers=headers)


def send(handler: type, method: str, where: str, **request: Any) -> httpx2.Response:
    """A request to the project by one of Django's own entries, as servers call them."""
    if handler is WSGIHandler:
        response = Client(WSGIHandler(), use_cookies=False).open(where, method=method, **request)
        content = response.get_data()
        response.close()
        return httpx2.Response(
            response.status_code, headers=list(response.headers), content=content
        )

    async def go() -> httpx2.Response:
        transport = httpx2.ASGITransport(ASGIHandler())
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as http:
            return await http.request(method, where, **request)

    return asyncio.run(go())


def sync_only(get_response: Any) -> Any:
    """A middleware that async handlers call in a thread."""
    return lambda request: get_response(request)


def using(meter: Meter, **more: Any) -> Any:
    return override_settings(COSTMW={"METER": meter, **more})


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


# Who asks.


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(
    "where",
    ["sync", "async", "thread", "task", "sync-stream", "async-stream", "mixed-stream", "closing"],
)
# Django says so itself where a body is of the other kind than the server.
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_call_has_its_route_user_and_tags(
    handler: type, where: str, calling: Meter, people: dict[str, str]
) -> None:
    with using(calling, TAGS=lambda request: {"path": request.path}):
        response = get(handler, f"/{where}", Cookie=people["ann"])
        assert 200 == response.status_code
    user = str(User.objects.get(username="ann").pk)
    wanted = {"route": f"/{where}", "path": f"/{where}", "user": user, "feature": "bound"}
    assert [wanted] == tags_of(calling)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_block_in_a_view_holds_and_nothing_is_left_behind(handler: type, calling: Meter) -> None:
    from costmw.context import current_scope

    with using(calling), tag(team="blue"):
        get(handler, "/sync")
        get(handler, "/closing")
        assert current_scope() is None
    assert [("/sync", None), ("/closing", None)] == [
        (tags["route"], tags.get("user")) for tags in tags_of(calling)
    ]


@pytest.mark.parametrize(
    ("where", "route"),
    [
        ("/", "/"),
        ("/tickets/7/summary", "/tickets/<int:id>/summary"),
        ("/teams/blue/tickets/7/summary", "/teams/<slug:team>/tickets/<int:id>/summary"),
        ("/tickets/archive/2026/", "/tickets/archive/<year>/"),
        ("/teams/blue/tickets/archive/2026/page-7/", "/teams/<slug:team>/tickets/archive/<year>/"),
        ("/old/7.html", "/old/<var>.html"),
        ("/en/chat/00000000-0000-0000-0000-000000000007/", "/en/chat/<uuid:id>/"),
        ("/de/chat/00000000-0000-0000-0000-000000000007/", "/de/chat/<uuid:id>/"),
    ],
)
def test_the_route_is_the_template_with_its_includes(
    where: str, route: str, calling: Meter
) -> None:
    with using(calling):
        assert 200 == get(WSGIHandler, where).status_code
    assert [route] == [tags["route"] for tags in tags_of(calling)]


def test_a_path_without_a_route_makes_no_value() -> None:
    assert route_template(RequestFactory().get("/nowhere/7")) is None


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_user_is_asked_for_by_calls_alone(
    handler: type, calling: Meter, people: dict[str, str]
) -> None:
    asked: list[str] = []
    original = User.objects.none().__class__._fetch_all

    def counting(queryset: Any) -> None:
        if queryset._result_cache is None:
            asked.append(str(queryset.model.__name__))
        original(queryset)

    with using(calling), pytest.MonkeyPatch.context() as patched:
        patched.setattr(User.objects.none().__class__, "_fetch_all", counting)
        get(handler, "/quiet", Cookie=people["ann"])
        assert "Cookie" not in get(handler, "/quiet-async").headers.get("Vary", "")
        assert [] == asked
        get(handler, "/sync", Cookie=people["ann"])
        assert ["Session", "User"] == asked


@pytest.mark.parametrize("handler", HANDLERS)
def test_tags_come_before_the_user_and_the_user_can_be_left_out(
    handler: type, calling: Meter, people: dict[str, str]
) -> None:
    with using(calling, TAGS=lambda request: {"user": request.user.username}):
        get(handler, "/sync", Cookie=people["bob"])
    with using(calling, USER=False):
        get(handler, "/sync", Cookie=people["bob"])
        assert "Cookie" not in get(handler, "/async", Cookie=people["bob"]).headers.get("Vary", "")
    assert ["bob", None, None] == [tags.get("user") for tags in tags_of(calling)]
    assert 0 == calling.status().faults


def test_a_user_that_cannot_be_found_is_a_fault_and_the_view_answers(
    calling: Meter, people: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(request: Any) -> None:
        raise OSError("no database")

    monkeypatch.setattr("django.contrib.auth.aget_user", broken)
    with using(calling):
        assert 200 == get(ASGIHandler, "/quiet-async", Cookie=people["ann"]).status_code
        assert 0 == calling.status().faults
        assert 200 == get(ASGIHandler, "/async", Cookie=people["ann"]).status_code
    assert [{"route": "/async", "feature": "bound"}] == tags_of(calling)
    assert 1 == calling.status().faults


# Responses.


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_calls_cost_is_in_the_headers_beside_those_of_the_view(
    handler: type, calling: Meter
) -> None:
    with using(calling, RESPONSE_HEADERS=True):
        response = get(handler, "/timed")
        assert "X-LLM-Cost" not in get(handler, "/quiet").headers
    assert float(response.headers["X-LLM-Cost"]) > 0
    assert response.headers["Server-Timing"].startswith("db;dur=1, llm;dur=")


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_refused_call_is_402_and_the_transaction_is_taken_back(
    handler: type, make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(budgets=[Budget("cap", "0", action="block")])
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with using(meter):
            for where in ("/refused", "/refused?grouped"):
                response = get(handler, where)
                assert (402, "application/problem+json") == (
                    response.status_code,
                    response.headers["Content-Type"],
                )
                assert "budget" not in response.json()
        with using(meter, EXPLAIN_REFUSALS=True):
            assert "cap" == get(handler, "/refused").json()["budget"]
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert not User.objects.filter(username__contains="refusal").exists()
    with using(meter):
        assert 402 == get(handler, "/refused-async").status_code


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_view_s_own_errors_stay_its_own(
    handler: type, calling: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    with using(calling):
        assert 500 == get(handler, "/failing").status_code
    assert ["/failing"] == [tags["route"] for tags in tags_of(calling)]


def test_a_file_is_left_to_the_server(calling: Meter) -> None:
    given: list[Any] = []

    def wrapper(file: Any, block_size: int) -> Any:
        given.append(file)
        return FileWrapper(file, block_size)

    with using(calling):
        environ = {"wsgi.file_wrapper": wrapper}
        response = Client(WSGIHandler()).get("/file", environ_overrides=environ)
    assert Path(__file__).read_bytes() == response.get_data()
    assert [__file__] == [file.name for file in given]
    response.close()


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_meter_that_is_off_does_nothing(
    handler: type, make_meter: Callable[..., Meter], tmp_path: Path
) -> None:
    with using(make_meter(enabled=False), AUTH=lambda _: True):
        assert 200 == get(handler, "/quiet").status_code
        assert "_llmcost/" == get(handler, "/_llmcost").headers["Location"]
    assert [] == list(tmp_path.iterdir())


def test_the_store_is_opened_by_the_first_request_which_says_what_is_wrong_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bad.db").write_text("no database" * 100)
    with override_settings(
        COSTMW={"METER": {"store": f"sqlite:///{tmp_path}/bad.db"}},
        DEBUG_PROPAGATE_EXCEPTIONS=True,
    ):
        with pytest.raises(StoreError, match="not an SQLite database"):
            get(WSGIHandler, "/quiet")
        assert 200 == get(WSGIHandler, "/quiet").status_code  # said once
        get_meter().close()


# Settings.


the_meter = Meter("sqlite:///nowhere.db")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "COSTMW must be a dict, and is a list"),
        ({"METRE": 1}, "COSTMW has no setting METRE"),
        ({"METER": "nowhere.meter"}, "'nowhere.meter' cannot be imported: ModuleNotFoundError"),
        ({"METER": 7}, "COSTMW['METER'] is a int"),
        ({"METER": {"store": "mongo://x"}}, "COSTMW['METER'] cannot make a Meter"),
        ({"METER": {"stores": "x"}}, "unexpected keyword argument 'stores'"),
        ({"TAGS": {"user": "ann"}}, "COSTMW['TAGS'] is a dict, and cannot be called"),
        ({"AUTH": "django.conf.nothing"}, "'django.conf.nothing' cannot be imported"),
        ({"USER": "yes"}, "COSTMW['USER'] must be True or False"),
        ({"EXPLAIN_REFUSALS": 1}, "COSTMW['EXPLAIN_REFUSALS'] must be True or False"),
    ],
)
def test_what_cannot_be_used_is_said_by_the_checks_and_when_the_server_starts(
    given: Any, problem: str
) -> None:
    with override_settings(COSTMW={"METER": the_meter, **given} if given else given):
        (found,) = run_checks()
        assert "costmw.E001" == found.id
        assert problem in found.msg
        assert found.hint
        with pytest.raises(ConfigError) as error:
            WSGIHandler()
        assert str(error.value) == found.msg


def test_settings_may_be_named_by_their_paths_and_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with override_settings(COSTMW={"METER": f"{__name__}.the_meter", "TAGS": f"{__name__}.ask"}):
        assert [] == run_checks()
        assert the_meter is get_meter()
    monkeypatch.setenv("COSTMW_STORE", f"sqlite:///{tmp_path}/from_environment.db")
    with override_settings():
        if hasattr(settings, "COSTMW"):
            del settings.COSTMW
        from costmw.integrations.django.settings import forget_settings

        forget_settings(setting="COSTMW")
        assert f"sqlite:///{tmp_path}/from_environment.db" == get_meter().store.url
    forget_settings(setting="COSTMW")


def test_a_project_without_the_middleware_is_told_so() -> None:
    with override_settings(COSTMW={"METER": the_meter}, MIDDLEWARE=MIDDLEWARE[1:]):
        (found,) = run_checks()
        assert ("costmw.W001", True) == (found.id, "first in MIDDLEWARE" in str(found.hint))


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("before", [0, 2])  # other middlewares, one of which is sync only
def test_the_doctor_finds_the_middleware_and_sees_that_it_is_missing(
    handler: type, before: int
) -> None:
    others = [f"{__name__}.sync_only", "django.middleware.common.CommonMiddleware"][:before]
    with override_settings(COSTMW={"METER": the_meter}):
        with override_settings(MIDDLEWARE=[*others, *MIDDLEWARE]):
            assert [Bound(the_meter, 0, False)] == find_middlewares(handler())
        with override_settings(MIDDLEWARE=[*others, *MIDDLEWARE[1:]]):
            assert [] == find_middlewares(handler())


# The page.


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_page_is_closed_by_default_and_opened_by_auth(handler: type, meter: Meter) -> None:
    with using(meter):
        assert 403 == get(handler, "/_llmcost/").status_code
    with using(meter, AUTH=token(SECRET)):
        for root in ("/_llmcost", "/admin/costs", "/bare"):
            asked = get(handler, f"{root}/")
            assert (401, True) == (asked.status_code, "Basic" in asked.headers["WWW-Authenticate"])
            shown = get(handler, f"{root}/", **SIGNED_IN)
            assert "<title>LLM cost</title>" in shown.text
            status = get(handler, f"{root}/api/v1/status", **SIGNED_IN)
            assert (200, "application/json") == (status.status_code, status.headers["content-type"])
            assert 404 == get(handler, f"{root}/nothing/here", **SIGNED_IN).status_code


@pytest.mark.parametrize("handler", HANDLERS)
def test_it_asks_the_project_s_users(handler: type, meter: Meter, people: dict[str, str]) -> None:
    with using(meter, AUTH=django_user(permission="auth.view_user")):
        statuses = [
            get(handler, "/_llmcost/", Cookie=cookie).status_code
            for cookie in (people["ann"], people["bob"], "sessionid=made-up", "")
        ]
    assert [200, 403, 403, 403] == statuses


@pytest.mark.parametrize("error", [PermissionDenied("no"), Http404("no")])
def test_django_s_own_ways_to_refuse_are_refusals(
    error: Exception, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    def auth(request: Any) -> bool:
        raise error

    with using(meter, AUTH=auth):
        assert 403 == get(WSGIHandler, "/_llmcost/").status_code
    assert [] == [record for record in caplog.records if record.name == "costmw"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_an_async_auth_is_waited_for(handler: type, meter: Meter) -> None:
    async def auth(request: Any) -> Principal | None:
        await asyncio.sleep(0)
        tenant = request.GET.get("tenant")
        return Principal(scope={"tenant": tenant}) if tenant else None

    with using(meter, AUTH=auth):
        assert 403 == get(handler, "/_llmcost/api/v1/status").status_code
        shown = get(handler, "/_llmcost/api/v1/status?tenant=acme")
    assert {"tenant": "acme"} == shown.json()["scope"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_host_s_csrf_login_and_transactions_are_not_in_its_way(
    handler: type, meter: Meter
) -> None:
    with_login = [*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    begun: list[object] = []
    original = transaction.Atomic.__enter__
    try:
        with using(meter, AUTH=token(SECRET)), override_settings(MIDDLEWARE=with_login):
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(
                    transaction.Atomic, "__enter__", lambda one: (begun.append(one), original(one))
                )
                assert 200 == get(handler, "/_llmcost/", **SIGNED_IN).status_code
                posted = send(handler, "POST", "/_llmcost/", headers=SIGNED_IN)
                assert "CSRF" not in posted.text
                assert 405 == posted.status_code
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert [] == begun


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_redirect_to_the_slash_is_relative(handler: type, meter: Meter) -> None:
    with using(meter, AUTH=token(SECRET)):
        for where, location in (
            ("/_llmcost", "_llmcost/"),
            ("/_llmcost?range=7d", "_llmcost/?range=7d"),
            ("/admin/costs", "costs/"),
            ("/bare", "bare/"),
            ("/tickets/archive/2026", "/tickets/archive/2026/"),  # not ours: as it was
        ):
            response = get(handler, where, **SIGNED_IN)
            assert location == response.headers["Location"]
            assert response.is_redirect
