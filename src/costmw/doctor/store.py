"""The store's file: where it is, who may use it, and the state that it is in."""

from __future__ import annotations

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from costmw.doctor.case import BESIDE, Case, closed_to_us, listed
from costmw.doctor.finding import Finding
from costmw.doctor.urls import told
from costmw.errors import StoreBusy, StoreError
from costmw.store.layers import ledger_of
from costmw.store.mounts import IN_MEMORY, SHARED_WITH_HOST, is_network, mount_of
from costmw.store.sqlite import SqliteStore, path_of

LOW_SPACE = 1024**3
"""Bytes free below which a disk that is 95% full is worth a word."""

NO_SPACE = 64 * 1024**2
"""Bytes free below which the next rows may not fit."""

LARGE_LOG = 256 * 1024**2
"""Bytes of a write-ahead log that does not come to its end."""

TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - to warn of them


def check_store_is_named(case: Case) -> Iterator[Finding]:
    """A store has to be named somewhere, by a URL that can be used."""
    if case.store_problem is not None:
        yield Finding(
            "error",
            "store-invalid",
            f"The store's URL cannot be used: {case.store_problem}.",
            "Set COSTMW_STORE=sqlite:////var/lib/myapp/llmcost.db, or --store.",
        )
    elif not case.stores and not case.in_process:
        yield Finding(
            "error",
            "store-not-set",
            "No store is named: COSTMW_STORE is not set.",
            "Set COSTMW_STORE=sqlite:////var/lib/myapp/llmcost.db, or say whose store it is: "
            "costmw doctor main:app, or costmw doctor --store URL.",
        )


def check_place(case: Case) -> Iterator[Finding]:
    """Whether all workers see the same file, and it lasts."""
    for store in _sqlite(case):
        path, shown = store.path, told(store.url)
        if not path_of(store.url).is_absolute():
            yield Finding(
                "info",
                "store-relative",
                f"{shown} means {path} for what is started in this directory; workers and jobs "
                "that are started elsewhere have a store of their own.",
                f"Name the whole path, with four slashes: sqlite:///{path}",
            )
        mount = mount_of(path)
        kind = mount.kind if mount else ""
        if is_network(kind):
            yield Finding(
                "error",
                "store-on-network",
                f"{path} is on a network file system ({kind}): locks and the write-ahead log do "
                "not hold there, and rows can be lost.",
                "Put the file on a local disk. Several hosts have a store each.",
            )
        elif kind in SHARED_WITH_HOST:
            yield Finding(
                "warning",
                "store-on-network",
                f"{path} is on a file system that is shared with another machine ({kind}), where "
                "locks may hold on one side only.",
                "Put the file on a disk or volume of this machine.",
            )
        elif kind in IN_MEMORY or _is_temporary(path):
            yield Finding(
                "warning",
                "store-temporary",
                f"{path} is in a place that is emptied, at a reboot at the latest"
                f"{f' ({kind})' if kind in IN_MEMORY else ''}; each container has its own.",
                "Put the file where data is kept, as in /var/lib/myapp/llmcost.db.",
            )
        elif kind == "overlay" and mount is not None and mount.point == "/":
            yield Finding(
                "warning",
                "store-in-container",
                f"{path} is inside of the container: it is gone with it, and each container has "
                "a store of its own.",
                "Mount a volume and put the file there.",
            )


def check_access(case: Case) -> Iterator[Finding]:
    """Whether the file can be made, read and written by this user."""
    for store in _sqlite(case):
        path, folder = store.path, store.path.parent
        if not folder.is_dir():
            yield Finding(
                "error",
                "store-directory",
                f"The directory {folder} does not exist, so no store can be made in it.",
                f"mkdir -p {folder}, or name another place.",
            )
            continue
        if closed := closed_to_us(path):
            yield Finding(
                "error",
                "store-not-writable",
                f"{_user()} may not read and write {', '.join(map(str, closed))}. SQLite needs "
                "the directory too.",
                "chown them to the user that the app runs as; or run this command as that user.",
            )
        elif path.exists() and (odd := _of_others(path)):
            yield Finding(
                "warning",
                "store-not-writable",
                f"{', '.join(map(str, odd))} belong to another user than {path}: a command that "
                "was run as root leaves such files, and the app cannot use them.",
                f"chown --reference={path} {' '.join(map(str, odd))}",
            )
        key = Path(f"{path}.key")
        if key.exists() and sys.platform != "win32" and stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield Finding(
                "warning",
                "key-exposed",
                f"{key}, the secret that API keys are fingerprinted with, can be read by others.",
                f"chmod 600 {key}",
            )


def check_state(case: Case) -> Iterator[Finding]:
    """Damage, the journal, the schema, the time zone."""
    for store in _sqlite(case):
        path = store.path
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            if path.parent.is_dir():
                yield _missing(case, path)
            continue
        if closed_to_us(path):
            continue  # said by check_access
        try:
            health = store.health()
        except StoreBusy as error:
            yield Finding("warning", "store-busy", f"{error}.", "Try again in a moment.")
            continue
        except StoreError as error:
            problem, _, mend = str(error).rpartition("; ")
            yield Finding(
                "error",
                "store-unreadable",
                f"{problem or mend}.",
                f"{mend[:1].upper()}{mend[1:]}." if problem else "See the message.",
            )
            continue
        if health.damage:
            yield Finding(
                "error",
                "store-damaged",
                f"{path} is damaged: {health.damage[0]}.",
                f"Stop the app and save what can be read: sqlite3 {path} .recover | sqlite3 "
                "recovered.db; or restore a backup.",
            )
        elif health.damage is None:
            yield Finding(
                "info",
                "store-not-checked",
                f"{path} is too large to be checked for damage in 20 seconds.",
                f"sqlite3 {path} 'PRAGMA quick_check', at a quiet time.",
            )
        if health.journal_mode != "wal":
            yield Finding(
                "error",
                "store-journal",
                f"{path} has the journal mode {health.journal_mode}, not wal: another program has "
                "changed it, or the disk takes no write-ahead log.",
                "Put the file on a local disk; the next start sets the mode again.",
            )
        if health.unknown_steps:
            yield Finding(
                "warning",
                "schema-newer",
                f"{path} was made by a newer costmw (it has {listed(health.unknown_steps)}).",
                "Upgrade this one: pip install --upgrade costmw",
            )
        elif health.missing_steps:
            yield Finding(
                "info",
                "schema-older",
                f"{path} was made by an older costmw; the next start of the app brings it up to "
                f"date ({listed(health.missing_steps)}).",
                "Nothing needs to be done; make a backup first if you wish.",
            )
        yield from _time_zones(case, store, health.time_zone)


def _time_zones(case: Case, store: SqliteStore, kept: str | None) -> Iterator[Finding]:
    configs = [meter.config for meter in case.meters if ledger_of(meter.store) is store] or [
        case.config
    ]
    for wanted in {config.time_zone for config in configs}:
        if wanted is not None and kept is not None and wanted != kept:
            yield Finding(
                "error",
                "time-zone-differs",
                f"{store.path} counts its days in {kept}, and the settings ask for {wanted}: the "
                "store will not open.",
                f"Unset COSTMW_TIME_ZONE (or Config(time_zone=...)), or set it to {kept}; a new "
                "file takes another zone.",
            )


def _missing(case: Case, path: Path) -> Finding:
    if case.in_process:
        return Finding(
            "info",
            "store-missing",
            f"{path} does not exist yet; the app makes it when it starts.",
            "If the app has been running, it writes elsewhere: run this command in the app's "
            "directory, with its environment, and name the whole path.",
        )
    return Finding(
        "warning",
        "store-missing",
        f"{path} does not exist, or is empty.",
        "Check the path. A relative one depends on the directory that a command is run in.",
    )


def check_space(case: Case) -> Iterator[Finding]:
    """Room on the disk, and a log that grows."""
    for store in _sqlite(case):
        if not store.path.parent.is_dir():
            continue
        disk = shutil.disk_usage(store.path.parent)
        if disk.free < NO_SPACE or (disk.free < LOW_SPACE and disk.free < disk.total / 20):
            yield Finding(
                "error" if disk.free < NO_SPACE else "warning",
                "disk-full",
                f"The disk of {store.path} has {disk.free // 1024**2:,} MB left of "
                f"{disk.total // 1024**2:,}: when it is full, rows wait in memory and are lost "
                "with the process.",
                "Free some space, or move the file to a larger disk.",
            )
        log = Path(f"{store.path}-wal")
        if log.exists() and log.stat().st_size > LARGE_LOG:
            yield Finding(
                "warning",
                "log-large",
                f"{log} has {log.stat().st_size // 1024**2:,} MB: somebody keeps a view of the "
                "file open, so that its log cannot be reset.",
                "Close other programs that have the file open (lsof names them), or restart "
                "the app.",
            )


def _sqlite(case: Case) -> Iterator[SqliteStore]:
    ledgers = map(ledger_of, case.stores)
    return (ledger for ledger in ledgers if isinstance(ledger, SqliteStore))


def _is_temporary(path: Path) -> bool:
    return any(
        path.resolve().is_relative_to(Path(folder).resolve())
        for folder in {*TEMPORARY, tempfile.gettempdir()}
    )


def _of_others(path: Path) -> list[Path]:
    """Files beside a store's that another user owns."""
    if sys.platform == "win32":
        return []
    owner = path.stat().st_uid
    beside = (Path(f"{path}{end}") for end in BESIDE)
    return [name for name in beside if name.exists() and name.stat().st_uid != owner]


def _user() -> str:
    import getpass

    try:
        return f"User {getpass.getuser()!r}"
    except (KeyError, OSError):
        return "This user"
