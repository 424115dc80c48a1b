"""A reader who is confined to a tenant learns nothing of another one, whatever is tried.

The same requests go to a ledger of two tenants and to one where the other never was: the answers
have to be the same to the byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from costmw import Budget, Config, Meter
from costmw.dashboard import Principal
from costmw.dashboard.core import Dashboard
from costmw.dashboard.cursors import Cursors
from costmw.events import Amendment, Outcome, UsageEvent
from dashboard_client import Client
from rows import an_event

ACME = Principal({"tenant": "acme"})
GLOBEX = Principal({"tenant": "globex"})
ALL = Principal()

NOW = datetime.now(UTC)
BUDGETS = (
    Budget("each", "50", per="tenant", action="block"),
    Budget("pairs", "50", per=("tenant", "feature")),
    Budget("shared by all", "100"),
    Budget("of acme", "60", where={"tenant": "acme"}),
    Budget("of globex", "77", where={"tenant": "globex"}),
)


class Clock(datetime):
    """Stands still: what is foreseen changes by the minute."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


def calls_of(tenant: str, count: int, cost: int) -> list[UsageEvent]:
    return [
        an_event(
            cost * 10**12,
            created_at=NOW - timedelta(hours=7 * n),
            provider=f"provider-{tenant}" if n % 5 == 0 else "openai",
            response_model=f"model-{tenant}",
            tags={
                "tenant": tenant,
                "feature": f"feature-{tenant}-{n % 3}",
                "user": f"user-{tenant}-{n % 7}",
                f"key-of-{tenant}": "x",
            },
            api_key_id=f"key-{tenant}",
            latency_ms=10 * cost,
        )
        for n in range(count)
    ]


def a_meter(folder: Any, events: Sequence[UsageEvent], tenants: Sequence[str]) -> Meter:
    meter = Meter(f"sqlite:///{folder}/llmcost.db", budgets=BUDGETS, config=Config(ack_timeout=30))
    meter.store.open()
    meter.store.write(events)
    meter.store.write(
        [Outcome("error", NOW, "openai", f"failed-{one}", {"tenant": one}) for one in tenants]
    )
    meter.store.write(
        [
            Amendment(event.id, f"late usage of {event.tags['tenant']}", cost_pico_usd=10**9)
            for event in events
            if event.tags["feature"].endswith("-1")
        ]
    )
    meter.keep_budget(Budget("page of globex", "9", where={"tenant": "globex"}))
    return meter


@dataclass(frozen=True, slots=True)
class Worlds:
    """A reader of acme's in a ledger of two tenants, and where acme is alone."""

    among_others: Client
    alone: Client
    of_acme: UsageEvent
    of_globex: UsageEvent


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    acme, globex = calls_of("acme", 40, 1), calls_of("globex", 60, 7)
    mixed = [event for pair in zip(acme, globex, strict=False) for event in pair] + globex[40:]
    both = a_meter(tmp_path_factory.mktemp("both"), mixed, ["acme", "globex"])
    one = a_meter(tmp_path_factory.mktemp("one"), acme, ["acme"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("costmw.reports.asking.datetime", Clock)
        yield Worlds(Client(both, ACME), Client(one, ACME), acme[1], globex[1])
    both.close()
    one.close()


VIEWS = (
    "",
    "by=tag:tenant",
    "by=tag:feature",
    "by=tag:user&top=50",
    "by=tag:key-of-globex",
    "by=model",
    "by=provider",
    "by=api_key_id",
    "by=status",
    "by=none",
    "range=7d&by=tag:tenant",
    "range=12m&metric=calls",
    "range=today&every=hour&compare=none",
    "filter=tag:tenant:is:globex",
    "filter=tag:tenant:is:globex&filter=tag:tenant:is:acme",
    "filter=tag:tenant:not:acme",
    "filter=tag:tenant:not:globex&by=tag:tenant",
    "filter=tag:tenant:contains:",
    "filter=tag:tenant:contains:o",
    "filter=tag:tenant:unset",
    "filter=tag:tenant:set",
    "filter=model:is:model-globex",
    "filter=provider:contains:globex&by=provider",
    "filter=api_key_id:is:key-globex",
    "filter=tag:user:is:user-globex-1",
    "filter=tag:key-of-globex:set",
    "filter=tag:feature:not:feature-acme-0&by=tag:feature",
    "scope=globex&tenant=globex&where=tenant%3Dglobex",
)

PATHS = (
    *(f"overview?{view}" for view in VIEWS),
    *(f"breakdown?{view}" for view in VIEWS[1:10]),
    *(f"series?{view}" for view in VIEWS[1:5]),
    *(f"anomalies?{view}" for view in VIEWS[:3]),
    *(f"breakdown?{view}&format=csv" for view in ("by=tag:tenant", "by=tag:user", VIEWS[13])),
    "series?by=tag:tenant&format=csv",
    "calls",
    "calls?limit=200",
    "calls?limit=200&format=csv",
    "calls?filter=tag:tenant:is:globex",
    "calls?filter=tag:tenant:not:acme",
    "calls?filter=model:contains:globex&limit=200",
    *(
        f"values?key={key}"
        for key in (
            "tag:tenant",
            "tag:feature",
            "tag:user",
            "tag:key-of-globex",
            "model",
            "provider",
            "api_key_id",
        )
    ),
    "values?key=tag:tenant&contains=glo",
    "values?key=model&contains=globex",
    "budgets",
    "forecast",
)


def told(response: Any) -> Any:
    """What an answer says, without when it was made and where its list goes on."""
    if response.headers["Content-Type"] != "application/json":
        return response.body
    answer = json.loads(response.body)
    answer.pop("generated_at", None)
    if answer.get("before"):
        answer["before"] = "more"
    return answer


def test_more_than_forty_requests_are_tried() -> None:
    assert 60 < len(set(PATHS))


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_that_would_not_be_told_without_the_others(
    worlds: Worlds, path: str
) -> None:
    for other in (GLOBEX, ALL):  # whose answers may be at hand already
        assert 200 == Client(worlds.among_others.dashboard, other).api(path).status
    found, expected = worlds.among_others.api(path), worlds.alone.api(path)
    assert 200 == found.status
    assert told(expected) == told(found)
    assert expected.headers.get("ETag") == found.headers.get("ETag")
    said = re.sub(r'"question":\{.*?\]?\}', "", found.body.decode()).replace(
        "tag:key-of-globex", ""
    )
    assert "globex" not in said


def test_what_others_were_told_is_new_to_a_reader(worlds: Worlds) -> None:
    for path in ("overview", "breakdown?by=tag:tenant", "budgets", "forecast"):
        for other in (GLOBEX, ALL):
            etag = Client(worlds.among_others.dashboard, other).api(path).headers["ETag"]
            assert 200 == worlds.among_others.api(path, if_none_match=etag).status
        own = worlds.among_others.api(path).headers["ETag"]
        assert 304 == worlds.among_others.api(path, if_none_match=own).status


def test_calls_of_others_are_not_there(worlds: Worlds) -> None:
    missing = worlds.alone.api(f"calls/{worlds.of_globex.id}")
    found = worlds.among_others.api(f"calls/{worlds.of_globex.id}")
    assert 404 == found.status == missing.status
    assert missing.body == found.body
    assert 200 == worlds.among_others.api(f"calls/{worlds.of_acme.id}").status
    own = worlds.among_others.read(f"calls/{worlds.of_acme.id}")
    assert ["late usage of acme"] == [one["reason"] for one in own["amendments"]]


def test_pages_of_calls_have_ones_own_only_and_tell_no_distance(worlds: Worlds) -> None:
    seen, cursors, before = [], [], ""
    while True:
        page = worlds.among_others.read(f"calls?limit=7{before}")
        seen += page["calls"]
        if page["before"] is None:
            break
        cursors.append(page["before"])
        before = f"&before={page['before']}"
    assert 40 == len(seen)
    assert {"acme"} == {call["tags"]["tenant"] for call in seen}
    assert all(re.fullmatch("[0-9a-f]{16}", cursor) for cursor in cursors)
    distances = {abs(int(a, 16) - int(b, 16)) for a in cursors for b in cursors if a != b}
    assert min(distances) > 1000, "positions would be near each other"


def test_the_secret_of_cursors_is_read_once(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Postgres whoever reads it takes the connection that calls are committed by."""
    dashboard = worlds.among_others.dashboard
    store, read = dashboard.meter.store, []
    key = store.fingerprint_key()
    monkeypatch.setattr(store, "fingerprint_key", lambda: read.append("x") or key)
    pages = Client(Dashboard(dashboard.meter), ACME)
    for _ in range(3):
        pages.read(f"calls?limit=7&before={pages.read('calls?limit=7')['before']}")
    assert ["x"] == read


def test_where_another_reader_was_leads_nowhere(worlds: Worlds) -> None:
    for other in (GLOBEX, ALL):
        cursor = Client(worlds.among_others.dashboard, other).read("calls?limit=5")["before"]
        assert {"calls": [], "before": None} == worlds.among_others.read(f"calls?before={cursor}")


def test_a_cursor_is_of_one_scope_and_comes_back() -> None:
    secret = b"0" * 32
    own, other = Cursors(secret, {"tenant": "acme"}), Cursors(secret, {"tenant": "globex"})
    for position in (0, 1, 2, 12345, 2**32, 2**62):
        assert position == own.position_of(own.text_of(position))
        assert own.text_of(position) != other.text_of(position)
    assert 1000 == len({own.text_of(position) for position in range(1000)})


def test_the_report_is_confined_too(worlds: Worlds) -> None:
    for query in ("", "month=" + f"{NOW:%Y-%m}", f"month={NOW:%Y-%m}&format=md"):
        found = worlds.among_others.ask(f"report?{query}")
        assert 200 == found.status
        text = found.body.decode()
        assert "globex" not in text
        assert "sqlite" not in text, "where the ledger is, is for those who see everything"
    assert "feature-acme-0" in text


def test_nothing_can_be_changed_or_found_out_by_trying(worlds: Worlds) -> None:
    reader = Client(worlds.among_others.dashboard, replace(ACME, can_edit=True))
    tried = [
        response.body
        for name in ("page of globex", "of globex", "nothing")
        for response in (reader.put(name, {"limit_usd": "1"}), reader.drop(name))
    ]
    assert 1 == len(set(tried)), "the same is said whether there is such a budget or not"
    assert b'"status": 403' in tried[0]
    assert [] == reader.read("budgets")["rules"]


def test_a_scope_of_what_is_not_kept_tells_no_counters(worlds: Worlds) -> None:
    reader = Client(worlds.among_others.dashboard, Principal({"user": "user-acme-1"}))
    overview = reader.read("overview?by=tag:tenant")
    assert (None, []) == (overview["summary"]["outcomes"], overview["outcomes"])
    assert ["acme"] == [row["value"] for row in overview["breakdown"]["rows"]]


def test_hostile_scopes_are_values_and_nothing_else(worlds: Worlds) -> None:
    for value in ("acme' OR '1'='1", "%", "_cme", "ACME", "", "acme\0", "a" * 300):
        reader = Client(worlds.among_others.dashboard, Principal({"tenant": value}))
        for path in ("overview", "calls", f"values?key={quote('tag:tenant')}", "breakdown"):
            body = reader.api(path).body.decode()
            assert "globex" not in body
            assert "model-acme" not in body
