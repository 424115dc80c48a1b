"""The proxy as its clients see it, and the rows that come of it."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from fastapi import FastAPI
from google import genai

from conftest import events_of, outcomes_of
from costmw import Meter
from costmw.integrations.starlette import CostMiddleware
from costmw.proxy import ProxyConfig, Token, Upstream
from costmw.testing import FakeProvider, Reply
from proxies import (
    ANSWER,
    BODY,
    Proxy,
    RawUpstream,
    answer,
    connect,
    exchange,
    is_closed_by_peer,
    open_files,
    read_answer,
    request,
    serve,
    to,
    wait_until,
)

TOKEN = "a-token-of-the-proxy-0123456789"
KEY = "sk-the-key-of-the-provider"
MESSAGES: list[Any] = [{"role": "user", "content": "How are you?"}]
TAGS = {"X-LLM-Tags": '{"tenant": "acme", "feature": "chat", "level": 3}'}


@pytest.fixture
def proxy(meter: Meter, provider: FakeProvider) -> Iterator[Proxy]:
    config = ProxyConfig(
        upstreams={
            "openai": Upstream(provider.url),
            "anthropic": Upstream(provider.url),
            "google": Upstream(provider.google_url),
        },
        accept_tags_header=True,
        tag_headers={"x-user": "user"},
    )
    with serve(meter, config) as running:
        yield running


def facts(meter: Meter) -> list[tuple[Any, ...]]:
    return [
        (e.status, e.provider, e.usage.input_tokens, e.usage.output_tokens)
        for e in events_of(meter)
    ]


# SDKs.


def test_openai_plain_and_streamed(proxy: Proxy, meter: Meter, provider: FakeProvider) -> None:
    client = openai.OpenAI(
        base_url=f"{proxy.url}/openai/v1", api_key=KEY, default_headers={**TAGS, "x-user": "ann"}
    )
    plain = client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert plain.usage is not None
    with client.chat.completions.create(
        model="gpt-5-mini", messages=MESSAGES, stream=True
    ) as stream:
        chunks = list(stream)
    assert all(chunk.choices for chunk in chunks), "the chunk that we asked for is hidden"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == (
        plain.choices[0].message.content
    )

    one = ("ok", "openai", plain.usage.prompt_tokens, plain.usage.completion_tokens)
    assert facts(meter) == [one, one]
    tags = {"tenant": "acme", "feature": "chat", "level": "3", "user": "ann"}
    assert [dict(e.tags) for e in events_of(meter)] == [tags, tags]
    assert events_of(meter)[0].api_key_id is not None
    for sent in provider.requests:
        assert sent.headers["authorization"] == f"Bearer {KEY}"
        assert not {"x-llm-tags", "x-user", "connection"} & set(sent.headers)
        assert sent.headers["host"] == provider.url.removeprefix("http://")
    assert provider.requests[1].headers["accept-encoding"] == "identity"


def test_anthropic_and_google(proxy: Proxy, meter: Meter, provider: FakeProvider) -> None:
    claude = anthropic.Anthropic(base_url=f"{proxy.url}/anthropic", api_key=KEY)
    asked: Any = {"model": "claude-haiku-4-5", "max_tokens": 50, "messages": MESSAGES}
    message = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream)
    gemini = genai.Client(api_key=KEY, http_options={"base_url": f"{proxy.url}/google"})
    content = gemini.models.generate_content(model="gemini-2.5-flash", contents="How are you?")
    assert content.text
    assert content.usage_metadata is not None
    assert list(
        gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="How are you?")
    )
    of_claude = ("ok", "anthropic", message.usage.input_tokens, message.usage.output_tokens)
    of_gemini = (
        "ok",
        "gcp.gemini",
        content.usage_metadata.prompt_token_count,
        content.usage_metadata.candidates_token_count,
    )
    assert facts(meter) == [of_claude, of_claude, of_gemini, of_gemini]
    for sent in provider.requests:
        shown = sent.headers.get("authorization") or f"Bearer {sent.headers['x-goog-api-key']}"
        assert shown == f"Bearer {KEY}"


def test_a_hundred_streams_side_by_side(proxy: Proxy, meter: Meter, provider: FakeProvider) -> None:
    provider.default = Reply(pace=0.01)

    def one(number: int) -> int:
        client = openai.OpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY, max_retries=0)
        with client.with_options(
            default_headers={"X-LLM-Tags": json.dumps({"user": f"u{number}"})}
        ).chat.completions.create(model="gpt-5-mini", messages=MESSAGES, stream=True) as stream:
            return len(list(stream))

    with ThreadPoolExecutor(100) as pool:
        lengths = set(pool.map(one, range(100)))
    assert len(lengths) == 1
    events = events_of(meter)
    assert [e.status for e in events] == ["ok"] * 100
    assert {e.tags["user"] for e in events} == {f"u{n}" for n in range(100)}
    wait_until(proxy.is_quiet)


def test_curl_lists_models_unmetered(proxy: Proxy, meter: Meter) -> None:
    done = subprocess.run(
        ["curl", "-sS", "-w", "%{http_code}", f"{proxy.url}/openai/v1/models"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("]}200")
    asked = json.dumps({"model": "gpt-5-mini", "messages": MESSAGES, "stream": True})
    done = subprocess.run(
        [
            *("curl", "-sSN", f"{proxy.url}/openai/v1/chat/completions", "-d", asked),
            *("-H", "content-type: application/json", "-H", "Expect: 100-continue"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("data: [DONE]\n\n")
    assert '"choices":[]' not in done.stdout.replace(" ", "")
    assert [e.status for e in events_of(meter)] == ["ok"]


# What passes, byte for byte.


def test_target_headers_and_body_pass_as_they_came(meter: Meter) -> None:
    packed = gzip.compress(ANSWER)
    back = (
        "Content-Type: application/json\nContent-Encoding: gzip\nSet-Cookie: a=1\n"
        "Set-Cookie: b=2\nX-Request-Id: r1\nConnection: x-hop, keep-alive\nX-Hop: 1\n"
        "Keep-Alive: timeout=5\nProxy-Authenticate: Basic\nServer: far\n"
    )
    with (
        RawUpstream(answer(packed, back)) as upstream,
        serve(meter, to(f"{upstream.url}/base")) as p,
    ):
        status, headers, body = exchange(
            p.port,
            request(
                "/openai/v1/chat/completions?b=2&a=%2F..%20&a=",
                headers="Connection: X-Drop, close\nX-Drop: 1\nKeep-Alive: 1\nTE: trailers\n"
                "Upgrade: h2c\nProxy-Authorization: Basic eA==\nTrailer: x\nCookie: session=1\n"
                "X-Forwarded-For: 10.0.0.1\nX-Twice: 1\nX-Twice: 2\nAccept-Encoding: gzip, dcz\n"
                "Via: 1.0 front\nAuthorization: Bearer k\nExpect: 100-continue\n",
            ),
        )
        # Expect is answered by the server itself.
        assert status == 100
        with connect(p.port) as connection:
            connection.sendall(request("/openai/v1/chat/completions?b=2&a=%2F..%20&a="))
            status, headers, body = read_answer(connection)
    assert (status, body) == (200, packed)
    assert headers["set-cookie"] == "b=2"
    assert headers["content-encoding"] == "gzip"
    assert not {"connection", "x-hop", "keep-alive", "proxy-authenticate"} & set(headers)

    sent = upstream.requests[0]
    head, _, sent_body = sent.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v1/chat/completions?b=2&a=%2F..%20&a= HTTP/1.1"
    assert sent_body == BODY
    names = [line.partition(":")[0].lower() for line in lines[1:]]
    assert sorted(names) == sorted(
        ["host", "x-twice", "x-twice", "authorization", "via", "content-length", "accept-encoding"]
    )
    assert "accept-encoding: gzip" in lines
    via = next(line for line in lines if line.startswith("via"))
    assert via.startswith("via: 1.0 front, 1.1 costmw-")
    assert [e.status for e in events_of(meter)] == ["ok", "ok"]


def test_duplicates_of_a_response_header_are_all_there(meter: Meter) -> None:
    back = "Content-Type: application/json\nSet-Cookie: a=1\nSet-Cookie: b=2\n"
    with RawUpstream(answer(headers=back)) as upstream, serve(meter, to(upstream.url)) as p:
        got = httpx2.post(f"{p.url}/openai/v1/chat/completions", content=BODY)
    assert got.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "304 Not Modified", "429 Slow Down"])
def test_what_is_not_success_passes_untouched(meter: Meter, status: str) -> None:
    back = "Location: https://elsewhere/\nRetry-After: 7\nX-Request-Id: r\n"
    body = b"" if status.startswith("304") else b'{"error": {"message": "as it came"}}'
    with RawUpstream(answer(body, back, status)) as upstream, serve(meter, to(upstream.url)) as p:
        got, headers, got_body = exchange(p.port, request())
    assert (got, got_body) == (int(status[:3]), body)
    assert (headers["location"], headers["retry-after"]) == ("https://elsewhere/", "7")
    assert events_of(meter) == []


def test_head_and_options_pass(meter: Meter) -> None:
    with RawUpstream(b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n") as upstream:
        with serve(meter, to(upstream.url)) as p:
            got = httpx2.head(f"{p.url}/openai/v1/models")
    assert (got.status_code, got.headers["content-length"], got.content) == (200, "700", b"")


def test_encoded_paths_are_not_put_in_order(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url)) as p:
        for path in ("/v1/a%2Fb%3a:c//d;x=~'(1)", "/v1/%7Ea?x=%zz&y=[1]", "", "/"):
            assert exchange(p.port, request(f"/openai{path}", b"", method="GET"))[0] == 200
    seen = [one.split(b" ")[1].decode() for one in upstream.requests]
    assert seen == ["/v1/a%2Fb%3a:c//d;x=~'(1)", "/v1/%7Ea?x=%zz&y=[1]", "/", "/"]


def test_large_bodies_pass_piece_by_piece(meter: Meter) -> None:
    text = b"x" * 30_000_000
    body = b'{"model": "gpt-5-mini", "messages": ["%b"]}' % text
    with RawUpstream() as upstream, serve(meter, to(upstream.url, read_limit=100_000)) as p:
        held = []
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.001):
                held.append(p.app._buffers.held)

        looker = threading.Thread(target=look)
        looker.start()
        assert exchange(p.port, request(body=body))[0] == 200
        pieces = (body[at : at + 500_000] for at in range(0, len(body), 500_000))
        got = httpx2.post(f"{p.url}/openai/v1/chat/completions", content=pieces)
        stop.set()
        looker.join()
        assert got.content == ANSWER
        wait_until(p.is_quiet)
    assert upstream.requests[0].partition(b"\r\n\r\n")[2] == body
    assert b"transfer-encoding: chunked" in upstream.requests[1].partition(b"\r\n\r\n")[0]
    assert upstream.requests[1].partition(b"\r\n\r\n")[2].count(b"x") == 30_000_000
    assert max(held) < 300_000
    # The model is known by the first part, and the usage by the answer.
    assert [(e.status, e.request_model, e.usage.input_tokens) for e in events_of(meter)] == [
        ("ok", "gpt-5-mini", 11)
    ] * 2


def test_the_model_of_a_form_is_read(meter: Meter) -> None:
    said = json.dumps({"text": "hello", "usage": {"type": "duration", "seconds": 3}}).encode()
    with RawUpstream(answer(said)) as upstream, serve(meter, to(upstream.url)) as p:
        client = openai.OpenAI(base_url=f"{p.url}/openai/v1", api_key=KEY)
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF\r\n--x" * 99))
    assert [e.request_model for e in events_of(meter)] == ["whisper-1"]


# Streaming.


def test_events_come_as_they_are_sent(proxy: Proxy, provider: FakeProvider) -> None:
    provider.default = Reply(text="one two three four", pace=0.15)
    client = openai.OpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY)
    started = time.monotonic()
    with client.chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        times = [time.monotonic() - started for _ in stream]
    assert times[0] < 0.15 < times[-1] - times[0]


def test_the_row_is_there_before_the_last_byte(meter: Meter, tmp_path: Path) -> None:
    meter.start()
    events = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
    stream = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    events += b"data: [DONE]\n\n"
    chunked = stream + b"%x\r\n%b\r\n0\r\n\r\n" % (len(events), events)
    plain = stream.replace(b"text/event-stream", b"application/json")
    answers = [answer(), chunked, plain + b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER), ANSWER)]
    body = BODY[:-1] + b', "stream_options": {"include_usage": true}}'
    ledger = sqlite3.connect(tmp_path / "llmcost.db", isolation_level=None)
    with RawUpstream() as upstream, serve(meter, to(upstream.url)) as p, connect(p.port) as client:
        for number in range(30):
            upstream.play = answers[number % 3]
            client.sendall(request(body=body))
            status, _, got = read_answer(client)
            assert (status, got) == (200, events if number % 3 == 1 else ANSWER)
            (rows,) = ledger.execute("SELECT count(*) FROM usage_events").fetchone()
            assert rows == number + 1
    ledger.close()


def test_the_row_is_there_before_the_end_of_a_stream(
    meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter.start()
    write = meter.store.write

    def slow(records: Any) -> None:
        time.sleep(0.1)
        write(records)

    monkeypatch.setattr(meter.store, "write", slow)
    ledger = sqlite3.connect(tmp_path / "llmcost.db", isolation_level=None)

    def play(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        connection.sendall(
            b'data: {"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
        )
        time.sleep(0.05)
        connection.sendall(b"data: [DONE]\n\n")

    with RawUpstream(play) as upstream, serve(meter, to(upstream.url)) as p, connect(p.port) as c:
        c.sendall(request())
        received = b""
        while b"[DONE]" not in received:
            received += c.recv(65536)
        (rows,) = ledger.execute("SELECT count(*) FROM usage_events").fetchone()
    ledger.close()
    assert rows == 1


def test_a_client_that_leaves_stops_the_upstream(
    proxy: Proxy, meter: Meter, provider: FakeProvider
) -> None:
    provider.reply(Reply(text="word " * 500, pace=0.02), Reply(delay=30))
    client = openai.OpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY, max_retries=0)
    with client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True) as stream:
        next(iter(stream))
    wait_until(lambda: provider.requests[0].disconnected, 3)
    assert provider.requests[0].sent_events < 100
    with pytest.raises(openai.APITimeoutError):  # before there is an answer
        client.with_options(timeout=0.7).chat.completions.create(model="gpt-5", messages=MESSAGES)
    wait_until(lambda: len(provider.requests) == 2 and provider.requests[1].disconnected, 3)
    wait_until(proxy.is_quiet)
    assert [(e.status, e.request_model) for e in events_of(meter)] == [("incomplete", "gpt-5")] * 2
    assert "the client closed" in (events_of(meter)[0].reason or "")


def test_a_client_that_leaves_after_a_large_body_is_seen(meter: Meter) -> None:
    with RawUpstream(lambda connection: None) as upstream:
        with serve(meter, to(upstream.url, read_limit=1000)) as p:
            with connect(p.port) as client:
                client.sendall(request(body=b"x" * 100_000))
                wait_until(lambda: upstream.requests)
            wait_until(upstream.gone.is_set, 3)
            wait_until(p.is_quiet)
    assert [e.status for e in events_of(meter)] == ["incomplete"]


def test_a_slow_reader_holds_the_upstream_back(meter: Meter) -> None:
    size = 64 * 1024 * 1024
    sent = 0

    def play(connection: socket.socket) -> None:
        nonlocal sent
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            sent += connection.send(b"x" * min(65536, size - sent))

    with RawUpstream(play) as upstream, serve(meter, to(upstream.url)) as p, connect(p.port) as c:
        c.sendall(request())
        before = -1
        while sent != before or not sent:
            before = sent
            time.sleep(0.3)
        assert sent < size / 4, "what the client does not read is not fetched"
        assert len(read_answer(c)[2]) == size
    assert sent == size


def test_a_client_slower_than_anyone_is_served(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url)) as p, connect(p.port) as client:
        sent = request(headers="X-Padding: none\n")
        for at in range(0, len(sent), 5):
            client.sendall(sent[at : at + 5])
            time.sleep(0.004)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256)
        got = b""
        while ANSWER[-10:] not in got:
            got += client.recv(3)
            time.sleep(0.001)
    assert got.partition(b"\r\n\r\n")[2] == ANSWER
    assert [e.status for e in events_of(meter)] == ["ok"]


# Who asks.


def test_no_header_is_a_tag_unless_enabled(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url)) as p:
        assert exchange(p.port, request(headers='X-LLM-Tags: {"tenant": "acme"}\n'))[0] == 200
        assert exchange(p.port, request(headers="X-LLM-Tags: no json\n"))[0] == 200
    assert [dict(e.tags) for e in events_of(meter)] == [{}, {}]
    assert b"tags" not in b"".join(upstream.requests)


@pytest.mark.parametrize(
    "headers",
    [
        "X-LLM-Tags: tenant=acme\n",
        "X-LLM-Tags: [1]\n",
        'X-LLM-Tags: {"a": {"b": 1}}\n',
        'X-LLM-Tags: {"a": null}\n',
        'X-LLM-Tags: {"a": 1}\nX-LLM-Tags: {"a": 2}\n',
        "X-LLM-Tags: " + json.dumps({f"k{n}": n for n in range(33)}) + "\n",
        'X-LLM-Tags: {"a": ' + "9" * 8000 + "}\n",
        "X-Tenant: acme\nX-Tenant: globex\n",
    ],
)
def test_tags_that_cannot_be_read_are_refused_and_nothing_is_sent(
    meter: Meter, headers: str
) -> None:
    config = {"accept_tags_header": True, "tag_headers": {"X-Tenant": "tenant"}}
    with RawUpstream() as upstream, serve(meter, to(upstream.url, **config)) as p:
        status, _, body = exchange(p.port, request(headers=headers))
    assert status == 400
    message = json.loads(body)["error"]["message"]
    assert "JSON object" in message or "once" in message
    assert upstream.requests == []


def test_tokens_open_the_door_and_are_never_passed_on(
    meter: Meter, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    places = {
        f"Authorization: Bearer {TOKEN}": f"authorization: Bearer {KEY}",
        f"x-api-key: {TOKEN}": f"x-api-key: {KEY}",
        f"X-Goog-Api-Key: {TOKEN}": f"x-goog-api-key: {KEY}",
        f"Authorization: Bearer nonsense\napi-key: {TOKEN}": f"authorization: Bearer {KEY}",
    }
    with RawUpstream() as upstream:
        config = ProxyConfig(
            upstreams={
                "openai": Upstream(upstream.url, key=KEY),
                "local": Upstream(upstream.url, "ollama"),
            },
            tokens=[Token("another-token-0123456789"), Token(TOKEN, {"team": "blue"})],
            accept_tags_header=True,
        )
        assert KEY not in repr(config)
        assert TOKEN not in repr(config)
        with serve(meter, config) as p:
            for shown, sent in places.items():
                tags = 'X-LLM-Tags: {"team": "red", "feature": "f"}\n'
                assert exchange(p.port, request(headers=f"{shown}\n{tags}"))[0] == 200
                assert sent in upstream.requests[-1].decode().split("\r\n")
                assert TOKEN.encode() not in upstream.requests[-1]
            for shown in ("", "Authorization: Bearer \n", f"Authorization: Basic {TOKEN}\n"):
                status, headers, body = exchange(p.port, request(headers=shown))
                assert status == 401
                assert headers["www-authenticate"].startswith("Bearer")
                assert json.loads(body)["error"]["type"] == "authentication_error"
            allowed = f"Authorization: Bearer {TOKEN}\n"
            status, _, body = exchange(p.port, request("/groq/openai/v1/models", headers=allowed))
            assert (status, b"key_env" in body) == (404, True)
            # A server of one's own needs no key, and does not get the token.
            assert exchange(p.port, request("/local/v1/models", headers=allowed))[0] == 200
            assert TOKEN.encode() not in upstream.requests[-1]
    assert len(upstream.requests) == len(places) + 1
    assert {tuple(sorted(e.tags.items())) for e in events_of(meter)} == {
        (("feature", "f"), ("team", "blue"))
    }
    said = caplog.text + "".join(capfd.readouterr())
    assert not any(secret in said for secret in (TOKEN, KEY, "nonsense"))


def test_a_configured_key_is_added_but_not_for_web_pages(meter: Meter) -> None:
    with RawUpstream() as upstream:
        upstreams = {
            "openai": Upstream(upstream.url, key=KEY),
            "anthropic": Upstream(upstream.url, key=KEY),
        }
        with serve(meter, ProxyConfig(upstreams=upstreams)) as p:
            assert exchange(p.port, request())[0] == 200
            assert exchange(p.port, request("/anthropic/v1/messages"))[0] == 200
            assert exchange(p.port, request(headers="x-api-key: dummy\n"))[0] == 200
            status, _, body = exchange(p.port, request(headers="Origin: https://evil.example\n"))
    assert status == 403
    assert b"web pages" in body
    sent = [one.decode() for one in upstream.requests]
    assert len(sent) == 3
    assert f"authorization: Bearer {KEY}\r\n" in sent[0]
    assert f"x-api-key: {KEY}\r\n" in sent[1]
    assert f"x-api-key: {KEY}\r\n" in sent[2]
    assert "dummy" not in sent[2]


def test_mounted_in_an_app_its_tags_win(meter: Meter, provider: FakeProvider) -> None:
    def mount(proxy: Any) -> Any:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            yield
            await proxy.aclose()

        app = FastAPI(lifespan=lifespan)
        app.add_middleware(CostMiddleware, meter=meter, tags=lambda conn: {"tenant": "known"})
        app.mount("/llm", proxy)
        return app

    config = to(provider.url, accept_tags_header=True)
    with serve(meter, config, app=mount) as p:
        client = openai.OpenAI(base_url=f"{p.url}/llm/openai/v1", api_key=KEY)
        client = client.with_options(
            default_headers={"X-LLM-Tags": '{"tenant": "other", "feature": "f"}'}
        )
        assert client.models.list().data
        client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
        assert httpx2.get(f"{p.url}/llm/nowhere/v1").status_code == 404
    (event,) = events_of(meter)
    assert dict(event.tags) == {"route": "/llm", "tenant": "known", "feature": "f"}


def test_a_process_that_instruments_everything_counts_once(
    proxy: Proxy, meter: Meter, provider: FakeProvider
) -> None:
    meter.instrument_all()
    try:
        client = openai.OpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY)
        client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    finally:
        meter.uninstrument_all()
    assert [e.status for e in events_of(meter)] == ["ok"]


def test_a_meter_that_is_off_leaves_a_proxy(
    make_meter: Callable[..., Meter], provider: FakeProvider
) -> None:
    with serve(make_meter(enabled=False), to(provider.url)) as p:
        client = openai.OpenAI(base_url=f"{p.url}/openai/v1", api_key=KEY)
        client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)
    assert "accept-encoding" in provider.requests[0].headers


# Trouble.


def test_a_faulty_capture_does_not_reach_the_request(
    proxy: Proxy, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    from costmw.capture.clients.base import Capture

    client = openai.OpenAI(base_url=f"{proxy.url}/openai/v1", api_key=KEY, max_retries=0)
    for name in ("begin", "answered"):
        with monkeypatch.context() as patch:
            patch.setattr(Capture, name, broken)
            assert client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES).usage
    assert meter.status().faults == 2


SHAPES = {
    "openai": ("/openai/v1/chat/completions", ("error", "type"), "server_error"),
    "anthropic": ("/anthropic/v1/messages", ("error", "type"), "timeout_error"),
    "google": (
        "/google/v1beta/models/gemini-2.5-flash:generateContent",
        ("error", "status"),
        "DEADLINE_EXCEEDED",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_stalled_upstream_is_a_504_in_the_provider_s_shape(meter: Meter, name: str) -> None:
    path, where, kind = SHAPES[name]
    with RawUpstream(lambda connection: None) as upstream:
        config = ProxyConfig(upstreams={name: Upstream(upstream.url)}, read_timeout=0.2)
        with serve(meter, config) as p:
            status, headers, body = exchange(p.port, request(path))
            wait_until(upstream.gone.is_set)
            wait_until(p.is_quiet)
    assert status == 504
    assert headers["proxy-status"] == "costmw; error=http_response_timeout"
    found: Any = json.loads(body)
    for key in where:
        found = found[key]
    assert found == kind
    (event,) = events_of(meter)
    assert event.status == "incomplete"


def test_an_upstream_that_is_not_there_is_a_502_and_no_row(meter: Meter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with serve(meter, to(f"http://127.0.0.1:{port}")) as p:
        status, _, body = exchange(p.port, request())
    assert (status, json.loads(body)["error"]["code"]) == (502, "connection_refused")
    assert events_of(meter) == []
    assert outcomes_of(meter) == {"error": 1}


def test_a_loop_is_noticed(meter: Meter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    upstreams = {"self": Upstream(f"http://127.0.0.1:{port}/self", "openai")}
    with serve(meter, ProxyConfig(upstreams=upstreams), port=port) as p:
        assert exchange(p.port, request("/self/v1/chat/completions"))[0] == 508
        assert exchange(p.port, request("/self/v1/models", b"", method="GET"))[0] == 508


def test_more_requests_than_allowed_are_refused(meter: Meter, provider: FakeProvider) -> None:
    provider.default = Reply(delay=0.5)
    with serve(meter, to(provider.url, max_concurrent=2)) as p, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: exchange(p.port, request()), range(3)))
        assert sorted(status for status, _, _ in answers) == [200, 200, 503]
        refused = next(headers for status, headers, _ in answers if status == 503)
        assert refused["retry-after"] == "1"
        assert exchange(p.port, request())[0] == 200


def test_a_body_over_the_limit_is_refused(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url, max_request_bytes=1000)) as p:
        assert exchange(p.port, request(body=b"x" * 1001))[0] == 413
        chunked = request(body=b"", headers="Transfer-Encoding: chunked\n")
        assert exchange(p.port, chunked, b"500\r\n" + b"x" * 0x500 + b"\r\n0\r\n\r\n")[0] == 413
        wait_until(p.is_quiet)
    assert upstream.requests == []


def test_nothing_is_left_open_after_all_kinds_of_ends(meter: Meter) -> None:
    def play(connection: socket.socket) -> object:
        kind = upstream.requests[-1].split(b"kind=")[1].split(b" ")[0]
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        if kind == b"ok":
            connection.sendall(answer())
        elif kind == b"die":
            return connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nda") or True
        elif kind == b"refuse":
            return True
        elif kind == b"garbage":
            connection.sendall(b"NOT HTTP\r\n\r\n")
        return None

    with RawUpstream(play) as upstream, serve(meter, to(upstream.url, read_timeout=0.3)) as p:
        statuses = {}

        def round_of_all() -> None:
            for kind in ("ok", "die", "refuse", "garbage", "stall"):
                path = f"/openai/v1/chat/completions?kind={kind}"
                statuses[kind] = exchange(p.port, request(path))
            with connect(p.port) as left:
                left.sendall(request("/openai/v1/chat/completions?kind=stall"))
                wait_until(lambda: p.app.in_flight == 1)
            wait_until(p.is_quiet)

        round_of_all()
        wait_until(lambda: len(upstream._open) <= 1)
        files, tasks = open_files(), len(p.tasks())
        for _ in range(4):
            round_of_all()
        wait_until(lambda: len(upstream._open) <= 1)
        wait_until(lambda: open_files() <= files)
        assert len(p.tasks()) <= tasks
    assert {kind: status for kind, (status, _, _) in statuses.items()} == {
        "ok": 200,
        "die": 200,
        "refuse": 502,
        "garbage": 502,
        "stall": 504,
    }
    assert statuses["die"][2].endswith(b"<cut>"), "the client is told that this is not all"
    reasons = [e.reason or "" for e in events_of(meter)]
    assert sum("connection failed" in reason for reason in reasons) == 20
    found = [e.status for e in events_of(meter)]
    assert (found.count("ok"), found.count("incomplete"), len(found)) == (5, 25, 30)


def test_closing_a_connection_to_the_server_is_seen(meter: Meter) -> None:
    with RawUpstream() as upstream, serve(meter, to(upstream.url)) as p, connect(p.port) as client:
        client.sendall(request(headers="Connection: close\n"))
        assert read_answer(client)[0] == 200
        assert is_closed_by_peer(client)
