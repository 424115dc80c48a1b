"""`costmw doctor` and Postgres: what is wrong with it, and what waits for it on this host."""

from __future__ import annotations

from pathlib import Path

import pytest

from costmw import Config, Meter
from costmw.doctor import Finding, examine
from costmw.store import postgres_readers
from costmw.store.outbox_file import OutboxFile
from doctoring import codes, the
from postgres_server import Server, postgres

__all__ = ["postgres"]

AWAY = "postgresql://ann:secret@127.0.0.1:1/costs?connect_timeout=2"


@pytest.fixture(autouse=True)
def readers_are_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_readers, "READER_PATIENCE", 0.2)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def look(url: str, outbox: Path) -> list[Finding]:
    return examine(environ={"COSTMW_STORE": url, "COSTMW_OUTBOX": str(outbox)})


def test_a_healthy_database_has_no_finding(postgres: Server, outbox: Path) -> None:
    url = postgres.url()
    meter = Meter(url, config=Config(outbox=str(outbox)))
    meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
    assert meter.flush()
    meter.close()
    database = {"store-unreachable", "store-missing", "outbox-waiting", "dead-letters"}
    found = look(url, outbox)
    assert not database & codes(found)
    assert "calls-none" not in codes(found)


def test_a_database_that_is_away_is_an_error_without_its_password(outbox: Path) -> None:
    found = the(look(AWAY, outbox), "store-unreachable")
    assert "error" == found.level
    assert "secret" not in str(found)
    assert not outbox.exists()


def test_a_schema_without_a_ledger_is_left_as_it_is(postgres: Server, outbox: Path) -> None:
    url = postgres.url()
    assert "warning" == the(look(url, outbox), "store-missing").level
    # Looked at once more: nothing was made.
    assert "warning" == the(look(url, outbox), "store-missing").level


def test_what_waits_on_this_host_is_told(outbox: Path) -> None:
    meter = Meter(AWAY, config=Config(outbox=str(outbox), ack_timeout=10.0))
    for _ in range(3):
        meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
    meter.close()
    assert "3 records" in the(look(AWAY, outbox), "outbox-waiting").problem


def test_what_the_database_refused_is_told(outbox: Path) -> None:
    file = OutboxFile(outbox, AWAY)
    file.bury("event", "{}", "a response_id that is no text")
    file.close()
    found = the(look(AWAY, outbox), "dead-letters")
    assert "1 record" in found.problem
    assert "no text" in found.problem


def test_an_outbox_that_cannot_be_used_is_an_error(outbox: Path) -> None:
    outbox.write_text("not a database, and long enough to be taken for one" * 100)
    assert "error" == the(look(AWAY, outbox), "outbox-unusable").level
