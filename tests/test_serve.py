"""`costmw serve`: the page alone; how it says what is wrong. `test_hosts` runs it for good."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from costmw import Meter
from costmw.errors import ConfigError, StoreError
from costmw.listening import is_loopback, listen, shown
from costmw.serve import say_where, serve_page

SECRET = "0123456789abcdef"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGE_SECRET", SECRET)


@pytest.fixture
def ledger(store_url: str) -> str:
    meter = Meter(store_url)
    meter.record(provider="openai", model="gpt-5-mini", cost="7")
    meter.close()
    return store_url


def test_a_secret_of_the_environment_is_needed(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAGE_SECRET", raising=False)
    with pytest.raises(ConfigError, match="no PAGE_SECRET, the secret.*export PAGE_SECRET="):
        serve_page(ledger, token_env="PAGE_SECRET")
    monkeypatch.setenv("PAGE_SECRET", "short")
    with pytest.raises(ConfigError, match="at least 16 characters"):
        serve_page(ledger, token_env="PAGE_SECRET")


@pytest.mark.usefixtures("told")
def test_a_store_that_is_not_there_is_not_made(store_url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at .*Name the store of the app"):
        serve_page(store_url, token_env="PAGE_SECRET")
    assert [] == list(tmp_path.iterdir())
    (tmp_path / "llmcost.db").write_text("no database" * 100)
    with pytest.raises(StoreError, match="not an SQLite database"):
        serve_page(store_url, token_env="PAGE_SECRET")
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with pytest.raises(StoreError, match="Connection refused"):
        serve_page(nowhere, token_env="PAGE_SECRET")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("root_path", ["llmcost", "/a?b", "/a#b", "/a%20b"])
def test_a_root_path_must_be_a_path(root_path: str, ledger: str) -> None:
    with pytest.raises(ConfigError, match="must be a plain path, as /llmcost"):
        serve_page(ledger, token_env="PAGE_SECRET", root_path=root_path)


@pytest.mark.usefixtures("told")
def test_an_address_that_cannot_be_had_is_said(ledger: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 cannot be had"):
            serve_page(ledger, token_env="PAGE_SECRET", port=port)
    with pytest.raises(ConfigError, match="host 'no.such.host.invalid' cannot be listened on"):
        serve_page(ledger, token_env="PAGE_SECRET", host="no.such.host.invalid")


def test_without_uvicorn_it_says_what_to_install(ledger: str) -> None:
    script = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from costmw.cli import main\n"
        "sys.argv = ['costmw', 'serve']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (1, 1) == (done.returncode, done.stderr.count("\n"))
    assert "pip install 'costmw[serve]'" in done.stderr


def test_it_shows_the_ledger_changes_nothing_and_ends_when_told(
    ledger: str, tmp_path: Path
) -> None:
    command = ["serve", "--store", ledger, "--port", "0", "--auth-token-env", "PAGE_SECRET"]
    process = subprocess.Popen(
        [sys.executable, "-m", "costmw.cli", *command],
        env={**os.environ, "PAGE_SECRET": SECRET},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        address = process.stderr.readline().split()[3].rstrip("/,")
        before = _rows(tmp_path)
        with httpx2.Client(base_url=address, auth=("me", SECRET)) as http:
            status = http.get("/api/v1/status").json()
            overview = http.get("/api/v1/overview").json()
        assert 401 == httpx2.get(f"{address}/").status_code
        assert ({}, False) == (status["scope"], status["can_edit"])
        assert "7.00" == overview["month"]["sums"]["total_usd"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=30)
    assert (0, "") == (process.returncode, rest)
    assert before == _rows(tmp_path)


def _rows(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "llmcost.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        rows = list(connection.iterdump())
    connection.close()
    return [*tables, *rows]


def test_where_a_server_listens_is_said_as_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert address == shown(listener)
        say_where(listener, "/costs")
    assert capsys.readouterr().err.startswith(f"costmw serve at {address}/costs/, any name")
    everywhere: Any = SimpleNamespace(getsockname=lambda: ("0.0.0.0", 4001))
    say_where(everywhere, "")
    assert "WARNING: listening on 0.0.0.0 without TLS" in capsys.readouterr().err
    assert [True, True, False, False] == [
        is_loopback(host) for host in ("127.0.0.9", "localhost", "0.0.0.0", "proxy.internal")
    ]
