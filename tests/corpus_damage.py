"""Replays recorded exchanges damaged on the way: `python -m tests.corpus_damage FILES`.

Each answer is cut at a random byte, has a bit flipped, comes in chunks of one byte, and
in each content encoding. The app has to see the bytes as they came, nothing may raise,
and no row may claim to be exact that is not. A flipped bit inside of a number makes
another number, which no reader can tell: those are counted apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import random
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable

import brotli
import zstandard
from tests.corpus import Exchange, Replay, read_exchanges

from costmw.events import UsageEvent

Damage = Callable[[bytes, random.Random], bytes]

DAMAGES: dict[str, tuple[Damage, str]] = {
    "cut at a random byte": (lambda body, chance: body[: chance.randrange(len(body) + 1)], ""),
    "a bit flipped": (lambda body, chance: flipped(body, chance), ""),
    "one byte at a time": (lambda body, _: body, ""),
    "gzip": (lambda body, _: gzip.compress(body), "gzip"),
    "deflate": (lambda body, _: zlib.compress(body), "deflate"),
    "br": (lambda body, _: brotli.compress(body, quality=4), "br"),
    "zstd": (lambda body, _: zstandard.ZstdCompressor().compress(body), "zstd"),
    "gzip, cut": (lambda body, chance: cut_gzip(body, chance), "gzip"),
}


def flipped(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return body
    at = chance.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << chance.randrange(8))]) + body[at + 1 :]


def cut_gzip(body: bytes, chance: random.Random) -> bytes:
    packed = gzip.compress(body)
    return packed[: chance.randrange(len(packed) + 1)]


def numbers(rows: list[UsageEvent]) -> list[tuple[object, ...]]:
    """What exact rows claim."""
    return sorted(
        (
            str(row.usage),
            str(row.model),
            row.price.cost_pico_usd or 0,
        )
        for row in rows
        if row.status == "ok"
    )


def main() -> int:
    """Replay and print a line for each kind of damage."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus_damage", description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    counts: dict[str, Counter[str]] = {name: Counter() for name in DAMAGES}
    with tempfile.TemporaryDirectory() as folder:
        replay = Replay(folder, options.seed)
        for exchange in read_exchanges(options.files):
            intact = numbers(replay.run(exchange))
            for name, (damage, encoding) in DAMAGES.items():
                replay.chunk_bytes = 1 if name == "one byte at a time" else None
                damaged = with_body(exchange, damage(exchange.body, chance), encoding)
                tally(counts[name], name, replay, damaged, intact)
            replay.chunk_bytes = None
        faults = replay.meter.status().faults
        replay.close()
    print(f"seed {options.seed}")
    columns = ("replayed", "errors", "exact", "falsely exact", "another number")
    print(f"{'':<24}" + "".join(f"{column:>16}" for column in columns))
    for name, found in counts.items():
        print(f"{name:<24}" + "".join(f"{found[column]:>16}" for column in columns))
    print(f"errors of ours that were kept from the app: {faults}")
    return 1 if any(c["errors"] or c["falsely exact"] for c in counts.values()) else 0


def with_body(exchange: Exchange, body: bytes, encoding: str) -> Exchange:
    headers = {**exchange.headers, "content-encoding": encoding} if encoding else exchange.headers
    return dataclasses.replace(exchange, body=body, headers=headers)


def tally(
    counts: Counter[str],
    name: str,
    replay: Replay,
    exchange: Exchange,
    intact: list[tuple[object, ...]],
) -> None:
    counts["replayed"] += 1
    try:
        claimed = numbers(replay.run(exchange))
    except Exception as error:
        counts["errors"] += 1
        print(f"{name}: {exchange.file} {exchange.i}: {error!r}", file=sys.stderr)
        return
    counts["exact"] += len(claimed)
    if [claim for claim in claimed if claim not in intact]:
        kind = "another number" if name == "a bit flipped" else "falsely exact"
        counts[kind] += 1
        if kind == "falsely exact":
            print(f"{name}: {exchange.file} {exchange.i}: {claimed}, not {intact}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
