"""Runs every benchmark: `python -m benchmarks`; the views take half an hour."""

from __future__ import annotations

from benchmarks import (
    ack,
    caps_race,
    ingest,
    other_requests,
    proxy,
    read_and_price,
    stream_chunk,
    views,
)

for benchmark in (
    read_and_price,
    stream_chunk,
    other_requests,
    proxy,
    ack,
    ingest,
    caps_race,
    views,
):
    print(f"\n== {benchmark.__name__}: {benchmark.__doc__}")
    benchmark.run()
