"""What the API of the page answers: its questions, single calls, values and tables."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote
from uuid import uuid4

import pytest

from costmw import Config, Meter, PriceOverride
from costmw.events import Amendment, Outcome, Price, Usage
from costmw.money import to_pico
from costmw.question import Question
from costmw.reports import Reports
from costmw.store.base import Found, Query
from costmw.store.snapshots import LedgerSnapshot
from costmw.transfer.cells import cell_text
from dashboard_client import Client
from rows import an_event

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "formula": '=HYPERLINK("http://evil.test")',
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-2+3",
    "at": "@SUM(1)",
    "full-width": "\uff1d1+1",
    "tab": "\t=1",
    "right to left": "\u202egnp.exe",
    "emoji": "\U0001f469\u200d\U0001f680",
    "quotes": "a\"b'c,d;e",
    "long": "x" * 256,
    "lines": "a\r\nb\nc",
    "apostrophe": "'=1",
    "percent": "100%_\\",
    "colon": "a:is:b",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Client:
    """A reader of a ledger with days of calls by three models, users and hostile features."""
    folder = tmp_path_factory.mktemp("api")
    meter = Meter(f"sqlite:///{folder}/llmcost.db", config=Config(ack_timeout=30))
    now = datetime.now(UTC)
    events = []
    for n in range(60):
        cost = (n % 5 + 1) * 10**10
        events.append(
            an_event(
                None if n % 20 == 7 else cost,
                created_at=now - timedelta(hours=11 * n),
                response_model=f"model-{n % 3}",
                tags={
                    "feature": list(HOSTILE.values())[n % len(HOSTILE)],
                    **({"user": f"user-{n:02}"} if n % 4 else {}),
                },
                status="estimated" if n % 10 == 3 else "ok",
                latency_ms=100 + n,
                request_id=uuid4(),
                first_in_request=True,
            )
        )
    meter.store.open()
    meter.store.write(events)
    meter.store.write([Outcome("error", now, "openai", "model-0", {}) for _ in range(3)])
    return Client(meter)


@pytest.mark.parametrize(
    ("parameter", "wrong"),
    [
        ("range", ["", "all", "1d", "30D"]),
        ("tz", ["", "Mars/Olympus", "../../etc/passwd", "America", "/UTC", "UTC\0"]),
        ("every", ["", "week", "minute"]),
        ("compare", ["", "last"]),
        ("filter", ["", "model", "model:is", "nothing:is:a", "tag::is:a", "model:like:a", "tag:a",
                    "model:set:", "model:is:" + "x" * 257, "Model:is:a"]),
        ("by", ["", "tag:", "tenant", "e.id", "model;--", "None"]),
        ("metric", ["", "money"]),
        ("top", ["", "0", "51", "-1", "1.5", "nine", "\u0661", "9" * 30]),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_what_is_allowed(
    client: Client, parameter: str, wrong: list[str]
) -> None:
    for value in wrong:
        response = client.api(f"overview?{parameter}={quote(value)}")
        assert (400, "application/problem+json") == (
            response.status,
            response.headers["Content-Type"],
        ), value
        told = json.loads(response.body)
        assert parameter == told["parameter"]
        assert told["detail"].startswith(f"{parameter} must be ")


@pytest.mark.parametrize(
    "path",
    [
        "overview?range=custom",
        "overview?range=custom&from=2026-10-01",
        "overview?range=custom&from=2026-10-01&to=2026-10-01",
        "overview?range=custom&from=2026-02-30&to=2026-03-01",
        "overview?range=custom&from=20261001&to=2026-11-01",
        "overview?from=x",
        "overview?to=",
        "overview?range=90d&every=hour",
        "overview?" + "&".join("filter=model:set" for _ in range(21)),
        "overview?" + "&".join(f"a{n}=1" for n in range(101)),
        "calls?limit=0",
        "calls?limit=201",
        "calls?before=12",
        "calls?range=year",
        "calls/not-a-uuid",
        "values",
        "values?key=tag:",
        "values?key=model&limit=201",
        "values?key=model&contains=" + "x" * 257,
        "breakdown?format=xlsx",
    ],
)
def test_what_makes_no_sense_is_a_problem(client: Client, path: str) -> None:
    response = client.api(path)
    assert 400 == response.status
    assert json.loads(response.body)["detail"]


def test_parameters_that_nobody_knows_are_ignored(client: Client) -> None:
    assert (
        "30d"
        == client.read("overview?chart=line&call=1&sort=cost&from=2026-01-01")["question"]["range"]
    )


def test_the_question_is_told_as_it_was_understood(client: Client) -> None:
    told = client.read(
        "overview?range=custom&from=2026-10-01&to=2026-10-03&tz=Asia/Kolkata&by=tag:a%253Ab&top=3"
        "&metric=calls&filter=model:is:a&filter=model:is:b:c&filter=tag:x%253Ay:not:z"
        "&filter=tag:user:unset&filter=model:contains:"
    )["question"]
    assert {
        "range": "custom",
        "start": "2026-09-30T18:30:00Z",
        "stop": "2026-10-02T18:30:00Z",
        "every": "hour",
        "time_zone": "Asia/Kolkata",
        "previous_start": "2026-09-28T18:30:00Z",
        "previous_stop": "2026-09-30T18:30:00Z",
        "filters": [
            {"key": "model", "op": "is", "values": ["a", "b:c"]},
            {"key": "tag:x:y", "op": "not", "values": ["z"]},
            {"key": "tag:user", "op": "unset", "values": []},
            {"key": "model", "op": "contains", "values": [""]},
        ],
        "by": "tag:a:b",
        "metric": "calls",
        "top": 3,
    } == told


def test_it_is_grouped_by_the_first_common_tag_in_use_or_else_by_model(
    client: Client, make_meter: Callable[..., Meter]
) -> None:
    assert "tag:feature" == client.read("overview")["question"]["by"]
    empty = Client(make_meter())
    assert "model" == empty.read("overview")["question"]["by"]
    alone = empty.read("overview?by=none")
    assert (None, [], None) == (
        alone["question"]["by"],
        alone["series"]["lines"],
        alone["breakdown"]["other"],
    )


def test_lines_and_rows_add_up_to_the_whole(client: Client) -> None:
    for query in ("by=tag:user&top=5", "by=model", "by=tag:feature&filter=model:not:model-1"):
        told = client.read(f"overview?{query}")
        rows = [*told["breakdown"]["rows"], *filter(None, [told["breakdown"]["other"]])]
        total = told["breakdown"]["total"]["sums"]
        assert told["summary"]["sums"] == total
        for name in ("total_usd", "calls", "input_tokens", "unpriced_calls"):
            assert Decimal(total[name]) == sum(Decimal(row["sums"][name]) for row in rows)
        assert pytest.approx(1) == sum(row["share"] for row in rows)
        lines = [*told["series"]["lines"], *filter(None, [told["series"]["other"]])]
        for name in ("cost_usd", "estimated_cost_usd", "calls", "tokens", "requests"):
            for n, whole in enumerate(told["series"]["total"][name]):
                assert Decimal(whole) == sum(Decimal(line[name][n]) for line in lines), name
        for line, row in zip(told["series"]["lines"], rows, strict=False):
            assert line["value"] == row["value"]
            assert row["sums"]["calls"] == sum(line["calls"])


def test_previous_days_are_told_by_their_position(client: Client) -> None:
    told = client.read("overview?range=7d&by=model")
    before = told["series"]["previous"]
    assert 7 == len(before)
    assert Decimal(told["summary"]["previous"]["total_usd"]) == sum(map(Decimal, before))
    assert Decimal(told["summary"]["previous"]["total_usd"]) == sum(
        Decimal(row["previous"]["total_usd"]) for row in told["breakdown"]["rows"]
    )
    alone = client.read("overview?range=7d&compare=none")
    assert [None] * 3 == [
        alone["series"]["previous"],
        alone["summary"]["previous"],
        alone["breakdown"]["total"]["previous"],
    ]


def test_months_of_other_lengths_are_told_by_their_days(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    meter.store.open()
    days = [datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=n) for n in range(90)]
    meter.store.write([an_event(n * 10**12, created_at=day) for n, day in enumerate(days)])

    def previous(now: datetime) -> list[Decimal | None]:
        asked = Question(range="last-month", by=None)
        return Reports(meter.store, now=lambda: now).series(asked).previous or []

    assert [*range(31, 59), None, None, None] == previous(datetime(2026, 4, 5, tzinfo=UTC))
    assert [*range(28)] == previous(datetime(2026, 3, 5, tzinfo=UTC)), "January had 31"


@pytest.mark.parametrize("metric", ["cost", "calls", "tokens", "cost_per_call", "cost_per_request"])
def test_values_are_ranked_by_the_metric(client: Client, metric: str) -> None:
    rows = client.read(f"breakdown?by=tag:user&top=50&metric={metric}")["rows"]

    def measured(row: dict[str, dict[str, str]]) -> Decimal:
        sums = row["sums"]
        if metric == "tokens":
            return Decimal(sums["input_tokens"]) + Decimal(sums["output_tokens"])
        name = {"cost": "total_usd", "calls": "calls"}.get(metric, f"{metric}_usd")
        return Decimal(-1 if sums[name] is None else sums[name])

    found = [measured(row) for row in rows]
    assert sorted(found, reverse=True) == found
    assert 1 < len(set(found)) or metric in ("tokens", "calls")


def test_many_values_are_named_one_by_one(
    make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond 200 values only those that are named are looked up over time, with the same sums."""
    asked: list[Query] = []
    totals = LedgerSnapshot.totals

    def seen(self: LedgerSnapshot, query: Query) -> Found:
        asked.append(query)
        return totals(self, query)

    monkeypatch.setattr(LedgerSnapshot, "totals", seen)
    meter = make_meter()
    now = datetime.now(UTC)
    meter.store.open()
    meter.store.write(
        [
            an_event(
                10**9 * (n % 250 + 1),
                created_at=now - timedelta(hours=n % 100),
                tags={"user": f"u{n % 250}"} if n % 9 else {},
            )
            for n in range(500)
        ]
    )
    while meter.store.roll_up(100):
        pass
    told = Client(meter).read("overview?by=tag:user&top=3&range=7d")
    over_time = [query for query in asked if query.buckets and query.group_by]
    assert [("unset",), ("is",)] == sorted(
        {tuple(one.op for one in query.filters) for query in over_time}, reverse=True
    )
    assert 251 == told["breakdown"]["values"]
    assert not told["breakdown"]["from_rows"]
    assert [None, "u249", "u248"] == [row["value"] for row in told["breakdown"]["rows"]]
    lines = told["series"]["lines"]
    assert [None, "u249", "u248"] == [line["value"] for line in lines]
    for line, row in zip(lines, told["breakdown"]["rows"], strict=True):
        assert row["sums"]["calls"] == sum(line["calls"])
        assert Decimal(row["sums"]["total_usd"]) == sum(map(Decimal, line["cost_usd"]))
    assert 500 == sum(told["series"]["total"]["calls"])
    assert 500 - sum(sum(line["calls"]) for line in lines) == sum(told["series"]["other"]["calls"])


@pytest.mark.parametrize("users", [199, 200, 201])
def test_as_many_values_as_are_kept_in_pairs(make_meter: Callable[..., Meter], users: int) -> None:
    """Calls without a value, which come first here, are one value more."""
    meter = make_meter()
    meter.store.open()
    meter.store.write(
        [
            an_event(
                10**9 * (n + 1),
                tags={"user": f"u{n}"} if n < users else {},
                latency_ms=9,
                created_at=datetime.now(UTC),
            )
            for n in range(users + 3)
        ]
    )
    rows = Client(meter).read("breakdown?by=tag:user&top=2")["rows"]
    assert [None, f"u{users - 1}"] == [row["value"] for row in rows]
    assert (users <= 200) == all(row["latency_p50_ms"] is not None for row in rows)


def test_the_summary_says_how_well_things_are_known(client: Client) -> None:
    summary = client.read("overview?by=model")["summary"]
    assert (3, pytest.approx(57 / 60)) == (
        summary["coverage"]["unpriced_calls"],
        summary["coverage"]["priced_share"],
    )
    assert 3 == sum(model["calls"] for model in summary["coverage"]["models"])
    sums = summary["sums"]
    exact = Decimal(sums["cost_usd"]) / Decimal(sums["total_usd"])
    assert pytest.approx(float(exact)) == summary["coverage"]["exact_share"]
    assert exact < 1
    assert {"feature": 0, "user": 15} == {one["key"]: one["calls"] for one in summary["untagged"]}
    assert {"error": 3, "retry": 0, "refused": 0, "capture_fault": 0} == summary["outcomes"]
    assert 60 == summary["latency"]["calls"]
    assert 90 < summary["latency"]["p50_ms"] < 160


def test_how_long_calls_took_is_told_where_it_is_kept(client: Client) -> None:
    for query in ("by=model", "by=model&top=2", "by=tag:user&top=50", "by=tag:user&top=2"):
        told = client.read(f"breakdown?{query}")
        for row in told["rows"]:
            assert 90 < row["latency_p50_ms"] <= row["latency_p95_ms"] < 180
        for row in (told["total"], told["other"]):
            assert row is None or row["latency_p50_ms"] is None
    narrowed = client.read("overview?by=model&filter=tag:user:set")
    assert [None] * 3 == [row["latency_p50_ms"] for row in narrowed["breakdown"]["rows"]]
    assert 45 == narrowed["summary"]["latency"]["calls"]
    pair = client.read("overview?filter=tag:user:set&filter=model:is:model-1")
    assert (0, None) == (
        pair["summary"]["latency"]["calls"],
        pair["summary"]["latency"]["p50_ms"],
    )


def test_outcomes_say_nothing_of_what_they_are_not_counted_by(client: Client) -> None:
    summary = client.read("overview?filter=model:is:model-0")["summary"]
    assert 3 == summary["outcomes"]["error"]
    assert 0 == client.read("overview?filter=model:is:x")["summary"]["outcomes"]["error"]
    for told in ("filter=tag:user:set", "filter=status:is:ok"):
        assert client.read(f"overview?{told}")["summary"]["outcomes"] is None


def test_what_caches_saved_is_an_estimate_by_the_list(make_meter: Callable[..., Meter]) -> None:
    prices = (
        PriceOverride(
            "cached", {"input": "10", "output": "1", "cache_read": "1", "cache_write": "12"}
        ),
    )
    meter = make_meter(config=Config(prices=prices, ack_timeout=30))
    asked = Client(meter)
    usage = {"input_tokens": 1000, "output_tokens": 1, "provider": "openai"}
    meter.record(model="nobody knows", cache_read_input_tokens=500, **usage)
    assert asked.read("overview?range=7d")["summary"]["cache"] is None
    meter.record(model="cached", cache_read_input_tokens=600, cache_write_input_tokens=100, **usage)
    assert {"saved_usd": "0.0052", "read_share": 0.55, "is_estimate": True} == asked.read(
        "overview?range=today"
    )["summary"]["cache"], "600 x 9 less 100 x 2 millionths"


def test_nobody_waits_until_the_price_list_is_loaded(
    make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a process that only shows the page, and has priced no call."""
    for name, value in (("_loaded", False), ("_loader", None), ("LOADED_AFTER", 0.2)):
        monkeypatch.setattr(f"costmw.price_list.{name}", value)
    meter = make_meter()
    meter.store.open()
    used = Usage(1000, 1, cache_read_input_tokens=400)
    meter.store.write([an_event(1, created_at=datetime.now(UTC), usage=used)])

    def told() -> object:
        return Client(meter).read("overview")["summary"]["cache"]

    assert told() is None
    deadline = time.monotonic() + 20
    while told() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {"saved_usd": "0.00009", "read_share": 0.4, "is_estimate": True} == told()


def test_the_arithmetic_of_a_call_adds_up(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    client = Client(meter)
    for model, provider in (("gpt-5", "openai"), ("claude-sonnet-4-5", "anthropic")):
        event = meter.record(
            provider=provider,
            model=model,
            input_tokens=300_000,
            output_tokens=500,
            cache_read_input_tokens=3_000,
            reasoning_output_tokens=100,
        )
        told = client.read(f"calls/{event.id}")
        assert told["lines_reason"] is None
        for line in told["lines"]:
            assert "1M tokens" == line["per"]
            cost = Decimal(line["quantity"]) * Decimal(line["unit_price_usd"]) / 10**6
            assert Decimal(line["cost_usd"]) == cost
        assert event.price.cost_pico_usd == to_pico(
            sum((Decimal(line["cost_usd"]) for line in told["lines"]), Decimal(0))
        )
        assert {"input tokens": "297000", "cache read tokens": "3000", "output tokens": "500"} == {
            line["label"]: line["quantity"] for line in told["lines"]
        }
        assert [] == told["amendments"]


def test_a_call_without_arithmetic_says_why(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    client = Client(meter)
    own = meter.record(provider="openai", model="gpt-5", cost="1.5")
    unknown = meter.record(provider="openai", model="nobody knows", input_tokens=1, output_tokens=1)
    for event, reason in ((own, "the provider's own figure"), (unknown, "not in the price list")):
        told = client.read(f"calls/{event.id}")
        assert told["lines"] is None
        assert reason in told["lines_reason"]


def test_from_when_on_a_price_holds_is_told(make_meter: Callable[..., Meter]) -> None:
    own = PriceOverride("own", {"input": "1", "output": "1"}, start=date(2026, 2, 1))
    meter = make_meter(config=Config(prices=(own,), ack_timeout=30))
    for model, expected in (("own", "2026-02-01"), ("gpt-5", None), ("o3", "2025-06-10")):
        event = meter.record(provider="openai", model=model, input_tokens=1, output_tokens=1)
        assert expected == Client(meter).read(f"calls/{event.id}")["price_date"]


def test_amendments_of_a_call_are_told(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    event = meter.record(provider="openai", model="gpt-5", input_tokens=1000, output_tokens=10)
    meter.store.write(
        [
            Amendment(event.id, "repriced", cost_pico_usd=10**9),
            Amendment(event.id, "late usage", status="estimated", cost_pico_usd=-(10**8)),
        ]
    )
    told = Client(meter).read(f"calls/{event.id}")
    assert [
        ("repriced", None, "0.00135", "0.00235"),
        ("late usage", "estimated", "0.00235", "0.00225"),
    ] == [
        (one["reason"], one["status"], one["cost_usd_before"], one["cost_usd_after"])
        for one in told["amendments"]
    ]
    assert ("0.00225", "estimated", None) == (told["cost_usd"], told["status"], told["lines"])
    assert "corrected" in told["lines_reason"]


def test_calls_can_be_narrowed_and_paged(client: Client) -> None:
    seen, before = [], ""
    while True:
        page = client.read(f"calls?limit=7&filter=model:is:model-1{before}")
        seen += page["calls"]
        if page["before"] is None:
            break
        before = f"&before={page['before']}"
    assert 20 == len(seen) == len({call["id"] for call in seen})
    assert {"model-1"} == {call["model"] for call in seen}
    times = [call["created_at"] for call in seen]
    assert sorted(times, reverse=True) == times
    assert 7 >= len(client.read("calls?range=today&limit=200")["calls"])


def test_values_are_offered(client: Client) -> None:
    assert {"key": "model", "values": ["model-0", "model-1", "model-2"]} == client.read(
        "values?key=model"
    )
    assert ["user-01", "user-02"] == client.read("values?key=tag:user&limit=2")["values"]
    assert ["user-41"] == client.read("values?key=tag:user&contains=ER-41")["values"]
    assert [] == client.read("values?key=tag:nothing")["values"]


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_found_and_told_as_they_are(client: Client, value: str) -> None:
    found = client.read(f"breakdown?by=tag:feature&filter=tag:feature:is:{quote(value)}")
    assert [value] == [row["value"] for row in found["rows"]]
    part = quote(value[:3])
    assert value in client.read(f"values?key=tag:feature&contains={part}")["values"]


def test_tables_say_what_is_displayed(client: Client) -> None:
    """The same numbers as the JSON, with texts that no spreadsheet runs."""
    query = "by=tag:feature&top=50"
    told = client.read(f"breakdown?{query}")
    response = client.api(f"breakdown?{query}&format=csv")
    assert "text/csv; charset=utf-8" == response.headers["Content-Type"]
    assert response.headers["Content-Disposition"].startswith('attachment; filename="costmw-')
    rows = list(csv.DictReader(io.StringIO(response.body.decode(), newline="")))
    assert ["value"] * len(told["rows"]) + ["total"] == [row["row"] for row in rows]
    for expected, row in zip([*told["rows"], told["total"]], rows, strict=True):
        assert expected["value"] == cell_text(row["value"])
        assert row["value"][:1] not in tuple("=+-@\t\r\n\0\uff1d\uff0b\uff0d\uff20")
        for name, number in expected["sums"].items():
            assert ("" if number is None else str(number)) == row[name]
            before = expected["previous"][name]
            assert ("" if before is None else str(before)) == row[f"previous_{name}"]

    series = client.read(f"series?{query}")
    table = client.api(f"series?{query}&format=csv").body.decode()
    cells = list(csv.DictReader(io.StringIO(table, newline="")))
    assert len(series["starts"]) * (len(series["lines"]) + 1) == len(cells)
    assert [
        (line["value"], cost, str(calls))
        for line in [*series["lines"], series["total"]]
        for cost, calls in zip(line["cost_usd"], line["calls"], strict=True)
    ] == [(cell_text(cell["value"]), cell["cost_usd"], cell["calls"]) for cell in cells]

    calls = client.read("calls?limit=200")["calls"]
    table = client.api("calls?limit=200&format=csv").body.decode()
    cells = list(csv.DictReader(io.StringIO(table, newline="")))
    assert [(call["id"], call["tags"].get("feature"), call["cost_usd"]) for call in calls] == [
        (cell["id"], cell_text(cell["tag:feature"]), cell["cost_usd"] or None) for cell in cells
    ]


def test_names_of_models_are_harmless_in_tables_too(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    meter.record(provider="@evil", model="=1+1", cost="1", tags={"=2": "+3"})
    table = Client(meter).api("calls?format=csv").body.decode()
    (cells,) = csv.DictReader(io.StringIO(table, newline=""))
    assert ("'=1+1", "'@evil", "'+3") == (cells["model"], cells["provider"], cells["tag:=2"])


def test_the_rest_is_a_row_of_its_own(client: Client) -> None:
    table = client.api("breakdown?by=tag:feature&top=2&format=csv").body.decode()
    rows = list(csv.DictReader(io.StringIO(table, newline="")))
    assert ["value", "value", "other", "total"] == [row["row"] for row in rows]
    assert ["", ""] == [row["value"] for row in rows[2:]]
    series = client.api("series?by=tag:feature&top=2&format=csv").body.decode()
    kinds = [row["row"] for row in csv.DictReader(io.StringIO(series, newline=""))]
    assert ["value", "other", "total"] == sorted(set(kinds), key=["value", "other", "total"].index)


def test_an_unusual_day_is_told_with_its_cause(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    noon = datetime.now(UTC).replace(hour=0, minute=30) - timedelta(days=1)
    meter.store.open()
    meter.store.write(
        [
            an_event(
                2 * 10**12,
                created_at=noon - timedelta(days=day),
                tags={"feature": feature},
                usage=Usage(10, 10),
                price=Price(2 * 10**12, "list"),
            )
            for day in range(30)
            for feature in ("chat", *(["batch"] * (40 if day == 3 else 1)))
        ]
    )
    client = Client(meter)
    found = client.read("anomalies?range=30d&tz=UTC")["anomalies"]
    assert found == client.read("overview?range=30d")["anomalies"]
    (one,) = found
    day = (noon - timedelta(days=3)).date()
    assert (f"{day}T00:00:00Z", "day", "more calls") == (one["start"], one["every"], one["kind"])
    assert ("82.00", "tag:feature", "batch") == (
        one["cost_usd"],
        one["cause"]["by"],
        one["cause"]["value"],
    )
    assert "batch" in one["text"]
    assert [] == client.read("anomalies?filter=tag:feature:is:chat")["anomalies"]


def test_days_to_come_are_told_up_to_the_end_of_the_month(
    make_meter: Callable[..., Meter],
) -> None:
    meter = make_meter()
    now = datetime(2026, 10, 20, 15, tzinfo=UTC)
    meter.store.open()
    meter.store.write(
        [
            an_event((100 + day % 7) * 10**10, created_at=now - timedelta(days=day))
            for day in range(1, 40)
        ]
    )
    reports = Reports(meter.store, now=lambda: now)
    for name in ("30d", "month"):
        told = reports.overview(Question(range=name, by=None))  # type: ignore[arg-type]
        assert ["2026-10-20", *(f"2026-10-{day}" for day in range(21, 32))] == [
            f"{day.start:%F}" for day in told.series.forecast
        ]
        assert told.forecast is not None
        ahead = sum((day.expected_usd for day in told.series.forecast), Decimal(0))
        assert (
            pytest.approx(
                told.forecast.expected_usd - told.forecast.spent_usd, abs=Decimal("0.00001")
            )
            == ahead
        )
        for day in told.series.forecast:
            assert 0 <= day.low_usd <= day.expected_usd <= day.high_usd
    for question in (Question(range="today"), Question(range="last-month"), Question(range="12m")):
        assert [] == reports.overview(question).series.forecast


def test_the_monthly_report_is_a_page_under_a_policy_of_its_own(client: Client) -> None:
    page = client.ask("report?month=2026-10")
    assert (200, "text/html; charset=utf-8") == (page.status, page.headers["Content-Type"])
    assert "October 2026" in page.body.decode()
    assert "style-src 'sha256-" in page.headers["Content-Security-Policy"]
    text = client.ask("report?month=2026-10&format=md")
    assert "text/markdown; charset=utf-8" == text.headers["Content-Type"]
    assert text.body.startswith(b"#")
    for wrong in ("month=2026-13", "month=x", "month=2999-01", "format=pdf", "tz=Mars"):
        assert 400 == client.ask(f"report?{wrong}").status
    assert 403 == client.ask("report", sec_fetch_site="cross-site").status
