"""An app that records as fast as it can, and writes down what it was told is recorded.

A call appends its event's id to JOURNAL once `record()` has handed it back, and how many
microseconds that took, before it goes on: in one write, to a file opened for appending,
which survives a kill.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import threading
import time
from pathlib import Path
from typing import Any

from costmw import Config, Meter

CALL: dict[str, Any] = {"provider": "openai", "model": "m", "cost": "0.000123"}

JOURNALLED = struct.Struct("<16sI")
"""The id of an event, and microseconds."""


def main(options: argparse.Namespace) -> None:
    config = Config(
        durability=options.durability,
        ack_timeout=options.timeout,
        queue_size=10**7,
        outbox=Path(options.journal).with_name("outbox.db"),
    )
    meter = Meter(options.store, config=config)
    meter.start()
    acknowledged = os.open(options.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def told(event: Any, began: float) -> None:
        taken = round((time.perf_counter() - began) * 1e6)
        os.write(acknowledged, JOURNALLED.pack(event.id.bytes, taken))

    def call(n: int) -> None:
        while True:
            began = time.perf_counter()
            told(meter.record(**CALL, tags={"caller": n}), began)
            if options.pause:
                time.sleep(options.pause)

    async def acall(n: int) -> None:
        while True:
            began = time.perf_counter()
            told(await meter.arecord(**CALL, tags={"caller": n}), began)
            await asyncio.sleep(options.pause)

    async def acalls() -> None:
        await asyncio.gather(*(acall(n) for n in range(options.callers)))

    print("ready", flush=True)
    if options.kind == "asyncio":
        asyncio.run(acalls())
    else:
        for n in range(options.callers):
            threading.Thread(target=call, args=(n,)).start()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("journal")
    parser.add_argument("kind", choices=("threads", "asyncio"))
    parser.add_argument("durability", choices=("commit", "process", "async"))
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two calls of one")
    parser.add_argument("--timeout", type=float, default=600.0, help="ack_timeout")
    parser.add_argument("--mirror", action="store_true", help="keep what is surely on disk")
    chosen = parser.parse_args()
    if chosen.mirror:
        import mirror  # beside this file

        mirror.install()
    main(chosen)
