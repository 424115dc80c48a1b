"""The README's blocks run as they stand."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import events_of
from costmw import Config, Meter
from costmw.config import VARIABLES
from costmw.price_overrides import load_overrides
from costmw.providers.known import PROVIDERS
from costmw.testing import FakeProvider, Reply
from test_sdk_matrix import RESPONSE, RESPONSE_USAGE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TOKEN = "0123456789abcdef"
ASKED = {"question": "why?"}
USER = {"x-user": "ann", "x-tenant": "acme"}
TAGS = {"route": "/chat", "user": "ann", "tenant": "acme", "feature": "chat"}


@pytest.fixture
def run_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: FakeProvider) -> Any:
    """Runs a block in an empty directory; its SDK talks to the fake provider."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCOST_TOKEN", TOKEN)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.openai_url)
    monkeypatch.setenv("COSTMW_HOSTS", "127.0.0.1=openai")
    provider.default = Reply(usage=RESPONSE_USAGE, text="because")

    def run(name: str) -> dict[str, Any]:
        (block,) = [b for b in BLOCKS if name in b]
        namespace: dict[str, Any] = {"__name__": "block"}
        exec(compile(block, "README.md", "exec", dont_inherit=True), namespace)
        return namespace

    return run


def check(meter: Meter, refused: int, page: int) -> None:
    (event,) = events_of(meter)
    assert dict(event.tags) == TAGS
    usage = event.usage
    assert (usage.input_tokens, usage.output_tokens, event.price.cost_pico_usd) == RESPONSE
    assert (refused, page) == (401, 200)
    meter.close()


def test_the_fastapi_block(run_block: Any) -> None:
    block = run_block("from fastapi")
    transport = httpx.ASGITransport(app=block["app"])

    async def use() -> tuple[int, int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
            answer = await client.post("/chat", params=ASKED, headers=USER)
            assert answer.json() == {"answer": "because"}
            refused = await client.get("/_llmcost/")
            page = await client.get("/_llmcost/", auth=("anyone", TOKEN))
        await block["client"].close()
        return refused.status_code, page.status_code

    check(block["meter"], *asyncio.run(use()))


def test_the_block_that_changes_nothing(run_block: Any, provider: FakeProvider) -> None:
    """Its host stands for one of the user's own: here it is on this machine."""
    block = run_block("instrument_all")
    meter = block["meter"]
    try:
        assert {"llm.acme.internal": "openai"} == meter.config.hosts
        with httpx.Client(transport=Everywhere(provider.url)) as client:
            client.post("http://llm.acme.internal/v1/responses", json={"model": "gpt-5-mini"})
    finally:
        meter.uninstrument_all()
    (event,) = events_of(meter)
    assert RESPONSE[:2] == (event.usage.input_tokens, event.usage.output_tokens)
    meter.close()


class Everywhere(httpx.HTTPTransport):
    """Takes every request to one server."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = httpx.URL(url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(host=self._url.host, port=self._url.port)
        return super().handle_request(request)


def test_the_flask_block(run_block: Any) -> None:
    block = run_block("from flask")
    client = block["app"].test_client()
    answer = client.post("/chat", query_string=ASKED, headers=USER)
    assert answer.json == {"answer": "because"}
    refused = client.get("/_llmcost/")
    page = client.get("/_llmcost/", auth=("anyone", TOKEN))
    block["client"].close()
    check(block["meter"], refused.status_code, page.status_code)


def test_the_reports_block(run_block: Any, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("sqlite:///llmcost.db")
    meter.record(
        provider="openai",
        model="gpt-5-mini",
        input_tokens=1_000_000,
        output_tokens=0,
        tags={"tenant": "acme"},
    )
    meter.close()
    run_block("reports = Meter")
    spent, trend, month, tenant = capsys.readouterr().out.splitlines()
    assert spent == "0.25"
    assert trend.count("Decimal('0.00')") == 29
    assert month == "None"
    assert tenant == "acme 0.25 0.25"


def test_the_block_with_a_cap(
    run_block: Any, provider: FakeProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    fifty_usd = {"input_tokens": 200_000_000, "output_tokens": 0, "total_tokens": 200_000_000}
    provider.reply(Reply(usage=fifty_usd))
    for _ in range(2):
        block = run_block('action="block"')
        block["client"].close()
        block["meter"].close()
    assert 1 == len(provider.requests)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("budget 'tenant cap' tenant=acme has 0.00 of 50.00 USD left until ")


def test_every_block_is_run_here() -> None:
    assert len(BLOCKS) == 5


def test_the_table_of_settings_is_complete_and_has_their_defaults() -> None:
    table = README.split("## Settings")[1].split("##")[0]
    rows = [
        re.sub("[` ]", "", row).split("|")[1:4]
        for row in re.findall(r"^\| .*", table, re.MULTILINE)
    ]
    settings = {name: default for name, _, default in rows if name}
    defaults = {
        field.name: json.dumps(field.default)
        for field in fields(Config)
        if isinstance(field.default, str | int | float)
    }
    assert {field.name for field in fields(Config)} == settings.keys() - {"Config(...)"}
    assert defaults == {name: settings[name] for name in defaults}
    assert set(VARIABLES) == {variable for _, variable, _ in rows[1:] if variable}


def test_links_lead_somewhere() -> None:
    dead = []
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text("utf-8")):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (anchor and anchor not in anchors_of(target)):
                dead.append((path.name, link))
    assert [] == dead


def anchors_of(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}


def test_the_table_of_extras_is_complete() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = README.split("## Extras")[1].split("##")[0]
    assert set(re.findall(r"`([a-z]+)`", table)) >= set(project["optional-dependencies"])


def test_the_toml_block_is_a_price_file(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "prices.toml").write_text(block)
    tuned, negotiated = load_overrides(tmp_path / "prices.toml")
    assert (tuned.model, tuned.prices["input_mtok"]) == ("acme-tuned-1", Decimal("0.30"))
    assert (negotiated.provider, str(negotiated.start)) == ("openai", "2026-12-01")


def test_the_table_of_providers_is_complete() -> None:
    table = README.split("| provider (`provider=`)")[1].split("Cached tokens")[0]
    assert {p.name for p in PROVIDERS} == set(re.findall(r"\(`([a-z_.]+)`\)", table))
