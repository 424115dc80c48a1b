"""Under gevent, where threads are greenlets: nothing that the store waits for stops others."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

APP = """
from gevent import monkey

if {patched} == "before":
    monkey.patch_all()

import json
import subprocess
import sys
import time

import gevent

from costmw import Config, Meter

meter = Meter(sys.argv[1], config=Config(ack_timeout=0.5))
if {patched} == "after":
    monkey.patch_all()
seen = dict(longest_pause=0.0, slowest=0.0)
stop = False


def beat():
    while not stop:
        began = time.monotonic()
        gevent.sleep(0.01)
        seen["longest_pause"] = max(seen["longest_pause"], time.monotonic() - began)


def call(n):
    began = time.monotonic()
    meter.record(provider="openai", model="m", cost="1", tags=dict(n=n))
    seen["slowest"] = max(seen["slowest"], time.monotonic() - began)


def calls():
    gevent.joinall([gevent.spawn(call, n) for n in range(20)], raise_error=True)


def at_once():
    starting = [gevent.spawn(meter.start) for _ in range(5)]
    calls()
    gevent.joinall(starting, raise_error=True)


{before}
pulse = gevent.spawn(beat)
gevent.sleep(0.05)
calls()
{after}
stop = True
pulse.join()
assert meter.flush(30)
meter.close()
status = meter.status()
print(json.dumps(dict(seen, late=status.late, committed=status.committed, said=status.last_error)))
"""

HELD = """
at_once()
other = subprocess.Popen(
    [sys.executable, "-c", sys.argv[2], meter.store.path],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert other.stdout.readline()
"""

LET_GO = """
gevent.sleep(0.5)
other.communicate()
"""

HOLDERS = {
    "turn": """
import fcntl, sys
lock = open(sys.argv[1] + ".lock")
fcntl.flock(lock, fcntl.LOCK_EX); print("held", flush=True); sys.stdin.read()
""",
    "database": """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN IMMEDIATE"); print("held", flush=True); sys.stdin.read()
""",
}


def ran(app: str, *arguments: str, **parts: str) -> dict[str, Any]:
    """What an app says at its end; a process of its own, since patching is for good."""
    done = subprocess.run(
        [sys.executable, "-c", app.format(**parts), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def count(tmp_path: Path) -> int:
    with closing(sqlite3.connect(tmp_path / "llmcost.db")) as connection:
        found: int = connection.execute("SELECT count(*) FROM usage_events").fetchone()[0]
        return found


@pytest.mark.parametrize("patched", ["before", "after"])
def test_every_call_is_committed_wherever_the_app_is_patched(
    patched: str, store_url: str, tmp_path: Path
) -> None:
    """A gunicorn worker patches when a preloaded app has made its meter already."""
    said = ran(APP, store_url, patched=repr(patched), before="at_once()", after="calls()")

    assert (60, 60, 0, None) == (
        said["committed"],
        count(tmp_path),
        said["late"],
        said["said"],
    )


@pytest.mark.parametrize("held", HOLDERS)
def test_others_go_on_while_the_writer_waits_for_another_process(
    held: str, store_url: str, tmp_path: Path
) -> None:
    said = ran(APP, store_url, HOLDERS[held], patched="'before'", before=HELD, after=LET_GO)

    assert said["longest_pause"] < 0.3
    assert 0.5 <= said["slowest"] < 0.9
    assert (40, 40, 20) == (said["committed"], count(tmp_path), said["late"])
