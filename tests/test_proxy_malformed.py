"""What no client or upstream should send: a clear answer each, and nothing left behind."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from conftest import events_of
from costmw import Config, Meter
from costmw.proxy import ProxyConfig, Upstream
from proxies import (
    ANSWER,
    BODY,
    Proxy,
    RawUpstream,
    answer,
    connect,
    exchange,
    open_files,
    read_answer,
    request,
    serve,
    to,
    wait_until,
)

CHAT = "/openai/v1/chat/completions"
CHUNKED = b"5\r\nhello\r\n0\r\n\r\n"


def head(*lines: str, target: str = CHAT, end: str = "\r\n") -> bytes:
    """A request's head; the lines are put below the first two."""
    return end.join((f"POST {target} HTTP/1.1", "Host: proxy", *lines, "", "")).encode("latin-1")


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode()


LENGTH = f"Content-Length: {len(BODY)}"

# What is sent, the status that it gets, and how many requests the upstream sees.
FROM_CLIENTS: dict[str, tuple[bytes, int, int]] = {
    "a length and chunks": (
        head("Content-Length: 5", "Transfer-Encoding: chunked") + CHUNKED,
        400,
        0,
    ),
    "chunks and a length": (
        head("Transfer-Encoding: chunked", "Content-Length: 5") + CHUNKED,
        400,
        0,
    ),
    "two lengths": (head("Content-Length: 5", "Content-Length: 6") + b"hello!", 400, 0),
    "the same length twice": (head(LENGTH, LENGTH) + BODY, 200, 1),
    "a negative length": (head("Content-Length: -5") + b"hello", 400, 0),
    "a signed length": (head("Content-Length: +5") + b"hello", 400, 0),
    "a length in words": (head("Content-Length: five") + b"hello", 400, 0),
    "a length beyond belief": (head("Content-Length: " + "9" * 30) + b"hello", 400, 0),
    "an encoding nobody knows": (head("Transfer-Encoding: xchunked") + CHUNKED, 501, 0),
    "chunks not last": (head("Transfer-Encoding: chunked, identity") + CHUNKED, 501, 0),
    "chunks twice": (
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + CHUNKED,
        501,
        0,
    ),
    "chunks behind a tab": (head("Transfer-Encoding:\tchunked") + CHUNKED, 200, 1),
    "chunks behind a control": (head("Transfer-Encoding: \x0bchunked") + CHUNKED, 400, 0),
    "a chunk's size in words": (head("Transfer-Encoding: chunked") + b"zz\r\nhello", 400, 0),
    "a chunk's size in hex, marked": (head("Transfer-Encoding: chunked") + b"0x5\r\nhello", 400, 0),
    "a chunk's size too long": (
        head("Transfer-Encoding: chunked") + b"f" * 30 + b"\r\nhello",
        400,
        0,
    ),
    "a chunk longer than it says": (
        head("Transfer-Encoding: chunked") + b"3\r\nhello\r\n0\r\n\r\n",
        400,
        0,
    ),
    "a chunk's end without return": (
        head("Transfer-Encoding: chunked") + b"5\r\nhello\n0\r\n\r\n",
        400,
        0,
    ),
    "line feeds alone (sent on right)": (head(LENGTH, end="\n") + BODY, 200, 1),
    "returns alone": (head(LENGTH, end="\r") + BODY + b"\r\n\r\n", 400, 0),
    "a folded header (sent on as one)": (head(LENGTH, "X-A: 1", " 2") + BODY, 200, 1),
    "a fold in the first header": (
        b"POST /openai HTTP/1.1\r\n Host: proxy\r\n\r\n",
        400,
        0,
    ),
    "a space before a colon": (head("Content-Length : 5") + b"hello", 400, 0),
    "chunks with a space before": (head("Transfer-Encoding : chunked") + CHUNKED, 400, 0),
    "a header without a name": (head(": x"), 400, 0),
    "a NUL in a header": (head("X-A: a\0b"), 400, 0),
    "a return in a header": (head("X-A: a\rX-B: b"), 400, 0),
    "no host": (f"POST {CHAT} HTTP/1.1\r\n{LENGTH}\r\n\r\n".encode() + BODY, 400, 0),
    "two hosts": (head("Host: other", LENGTH) + BODY, 400, 0),
    "another's host (not sent on)": (
        f"POST {CHAT} HTTP/1.1\r\nHost: evil.example\r\n{LENGTH}\r\n\r\n".encode() + BODY,
        200,
        1,
    ),
    "a host in the target": (get(f"http://evil.example{CHAT}"), 400, 0),
    "a port for a target": (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil\r\n\r\n", 400, 0),
    "a star for a target": (b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n", 400, 0),
    "a fragment": (get("/openai/v1/models#x"), 400, 0),
    "two slashes": (get("/openai//evil.example/v1"), 400, 0),
    "dots": (get("/openai/v1/../../admin"), 400, 0),
    "one dot": (get("/openai/./v1"), 400, 0),
    "dots at the end": (get("/openai/.."), 400, 0),
    "dots before": (get("/../openai/v1"), 404, 0),
    "encoded dots": (get("/openai/v1/%2e%2E/admin"), 400, 0),
    "half-encoded dots": (get("/openai/v1/.%2e/admin"), 400, 0),
    "dots encoded twice": (get("/openai/%252e%252e/admin"), 400, 0),
    "dots and an encoded slash": (get("/openai/..%2fadmin"), 400, 0),
    "an encoded slash (sent on as it is)": (get("/openai/v1/a%2Fb"), 200, 1),
    "an encoded slash in the name": (get("/openai%2fv1/models"), 404, 0),
    "a backslash": (get("/openai/v1\\..\\admin"), 400, 0),
    "an encoded backslash": (get("/openai/v1/%5c..%5cadmin"), 400, 0),
    "an encoded NUL": (get("/openai/v1/%00"), 400, 0),
    "an encoded line end": (get("/openai/v1/x%0d%0aX-A:1"), 400, 0),
    "no upstream": (get("/"), 404, 0),
    "an upstream nobody named": (get("/evil/v1/models"), 404, 0),
    "TRACE": (b"TRACE /openai/v1 HTTP/1.1\r\nHost: proxy\r\n\r\n", 405, 0),
    "two words for a method": (b"GET X /openai/v1 HTTP/1.1\r\nHost: proxy\r\n\r\n", 400, 0),
    "HTTP/0.9": (b"GET /openai/v1\r\n\r\n", 400, 0),
    "HTTP/2 right away": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 0),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"\0" * 60 + b"\r\n\r\n", 400, 0),
    "headers of 70 KB": (head("X-A: " + "a" * 70_000), 431, 0),
    "headers of 900 KB": (head("X-A: " + "a" * 900_000), 431, 0),
    "a target of 20 KB": (get("/openai/" + "a" * 20_000), 414, 0),
    "a thousand headers": (head(*(f"X-{n}: {n}" for n in range(1000)), LENGTH) + BODY, 200, 1),
    "a request behind a short body": (
        head("Content-Length: 2", "Connection: keep-alive") + b"{}" + get("/admin"),
        200,
        1,
    ),
}


@pytest.fixture(scope="module")
def meter_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Meter]:
    folder = tmp_path_factory.mktemp("malformed")
    meter = Meter(f"sqlite:///{folder}/llmcost.db", config=Config(ack_timeout=30.0))
    yield meter
    meter.close()


@pytest.fixture(scope="module")
def far() -> Iterator[RawUpstream]:
    with RawUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def near(meter_of_all: Meter, far: RawUpstream) -> Iterator[Proxy]:
    with serve(meter_of_all, to(far.url)) as proxy:
        yield proxy


@pytest.mark.parametrize("name", FROM_CLIENTS)
def test_from_clients(name: str, near: Proxy, far: RawUpstream, table: list[str]) -> None:
    sent, expected, reach = FROM_CLIENTS[name]
    far.requests.clear()
    status, headers, body = exchange(near.port, sent)
    table.append(f"  client sends {name:<38} {status}   upstream sees {len(far.requests)}")
    assert status == expected
    assert len(far.requests) == reach
    assert body, "every refusal says why"
    if headers.get("content-type") == "application/json" and status >= 400:
        assert json.loads(body)["error"]["message"]
    for one in far.requests:
        top = one.partition(b"\r\n\r\n")[0]
        assert top.count(b"\nhost: 127.0.0.1") == 1
        assert b"evil" not in top
        assert (top.count(b"content-length") + top.count(b"transfer-encoding")) <= 1
        assert b"\n" not in top.replace(b"\r\n", b"")
    wait_until(near.is_quiet)


def test_a_body_cut_off_reaches_nobody(near: Proxy, far: RawUpstream) -> None:
    far.requests.clear()
    with connect(near.port) as client:
        client.sendall(request()[:-5])
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client)[0] in (0, 400)
    wait_until(near.is_quiet)
    assert far.requests == []


def test_requests_in_a_row_are_answered_in_a_row(near: Proxy, far: RawUpstream) -> None:
    far.requests.clear()
    with connect(near.port) as client:
        client.sendall(request() + request() + get("/nowhere"))
        received = b""
        while b"no upstream" not in received:
            received += client.recv(65536)
    assert received.count(ANSWER) == 2
    assert received.count(b"HTTP/1.1 ") == 3
    assert len(far.requests) == 2


# What is answered, the status that the client gets, how its body begins, and the row.
FROM_UPSTREAMS: dict[str, tuple[bytes, int, bytes, str]] = {
    "a length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/json\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER),
        200,
        ANSWER,
        "ok",
    ),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        502,
        b"{",
        "incomplete",
    ),
    "a chunk's size in words": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        200,
        b"<cut>",
        "incomplete",
    ),
    "less than its length": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + ANSWER,
        200,
        ANSWER,
        "incomplete",
    ),
    "less than its length, of none": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
        502,
        b"{",
        "incomplete",
    ),
    "more than its length": (answer() + b"more", 200, ANSWER, "ok"),
    "no length, to the end": (b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER, 200, ANSWER, "ok"),
    "an early hint first": (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + answer(), 200, ANSWER, "ok"),
    "a status of 999": (answer(status="999 Odd"), 502, b"{", "incomplete"),
    "another protocol": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", 502, b"{", "incomplete"),
    "headers of 200 KB": (
        answer(headers="X-A: " + "a" * 200_000 + "\n"),
        502,
        b"{",
        "incomplete",
    ),
    "a header cut off": (b"HTTP/1.1 200 OK\r\nX-A", 502, b"{", "incomplete"),
    "nothing": (b"", 502, b"{", "incomplete"),
    "no HTTP": (b"\x15\x03\x01\0\x02\x02\x28", 502, b"{", "incomplete"),
    "JSON that is none": (answer(b"{nonsense"), 200, b"{nonsense", "unmetered"),
    "usage that cannot be": (
        answer(b'{"usage": {"prompt_tokens": -1, "completion_tokens": 1}}'),
        200,
        b'{"usage"',
        "unmetered",
    ),
}


@pytest.mark.parametrize("name", FROM_UPSTREAMS)
def test_from_upstreams(
    name: str, near: Proxy, far: RawUpstream, meter_of_all: Meter, table: list[str]
) -> None:
    answered, expected, begins, row = FROM_UPSTREAMS[name]
    before = len(events_of(meter_of_all))

    def play(connection: socket.socket) -> bool:
        connection.sendall(answered)
        return True

    far.play = play
    try:
        status, _, body = exchange(near.port, request())
        wait_until(near.is_quiet)
    finally:
        far.play = answer()
    (event,) = events_of(meter_of_all)[before:]
    table.append(f"  upstream answers {name:<34} {status}   row: {event.status}")
    assert (status, event.status) == (expected, row)
    assert body.startswith(begins)


# Slow on purpose.

SLOW = 100


def test_slow_heads_and_bodies_hold_nobody_up(meter: Meter, table: list[str]) -> None:
    with RawUpstream() as upstream:
        config = to(upstream.url, body_timeout=1.5)
        with serve(meter, config, head_seconds=1.5) as proxy:
            assert exchange(proxy.port, request())[0] == 200
            wait_until(proxy.is_quiet)
            files, tasks = open_files(), len(proxy.tasks())
            for kind, start in (
                ("heads", b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-A: "),
                ("bodies", request()[: -len(BODY)] + BODY[:3]),
            ):
                with ExitStack() as stack:
                    slow = [stack.enter_context(connect(proxy.port)) for _ in range(SLOW)]
                    began = time.monotonic()
                    for client in slow:
                        client.sendall(start)
                    with ThreadPoolExecutor(1) as pool:
                        drip = pool.submit(_drip, slow)
                        quick = []
                        while time.monotonic() - began < 1.0:
                            asked = time.monotonic()
                            assert exchange(proxy.port, request())[0] == 200
                            quick.append(time.monotonic() - asked)
                        drip.result()
                    statuses = {read_answer(client)[0] for client in slow}
                    lasted = time.monotonic() - began
                    quick.sort()
                table.append(
                    f"  {SLOW} clients slow with their {kind}: {statuses} after {lasted:.1f} s; "
                    f"meanwhile others are served in {quick[len(quick) // 2] * 1e3:.0f} ms (median)"
                )
                assert statuses == {408}
                assert lasted < 8
                assert quick[len(quick) // 2] < 0.5
            wait_until(proxy.is_quiet)
            wait_until(lambda: open_files() <= files)
            assert len(proxy.tasks()) <= tasks
    assert {e.status for e in events_of(meter)} == {"ok"}


def _drip(clients: list[socket.socket]) -> None:
    for _ in range(5):
        time.sleep(0.15)
        for client in clients:
            client.sendall(b"a")


def test_a_client_that_says_nothing_is_turned_away(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url), head_seconds=0.2) as proxy:
        with connect(proxy.port) as client:
            assert read_answer(client)[0] == 408
        with connect(proxy.port) as client:  # nor one that stays for another request
            client.sendall(request() + b"GET /ope")
            assert [read_answer(client)[0]] == [200]
            assert read_answer(client)[0] in (0, 408)


def test_a_client_that_reads_nothing_is_cut_off(
    meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from costmw.proxy.protocol import ProxyProtocol

    monkeypatch.setattr(ProxyProtocol, "read_seconds", 0.3)

    def play(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with RawUpstream(play) as upstream, serve(meter, to(upstream.url)) as proxy:
        with connect(proxy.port) as client:
            client.sendall(request())
            wait_until(upstream.gone.is_set)
            wait_until(proxy.is_quiet)
    assert [e.status for e in events_of(meter)] == ["incomplete"]


def test_bodies_to_an_upstream_that_stalls_are_bounded(meter: Meter) -> None:
    """Many large bodies at once, and an upstream that reads none: memory stays bounded."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        upstreams = {"openai": Upstream(url, "openai")}
        config = ProxyConfig(
            upstreams=upstreams, read_limit=200_000, buffer_limit=1_000_000, write_timeout=1.0
        )
        with serve(meter, config) as proxy, ExitStack() as stack:
            clients = [stack.enter_context(connect(proxy.port)) for _ in range(8)]
            for client in clients:
                client.settimeout(0.1)
                client.sendall(request(body=b"")[:-2] + b"Content-Length: 50000000\r\n\r\n")
            taken = 0
            for client in clients:
                try:
                    while True:
                        taken += client.send(b"x" * 65536)
                except TimeoutError:
                    pass
            assert proxy.app._buffers.held <= 1_000_000
            # What the kernel holds on both sides is most of it.
            assert taken < 8 * 15_000_000
            for client in clients:
                client.settimeout(20)
            assert {read_answer(client)[0] for client in clients} == {504}
            wait_until(proxy.is_quiet)
