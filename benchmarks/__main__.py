"""Runs every benchmark: `python -m benchmarks`."""

from __future__ import annotations

from benchmarks import other_requests, proxy, read_and_price, stream_chunk

for benchmark in (read_and_price, stream_chunk, other_requests, proxy):
    print(f"\n== {benchmark.__name__}: {benchmark.__doc__}")
    benchmark.run()
