"""What docs/page.md says of the API is so."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from costmw import Meter
from costmw.dashboard import parameters as p
from costmw.dashboard.api import OPERATIONS
from dashboard_client import Client

DOCS = (Path(__file__).parents[1] / "docs" / "page.md").read_text("utf-8")
COMMANDS = [
    shlex.split(block.replace("\\\n", ""))
    for block in re.findall(r"^```sh\n(curl.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
]


def test_the_commands(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter()
    meter.record(provider="openai", model="m", cost="1", tags={"tenant": "acme"})
    client = Client(meter)
    answers = []
    for command in COMMANDS:
        method, body, headers = "GET", b"", {}
        for option, value in pairwise(command):
            match option:
                case "-X":
                    method = value
                case "-d":
                    body = value.encode()
                case "-H":
                    name, _, told = value.partition(": ")
                    headers[name.lower().replace("-", "_")] = told
        address = urlsplit(command[-1])
        path = address.path.removeprefix("/_llmcost/").replace("%20", " ")
        answers.append(client.ask(f"{path}?{address.query}", method, body, **headers))
    assert [200, 200] == [answer.status for answer in answers]
    assert answers[0].body.startswith(b"row,value,share,")
    assert ["each tenant"] == [rule["name"] for rule in client.read("budgets")["rules"]]


def test_the_python_block(
    make_meter: Callable[..., Meter],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_meter().record(provider="openai", model="m", cost="1", tags={"feature": "chat"})
    (block,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    exec(compile(block, "page.md", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out.startswith("m 1.00 total_usd=")


def test_all_that_can_be_asked_is_told_of() -> None:
    first, _, api = DOCS.partition("## The API")
    for parameter in p.VIEW:
        assert f"`{parameter.name}`" in first, parameter.name
    for one in OPERATIONS:
        name = one.path.replace("{id}", "<id>").replace("{name}", "<name>")
        assert re.search(rf"[`/ ]{re.escape(name)}`", api), name
