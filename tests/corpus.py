"""Replays recorded exchanges through the real path: `python -m tests.corpus FILES`.

Each file is gzip with a JSON object a line: repo, file, i, method, url, req_headers,
req_body, status, resp_headers, resp_body or resp_body_b64 (bodies content-decoded).
An instrumented client sends the recorded request to a transport that serves the
recorded answer in chunks of random size; what is committed to a store is compared
with what the body says of its own totals.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
from tests.corpus_totals import reported_total

from costmw import Config, Meter
from costmw.events import UsageEvent
from costmw.money import format_usd
from costmw.providers import registry
from costmw.providers.base import Match

COLUMNS = (
    "exchanges",
    "billable",
    "with_usage",
    "captured",
    "exact",
    "estimated",
    "unmetered",
    "priced",
    "partial",
    "unpriced",
    "errors",
)


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its answer."""

    repo: str
    file: str
    i: int
    method: str
    url: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_stream(self) -> bool:
        kind = self.headers.get("content-type", "")
        return "event-stream" in kind or "eventstream" in kind or "ndjson" in kind


def read_exchanges(paths: list[str]) -> Iterator[Exchange]:
    """All exchanges of all files, in order."""
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield parse_exchange(json.loads(line))


def parse_exchange(record: dict[str, Any]) -> Exchange:
    """One exchange; headers in lower case, those that no longer fit the body left out."""
    headers = {
        key.lower(): value if isinstance(value, str) else ", ".join(map(str, value))
        for key, value in (record.get("resp_headers") or {}).items()
        if key.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    }
    if encoded := record.get("resp_body_b64"):
        body = base64.b64decode(encoded)
    else:
        body = as_bytes(record.get("resp_body"))
    return Exchange(
        repo=str(record.get("repo")),
        file=str(record.get("file")),
        i=int(record.get("i") or 0),
        method=str(record["method"]).upper(),
        url=record["url"],
        request_headers={
            key: value
            for key, value in (record.get("req_headers") or {}).items()
            if isinstance(value, str) and key.lower() == "content-type"
        },
        request_body=as_bytes(record.get("req_body")),
        status=int(record["status"]),
        headers=headers,
        body=body,
    )


def as_bytes(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return json.dumps(value).encode()


class RecordedStream(httpx2.SyncByteStream):
    """A body in chunks of random size, or of `size` bytes."""

    def __init__(self, body: bytes, chance: random.Random, size: int | None) -> None:
        self._body = body
        self._chance = chance
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        while start < len(self._body):
            size = self._size or self._chance.choice((1, 3, 17, 200, 4096))
            yield self._body[start : start + size]
            start += size


class RecordedTransport(httpx2.BaseTransport):
    """Serves one recorded answer."""

    def __init__(self, chance: random.Random) -> None:
        self.exchange: Exchange | None = None
        self.chunk_bytes: int | None = None
        self._chance = chance

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert self.exchange is not None
        return httpx2.Response(
            self.exchange.status,
            headers=self.exchange.headers,
            stream=RecordedStream(self.exchange.body, self._chance, self.chunk_bytes),
        )


class Replay:
    """Sends exchanges through one instrumented client and looks at the rows."""

    def __init__(self, folder: str, seed: int = 1) -> None:
        self.meter = Meter(f"sqlite:///{folder}/corpus.db", config=Config(ack_timeout=60))
        self._chance = random.Random(seed)
        self._transport = RecordedTransport(self._chance)
        self._client = self.meter.instrument(httpx2.Client(transport=self._transport))
        # Servers of one's own are reached through OpenAI's SDK, whose class implies the API.
        self._openai = self.meter.instrument(httpx2.Client(transport=self._transport), api="openai")

    @property
    def chunk_bytes(self) -> int | None:
        """How many bytes a chunk has; None for a random number."""
        return self._transport.chunk_bytes

    @chunk_bytes.setter
    def chunk_bytes(self, size: int | None) -> None:
        self._transport.chunk_bytes = size

    def run(self, exchange: Exchange) -> list[UsageEvent]:
        """Replay one exchange; gives its new rows. The app must see the recorded bytes."""
        before = self._position()
        self._transport.exchange = exchange
        client = self._client if match_of(exchange) else self._openai
        request = client.build_request(
            exchange.method,
            exchange.url,
            headers=exchange.request_headers,
            content=exchange.request_body or None,
        )
        response = client.send(request, stream=True)
        seen = b"".join(response.iter_raw())
        response.close()
        if seen != exchange.body and b'"stream_options"' not in response.request.content:
            raise AssertionError("the app saw other bytes than were sent")
        assert self.meter.flush(60)
        return self._rows_after(before)

    def _rows_after(self, position: int) -> list[UsageEvent]:
        store: Any = self.meter.store
        with store.snapshot() as view:
            new = view.ask("SELECT id FROM usage_events WHERE seq > ? ORDER BY seq", (position,))
            return [view.event(UUID(bytes=event_id), scope={}) for (event_id,) in new]

    def _position(self) -> int:
        assert self.meter.flush(60)
        store: Any = self.meter.store
        with store.snapshot() as view:
            ((newest,),) = view.ask("SELECT coalesce(max(seq), 0) FROM usage_events")
        return int(newest)

    def close(self) -> None:
        self._client.close()
        self._openai.close()
        self.meter.close()


def match_of(exchange: Exchange, api: str | None = None) -> Match | None:
    """The format of an exchange, by its host and path, or by `api`."""
    url = urlsplit(exchange.url)
    port = f":{url.port}" if url.port else ""
    return registry.match(exchange.method, f"{url.hostname}{port}", url.path, api)


def api_of(exchange: Exchange) -> str:
    """Provider, API and form of an exchange, for the table."""
    found = match_of(exchange) or match_of(exchange, "openai")
    if found is None:
        return f"no LLM call: {urlsplit(exchange.url).hostname}"
    provider = found.provider.name if found.provider else urlsplit(exchange.url).hostname
    return f"{provider} {found.format.api} {'streamed' if exchange.is_stream else 'plain'}"


def tally(exchange: Exchange, rows: list[UsageEvent]) -> Counter[str]:
    """What one exchange adds to the table."""
    counts = Counter(exchanges=1)
    reported = reported_total(exchange.body, exchange.headers)
    success = 200 <= exchange.status < 300
    billable = success and (bool(rows) or reported is not None)
    counts["billable"] = int(billable)
    if billable and reported is not None:
        counts["with_usage"] = 1
        counts["captured"] = int(bool(rows))
        read = sum((r.usage.input_tokens or 0) + (r.usage.output_tokens or 0) for r in rows)
        exact = bool(rows) and all(r.status == "ok" for r in rows) and read in reported
        counts["exact"] = int(exact)
    for row in rows:
        counts["estimated"] += row.status in ("estimated", "incomplete")
        counts["unmetered"] += row.status == "unmetered"
        counts["priced"] += row.price.cost_pico_usd is not None
        counts["unpriced"] += row.price.cost_pico_usd is None
        counts["partial"] += (
            row.status == "ok" and row.price.cost_pico_usd is not None and row.reason is not None
        )
    return counts


def dumped(exchange: Exchange, row: UsageEvent | None) -> dict[str, Any]:
    """One line of `--dump`."""
    where = {"repo": exchange.repo, "file": exchange.file, "i": exchange.i}
    if row is None:
        return {**where, "status": "not_billable"}
    cost = row.price.cost_pico_usd
    return {
        **where,
        "provider": row.provider,
        "operation": row.operation,
        "request_model": row.request_model,
        "response_model": row.response_model,
        "status": row.status,
        "input_tokens": row.usage.input_tokens,
        "output_tokens": row.usage.output_tokens,
        "detail": {
            "cache_read_input_tokens": row.usage.cache_read_input_tokens,
            "cache_write_input_tokens": row.usage.cache_write_input_tokens,
            "reasoning_output_tokens": row.usage.reasoning_output_tokens,
            **row.usage.detail,
        },
        "cost": None if cost is None else format_usd(cost),
        "cost_source": row.price.source,
        "price_ref": row.price.ref,
        "reason": row.reason,
    }


def main() -> int:
    """Replay files and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--json", type=Path, help="write totals and by_api here")
    parser.add_argument("--dump", type=Path, help="write a line a row here")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    by_api: defaultdict[str, Counter[str]] = defaultdict(Counter)
    reasons: Counter[str] = Counter()
    wrong: list[str] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        options.dump.open("w", encoding="utf-8")
        if options.dump
        else contextlib.nullcontext() as dump,
    ):
        replay = Replay(folder, options.seed)
        for exchange in read_exchanges(options.files):
            counts = Counter(exchanges=1)
            rows: list[UsageEvent] = []
            try:
                rows = replay.run(exchange)
                counts = tally(exchange, rows)
            except Exception as error:
                counts["errors"] = 1
                wrong.append(f"{exchange.file} {exchange.i}: {type(error).__name__}: {error}")
            by_api[api_of(exchange)] += counts
            reasons.update(f"{row.status}: {row.reason}" for row in rows if row.reason)
            if counts["with_usage"] and not counts["exact"]:
                wrong.append(f"not exact: {exchange.repo} {exchange.file} {exchange.i}")
            if dump is not None:
                for row in rows or [None]:
                    dump.write(json.dumps(dumped(exchange, row)) + "\n")
        faults = replay.meter.status().faults
        replay.close()

    totals: Counter[str] = Counter()
    for counts in by_api.values():
        totals += counts
    totals["errors"] += faults
    print_table(by_api, totals, reasons, wrong)
    if options.json:
        as_dict = {name: {c: counts[c] for c in COLUMNS} for name, counts in by_api.items()}
        data = {"totals": {c: totals[c] for c in COLUMNS}, "by_api": as_dict}
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    return 1 if totals["errors"] else 0


def print_table(
    by_api: dict[str, Counter[str]], totals: Counter[str], reasons: Counter[str], wrong: list[str]
) -> None:
    """The table, then reasons, then what is not as it should be."""
    print(f"{'':<52}" + "".join(f"{column:>11}" for column in COLUMNS))
    for name, counts in sorted(by_api.items()):
        print(f"{name[:51]:<52}" + "".join(f"{counts[column]:>11}" for column in COLUMNS))
    print(f"{'all':<52}" + "".join(f"{totals[column]:>11}" for column in COLUMNS))
    print("\nReasons of rows that are not exact, unpriced or partial:")
    for reason, times in reasons.most_common():
        print(f"{times:>6}  {reason}")
    for line in wrong:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
