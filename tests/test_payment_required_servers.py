"""402 of real servers, also where the app had begun its response already."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

APPS = """
from fastapi import FastAPI
from flask import Flask

from costmw import Budget, Meter
from costmw.integrations.flask import LLMCost
from costmw.integrations.starlette import CostMiddleware
from costmw.integrations.wsgi import CostMiddleware as WsgiCostMiddleware

meter = Meter(budgets=[Budget("cap", limit="0", action="block")])
call = meter.metered(usage=lambda result: None, feature="call")(lambda: "never")


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/middle":
        yield b"one"
    yield call().encode()


wsgi = WsgiCostMiddleware(plain, meter)
flask = Flask(__name__)
LLMCost(flask, meter=meter, url_prefix=None)
flask.get("/")(lambda: call())
api = FastAPI()
api.add_middleware(CostMiddleware, meter=meter)
api.get("/")(lambda: call())
"""


@contextmanager
def serving(command: list[str], tmp_path: Path, store_url: str) -> Iterator[str]:
    (tmp_path / "apps.py").write_text(APPS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.replace("FD", str(fd)) for word in command)],
            cwd=tmp_path,
            env={**os.environ, "COSTMW_STORE": store_url},
            pass_fds=[fd],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(20)


GUNICORN = ["gunicorn", "-b", "fd://FD"]


@pytest.mark.parametrize(
    "command",
    [
        [*GUNICORN, "apps:wsgi"],
        [*GUNICORN, "-k", "gthread", "apps:wsgi"],
        [*GUNICORN, "-k", "gevent", "apps:wsgi"],
        [*GUNICORN, "apps:flask"],
        ["uvicorn", "--fd", "FD", "apps:api"],
    ],
    ids=lambda command: " ".join(command[3:]),
)
def test_a_refused_call_is_answered(command: list[str], tmp_path: Path, store_url: str) -> None:
    with serving(command, tmp_path, store_url) as url:
        answer = httpx2.get(url, timeout=30)
        assert (402, "application/problem+json", 402) == (
            answer.status_code,
            answer.headers["content-type"],
            answer.json()["status"],
        )
        if "apps:wsgi" in command:
            with pytest.raises(httpx2.RemoteProtocolError):
                httpx2.get(f"{url}/middle", timeout=30)
