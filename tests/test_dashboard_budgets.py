"""Budgets that are made on the page: who may, from where, and what is said to the rest."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from flask import Flask

from costmw import Budget, Meter
from costmw.dashboard import DashboardASGI, DashboardWSGI, Principal
from costmw.dashboard.messages import MOST_BODY
from costmw.integrations.flask import dashboard_blueprint
from dashboard_client import EDITOR, Client

WHOLE = {
    "limit_usd": "12.5",
    "period": "week",
    "per": ["tenant"],
    "where": {"feature": "chat"},
    "action": "block",
    "alert_at": [0.5, 1.0],
    "limits": [{"values": ["acme"], "limit_usd": "50"}],
    "max_output_tokens": 800,
    "on_unpriced": "block",
    "wait": 0.5,
    "fail": "open",
}

BEARER = {"Authorization": "Bearer x"}


@pytest.fixture
def client(make_meter: Callable[..., Meter]) -> Client:
    return Client(make_meter(budgets=[Budget("in code", "100")]))


def test_a_name_reaches_the_ledger_through_flask_as_it_is(client: Client) -> None:
    """Flask hands over a path as text, and WSGI takes its bytes for Latin-1."""
    app = Flask("app")
    page = dashboard_blueprint(client.dashboard.meter, auth=lambda _: EDITOR)
    app.register_blueprint(page, url_prefix="/k\xf6ln")
    for name in ("gr\xf6\xdfer", "\u65e5\u672c \u2713"):
        path = f"/k\xf6ln/api/v1/budgets/{name}"
        made = app.test_client().put(path, json={"limit_usd": "7"}, headers=BEARER)
        assert (200, name) == (made.status_code, made.json and made.json["name"])
        assert 204 == app.test_client().delete(path, headers=BEARER).status_code


def detail(response: Any) -> str:
    return str(json.loads(response.body)["detail"])


def test_a_budget_is_made_changed_and_taken_away(client: Client) -> None:
    kept = client.put("page \u2713", WHOLE)
    assert 200 == kept.status
    told = {"name": "page \u2713", **WHOLE, "limit_usd": "12.50", "source": "page"}
    told["limits"] = [{"values": ["acme"], "limit_usd": "50.00"}]
    assert told == json.loads(kept.body)
    assert told == client.read("budgets")["rules"][1]
    assert 200 == client.put("page \u2713", {"limit_usd": "7"}).status
    rules = client.read("budgets")["rules"]
    assert [("in code", "100.00", "code"), ("page \u2713", "7.00", "page")] == [
        (rule["name"], rule["limit_usd"], rule["source"]) for rule in rules
    ]
    states = {state["name"]: state["editable"] for state in client.read("budgets")["budgets"]}
    assert {"in code": False, "page \u2713": True} == states
    assert states == {s["name"]: s["editable"] for s in client.read("overview")["budgets"]}
    dropped = client.drop("page \u2713")
    assert (204, b"") == (dropped.status, dropped.body)
    assert ["in code"] == [rule["name"] for rule in client.read("budgets")["rules"]]


def test_what_calls_in_flight_hold_is_told(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(budgets=[Budget("cap", "10", per="tenant", action="block")])
    meter.record(provider="openai", model="m", cost="2", tags={"tenant": "acme"})
    meter.record(provider="openai", model="m", cost="1", tags={})
    (acme, missing) = Client(meter).read("budgets")["budgets"]
    assert ("2.00", "0.00", "0.00", {"tenant": "acme"}) == (
        acme["spent_usd"],
        acme["held_usd"],
        acme["assumed_usd"],
        acme["tags"],
    )
    assert {"tenant": "(missing)"} == missing["tags"]


@pytest.mark.parametrize(
    "principal", [Principal(), Principal({"tenant": "acme"}), Principal({"tenant": "acme"}, True)]
)
def test_only_who_may_edit_and_has_no_scope_changes_anything(
    client: Client, principal: Principal
) -> None:
    assert 200 == client.put("page", {"limit_usd": "7"}).status
    reader = Client(client.dashboard, principal)
    for response in (
        reader.put("page", {"limit_usd": "1"}),
        reader.put("other", {"limit_usd": "1"}),
        reader.drop("page"),
        reader.drop("nothing"),
    ):
        assert 403 == response.status
        assert "can_edit=True" in detail(response)
    assert not any(state["editable"] for state in reader.read("overview")["budgets"])
    assert ("7.00", 2) == (
        client.read("budgets")["rules"][1]["limit_usd"],
        len(client.read("budgets")["rules"]),
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_fetch_site": "same-origin"}, 200),
        ({"sec_fetch_site": "same-origin", "origin": "http://app.test", "host": "app.test"}, 200),
        ({"origin": "http://app.test", "host": "app.test"}, 200),
        ({"authorization": "Bearer x"}, 200),
        ({"sec_fetch_site": "none"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site", "authorization": "Bearer x"}, 403),
        ({"origin": "http://evil.test", "host": "app.test"}, 403),
        ({"origin": "http://evil.test", "host": "app.test", "authorization": "Bearer x"}, 403),
        ({"origin": "null", "host": "app.test"}, 403),
        ({"origin": "http://app.test"}, 403),
        ({"origin": ""}, 403),
        ({"authorization": "Basic eDp5"}, 403),
        ({}, 403),
    ],
)
def test_changes_come_from_this_page_or_from_a_program(
    client: Client, headers: dict[str, str], status: int
) -> None:
    body = b'{"limit_usd": "1"}'
    sent = {"content_type": "application/json; charset=utf-8", **headers}
    assert status == client.api("budgets/b", "PUT", body, **sent).status
    assert (204 if status == 200 else 403) == client.api("budgets/b", "DELETE", **headers).status


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({}, "limit_usd"),
        ({"limit_usd": 5}, "limit_usd"),
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": "1e3"}, "limit_usd"),
        ({"limit_usd": "9999999"}, "limit_usd"),
        ({"limit_usd": "1", "period": "year"}, "period"),
        ({"limit_usd": "1", "per": "tenant"}, "per"),
        ({"limit_usd": "1", "per": [""]}, "per.0"),
        ({"limit_usd": "1", "per": ["a\0"]}, "per.0"),
        ({"limit_usd": "1", "per": ["a", "a"]}, "per"),
        ({"limit_usd": "1", "where": {"a": 1}}, "where.a"),
        ({"limit_usd": "1", "action": "shout"}, "action"),
        ({"limit_usd": "1", "alert_at": [0]}, "alert_at.0"),
        ({"limit_usd": "1", "limits": [{"values": ["a"], "limit_usd": "x"}]}, "limits.0.limit_usd"),
        ({"limit_usd": "1", "limits": [{"values": ["a"], "limit_usd": "1"}]}, "limits"),
        ({"limit_usd": "1", "max_output_tokens": 0}, "max_output_tokens"),
        ({"limit_usd": "1", "wait": -1}, "wait"),
        ({"limit_usd": "1", "wait": 601}, "wait"),
        ({"limit_usd": "1", "limitt": "1"}, "limitt"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(client: Client, budget: object, field: str) -> None:
    response = client.put("page", budget)
    assert (400, field) == (response.status, json.loads(response.body).get("field"))
    assert ["in code"] == [rule["name"] for rule in client.read("budgets")["rules"]]


def test_what_is_no_budget_at_all_is_refused(client: Client) -> None:
    for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}" * 3):
        assert 400 == client.put("page", body).status, body
    assert 413 == client.put("page", b" " * (MOST_BODY + 1)).status
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert 415 == client.put("page", {"limit_usd": "1"}, content_type=kind).status
    for name in ("x" * 129, "a\nb", "a/b"):
        response = client.put(name, {"limit_usd": "1"})
        assert (400, "name") == (response.status, json.loads(response.body)["field"])
    assert 404 == client.put("", {"limit_usd": "1"}).status


def test_budgets_of_the_code_are_changed_there(client: Client) -> None:
    for response in (client.put("in code", {"limit_usd": "1"}), client.drop("in code")):
        assert 409 == response.status
        assert "code" in detail(response)
    assert 404 == client.drop("nothing").status
    assert "100.00" == client.read("budgets")["rules"][0]["limit_usd"]


def test_a_change_is_seen_at_once(client: Client) -> None:
    """What was told to all a moment ago is not told again."""
    assert 1 == len(client.read("overview")["budgets"])
    client.put("page", {"limit_usd": "7"})
    assert 2 == len(client.read("overview")["budgets"])


def test_other_methods_say_which_there_are(client: Client) -> None:
    for path, methods in (
        ("budgets/x", "DELETE, PUT"),
        ("budgets", "GET, HEAD"),
        ("calls/1", "GET, HEAD"),
    ):
        response = client.api(path, "POST")
        assert (405, methods) == (response.status, response.headers["Allow"])


@pytest.mark.parametrize("more", [b"", b" " * MOST_BODY])
def test_bodies_are_read_under_asgi_and_wsgi(meter: Meter, more: bytes) -> None:
    body = json.dumps({"limit_usd": "3"}).encode() + more
    headers = {
        "Content-Type": "application/json",
        "Sec-Fetch-Site": "same-origin",
        "Content-Length": str(len(body)),
    }

    async def put(app: Any) -> httpx.Response:
        async def pieces() -> Any:
            for start in range(0, len(body), 30_000):
                yield body[start : start + 30_000]

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return await client.put("/api/v1/budgets/asgi", content=pieces(), headers=headers)

    expected = 413 if more else 200
    assert expected == anyio.run(put, DashboardASGI(meter, lambda _: EDITOR)).status_code
    refused = anyio.run(put, DashboardASGI(meter, lambda _: None))
    assert 403 == refused.status_code

    for length in ({"CONTENT_LENGTH": str(len(body))}, {"wsgi.input_terminated": True}):
        sent = io.BytesIO(body)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "PUT",
            "PATH_INFO": "/api/v1/budgets/wsgi",
            "CONTENT_TYPE": "application/json",
            "HTTP_SEC_FETCH_SITE": "same-origin",
            "wsgi.input": sent,
            **length,
        }
        assert str(expected) == _status_of(DashboardWSGI(meter, lambda _: EDITOR), environ)
        assert sent.tell() <= MOST_BODY + 1


def _status_of(app: DashboardWSGI, environ: dict[str, Any]) -> str:
    answers: list[str] = []
    list(app(environ, lambda status, _: answers.append(status[:3])))
    return answers[0]
