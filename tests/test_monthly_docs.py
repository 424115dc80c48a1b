"""docs/report.md: its blocks run as they stand, and what it says of figures is so."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from costmw import Budget, Meter, anomalies, savings, usual
from costmw.caps.rules import Rule
from costmw.cli import _app
from costmw.errors import ConfigError, StoreError
from costmw.money import PICO
from rows import an_event, opened

DOCS = (Path(__file__).parents[1] / "docs" / "report.md").read_text("utf-8")
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()
]
OCTOBER = datetime(2026, 10, 9, 23, 30, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a ledger: calls of October, of two tenants, and a budget that blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSTMW_STORE", "sqlite:///llmcost.db")
    budget = Budget("cap", "40", period="month", action="block")
    with opened(tmp_path / "llmcost.db") as store:
        store.declare([Rule.of(budget)])
        store.write(
            [
                an_event(usd * PICO, created_at=OCTOBER, tags={"tenant": tenant})
                for tenant, usd in (("acme", 7), ("globex", 11))
            ]
        )
    return tmp_path


def told(command: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(_app(), shlex.split(command)[1:], catch_exceptions=False)  # type: ignore[arg-type]
    assert done.exit_code == 0
    return done.output


def test_the_commands(folder: Path) -> None:
    last, october, acme, berlin = (told(command) for command in COMMANDS)
    this_month = datetime.now(UTC).replace(day=1)

    assert last.startswith(f"# LLM cost in {this_month - timedelta(days=1):%B %Y}\n")
    assert "The report of October 2026 is in october.html\n" == october
    page = (folder / "october.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert "<dd><strong>$18.00</strong>" in page
    assert "Cost: **$7.00**" in acme
    assert "globex" not in acme
    assert "The report of October 2026 is in october.md\n" == berlin
    text = (folder / "october.md").read_text("utf-8")
    assert "| 10 Oct | $18.00 |" in text  # it was past midnight in Berlin
    assert "| cap | everything | 45.0% | $18.00 | $40.00 | month, blocks |" in text


def test_the_python_block(folder: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    names: dict[str, Any] = {"meter": Meter()}
    exec(compile(block, "report.md", "exec", dont_inherit=True), names)
    names["meter"].close()

    assert "tenant acme" in names["page"]
    assert "Cost: **$7.00**" in names["text"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("--month october", ConfigError, "month is 'october'; use a year and a month"),
        ("--format pdf", ConfigError, "the format is 'pdf'; use html or md"),
        ("--output report.pdf", ConfigError, "the format is 'pdf'; use html or md"),
        ("--output no/where.html", ConfigError, "cannot write no/where.html: No such file"),
        ("--scope acme", ConfigError, "--scope is 'acme'; use a tag and its value"),
        ("--tz Mars", ConfigError, "'Mars', which is not an IANA zone"),
        ("--store sqlite:///nothing.db", StoreError, "there is no store at sqlite:///nothing.db"),
    ],
)
def test_what_cannot_be(folder: Path, options: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        told(f"costmw report {options}")
    assert not (folder / "nothing.db").exists()


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("3.5 of its usual deviations", usual.DAY_SPREADS == 3.5),
        ("1.5 times what is usual", usual.DAY_TIMES == 1.5),
        ("1 USD more than is usual", anomalies.FLOOR_PICO_USD == PICO),
        ("the 28 days before", usual.LEVEL_DAYS == 28),
        ("weekdays of 56 days", usual.DAYS_BACK == 56),
        ("fewer than 8 days before it", usual.DAYS_AT_LEAST == 8),
        ("same hour of 14 days", usual.HOURS_BACK == 14),
        ("6 deviations, twice the usual", (usual.HOUR_SPREADS, usual.HOUR_TIMES) == (6, 2)),
        ("by 20% at least", anomalies.LEAST_LIFT == 0.2),
        ("Less than 1 USD is not mentioned", savings.LEAST_PICO_USD == PICO),
        ("100 calls or more", savings.CALLS_AT_LEAST == 100),
        ("2,048 tokens or more", savings.TOKENS_AT_LEAST == 2048),
        ("80% of a feature's cost", savings.MOSTLY_AT_NIGHT == 0.8),
        ("between 0:00 and 6:00", savings.NIGHT == range(6)),
    ],
)
def test_what_it_says_of_figures(text: str, holds: bool) -> None:
    assert holds
    assert text in " ".join(DOCS.split())
