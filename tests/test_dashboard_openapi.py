"""The description of the API is what the API does: schemathesis tries it on the real app."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from costmw import Budget, Config, Meter
from costmw.dashboard import DashboardWSGI, token
from costmw.dashboard.api import OPERATIONS, Operation
from costmw.question import MOST_VALUES
from dashboard_client import Client
from rows import an_event

SECRET = "0123456789abcdef"
SIGNED_IN = {"Authorization": f"Bearer {SECRET}", "Accept-Encoding": "identity"}
BEYOND_SCHEMAS = re.compile(
    "needs from and to|must be after from|points for this range|^from must be|^to must be"
    "|one value for each tag|beyond 9.2 million|a tag twice|should be a valid integer"
)
"""What is allowed by itself, and not together; and 1.0 in the place of 1."""

EXAMPLES = 15
"""Requests that are tried of each operation and kind."""


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    """A ledger with something in all of its views."""
    folder = tmp_path_factory.mktemp("openapi")
    meter = Meter(
        f"sqlite:///{folder}/llmcost.db",
        budgets=[Budget("in code", "5", per="tenant", action="block")],
        config=Config(ack_timeout=30),
    )
    now = datetime.now(UTC)
    meter.store.open()
    meter.store.write(
        [
            an_event(
                None if n % 9 == 4 else 10**12 * (1 + 40 * (n == 3)),
                created_at=now - timedelta(days=n % 20),
                tags={"tenant": "ab"[n % 2], "feature": f"f{n % 3}"},
                api_key_id="k",
                latency_ms=20,
            )
            for n in range(60)
        ]
    )
    yield meter
    meter.close()


@pytest.fixture(scope="module")
def described(meter: Meter) -> Any:
    app = DashboardWSGI(meter, token(SECRET))
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app=app, headers=SIGNED_IN)


@pytest.mark.parametrize(
    ("one", "mode"),
    [
        pytest.param(one, mode, id=f"{one.name}-{mode.value}")
        for one in OPERATIONS
        for mode in schemathesis.GenerationMode
        # Where there is nothing to give, nothing can be wrong.
        if mode.is_positive or one.parameters or one.takes or one.place
    ],
)
def test_it_answers_as_it_is_described(
    described: Any, one: Operation, mode: schemathesis.GenerationMode
) -> None:
    """With what the description allows, and with what it does not."""

    @given(case=described[f"/{one.path}"][one.method].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def tried(case: schemathesis.Case) -> None:
        response = case.call(base_url="http://localhost/api/v1", headers=SIGNED_IN)
        excluded = [positive_data_acceptance]
        if response.status_code == 413:  # a refusal too, which the check does not know
            excluded.append(negative_data_rejection)
        case.validate_response(response, excluded_checks=excluded)
        if mode.is_positive and response.status_code == 400:
            assert BEYOND_SCHEMAS.search(response.json()["detail"]), response.json()

    tried()


def test_everything_that_can_be_asked_is_described(meter: Meter) -> None:
    told = Client(meter).read("openapi.json")
    assert "3.1.0" == told["openapi"]
    described = {
        (method.upper(), path.removeprefix("/"))
        for path, methods in told["paths"].items()
        for method in methods
    }
    assert {(one.method, one.path) for one in OPERATIONS} == described
    for one in OPERATIONS:
        operation = told["paths"][f"/{one.path}"][one.method.lower()]
        statuses = set(operation["responses"])
        assert {"400", "401", "403", "500", "503"} <= statuses
        assert ("304" in statuses) == one.is_shared
        names = {
            parameter.get("name") or parameter["$ref"].rpartition("/")[2]
            for parameter in operation["parameters"]
        }
        assert {parameter.name for parameter in one.parameters} <= names
    overview = {name: one["schema"] for name, one in told["components"]["parameters"].items()}
    assert "Europe/Berlin" in overview["tz"]["enum"]
    assert MOST_VALUES == overview["top"]["maximum"]
    assert ["cost", "calls", "tokens", "cost_per_call", "cost_per_request"] == (
        overview["metric"]["enum"]
    )


def test_money_is_described_as_text(meter: Meter) -> None:
    schemas = Client(meter).read("openapi.json")["components"]["schemas"]

    def money(schema: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in schema.get("properties", {}).items():
            if key.endswith("_usd"):
                yield f"{name}.{key}", value

    found = [pair for name, schema in schemas.items() for pair in money(schema, name)]
    assert 30 < len(found)
    for name, schema in found:
        assert "number" not in json.dumps(schema), name
        assert "string" in json.dumps(schema), name
