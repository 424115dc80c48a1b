"""The past that the demo makes up: every view of the page has something to show."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest

from costmw import Meter
from costmw.demo.history import HISTORY_DAYS, made_up_history, runaway_day
from costmw.demo.serving import BUDGETS, PAGE_BUDGET, fill
from costmw.events import Amendment, Outcome, Record, UsageEvent
from costmw.monthly import monthly_report

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Meter:
    return Meter(f"sqlite:///{tmp_path_factory.mktemp('demo')}/llmcost.db")


@pytest.fixture(scope="module")
def records(meter: Meter) -> list[Record]:
    return list(made_up_history(meter, NOW))


@pytest.fixture(scope="module")
def calls(records: list[Record]) -> list[UsageEvent]:
    return [record for record in records if isinstance(record, UsageEvent)]


def test_it_is_the_same_every_time(meter: Meter, calls: list[UsageEvent]) -> None:
    again = [
        record
        for record in islice(made_up_history(meter, NOW), 300)
        if isinstance(record, UsageEvent)
    ]

    assert len(again) > 250
    for one, other in zip(again, calls, strict=False):
        assert (one.created_at, one.usage, one.price, one.tags) == (
            other.created_at,
            other.usage,
            other.price,
            other.tags,
        )


def test_it_is_marked_and_past(calls: list[UsageEvent]) -> None:
    assert {"history"} == {call.tags["made_up"] for call in calls}
    assert HISTORY_DAYS <= (calls[-1].created_at - calls[0].created_at).days + 1
    assert all(call.created_at < NOW for call in calls)


def test_it_has_something_for_every_view(records: list[Record], calls: list[UsageEvent]) -> None:
    tags = {key: {call.tags.get(key) for call in calls} for key in ("tenant", "user", "team")}

    assert {"ok", "estimated", "incomplete"} == {call.status for call in calls}
    assert {"list", "none"} == {call.price.source for call in calls}
    assert {"error", "retry", "refused", "capture_fault"} == {
        record.kind for record in records if isinstance(record, Outcome)
    }
    assert any(isinstance(record, Amendment) for record in records)
    assert 2 == len({call.api_key_id for call in calls})
    assert (5, 8, 3) == tuple(len(values) for values in tags.values())  # with and without
    assert 3 == len({call.provider for call in calls})
    for name in ("cache_read_input_tokens", "reasoning_output_tokens"):
        assert any(getattr(call.usage, name) for call in calls)
    assert any(call.time_to_first_chunk_ms for call in calls)
    requests = Counter(call.request_id for call in calls if call.request_id)
    assert {1, 2} == set(requests.values())
    assert len(requests) == sum(call.first_in_request for call in calls)


def test_the_day_on_which_a_loop_ran_away_stands_out(meter: Meter, records: list[Record]) -> None:
    meter.start()
    meter.store.write(records)
    found = monthly_report(meter.store, "2026-11", now=NOW)
    ((start, anomaly),) = found.anomalies
    meter.close()

    assert runaway_day(NOW) == start
    assert anomaly.cause is not None
    assert ("tag:user", "cho", "more calls") == (
        anomaly.cause.by,
        anomaly.cause.value,
        anomaly.kind,
    )
    assert 2 <= len(found.savings)


@pytest.mark.parametrize("day", range(20, 27))
def test_the_loop_runs_on_a_working_day_of_the_week_before(day: int) -> None:
    now = datetime(2026, 11, day, 9, tzinfo=UTC)

    assert runaway_day(now).weekday() < 5
    assert timedelta(days=4) < now - runaway_day(now) < timedelta(days=9)


def test_a_ledger_is_filled_once(tmp_path: Path) -> None:
    meter = Meter(f"sqlite:///{tmp_path}/llmcost.db", budgets=BUDGETS)
    meter.start()
    meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)

    fill(meter, NOW)
    assert 1 == len(meter.reports.calls(10))
    meter.close()


def test_a_new_ledger_has_a_past_and_a_budget_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costmw.demo.history.HISTORY_DAYS", 2)
    meter = Meter(f"sqlite:///{tmp_path}/llmcost.db", budgets=BUDGETS)
    meter.start()

    fill(meter, NOW)
    assert 10 == len(meter.reports.calls(10))
    with meter.store.snapshot() as view:
        kept = {name: rule.source for name, rule in view.rules().kept.items()}
    meter.close()
    assert {"trial of initech": "code", PAGE_BUDGET.name: "page"} == kept
    assert "Making up a past ...\n" == capsys.readouterr().out
