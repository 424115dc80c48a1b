"""The proxy beside a bare pass-through proxy on httpx2: latency, CPU a call, streams, memory.

Each part is a process of its own: an upstream that answers after 50 ms, a bare ASGI proxy on
uvicorn, `costmw proxy` with its store on disk, and the callers. Needs Linux (`/proc`).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import main

DELAY = 0.05
"""Seconds until the upstream answers."""

ROUNDS = 15
CALLS_A_ROUND = 400
STREAMS = 100
EVENTS = 40
EVENT_PAUSE = 0.02
CALLS_FOR_MEMORY = 10_000

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-5-mini-2025-08-07",
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "word " * 100},
            }
        ],
        "usage": {"prompt_tokens": 1210, "completion_tokens": 345, "total_tokens": 1555},
    }
).encode()

ASKED = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "word " * 200}]}


def event(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


EVENT = event(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
        "usage": None,
    }
)
USAGE = event(
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 1210, "completion_tokens": EVENTS}}
)


def request(port: int, *, stream: bool = False) -> bytes:
    """A request as an SDK sends it."""
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    body = json.dumps({**ASKED, **options}).encode()
    head = (
        f"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Authorization: Bearer sk-a-key-of-the-usual-length-0123456789\r\n"
        "Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\n"
        "Content-Type: application/json\r\nUser-Agent: OpenAI/Python 3.54.0\r\n"
        "X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\n"
        f"X-LLM-Tags: {json.dumps({'tenant': 'acme', 'feature': 'chat'})}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# The upstream, in a process of its own.


class Upstream(asyncio.Protocol):
    """Answers each request after a while, with the least that can be done for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Take a request; it is here once its last bytes are."""
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._received = body[length:]
        loop = asyncio.get_running_loop()
        if b'"stream": true' in body:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            loop.call_later(DELAY, self._stream, EVENTS)
        else:
            loop.call_later(DELAY, self._answer)

    def _answer(self) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\n"
            b"openai-processing-ms: 50\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
        )

    def _stream(self, left: int) -> None:
        data = EVENT if left else USAGE + event(b"[DONE]")
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) + (b"" if left else b"0\r\n\r\n"))
        if left:
            asyncio.get_running_loop().call_later(EVENT_PAUSE, self._stream, left - 1)


async def serve_upstream() -> None:
    """Serve until killed; says its port first."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# The bare proxy, in a process of its own: what is written in an afternoon.


def bare_app(upstream: str) -> Callable[..., Awaitable[None]]:
    """A proxy that passes bytes on and does nothing else."""
    import httpx2

    limits = httpx2.Limits(max_connections=500, max_keepalive_connections=20)
    client = httpx2.AsyncClient(timeout=600, limits=limits)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return

        async def body() -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await receive()
                yield message["body"]
                more = message["more_body"]

        sent = client.build_request(
            scope["method"],
            upstream + scope["path"].removeprefix("/openai"),
            headers=[pair for pair in scope["headers"] if pair[0] != b"host"],
            content=body(),
        )
        response = await client.send(sent, stream=True)
        dropped = (b"connection", b"transfer-encoding")
        headers = [pair for pair in response.headers.raw if pair[0].lower() not in dropped]
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": headers})
        async for chunk in response.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await response.aclose()
        await send({"type": "http.response.body", "body": b""})

    return app


def serve_bare(upstream: str) -> None:
    """Serve until killed; says its port first."""
    import socket

    import uvicorn

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(bare_app(upstream), ws="none", log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


# The callers, in this process.


class Caller(asyncio.Protocol):
    """One connection that sends the same request again and again."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    @classmethod
    async def connect(cls, port: int, *, stream: bool = False) -> Caller:
        """Connect a caller."""
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(
            lambda: cls(request(port, stream=stream)), "127.0.0.1", port
        )
        return caller

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def call(self) -> float:
        """Send the request; gives the seconds until the answer is here whole."""
        self._received = bytearray()
        self._done = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        self.transport.write(self._sent)
        await self._done
        return time.perf_counter() - started

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        received = self._received
        received += data
        if not received.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"not answered well: {bytes(received[:200])!r}")
        if (received.endswith(b"0\r\n\r\n") and b"chunked" in received) or received.endswith(
            ANSWER[-20:]
        ):
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; an answer under way fails."""
        done = getattr(self, "_done", None)
        if done is not None and not done.done():
            done.set_exception(ConnectionError("the proxy hung up"))


async def call_all(callers: list[Caller], calls: int, every: float = 0.0) -> list[float]:
    """Make so many calls, each caller one after the other, one `every` so many seconds at most."""
    times: list[float] = []
    left = iter(range(calls))

    async def work(caller: Caller, first: float) -> None:
        due = time.perf_counter() + first
        for _ in left:
            if every:
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                due += every
            times.append(await caller.call())

    await asyncio.gather(
        *(work(caller, every * n / len(callers)) for n, caller in enumerate(callers))
    )
    return times


# Processes and what they use.


@contextmanager
def process(*arguments: str) -> Iterator[tuple[int, int]]:
    """Run a part of this file, or the command; gives its process id and port."""
    started = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        said = line.partition("http://127.0.0.1:")[2].partition(",")[0] or line
        yield started.pid, int(said)
    finally:
        started.terminate()
        started.wait(30)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used so far."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


Ports = dict[str, tuple[int, int]]


async def latency_and_cpu(ports: Ports, count: int, rate: float | None) -> dict[str, Any]:
    """Time both proxies in turn; `rate` is calls a second of all callers, None as fast as it goes.

    Returns:
        Medians of the rounds: milliseconds, and CPU milliseconds a call.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ports}
    for number in range(ROUNDS + 1):
        turn = list(ports.items()) if number % 2 else list(ports.items())[::-1]
        for name, (pid, port) in turn:
            callers = [await Caller.connect(port) for _ in range(count)]
            await call_all(callers, count)
            before, started = cpu_seconds(pid), time.perf_counter()
            times = await call_all(callers, CALLS_A_ROUND, count / rate if rate else 0.0)
            seconds, spent = time.perf_counter() - started, cpu_seconds(pid) - before
            for caller in callers:
                caller.transport.close()
            if number:  # the first is for warming up
                found[name].append(
                    (
                        statistics.median(times) * 1e3,
                        spent / CALLS_A_ROUND * 1e3,
                        CALLS_A_ROUND / seconds,
                    )
                )
    medians = {
        name: dict(
            zip(
                ("p50_ms", "cpu_ms_a_call", "calls_a_second"),
                map(statistics.median, zip(*rounds, strict=True)),
                strict=True,
            )
        )
        for name, rounds in found.items()
    }
    ratios = {
        kind: medians["costmw"][kind] / medians["bare"][kind]
        for kind in ("p50_ms", "cpu_ms_a_call")
    }
    return {**medians, "ratio": ratios}


async def streams(ports: Ports) -> dict[str, Any]:
    """Run streams side by side through each; every one must come to its end."""
    found: dict[str, Any] = {}
    for name, (pid, port) in ports.items():
        callers = [await Caller.connect(port, stream=True) for _ in range(STREAMS)]
        await call_all(callers, STREAMS)
        before = cpu_seconds(pid)
        times = await call_all(callers, STREAMS * 3)
        for caller in callers:
            caller.transport.close()
        found[name] = {
            "seconds": statistics.median(times),
            "cpu_ms_a_stream": (cpu_seconds(pid) - before) / (STREAMS * 3) * 1e3,
        }
    return found


async def memory(ports: Ports) -> dict[str, Any]:
    """Resident memory of the proxy over many calls, in MiB."""
    pid, port = ports["costmw"]
    callers = [await Caller.connect(port) for _ in range(50)]
    await call_all(callers, 2000)
    seen = [memory_mib(pid)]
    for _ in range(4):
        await call_all(callers, CALLS_FOR_MEMORY // 4)
        seen.append(memory_mib(pid))
    for caller in callers:
        caller.transport.close()
    return {"after_warm_up": seen[0], "after_10000_calls": seen[-1], "in_between": seen[1:-1]}


def run() -> dict[str, Any]:
    """Run all of it."""
    here = "benchmarks.proxy"
    with tempfile.TemporaryDirectory() as folder, process("-m", here, "upstream") as (_, far):
        settings = Path(folder, "proxy.toml")
        settings.write_text(f'[upstreams.openai]\nbase_url = "http://127.0.0.1:{far}"\n')
        store = f"sqlite:///{folder}/llmcost.db"
        ours = ("-m", "costmw.cli", "proxy", "--port", "0", "--tags-header", "--store", store)
        with (
            process("-m", here, "bare", f"http://127.0.0.1:{far}") as bare,
            process(*ours, "--config", str(settings)) as costmw,
        ):
            ports = {"bare": bare, "costmw": costmw}
            return asyncio.run(measure_all(ports))


async def measure_all(ports: Ports) -> dict[str, Any]:
    """All figures, printed as they come."""
    figures: dict[str, Any] = {}
    for title, count, rate in (
        ("16 callers, one call after the other", 16, None),
        ("100 callers, 200 calls a second together", 100, 200.0),
        ("100 callers, one call after the other (more than one core can do)", 100, None),
    ):
        found = figures[title] = await latency_and_cpu(ports, count, rate)
        print(f"\n{title}; upstream {DELAY * 1e3:.0f} ms, medians of {ROUNDS} rounds in turn")
        for name in ports:
            one = found[name]
            print(
                f"  {name:<10} p50 {one['p50_ms']:>8.2f} ms   CPU {one['cpu_ms_a_call']:>6.3f} ms "
                f"a call   {one['calls_a_second']:>7.1f} calls/s"
            )
        ratio = found["ratio"]
        print(f"  ratio      p50 {ratio['p50_ms']:>8.3f} x    CPU {ratio['cpu_ms_a_call']:>6.2f} x")
    found = figures["streams"] = await streams(ports)
    print(f"\n{STREAMS} streams side by side, {EVENTS} events each")
    for name in ports:
        one = found[name]
        print(
            f"  {name:<10} {one['seconds']:>6.3f} s a stream   "
            f"CPU {one['cpu_ms_a_stream']:>6.2f} ms a stream"
        )
    found = figures["memory_mib"] = await memory(ports)
    print(
        f"\nmemory of costmw proxy: {found['after_warm_up']:.1f} MiB warm, "
        f"{found['after_10000_calls']:.1f} MiB after {CALLS_FOR_MEMORY} calls more"
    )
    return figures


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["upstream"]:
            asyncio.run(serve_upstream())
        case ["bare", upstream]:
            serve_bare(upstream)
        case _:
            main("proxy", lambda _: run())
