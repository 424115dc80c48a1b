"""Requests to the dashboard and its responses, without any server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costmw import Budget, Meter
from costmw.dashboard import Principal, token
from costmw.dashboard.auth import Refusal
from costmw.dashboard.core import Dashboard, Request, Response
from costmw.errors import StoreBusy, StoreError
from costmw.events import Outcome

EVERYTHING = Principal()
ACME = Principal(scope={"tenant": "acme"})


def get(
    meter: Meter,
    path: str,
    principal: Principal | Refusal = EVERYTHING,
    *,
    method: str = "GET",
    root: str = "/_llmcost",
    **headers: str,
) -> Response:
    path, _, query = path.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(method, path, query, named, root)
    return Dashboard(meter).handle(request, principal)


def read(response: Response) -> Any:
    return json.loads(response.body, parse_float=Decimal)


@pytest.fixture
def tenants(make_meter: Callable[..., Meter]) -> Meter:
    """Two tenants: acme spent 1, globex 20 USD, each on things of its own."""
    meter = make_meter(
        budgets=[Budget("each", "10", per="tenant"), Budget("all", "100")],
    )
    now = datetime.now(UTC)
    for tenant, cost in (("acme", "1"), ("globex", "20")):
        meter.record(
            provider="openai",
            model=f"model-of-{tenant}",
            cost=cost,
            input_tokens=10,
            output_tokens=20,
            tags={"tenant": tenant, "feature": f"feature-of-{tenant}", f"key-of-{tenant}": "x"},
            latency_ms=5,
        )
        meter.store.write(
            [Outcome("error", now, "openai", f"failed-of-{tenant}", {"tenant": tenant})]
        )
    return meter


def test_the_page_is_html_whose_files_are_under_their_hash(meter: Meter) -> None:
    page = get(meter, "/")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    assert "{static}" not in text
    assert not re.search(r'(src|href)="(/|https?:)', text), "relative addresses only"
    for path in re.findall(r'(?:src|href)="([^"]+)"', text):
        file = get(meter, f"/{path}")
        assert file.status == 200
        assert file.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_the_page_makes_no_request_to_the_store(meter: Meter, tmp_path: Path) -> None:
    get(meter, "/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("root", "path", "location"),
    [
        ("/_llmcost", "", "_llmcost/"),
        ("/behind/a/proxy/_llmcost", "", "_llmcost/"),
        ("/_llmcost/", "", "_llmcost/"),
        ("/a:b", "", "a%3Ab/"),
        ("/kost en", "", "kost%20en/"),
        ("/_llmcost", "?by=model", "_llmcost/?by=model"),
        ("/_llmcost", "?a=\r\nSet-Cookie:x", "_llmcost/?a=%0D%0ASet-Cookie:x"),
    ],
)
def test_the_mount_without_its_slash_redirects_relative(
    meter: Meter, root: str, path: str, location: str
) -> None:
    response = get(meter, path, root=root)
    assert (response.status, response.headers["Location"]) == (307, location)


def test_alone_at_the_root_there_is_nothing_to_redirect_to(meter: Meter) -> None:
    assert get(meter, "", root="").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "//",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/overview",
        "/api/v1/overview/",
        "/api/v1/calls/a/b",
        "/index.html",
        "/static",
        "/static/",
    ],
)
def test_everything_else_is_not_found(meter: Meter, path: str) -> None:
    response = get(meter, path)
    assert (response.status, read(response)["status"]) == (404, 404)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/api/v1/overview", "/report", "/nothing"])
def test_only_get_and_head_are_allowed(meter: Meter, method: str, path: str) -> None:
    response = get(meter, path, method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/api/v1/overview", "/api/v1/status", "/nothing"])
def test_head_is_get_without_the_body(meter: Meter, path: str) -> None:
    got, head = get(meter, path), get(meter, path, method="HEAD")
    assert head.body == b""
    assert head.status == got.status
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path != "/api/v1/overview":  # which says when it was made
        assert head.headers == got.headers
    assert head.headers.get("ETag") == got.headers.get("ETag")


@pytest.mark.parametrize("path", ["", "/", "/static/x/y", "/api/v1/overview", "/nothing"])
@pytest.mark.parametrize("principal", [EVERYTHING, *Refusal])
def test_every_response_has_the_headers_that_keep_it_to_itself(
    meter: Meter, path: str, principal: Principal | Refusal
) -> None:
    headers = get(meter, path, principal).headers
    policy = headers["Content-Security-Policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'self'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ):
        assert part in policy.split("; ")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] in ("no-store", "private, no-cache")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal.NOT_SET_UP, 403),
        (Refusal.NOT_SIGNED_IN, 401),
        (Refusal.DENIED, 403),
        (Refusal.FAILED, 500),
    ],
)
def test_a_refusal_is_a_page_for_people_and_a_problem_for_programs(
    meter: Meter, tmp_path: Path, refusal: Refusal, status: int
) -> None:
    for path in ("/", "", "/nothing", "/static/x/main.js"):
        page = get(meter, path, refusal)
        assert (page.status, page.headers["Content-Type"]) == (status, "text/html; charset=utf-8")
    for method in ("GET", "POST"):
        response = get(meter, "/api/v1/overview", refusal, method=method)
        assert (response.status, read(response)["status"]) == (status, status)
    assert list(tmp_path.iterdir()) == [], "the store is not touched"


def test_no_auth_given_is_explained_on_the_page(meter: Meter) -> None:
    text = get(meter, "/", Refusal.NOT_SET_UP).body.decode()
    for word in ("This page is closed", "token(", "token_urlsafe", "Principal", "anonymous()"):
        assert word in text


def test_a_ready_made_auth_asks_for_a_password(meter: Meter) -> None:
    dashboard = Dashboard(meter, token("0123456789abcdef"))
    for path in ("/", "/api/v1/overview"):
        response = dashboard.handle(Request("GET", path), Refusal.NOT_SIGNED_IN)
        assert response.headers["WWW-Authenticate"].startswith('Basic realm="costmw"')
    denied = dashboard.handle(Request("GET", "/"), Refusal.DENIED)
    assert "WWW-Authenticate" not in denied.headers


def test_the_overview_is_what_reports_say(tenants: Meter) -> None:
    overview = read(get(tenants, "/api/v1/overview?by=tag:tenant"))
    assert "21.00" == overview["month"]["sums"]["total_usd"]
    assert ["globex", "acme"] == [row["value"] for row in overview["breakdown"]["rows"]]
    assert "tag:tenant" == overview["question"]["by"]


def test_a_scope_sees_its_own_in_every_view(tenants: Meter) -> None:
    overview = read(get(tenants, "/api/v1/overview?by=tag:tenant", ACME))
    assert overview["month"]["sums"]["total_usd"] == "1.00"
    assert sum(Decimal(usd) for usd in overview["series"]["total"]["cost_usd"]) == 1
    assert [row["value"] for row in overview["breakdown"]["rows"]] == ["acme"]
    assert overview["tag_keys"] == ["feature", "key-of-acme", "tenant"]
    assert overview["summary"]["sums"]["input_tokens"] == 10
    assert [budget["spent_usd"] for budget in overview["budgets"]] == ["1.00"]
    assert [row["model"] for row in overview["outcomes"]] == ["failed-of-acme"]
    assert [call["model"] for call in overview["calls"]] == ["model-of-acme"]


def test_a_scope_that_nothing_matches_sees_nothing(tenants: Meter) -> None:
    for scope in ({"tenant": "nobody"}, {"tenant": "acme", "feature": "feature-of-globex"}):
        overview = read(get(tenants, "/api/v1/overview", Principal(scope=scope)))
        assert overview["calls"] == []
        assert overview["month"]["sums"]["calls"] == 0


def test_the_status_says_who_asks_and_keeps_the_process_to_those_who_see_all(
    tenants: Meter,
) -> None:
    status = read(get(tenants, "/api/v1/status", Principal(can_edit=True)))
    assert (status["scope"], status["can_edit"], status["enabled"]) == ({}, True, True)
    assert status["meter"]["committed"] == 2
    assert "store" not in status["meter"], "an address may hold a password"
    scoped = read(get(tenants, "/api/v1/status", ACME))
    assert (scoped["scope"], scoped["can_edit"]) == ({"tenant": "acme"}, False)
    assert scoped["meter"] is None


def test_calls_come_in_pages(meter: Meter) -> None:
    for n in range(5):
        meter.record(provider="openai", model=f"m{n}", cost="1")
    seen = []
    before = ""
    while True:
        page = read(get(meter, f"/api/v1/calls?limit=2{before}"))
        seen += [call["model"] for call in page["calls"]]
        if page["before"] is None:
            break
        before = f"&before={page['before']}"
    assert seen == ["m4", "m3", "m2", "m1", "m0"]


def test_one_call_is_told_in_full(meter: Meter) -> None:
    event = meter.record(provider="openai", model="gpt-5-mini", input_tokens=9, output_tokens=1)
    call = read(get(meter, f"/api/v1/calls/{event.id}"))
    assert call["unit_prices_usd"]["input_mtok"] == "0.25"
    assert call["cost_usd"] == "0.00000425"
    assert get(meter, "/api/v1/calls/01a208ec-d1e4-74aa-a2a5-b25de1ae991b").status == 404


@pytest.mark.parametrize("path", ["/api/v1/overview", "/api/v1/calls", "/api/v1/status"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "none"}, 200),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": ""}, 403),
        ({"origin": "http://app.test", "host": "app.test"}, 200),
        ({"origin": "http://evil.test", "host": "app.test"}, 403),
        ({"origin": "null", "host": "app.test"}, 403),
        ({"origin": "http://evil.test"}, 403),
    ],
)
def test_the_api_answers_no_page_of_another_origin(
    meter: Meter, path: str, headers: dict[str, str], status: int
) -> None:
    assert get(meter, path, **headers).status == status


def test_the_page_may_be_linked_from_anywhere(meter: Meter) -> None:
    assert get(meter, "/", sec_fetch_site="cross-site").status == 200


@pytest.mark.parametrize(
    ("mode", "dest", "status"),
    [
        ("navigate", "document", 200),
        ("navigate", "iframe", 403),
        ("no-cors", "image", 403),
        ("cors", "empty", 403),
    ],
)
def test_a_link_to_the_report_may_be_followed_from_anywhere(
    meter: Meter, mode: str, dest: str, status: int
) -> None:
    sent = {"sec_fetch_site": "cross-site", "sec_fetch_mode": mode, "sec_fetch_dest": dest}
    assert status == get(meter, "/report", **sent).status
    assert 403 == get(meter, "/api/v1/overview", **sent).status


def test_a_store_that_cannot_be_read_is_503_and_says_what_to_do(
    make_meter: Callable[..., Meter], tmp_path: Path
) -> None:
    (tmp_path / "llmcost.db").write_bytes(b"this is no database" * 100)
    meter = make_meter()
    response = get(meter, "/api/v1/overview")
    assert response.status == 503
    assert response.headers["Retry-After"] == "60"
    assert str(tmp_path) in read(response)["detail"]
    scoped = read(get(meter, "/api/v1/overview", ACME))
    assert str(tmp_path) not in scoped["detail"], "paths are for those who may see everything"
    assert get(meter, "/").status == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreBusy("busy"), 503), (StoreError("broken"), 503), (KeyError("a bug"), 500)],
)
def test_no_error_reaches_the_host(
    meter: Meter, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("costmw.reports.Reports.overview", fail)
    response = get(meter, "/api/v1/overview")
    assert response.status == status
    assert "a bug" not in response.body.decode()
    if isinstance(error, StoreBusy):
        assert response.headers["Retry-After"] == "5"
