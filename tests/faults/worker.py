"""An app that records as fast as it can, and writes down what it was told is recorded.

    python worker.py STORE JOURNAL {threads,asyncio} CALLERS {commit,process,async} [mirror]

A call appends its event's id to JOURNAL once `record()` has handed it back, before it
goes on: in one write, to a file opened for appending, which survives a kill.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

from costmw import Config, Meter

CALL: dict[str, Any] = {"provider": "openai", "model": "m", "cost": "0.000123"}


def main(store: str, journal: str, kind: str, callers: int, durability: Any) -> None:
    meter = Meter(store, config=Config(durability=durability, ack_timeout=600, queue_size=10**7))
    meter.start()
    acknowledged = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def call(n: int) -> None:
        while True:
            event = meter.record(**CALL, tags={"caller": n})
            os.write(acknowledged, event.id.bytes)

    async def acall(n: int) -> None:
        while True:
            event = await meter.arecord(**CALL, tags={"caller": n})
            os.write(acknowledged, event.id.bytes)
            await asyncio.sleep(0)

    async def acalls() -> None:
        await asyncio.gather(*(acall(n) for n in range(callers)))

    print("ready", flush=True)
    if kind == "asyncio":
        asyncio.run(acalls())
    else:
        for n in range(callers):
            threading.Thread(target=call, args=(n,)).start()


if __name__ == "__main__":
    if sys.argv[6:] == ["mirror"]:
        import mirror  # beside this file

        mirror.install()
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
