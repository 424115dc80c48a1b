"""The API tells the same of both databases, whatever it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from costmw import Budget, Config, Meter
from costmw.dashboard import Principal
from dashboard_client import Client
from postgres_server import Server, postgres
from rows import an_event

__all__ = ["postgres"]

NOW = datetime.now(UTC)
EVENTS = [
    an_event(
        None if n % 9 == 4 else (1 + n % 4) * 10**11,
        id=UUID(int=n + 1),
        created_at=NOW - timedelta(hours=9 * n),
        response_model=f"m{n % 3}",
        tags={"tenant": "ab"[n % 2], "feature": ["chat", "it's 100%", "_", ""][n % 4]},
        latency_ms=10 + n,
    )
    for n in range(70)
]
PATHS = (
    "overview",
    "overview?by=tag:feature&top=2&range=7d",
    "overview?by=model&filter=tag:feature:contains:%25&metric=tokens",
    "overview?filter=tag:feature:is:&filter=model:not:m1",
    "overview?filter=tag:feature:contains:CHA&tz=Asia/Kolkata&range=today",
    "overview?filter=tag:nothing:unset&range=12m",
    "breakdown?by=status&filter=provider:set",
    "series?by=tag:tenant&range=month",
    "calls?filter=tag:tenant:is:a&limit=5",
    "calls?filter=tag:feature:contains:_&limit=200",
    f"calls/{EVENTS[4].id}",
    "values?key=tag:feature",
    "values?key=tag:feature&contains=%25",
    "values?key=model&contains=M",
    "budgets",
    "forecast",
    "anomalies",
    # What no database has: NUL, and what is no character.
    "overview?filter=tag:feature:is:%00&filter=model:contains:a%00b",
    "overview?by=tag:%2500",
    "calls?filter=tag:%2500:is:x",
    "values?key=tag:feature&contains=%00",
    "values?key=tag:%2500",
    "overview?filter=tag:feature:is:%ED%A0%80",
    "values?key=tag:feature&contains=%ED%A0%80",
)


class Clock(datetime):
    """Stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


@pytest.fixture(scope="module")
def meters(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Iterator[list[Meter]]:
    folder = tmp_path_factory.mktemp("stores")
    meters = []
    for url in (f"sqlite:///{folder}/llmcost.db", postgres.url()):
        budgets = [Budget("cap", "9", per="tenant", action="block"), Budget("all", "50")]
        meters.append(Meter(url, budgets=budgets, config=Config(ack_timeout=30)))
        meters[-1].store.open()
        meters[-1].store.write(EVENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("costmw.reports.asking.datetime", Clock)
        yield meters
    for meter in meters:
        meter.close()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scope", [{}, {"tenant": "a"}, {"tenant": "\0"}], ids=str)
def test_both_databases_tell_the_same(
    meters: list[Meter], path: str, scope: dict[str, str]
) -> None:
    of_sqlite, of_postgres = (Client(meter, Principal(scope)).api(path) for meter in meters)
    assert of_sqlite.status in (200, 404), of_sqlite.body
    assert of_sqlite.status == of_postgres.status, of_postgres.body
    told, expected = (json.loads(one.body) for one in (of_postgres, of_sqlite))
    for answer in (told, expected):
        if answer.get("before"):
            answer["before"] = "more"
    assert expected == told
