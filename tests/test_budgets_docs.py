"""docs/budgets.md: its blocks run as they stand, and what it says of figures is so."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import MISSING, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from costmw import Budget, BudgetExceeded, Config, Meter, bind, tag
from costmw.budget_file import load_budgets
from costmw.context import Scope, enter_scope
from costmw.testing import FakeProvider, Reply
from test_exports import run

DOCS = (Path(__file__).parents[1] / "docs" / "budgets.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)

FIFTY_USD = Reply(
    usage={"input_tokens": 200_000_000, "output_tokens": 0, "total_tokens": 200_000_000},
    text="because",
)


def only(language: str) -> str:
    """The block of this language, of which there is one."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    return str(block)


def next_month() -> date:
    return (datetime.now(UTC).date().replace(day=1) + timedelta(days=32)).replace(day=1)


def of_today(text: str) -> str:
    """What the docs say of a month, said of this one."""
    return text.replace("2026-12-01", next_month().isoformat())


@pytest.fixture
def run_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: FakeProvider
) -> Iterator[Any]:
    """Runs blocks that have a text in them, one after the other, in one empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
    monkeypatch.setenv("COSTMW_HOSTS", "127.0.0.1=openai")
    monkeypatch.setenv("COSTMW_ACK_TIMEOUT", "30")
    names: dict[str, Any] = {"__name__": "block"}

    def run_it(*texts: str) -> dict[str, Any]:
        for text in texts:
            (block,) = [b for b in PYTHON if text in b]
            exec(compile(block, "budgets.md", "exec", dont_inherit=True), names)
        return names

    yield run_it
    if "meter" in names:
        names["client"].close()
        names["meter"].close()


@pytest.fixture
def names(run_block: Any) -> dict[str, Any]:
    """The first two blocks: a cap of each tenant, and a function that calls under it."""
    found: dict[str, Any] = run_block('action="block")],', "def answer")
    return found


@pytest.fixture
def used_up(names: dict[str, Any], provider: FakeProvider) -> dict[str, Any]:
    """The same, with nothing left for the tenant acme."""
    provider.reply(FIFTY_USD)
    assert "because" == names["answer"]("why?", "acme")
    return names


def test_a_refusal(
    used_up: dict[str, Any], provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    told = used_up["answer"]("why?", "acme")
    assert f"No more answers until {next_month():%d %B}." == told
    assert of_today(only("text")) == capsys.readouterr().out
    assert 1 == len(provider.requests)
    assert used_up["answer"]("why?", "globex").startswith("Hello!")


def test_what_handlers_of_the_sdk_catch(used_up: dict[str, Any]) -> None:
    with tag(tenant="acme"), pytest.raises(openai.OpenAIError) as caught:
        used_up["client"].responses.create(model="gpt-5-mini", input="why?", max_output_tokens=1)
    assert isinstance(caught.value, BudgetExceeded)


def test_a_web_app(used_up: dict[str, Any], run_block: Any) -> None:
    app = run_block("explain_refusals=True")["app"]
    ask = {"url": "/chat", "params": {"question": "why?"}}
    with TestClient(app) as host:
        refused = host.post(**ask, headers={"x-tenant": "acme"})
        answered = host.post(**ask, headers={"x-tenant": "globex"})
    assert json.loads(of_today(only("json"))) == refused.json()
    assert (402, "application/problem+json") == (
        refused.status_code,
        refused.headers["content-type"],
    )
    assert int(refused.headers["retry-after"]) > 0
    assert 200 == answered.status_code


def test_how_much_is_held(names: dict[str, Any], provider: FakeProvider) -> None:
    section = DOCS.split("## How much is held")[1].split("## Waiting")[0]
    said = [Decimal(held) for held in re.findall(r"\| ([0-9.]+) USD \|", section)]
    held = []

    def look(_: Any) -> None:
        held.append(names["meter"].allowances()[0].held)

    provider.responder = look  # type: ignore[assignment]
    for limit in (800, openai.omit):
        names["client"].responses.create(model="gpt-5-mini", input="why?", max_output_tokens=limit)
    assert said == [amount.quantize(said[n]) for n, amount in enumerate(held)]


def test_a_limit_of_the_budgets(
    names: dict[str, Any], run_block: Any, provider: FakeProvider
) -> None:
    budget = run_block("max_output_tokens=2_000")["budget"]
    with_limit = Meter("sqlite:///other.db", budgets=[budget])
    with openai.OpenAI() as client:
        with_limit.instrument(client)
        client.responses.create(model="gpt-5-mini", input="why?")
        client.responses.create(model="gpt-5-mini", input="why?", max_output_tokens=3_000)
    with_limit.close()
    assert [2_000, 3_000] == [request.json["max_output_tokens"] for request in provider.requests]


def test_several_budgets(names: dict[str, Any], run_block: Any) -> None:
    """The user's day is the tightest; the budget of another feature does not count the call."""
    meter = Meter("sqlite:///several.db", budgets=run_block("each user")["budgets"])
    before = enter_scope(Scope(meter))
    with openai.OpenAI() as client:
        meter.instrument(client)
        bind(tenant="acme", user="ann")
        client.responses.create(model="gpt-5-mini", input="why?", max_output_tokens=800)
    enter_scope(before)
    assert meter.flush(30)
    found = {one.budget: one.limit for one in meter.allowances(tenant="acme", user="ann")}
    meter.close()
    assert {"each user": 2, "each tenant": 500, "all of the app": 2_000} == found


def test_what_lacks_a_tag_can_be_refused(names: dict[str, Any]) -> None:
    (limits,) = re.findall(r"`limits=(\{\"\(missing\)\".*?\})`", DOCS)
    budget = Budget("cap", "50", per="tenant", limits=json.loads(limits), action="block")
    meter = Meter("sqlite:///missing.db", budgets=[budget])
    with meter.instrument(openai.OpenAI()) as client:
        with pytest.raises(BudgetExceeded) as refusal:
            client.responses.create(model="gpt-5-mini", input="why?", max_output_tokens=1)
    meter.close()
    assert {"tenant": "(missing)"} == refusal.value.scope


def test_asking_before(
    used_up: dict[str, Any], run_block: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_block("meter.remaining")
    assert (0, 0) == (found["left"], found["tokens"])
    told, not_enough = capsys.readouterr().out.splitlines()
    assert told.startswith("tenant cap {'tenant': 'acme'} 50.0")
    assert "not enough for a report of 0.25 USD" == not_enough
    assert 50 == found["meter"].remaining(tenant="globex")


def test_a_function_is_a_call(names: dict[str, Any], run_block: Any) -> None:
    meter = names["meter"]
    assert "..." == run_block("def speak")["speak"]("hello")["sound"]
    assert Decimal("0.03") == meter.allowances()[0].spent
    meter.record(provider="acme", model="voice-1", cost="49.90")
    with pytest.raises(BudgetExceeded) as refusal:
        names["speak"]("hello")
    assert Decimal("0.10") == refusal.value.asked


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(only("toml"))
    expected = (
        Budget(
            "each tenant",
            "50",
            per="tenant",
            action="block",
            max_output_tokens=2000,
            limits={"acme": "500"},
        ),
        Budget(
            "each user",
            2,
            per=["tenant", "user"],
            period="day",
            action="block",
            limits={("acme", "ann"): 5},
        ),
    )
    assert expected == load_budgets(path)
    meter = Meter(f"sqlite:///{tmp_path}/llmcost.db", config=Config(budgets_file=path))
    assert expected == meter.budgets


def test_budgets_that_are_made_while_the_app_runs(
    names: dict[str, Any], run_block: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = names["meter"]
    names["answer"]("why?", "initech")
    dropped: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(meter, "drop_budget", dropped.append)
        run_block("keep_budget")
    assert {"trial of initech": 5, "tenant cap": 50} == {
        one.budget: one.limit for one in meter.allowances(tenant="initech")
    }
    (name,) = dropped
    meter.drop_budget(name)
    assert ["tenant cap"] == [one.budget for one in meter.allowances(tenant="initech")]


def test_the_command(used_up: dict[str, Any], tmp_path: Path) -> None:
    _, *arguments = shlex.split(only("sh"))
    assert used_up["meter"].flush(30)
    done = run(*arguments, "--store", "sqlite:///llmcost.db", cwd=tmp_path)
    said = "rollups = ledger: 1 call\nbalances = ledger + holds: 1 blocking budget\n"
    assert (said, b"") == (done.stdout.decode(), done.stderr)


def test_the_table_of_fields_is_complete_and_has_their_defaults() -> None:
    table = DOCS.split("| field |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| ", table, re.MULTILINE)
    told = {name: re.sub(r"[`\"]", "", default) for name, default in rows}
    found = {}
    for field in fields(Budget):
        is_given = field.default is not MISSING and field.default is not None
        found[field.name] = str(field.default) if is_given else "none"
    found |= {"name": "", "limit": "", "where": "all calls"}
    assert found == told


def test_every_block_is_run_here() -> None:
    assert 8 == len(PYTHON)
    assert 4 == len(re.findall(r"```(?:json|sh|text|toml)\n", DOCS))
