"""The disk is full, the database locked, its file removed, replaced or damaged: calls go on.

Six threads record calls all the while. Nobody fails or waits longer than `ack_timeout`,
and when it is over every call has its row, but for those on the very page that was
damaged. A disk of its own, to be filled, takes root; those variants are left out without.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from costmw import Config, Meter
from costmw.errors import StoreError
from costmw.store.sqlite import SqliteStore

from . import Result

CALLERS = 6
ACK_TIMEOUT = 1.0
SLACK = 0.5
"""Seconds that a busy machine may take to wake a thread whose time has come."""

ROWS_BEFORE = 3_000
ROWS_OF_A_PAGE = 80
DISK_MB = 16
PAGE = 4096

Break = Callable[["Scene"], contextlib.AbstractContextManager[None]]


@dataclass
class Scene:
    """What a variant is played on."""

    folder: Path
    meter: Meter
    seconds: float
    rng: random.Random

    @property
    def database(self) -> Path:
        assert isinstance(self.meter.store, SqliteStore)
        return self.meter.store.path


@dataclass(frozen=True)
class Variant:
    """A fault; `may_lose` rows, on a disk of its own, or from the very start.

    What is wrong for good may keep an app from starting; what passes may not.
    """

    name: str
    fault: Break
    may_lose: int = 0
    own_disk: bool = False
    at_the_start: bool = False
    may_refuse: bool = False
    seconds: float = 3.0


@contextlib.contextmanager
def full(scene: Scene) -> Iterator[None]:
    """Fill the disk to the last byte."""
    filler = scene.folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(PAGE))
    yield
    filler.unlink()


@contextlib.contextmanager
def read_only(scene: Scene) -> Iterator[None]:
    """Nothing can be made or changed in the directory."""
    _run("mount", "-o", "remount,ro", str(scene.folder))
    yield
    _run("mount", "-o", "remount,rw", str(scene.folder))


@contextlib.contextmanager
def locked(scene: Scene) -> Iterator[None]:
    """Another program is in the middle of a transaction."""
    code = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(scene.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"locked\n"
    yield
    other.communicate()


@contextlib.contextmanager
def removed(scene: Scene) -> Iterator[None]:
    """Somebody cleans up."""
    for file in scene.folder.glob("llmcost.db*"):
        file.unlink()
    yield


@contextlib.contextmanager
def log_removed(scene: Scene) -> Iterator[None]:
    """Somebody thinks that a log is not needed."""
    for file in scene.folder.glob("llmcost.db-*"):
        file.unlink()
    yield


@contextlib.contextmanager
def replaced(scene: Scene) -> Iterator[None]:
    """Somebody puts a copy of a moment ago in its place."""
    copy = scene.folder / "copy.db"
    with Path(f"{scene.database}.lock").open("rb+") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # nothing is committed between the copy and its use
        with contextlib.closing(sqlite3.connect(scene.database)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        copy.rename(scene.database)
    yield


def damaged(table: str, which: str, content: bytes | None = None) -> Break:
    """Overwrite a page of a table: its `root`, or some `leaf`."""

    @contextlib.contextmanager
    def damage(scene: Scene) -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(scene.database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            kind = "leaf" if which == "leaf" else "%"
            pages = [
                page
                for (page,) in connection.execute(
                    "SELECT pageno FROM dbstat WHERE name = ? AND pagetype LIKE ? ORDER BY path",
                    (table, kind),
                )
            ]
        page = 1 if table == "sqlite_schema" else pages[0]
        if which == "leaf":
            page = scene.rng.choice(pages)
        overwrite(scene.database, page, content or scene.rng.randbytes(PAGE))
        yield

    return damage


@contextlib.contextmanager
def cut_off(scene: Scene) -> Iterator[None]:
    """The file ends in the middle."""
    with contextlib.closing(sqlite3.connect(scene.database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    os.truncate(scene.database, scene.database.stat().st_size // 2)
    yield


def overwrite(database: Path, page: int, content: bytes) -> None:
    """Change a page in another process: closing the file here would give up its locks."""
    code = (
        "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2]))\n"
        "f.write(sys.stdin.buffer.read())"
    )
    arguments = [sys.executable, "-c", code, str(database), str((page - 1) * PAGE)]
    subprocess.run(arguments, input=content, check=True)


VARIANTS = (
    Variant("disk full", full, own_disk=True),
    Variant("disk full at the start", full, own_disk=True, at_the_start=True),
    Variant("read-only at the start", read_only, own_disk=True, at_the_start=True, may_refuse=True),
    Variant("locked", locked, seconds=60.0),
    Variant("locked at the start", locked, at_the_start=True),
    Variant("removed", removed),
    Variant("log removed", log_removed),
    Variant("replaced by a copy", replaced),
    Variant("first page damaged", damaged("sqlite_schema", "root")),
    Variant("first page zero", damaged("sqlite_schema", "root", bytes(PAGE))),
    Variant("root of the events damaged", damaged("usage_events", "root")),
    Variant("leaf of the events damaged", damaged("usage_events", "leaf"), ROWS_OF_A_PAGE),
    Variant("leaf of an index damaged", damaged("sqlite_autoindex_usage_events_1", "leaf")),
    Variant("leaf of the tag sets damaged", damaged("tag_sets", "leaf")),
    Variant("root of the rollups damaged", damaged("rollups", "root")),
    Variant("cut off in the middle", cut_off, ROWS_BEFORE),
)


@dataclass
class Load:
    """Threads that record, and what they met."""

    meter: Meter
    ids: set[UUID] = field(default_factory=set)
    failed: int = 0
    slowest: float = 0.0
    most_waiting: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        n = 0
        while not self.stop.is_set():
            n += 1
            began = time.monotonic()
            try:
                event = self.meter.record(
                    provider="openai", model="m", cost="0.000123", tags={"n": n % 50}
                )
            except Exception as error:
                logging.getLogger("costmw.faults").exception("a call failed", exc_info=error)
                self.failed += 1
            else:
                self.ids.add(event.id)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.most_waiting = max(self.most_waiting, self.meter.status().waiting)
            time.sleep(0.01)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.run) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()


def run(rounds: int | None = None, seed: int = 0, names: tuple[str, ...] = ()) -> Iterator[Result]:
    """Play each variant; `rounds` are seconds that a fault lasts, in place of its own."""
    for variant in VARIANTS:
        if names and variant.name not in names:
            continue
        if variant.own_disk and (os.geteuid() != 0 or sys.platform != "linux"):
            yield Result("disk", variant.name, {"calls": "left out: it takes root, on Linux"})
            continue
        with place(variant) as folder:
            yield played(variant, folder, rounds or variant.seconds, seed)


@contextlib.contextmanager
def place(variant: Variant) -> Iterator[Path]:
    """A directory, on a small disk of its own where that is wanted."""
    with tempfile.TemporaryDirectory(prefix="costmw-faults-") as folder:
        if not variant.own_disk:
            yield Path(folder)
            return
        _run("mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "costmw-faults", folder)
        try:
            yield Path(folder)
        finally:
            _run("umount", "-l", folder)


def played(variant: Variant, folder: Path, seconds: float, seed: int) -> Result:
    """Play a variant, and look at what is there when it is over."""
    url = f"sqlite:///{folder}/llmcost.db"
    meter = Meter(url, config=Config(ack_timeout=ACK_TIMEOUT))
    scene = Scene(folder, meter, seconds, random.Random(f"{variant.name} {seed}"))
    load = Load(meter)
    refused = None
    if variant.at_the_start:
        with variant.fault(scene):
            try:
                meter.start()
            except StoreError as error:
                refused = str(error)
            with load.running():
                time.sleep(seconds)
        ended = time.monotonic()
        meter.flush(60)
        back = time.monotonic() - ended
    else:
        meter.start()
        load.ids |= filled(meter)
        with load.running():
            time.sleep(0.5)
            with variant.fault(scene):
                time.sleep(seconds)
                ask(meter)
            ended = time.monotonic()
            meter.flush(60)
            back = time.monotonic() - ended
            time.sleep(1.0)
    meter.flush(60)
    status = meter.status()
    meter.close()
    kept, differences, integrity = after_a_restart(url)
    lost = len(load.ids) - len(load.ids & kept)
    found = []
    if refused and not variant.may_refuse:
        found.append(f"the app does not start: {refused}")
    if load.failed:
        found.append(f"{load.failed} calls failed")
    if load.slowest > ACK_TIMEOUT + SLACK:
        found.append(f"a call waited {load.slowest:.2f} s")
    if lost > variant.may_lose + status.dropped:
        found.append(f"{lost} rows are lost")
    if status.dropped or status.rejected or status.waiting:
        found.append(f"{status.dropped} dropped, {status.rejected} rejected")
    if differences or integrity != "ok":
        found.append(f"rollups wrong: {differences}, integrity: {integrity}")
    aside = sorted(folder.glob("llmcost.db.*-*Z")) if folder.exists() else []
    return Result(
        "disk",
        variant.name,
        {
            "calls": len(load.ids) + load.failed,
            "failed": load.failed,
            "slowest ms": round(load.slowest * 1000),
            "late": status.late,
            "waited at most": load.most_waiting,
            "dropped": status.dropped,
            "lost": lost,
            "set aside": "yes" if aside else "",
            "written after s": round(back, 1),
            "integrity": integrity,
        },
        found,
    )


def filled(meter: Meter) -> set[UUID]:
    """Record some calls before, and roll them up."""
    events = [
        meter.priced(provider="openai", model="m", cost="0.01", tags={"n": n % 50, "m": n})
        for n in range(ROWS_BEFORE)
    ]
    for first in range(0, ROWS_BEFORE, 500):
        meter.store.write(events[first : first + 500])
    while meter.store.roll_up(500):
        pass
    return {event.id for event in events}


def ask(meter: Meter) -> None:
    """Ask as a page does, and for every row, as an export does."""
    try:
        meter.reports.by("tag:n")
        with meter.store.snapshot() as snapshot:
            snapshot.events(scope={}, limit=1_000_000)
    except StoreError as error:
        logging.getLogger("costmw.faults").info("a question failed: %s", error)


def after_a_restart(url: str) -> tuple[set[UUID], int, str]:
    """The ids that the store has in the end, and what it says of itself."""
    store = SqliteStore(url, Config())
    try:
        store.open()
        deadline = time.monotonic() + 120
        while (thread := store._rescuer._thread) is not None and thread.is_alive():
            if time.monotonic() > deadline:
                raise RuntimeError("rows are still being brought over")
            time.sleep(0.01)
        while store.roll_up(1_000):
            pass
        with store.snapshot() as snapshot:
            kept = {event.id for _, event in snapshot.events(scope={}, limit=10_000_000)}
        with contextlib.closing(sqlite3.connect(store.path)) as connection:
            (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
        return kept, len(store.verify()), integrity
    finally:
        store.close()


def _run(*command: str) -> None:
    subprocess.run([shutil.which(command[0]) or command[0], *command[1:]], check=True)
