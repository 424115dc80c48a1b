"""docs/alerts.md: its blocks run as they stand, and what it says of alerts is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from costmw import Budget, Config, Meter, usual
from costmw.alerts import Alert, Alerts, Webhook, alert, channel, courier, lookouts
from costmw.alerts.file import load_alerts
from costmw.alerts.signing import key_of
from costmw.money import PICO
from rows import an_event
from webhook_receiver import receiving

DOCS = (Path(__file__).parents[1] / "docs" / "alerts.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def only(language: str) -> str:
    """The block of this language, of which there is one."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return str(block)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the blocks before made; they run in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALERTS_SECRET", SECRET)
    return {"__name__": "block"}


def test_each_python_block_runs(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for block in PYTHON:
        exec(block, names)

    assert "all {} None\n" == capsys.readouterr().out
    assert names["forecast"].month is None
    meter = names["meter"]
    meter.record(provider="openai", model="m", cost="500")
    meter.close()
    told = capsys.readouterr().out
    assert "100% of budget 'all' is used 500.00 of 500.00 USD (100%) is spent" in told
    assert 1 == told.count("\n")


def test_a_receiver_knows_what_is_genuine(names: dict[str, Any]) -> None:
    exec(next(block for block in PYTHON if "is_genuine" in block), names)
    is_genuine = names["is_genuine"]
    new = "whsec_" + "A" * 40
    with receiving() as receiver:
        Webhook(receiver.url, [new, SECRET]).send(alert.alert_for_trial())
    ((headers, body),) = receiver.requests

    assert is_genuine(SECRET, headers, body)
    assert is_genuine(new, headers, body)
    assert not is_genuine(SECRET, headers, body + b" ")
    assert not is_genuine("whsec_" + "B" * 40, headers, body)
    assert not is_genuine(SECRET, headers | {"webhook-id": "msg_other"}, body)
    old = str(int(headers["webhook-timestamp"]) - 301)
    assert not is_genuine(SECRET, headers | {"webhook-timestamp": old}, body)


def test_the_body_of_a_webhook(names: dict[str, Any]) -> None:
    """As the alert of a ledger has it, which has spent that."""
    shown = json.loads(only("json"))
    meter = Meter("sqlite:///llmcost.db", config=Config(ack_timeout=30.0))
    at = datetime.fromisoformat(shown["timestamp"])
    cost = round(float(shown["data"]["spent_usd"]) * PICO)
    meter.store.open()
    meter.store.write([an_event(cost, created_at=at, tags={"tenant": "acme"})])
    budget = Budget("each tenant", limit="50", per="tenant")
    ground = lookouts.Ground(meter.store, [budget], Alerts([]), at, lambda _: set())
    found = [alert.alert_of(row) for row in lookouts.thresholds(ground)][-1]
    same = Alert(
        **{field.name: getattr(found, field.name) for field in fields(Alert)}
        | {"id": UUID(shown["data"]["id"]), "raised_at": at}
    )
    assert shown == json.loads(same.as_json())
    assert list(shown["data"]) == list(json.loads(same.as_json())["data"])
    meter.close()


def test_the_command_makes_a_secret(names: dict[str, Any]) -> None:
    (command,) = only("sh").splitlines()
    program = command.removeprefix('python -c "').removesuffix('"')
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert 32 == len(key_of(done.stdout.strip()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:.*")  # of what apprise imports
def test_the_file(names: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(only("toml"))
    found = load_alerts(path, {"ALERTS_SECRET": SECRET, "SLACK_URL": "json://127.0.0.1/"})

    assert found is not None
    assert ["ops", "slack", "log"] == [one.name for one in found.channels]
    assert (20, False) == (found.velocity_floor, found.models)


def test_each_kind_is_told_of() -> None:
    section = DOCS.split("## What is told")[1].split("## How it arrives")[0]
    assert [
        alert.THRESHOLD,
        alert.ON_COURSE,
        alert.VELOCITY,
        alert.NEW_MODEL,
        alert.UNPRICED_MODEL,
    ] == re.findall(r"^\| `(.+?)`", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ("Every 15 seconds one process", Alerts([]).every == 15),
        ("`velocity_floor` USD (5)", Alerts([]).velocity_floor == "5"),
        ("of the 14 days before", usual.HOURS_BACK == 14),
        ("twice the median", usual.HOUR_TIMES == 2),
        ("6 of their usual deviations", usual.HOUR_SPREADS == 6),
        ("1.5 times the same hour a\nweek ago", usual.A_WEEK_AGO == 1.5),
        ("with fewer than 5 days nothing does", usual.HOURS_AT_LEAST == 5),
        ("after 1 s, 2 s, 4 s", courier.FIRST_RETRY == 1),
        ("every 5 minutes in the end", courier.LONGEST_RETRY == 300),
        ("within 45 seconds", courier.CLAIMED_FOR == 45),
        ("dropped 90 days after its end", lookouts.KEPT.days == 90),
        ("logger `costmw.alerts`", channel.logger.name == "costmw.alerts"),
    ],
)
def test_a_figure(said: str, is_so: bool) -> None:
    assert said in DOCS
    assert is_so
