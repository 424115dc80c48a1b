"""`costmw doctor`: the environment, the store's file, and how it is all told."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from costmw import Config, Meter
from costmw.doctor import Finding, as_json, as_text, examination, examine
from costmw.doctor import store as store_checks
from costmw.store import mounts, sqlite, sqlite_health
from costmw.store.sqlite import SqliteStore
from doctoring import ABOUT_THIS_MACHINE, codes, doctor, run_doctor, the, write_app

A_CALL: Any = {
    "provider": "openai",
    "model": "gpt-5-mini",
    "input_tokens": 5,
    "output_tokens": 1,
    "tags": {"feature": "test"},
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("COSTMW_"):
            monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with one call in it, closed."""
    path = tmp_path / "llmcost.db"
    meter = Meter(f"sqlite:///{path}")
    meter.record(**A_CALL)
    meter.close()
    return path


def look(path: Path, **environ: str) -> list[Finding]:
    return examine(store=f"sqlite:///{path}", environ=environ)


def test_a_store_that_is_well_has_nothing_above_info(path: Path) -> None:
    assert codes(look(path), above_info=True) == set()


# The environment.


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(path: Path) -> None:
    finding = the(look(path, COSTMW_DURABILTY="async"), "variable-unknown")
    assert finding.level == "warning"
    assert "COSTMW_DURABILTY" in finding.problem
    assert finding.mend == "Did you mean COSTMW_DURABILITY?"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("COSTMW_ACK_TIMEOUT", "soon", "'soon' is not a number of seconds"),
        ("COSTMW_ENABLED", "perhaps", "use 1 or 0"),
        ("COSTMW_TIME_ZONE", "Mars/Olympus", "not an IANA zone"),
        ("COSTMW_PRICES", "/nowhere/prices.toml", "cannot read the price file"),
    ],
)
def test_a_value_that_cannot_be_used_is_an_error(
    path: Path, name: str, value: str, said: str
) -> None:
    finding = the(look(path, **{name: value}), "setting-invalid")
    assert finding.level == "error"
    assert name in finding.problem
    assert said in finding.problem


def test_a_timeout_that_nobody_waits_for_is_a_contradiction(path: Path) -> None:
    findings = look(path, COSTMW_DURABILITY="async", COSTMW_ACK_TIMEOUT="2")
    assert "no call waits" in the(findings, "settings-contradict").problem
    assert "settings-contradict" not in codes(look(path, COSTMW_ACK_TIMEOUT="2"))


def test_variables_that_the_code_overrules_are_contradictions(
    path: Path, make_meter: Callable[..., Meter]
) -> None:
    meter = make_meter(config=Config(durability="process"))
    findings = examine(
        meter,
        environ={"COSTMW_STORE": f"sqlite:///{path.parent}/other.db", "COSTMW_DURABILITY": "async"},
    )
    problems = [one.problem for one in findings if one.code == "settings-contradict"]
    assert len(problems) == 2
    assert "what stands in the code wins" in problems[0]
    assert "COSTMW_DURABILITY has no effect" in problems[1]
    same = {"COSTMW_STORE": f"sqlite:///{path}", "COSTMW_DURABILITY": "process"}
    assert "settings-contradict" not in codes(examine(meter, environ=same))


@pytest.mark.parametrize("host", ["https://llm.internal/v1", "llm.internal/v1"])
def test_a_host_that_is_a_url_is_an_error(path: Path, host: str) -> None:
    finding = the(look(path, COSTMW_HOSTS=f"{host}=openai"), "setting-invalid")
    assert "without a scheme or path" in finding.problem


def test_the_password_of_a_host_is_not_shown(path: Path) -> None:
    findings = look(path, COSTMW_HOSTS="https://ann:secret@llm.internal/v1=openai")
    assert "secret" not in as_json(findings)


def test_a_known_host_that_is_said_to_be_of_another_is_a_contradiction(path: Path) -> None:
    finding = the(look(path, COSTMW_HOSTS="api.openai.com=anthropic"), "settings-contradict")
    assert "bills as 'anthropic'; costmw knows it as 'openai'" in finding.problem


def test_a_gateway_without_prices_is_good_to_know(path: Path, tmp_path: Path) -> None:
    environ = {"COSTMW_HOSTS": "llm.internal:8080=acme"}
    assert the(look(path, **environ), "hosts-unpriced").level == "info"
    prices = tmp_path / "prices.toml"
    prices.write_text('[[price]]\nmodel = "m"\nprovider = "acme"\ninput = 1\noutput = 2\n')
    assert "hosts-unpriced" not in codes(look(path, **environ, COSTMW_PRICES=str(prices)))
    assert "hosts-unpriced" not in codes(look(path, COSTMW_HOSTS="llm.internal=openai"))


def test_a_library_that_is_too_old_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    old = {"starlette": "0.27.0", "groq": "0.4"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name) or real(name))
    found = [one for one in look(path) if one.code == "version-old"]
    assert [(one.level, one.mend) for one in found] == [
        ("warning", "pip install 'costmw[fastapi]'"),
        ("info", "pip install 'groq>=1'"),
    ]


@pytest.mark.parametrize(
    ("version", "is_faulty"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
    ],
)
def test_a_sqlite_with_a_fault_in_its_log_is_good_to_know(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], is_faulty: bool
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert ("sqlite-old" in codes(look(path))) == is_faulty


# The store's place.


def test_no_store_at_all_is_an_error() -> None:
    assert the(examine(environ={}), "store-not-set").level == "error"
    assert "store-not-set" not in codes(examine(environ={"COSTMW_STORE": "sqlite:///a.db"}))


@pytest.mark.parametrize(
    "url",
    ["sqlite:///:memory:", "llmcost.db", "mysql://ann:secret@db/costs", "sqlite://a:secret@b"],
)
def test_a_url_that_is_no_store_is_an_error_without_its_password(url: str) -> None:
    finding = the(examine(environ={"COSTMW_STORE": url}), "store-invalid")
    assert finding.level == "error"
    assert "secret" not in finding.problem


def test_a_relative_path_is_good_to_know(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    finding = the(examine(environ={"COSTMW_STORE": "sqlite:///llmcost.db"}), "store-relative")
    assert finding.level == "info"
    assert f"sqlite:///{path}" in finding.mend
    assert "store-relative" not in codes(look(path))


ROOT = "/dev/vda / ext4 rw,relatime 0 0\n"

Place = Callable[[str, str], list[Finding]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """What is said of the place of a store, with these file systems mounted."""

    def said(path: str, table: str) -> list[Finding]:
        file = tmp_path / "mounts"
        file.write_text(table + "\n")
        monkeypatch.setattr(mounts, "TABLE", file)
        findings = examine(store=f"sqlite:///{path}", environ={})
        return [one for one in findings if one.code in ABOUT_THIS_MACHINE - {"disk-full"}]

    return said


def test_a_temporary_directory_is_no_place_for_a_store(place: Place) -> None:
    (finding,) = place("/tmp/llmcost.db", ROOT)
    assert (finding.level, finding.code) == ("warning", "store-temporary")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no file system in memory here")
def test_memory_is_no_place_for_a_store() -> None:
    folder = Path("/dev/shm") / f"costmw-{os.getpid()}"
    folder.mkdir()
    try:
        findings = examine(store=f"sqlite:///{folder}/llmcost.db", environ={})
        assert "emptied" in the(findings, "store-temporary").problem
    finally:
        folder.rmdir()


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (ROOT, []),
        ("overlay / overlay rw 0 0", [("warning", "store-in-container")]),
        ("overlay / overlay rw 0 0\n/dev/vdb /srv/data ext4 rw 0 0", []),
        (ROOT + "overlay /srv/data overlay rw 0 0", []),
        (ROOT + "nas:/x /srv/data nfs4 rw 0 0", [("error", "store-on-network")]),
        (ROOT + "//nas/x /srv cifs rw 0 0", [("error", "store-on-network")]),
        (ROOT + "ann@host: /srv/data fuse.sshfs rw 0 0", [("error", "store-on-network")]),
        (ROOT + "mac /srv/data virtiofs rw 0 0", [("warning", "store-on-network")]),
        (ROOT + "none /srv/data tmpfs rw 0 0", [("warning", "store-temporary")]),
        (ROOT + "nas:/x /srv/dat nfs4 rw 0 0", []),
        (ROOT + "nas:/x /srv nfs4 rw 0 0\n/dev/vdb /srv/data xfs rw 0 0", []),
        (ROOT + "nas:/x /srv/data nfs4 rw 0 0\n/dev/vdb /srv/data xfs rw 0 0", []),
    ],
)
def test_the_file_system_decides_whether_a_place_is_good(
    place: Place, table: str, found: list[tuple[str, str]]
) -> None:
    assert [(one.level, one.code) for one in place("/srv/data/a.db", table)] == found


def test_a_mount_with_a_space_in_its_name_is_found(place: Place) -> None:
    (finding,) = place("/srv/our data/a.db", ROOT + r"nas:/x /srv/our\040data nfs rw 0 0")
    assert finding.code == "store-on-network"


# Who may use it.


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    findings = look(tmp_path / "nowhere" / "llmcost.db")
    assert the(findings, "store-directory").level == "error"
    assert "store-missing" not in codes(findings)


def as_another_user(work: Callable[[], object]) -> Any:
    """What `work` gives as JSON, in a process of a user who owns nothing."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            with os.fdopen(write, "w") as out:
                json.dump(work(), out)
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="no users here")
def test_a_store_that_this_user_may_not_write_is_an_error_and_is_not_opened(path: Path) -> None:
    look(path)  # so that the other process has nothing to import
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        shared = Path(shutil.copy(path, folder))
        shared.chmod(0o444)
        found = as_another_user(
            lambda: [one.problem for one in look(shared) if one.code == "store-not-writable"]
        )
        assert f"may not read and write {shared}." in found[0]
        assert list(Path(folder).iterdir()) == [shared]


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="gives a file away")
def test_a_file_beside_the_store_that_another_user_owns_is_a_warning(path: Path) -> None:
    lock = Path(f"{path}.lock")
    os.chown(lock, 65534, 65534)
    finding = the(look(path), "store-not-writable")
    assert finding.level == "warning"
    assert finding.mend == f"chown --reference={path} {lock}"


def test_a_key_that_others_can_read_is_a_warning(path: Path) -> None:
    SqliteStore(f"sqlite:///{path}", Config()).fingerprint_key()
    assert "key-exposed" not in codes(look(path))
    Path(f"{path}.key").chmod(0o644)
    assert the(look(path), "key-exposed").mend == f"chmod 600 {path}.key"


# Its state.


def test_a_store_that_is_not_there_is_a_warning_and_is_not_made(tmp_path: Path) -> None:
    assert the(look(tmp_path / "llmcost.db"), "store-missing").level == "warning"
    assert list(tmp_path.iterdir()) == []


def test_for_an_app_that_has_not_started_a_missing_store_is_good_to_know(meter: Meter) -> None:
    assert the(examine(meter, environ={}), "store-missing").level == "info"


def test_something_else_than_a_database_is_an_error(path: Path) -> None:
    path.write_bytes(b"not a database, and long enough to be looked at" * 100)
    finding = the(look(path), "store-unreadable")
    assert finding.level == "error"
    assert "not an SQLite database" in finding.problem
    assert finding.mend == "Move it away or name another file."


def test_a_database_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (id)")
    finding = the(look(path), "store-unreadable")
    assert "it has a table users" in finding.problem
    assert finding.mend == "Give costmw a file of its own."


def test_a_damaged_file_is_an_error(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'usage_events_by_time'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    finding = the(look(path), "store-damaged")
    assert finding.level == "error"
    assert ".recover" in finding.mend


def test_a_file_that_takes_too_long_to_check_is_said_to_be_unchecked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(f"sqlite:///{path}")
    for _ in range(300):
        meter.store.write([meter.priced(**A_CALL) for _ in range(100)])
    meter.close()
    monkeypatch.setattr(SqliteStore.health, "__defaults__", (0.0,))
    assert the(look(path), "store-not-checked").level == "info"


def test_a_store_that_is_held_by_another_program_is_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("DELETE FROM submissions")
        assert the(look(path), "store-busy").level == "warning"


def test_a_file_without_a_log_is_an_error(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    assert "journal mode delete" in the(look(path), "store-journal").problem


def test_a_file_of_a_newer_costmw_is_a_warning(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
            "VALUES ('costmw', 'of the future', '')"
        )
    finding = the(look(path), "schema-newer")
    assert finding.level == "warning"
    assert "of the future" in finding.problem


def test_a_file_of_an_older_costmw_is_good_to_know_and_left_as_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite_health.migrations

    def with_one_more() -> Any:
        steps = real()
        steps(name="one more")(lambda db: None)
        return steps

    monkeypatch.setattr(sqlite_health, "migrations", with_one_more)
    for _ in range(2):
        finding = the(look(path), "schema-older")
        assert finding.level == "info"
        assert "one more" in finding.problem


def test_another_time_zone_than_the_store_has_is_an_error(path: Path) -> None:
    finding = the(look(path, COSTMW_TIME_ZONE="Europe/Berlin"), "time-zone-differs")
    assert finding.level == "error"
    assert "in UTC, and the settings ask for Europe/Berlin" in finding.problem
    assert "time-zone-differs" not in codes(look(path, COSTMW_TIME_ZONE="UTC"))


@pytest.mark.parametrize(
    ("free", "total", "level"),
    [(10 * 2**20, 2**40, "error"), (2**29, 2**40, "warning"), (2**29, 2**31, None)],
)
def test_a_full_disk_is_said_before_it_is_full(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, total: int, level: str | None
) -> None:
    usage = shutil._ntuple_diskusage(total, total - free, free)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert [one.level for one in look(path) if one.code == "disk-full"] == [level] * bool(level)


def test_a_log_that_grows_is_a_warning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_checks, "LARGE_LOG", 100_000)
    url = f"sqlite:///{path}"
    meter, reader = Meter(url), Meter(url)
    with reader.store.snapshot():
        for _ in range(20):
            meter.store.write([meter.priced(**A_CALL) for _ in range(100)])
        assert the(look(path), "log-large").level == "warning"
    meter.close()
    reader.close()


def test_looking_changes_nothing(path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {
            file.name: file.read_bytes()
            for file in path.parent.iterdir()
            if not file.name.endswith(("-shm", "-wal"))
        }

    Path(f"{path}.lock").unlink()
    before = files()
    look(path)
    assert files() == before


# Whether anything comes in.


def test_an_empty_store_is_good_to_know(meter: Meter) -> None:
    meter.start()
    assert the(examine(meter, environ={}), "no-calls").level == "info"


def test_a_store_that_nothing_comes_into_any_more_is_a_warning(path: Path) -> None:
    url = f"sqlite:///{path.parent}/old.db"
    meter = Meter(url)
    meter.record(**A_CALL, created_at=datetime.now(UTC) - timedelta(days=9))
    meter.close()
    finding = the(examine(store=url, environ={}), "no-calls")
    assert finding.level == "warning"
    assert "no call of the last 7 days" in finding.problem
    assert "no-calls" not in codes(examine(store=url, days=10, environ={}))


# How it is told.


def test_a_check_that_fails_is_a_finding_and_stops_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_that_fails(case: Any) -> Iterator[Finding]:
        yield Finding("info", "before", "p", "m")
        raise RuntimeError("the key is sk-123")

    monkeypatch.setattr(examination, "CHECKS", (check_that_fails, *examination.CHECKS))
    findings = look(path, COSTMW_X="1")
    failed = the(findings, "check-failed")
    assert failed.level == "warning"
    assert (
        "check_that_fails did not come to its end: RuntimeError at test_doctor.py" in failed.problem
    )
    assert "sk-123" not in as_json(findings)
    assert {"before", "variable-unknown"} <= codes(findings)


def test_text_has_the_worst_first_and_ends_with_the_counts() -> None:
    long = "model = 'a name" + " that goes on" * 10 + "'"
    findings = [
        Finding("error", "one", "a problem " * 20, f"Do this:\n  [[price]]\n  {long}"),
        Finding("error", "two", "p", "m"),
        Finding("warning", "three", "p", "m"),
        Finding("info", "four", "p", "m"),
    ]
    text = as_text(findings)
    assert [line for line in text.splitlines() if line[:1].strip()] == [
        "Errors",
        "Warnings",
        "Good to know",
        "2 errors, 1 warning",
    ]
    assert f"         [[price]]\n         {long}\n" in text
    assert max(len(line) for line in text.splitlines() if long not in line) <= 96
    assert as_text(findings[3:]).endswith("\nnothing wrong found")
    assert as_text([]) == "nothing wrong found"


def test_the_command_says_it_in_text_and_by_its_status(path: Path) -> None:
    well = run_doctor(path.parent, "--store", f"sqlite:///{path}")
    assert well.returncode == 0, well.stdout
    ill = run_doctor(path.parent)
    assert (ill.returncode, ill.stdout.splitlines()[-1]) == (1, "1 error")
    assert "store-not-set" in ill.stdout
    assert ill.stderr == ""


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("main", "'main' does not name an app"),
        ("main:app.", "does not name an app"),
        ("main:1", "does not name an app"),
        ("nowhere:app", "ModuleNotFoundError: No module named 'nowhere'"),
        ("main:nothing", "AttributeError: module 'main' has no attribute 'nothing'"),
        ("main:number", "main:number is a int, which cannot be served"),
        ("main:create_app(3)", "ValueError, at "),
        ("main:leave()", "SystemExit, at "),
    ],
)
def test_an_app_that_cannot_be_imported_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    write_app(
        tmp_path,
        """
        import sys
        number = 1
        def create_app(key):
            raise ValueError("the key is sk-123")
        def leave():
            sys.exit("sk-123")
        """,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    try:
        findings = examination.examine_target(target)
    finally:
        sys.modules.pop("main", None)
    finding = the(findings, "app-not-imported")
    assert finding.level == "error"
    assert said in finding.problem
    assert "sk-123" not in as_json(findings)


def test_what_an_app_prints_does_not_get_into_the_json(tmp_path: Path) -> None:
    write_app(
        tmp_path,
        """
        print("hello")
        class apps:
            def make(name, *, times):
                print("made", name, times)
                return lambda scope: None
        """,
    )
    findings = doctor(tmp_path, "main:apps.make('x', times=2)")
    assert codes(findings) == {"no-meter"}


def test_the_documentation_has_every_kind_of_finding() -> None:
    root = Path(__file__).parents[1]
    made: set[str] = set()
    for file in (root / "src" / "costmw" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                made.add(ast.literal_eval(node.args[1]))
    rows = re.findall(
        r"^\| (`.*?) \|", (root / "docs" / "doctor.md").read_text("utf-8"), re.MULTILINE
    )
    assert made == {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)}
