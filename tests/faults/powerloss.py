"""Power is lost while a hundred calls are in flight: what was not synced is gone.

A killed process leaves everything that it wrote, since the system has it. Without power
only what was synced is surely there: after each kill the database and its log are put
back to what they were when their last sync came back (see `mirror`). Every other time
some of the blocks written since are there as well, in no order, as disks do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from . import Result
from .kill import Variant, killed

BLOCK = 4096

VARIANTS = (
    Variant("threads", "commit", processes=4),
    Variant("threads", "commit"),
    Variant("asyncio", "commit"),
    Variant("threads", "process", control=True),
    Variant("threads", "async", control=True),
)


def run(rounds: int = 20, seed: int = 0) -> Iterator[Result]:
    """Take the power away `rounds` times in every variant, on one file each."""
    for variant in VARIANTS:
        kills = rounds * variant.processes
        yield killed(
            *("powerloss", variant, kills, seed, "--mirror"), at_once=True, after_kill=lose_power
        )


def lose_power(database: Path, rng: random.Random) -> None:
    """Put the files back to what is surely on disk; the shared memory is gone."""
    Path(f"{database}-shm").unlink(missing_ok=True)
    torn = rng.random() < 0.5
    for name in (f"{database}", f"{database}-wal"):
        on_disk = Path(f"{name}.disk")
        synced = on_disk.read_bytes() if on_disk.exists() else b""
        written = Path(name).read_bytes() if torn and Path(name).exists() else b""
        Path(name).write_bytes(mixed(synced, written, rng))


def mixed(synced: bytes, written: bytes, rng: random.Random) -> bytes:
    """What was synced, with some of the blocks that were written later."""
    blocks = bytearray(synced)
    for start in range(0, len(written), BLOCK):
        if rng.random() < 0.5:
            if len(blocks) < start:
                blocks.extend(bytes(start - len(blocks)))
            blocks[start : start + BLOCK] = written[start : start + BLOCK]
    return bytes(blocks)
