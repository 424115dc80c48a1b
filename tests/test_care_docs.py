"""docs/ledger.md: its blocks run as they stand, one after the other, in one directory."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.store.hashed_tags import HashedTags
from rows import an_event, opened, stored
from test_exports import names_in, run

DOCS = (Path(__file__).parents[1] / "docs" / "ledger.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()
]

SAID: dict[str, str] = {
    "costmw prune --days 90 --dry-run": "2 calls from before ",
    "costmw prune --before 2025-01-01": "1 call from before 2025-01-01 (UTC) dropped",
    "costmw backup llmcost-2026-11-23.db": "copied to llmcost-2026-11-23.db",
    "costmw verify": "rollups = ledger: 3 calls",
    "costmw rebuild": "rollups are made anew from 3 rows",
    "costmw forget user=alice user=bob --hash": "user=alice: forgotten in 1 call",
    "costmw forget user=alice --erase": "user=alice: forgotten in 1 call",
}


def test_each_command_is_expected() -> None:
    assert list(SAID) == COMMANDS


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger with an old call and one of each of two users, of today."""
    now = datetime.now(UTC)
    path = tmp_path / "llmcost.db"
    old = (datetime(2024, 12, 31, tzinfo=UTC), now - timedelta(days=100))
    with opened(path) as store:
        store.write([an_event(1, created_at=at) for at in old])
        store.write([an_event(1, created_at=now, tags={"user": u}) for u in ("alice", "bob")])
    return path


def test_the_commands(ledger: Path) -> None:
    for command, said in SAID.items():
        _, *arguments = shlex.split(command)
        if "forget" in arguments:
            arguments.append("--yes")  # nobody is there to be asked
        done = run(*arguments, "--store", "sqlite:///llmcost.db", cwd=ledger.parent)
        assert (0, b"") == (done.returncode, done.stderr)
        assert done.stdout.decode().startswith(said)
    with opened(ledger) as store:
        users = sorted(event.tags["user"] for event in stored(store) if event.tags)
    assert ["(erased", "hashed:"] == [user[:7] for user in users]
    assert "llmcost-2026-11-23.db" in names_in(ledger.parent)


def test_the_python_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept, hashed = (executed(block)["meter"] for block in PYTHON)
    assert 90 == kept.config.keep_days
    assert isinstance(hashed.store, HashedTags)
    hashed.record(provider="openai", model="m", tags={"user": "alice"})
    (_, call), *_ = hashed.reports.calls(scope={"user": "alice"})
    assert re.fullmatch(r"hashed:\w{16}", call.tags["user"])
    hashed.close()


def executed(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"Meter": Meter, "Config": Config}
    exec(compile(block, "ledger.md", "exec", dont_inherit=True), names)
    return names


def test_what_it_says_of_the_defaults_is_so() -> None:
    defaults = {field.name: field.default for field in fields(Config)}
    assert f"`ack_timeout` ({defaults['ack_timeout']:.0f} s)" in DOCS
    assert f"`queue_size` ({defaults['queue_size']:,})" in DOCS


def test_its_links_lead_somewhere() -> None:
    for file, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", DOCS)):
        text = (Path(__file__).parents[1] / "docs" / file).read_text("utf-8")
        headings = [
            re.sub(r"[^a-z ]", "", h.lower()).replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        ]
        assert not anchor or anchor in headings
