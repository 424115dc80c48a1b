"""`costmw proxy` as a process, and its settings."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from conftest import events_of
from costmw import Meter
from costmw.errors import ConfigError
from costmw.proxy import ProxyConfig, Token, Upstream
from costmw.proxy.pools import way_to
from costmw.proxy.server import is_loopback
from costmw.proxy.upstreams import BUILT_IN
from costmw.testing import FakeProvider, Reply
from proxies import RawUpstream, exchange, request, serve, to

KEY = "sk-the-key-of-the-provider"
TOKEN = "a-token-of-the-proxy-0123456789"


class Command:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        assert process.stderr is not None
        for line in process.stderr:
            self.said += line
            if "base URLs" in line:
                self.port = int(line.split(",")[0].rsplit(":", 1)[1])
                return
        raise AssertionError(self.said)

    def end(self) -> int:
        """Wait for the end; gives the exit status."""
        _, rest = self.process.communicate(timeout=30)
        self.said += rest
        return self.process.returncode


@contextmanager
def command(store_url: str, *arguments: str, **environment: str) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-m", "costmw.cli", "proxy", "--port", "0", *arguments],
        env={**os.environ, "COSTMW_STORE": store_url, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Command(process)
    finally:
        process.kill()
        process.communicate()


def test_a_stream_ends_well_though_the_proxy_is_told_to_stop(
    meter: Meter, store_url: str, provider: FakeProvider, tmp_path: Path
) -> None:
    provider.default = Reply(text="word " * 30, pace=0.03)
    settings = tmp_path / "proxy.toml"
    settings.write_text(
        "accept_tags_header = true\n"
        f'[upstreams.openai]\nbase_url = "{provider.url}"\nkey_env = "MY_KEY"\n'
        '[[tokens]]\nenv = "TEAM_TOKEN"\ntags = { team = "blue" }\n'
    )
    secrets = {"MY_KEY": KEY, "TEAM_TOKEN": TOKEN, "MORE": "one-more-token-0123456789"}
    options = ("--config", str(settings), "--token-env", "MORE", "--tags-header")
    with command(store_url, *options, **secrets) as proxy:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.port}/openai/v1", api_key=TOKEN)
        with client.chat.completions.create(
            model="gpt-5-mini", messages=[{"role": "user", "content": "hi"}], stream=True
        ) as stream:
            chunks = iter(stream)
            next(chunks)
            proxy.process.send_signal(signal.SIGTERM)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text.count("word") >= 28
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", proxy.port))
        assert proxy.end() == 0
        assert not any(secret in proxy.said for secret in secrets.values())
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    (event,) = events_of(meter)
    assert (event.status, dict(event.tags)) == ("ok", {"team": "blue"})


def test_a_stream_that_does_not_end_is_cut_off_and_kept(
    meter: Meter, store_url: str, provider: FakeProvider, tmp_path: Path
) -> None:
    provider.default = Reply(text="word " * 5000, pace=0.05)
    settings = tmp_path / "proxy.toml"
    settings.write_text(f'[upstreams.openai]\nbase_url = "{provider.url}"\n')
    shorter = (
        "import costmw.proxy.server as server; server.SHUTDOWN_SECONDS = 1; "
        "from costmw.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", shorter, "proxy", "--port", "0", "--config", str(settings)],
        env={**os.environ, "COSTMW_STORE": store_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    proxy = Command(process)
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.port}/openai/v1", api_key=KEY)
    with client.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": "hi"}], stream=True
    ) as stream:
        next(iter(stream))
        process.send_signal(signal.SIGINT)
        assert proxy.end() == 0
    assert "Traceback" not in proxy.said
    assert [e.status for e in events_of(meter)] == ["incomplete"]


def test_open_to_others_without_tokens_is_said_loudly(store_url: str, tmp_path: Path) -> None:
    settings = tmp_path / "proxy.toml"
    settings.write_text('[upstreams.groq]\nkey_env = "MY_KEY"\n')
    options = ("--host", "0.0.0.0", "--config", str(settings))
    with command(store_url, *options, MY_KEY=KEY) as proxy:
        assert "WARNING: listening on 0.0.0.0 without tokens" in proxy.said
        assert "spend the keys of groq" in proxy.said
        assert KEY not in proxy.said
        assert exchange(proxy.port, request("/nowhere"))[0] == 404
    with command(store_url, *options, "--token-env", "T", MY_KEY=KEY, T=TOKEN) as proxy:
        assert "WARNING" not in proxy.said
        assert exchange(proxy.port, request("/groq/openai/v1/models"))[0] == 401


def test_a_command_that_cannot_run_is_one_line(store_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, told in (
            (["--port", port], f"port {port} on 127.0.0.1 cannot be had"),
            (["--host", "no.such.host.invalid"], "cannot be listened on"),
            (["--config", str(tmp_path / "none.toml")], "No such file"),
            (["--token-env", "NOT_THERE"], "the environment variable NOT_THERE is not set"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "costmw.cli", "proxy", *arguments],
                env={**os.environ, "COSTMW_STORE": store_url},
                capture_output=True,
                text=True,
            )
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert told in done.stderr


BAD_FILES = {
    "upstream = 1": "upstream is not known; use accept_tags_header, body_timeout",
    "upstreams = 1": "upstreams must be a table",
    "read_timeout = 0": "read_timeout is 0; it must be a number above 0",
    'max_concurrent = "x"': "max_concurrent is 'x'",
    "include_usage = 1": "include_usage must be true or false",
    "built_in = false": "no upstreams",
    "[upstreams.mine]": "upstream 'mine': base_url is missing",
    '[upstreams.mine]\nbase_url = "ftp://x"': "must start with http:// or https://",
    '[upstreams.mine]\nbase_url = "http://u:hunter2@x"': "has a user or password in it",
    '[upstreams.mine]\nbase_url = "http://x/?key=1"': "must end before any '?'",
    '[upstreams.mine]\nbase_url = "http://x/a/../b"': "a path that cannot be used",
    '[upstreams.mine]\nbase_url = "http://x:99999"': "base_url is not a URL",
    '[upstreams.mine]\nbase_url = "http://x"': "say who bills, as in provider = 'openai'",
    '[upstreams.mine]\nbase_url = "http://x"\nprovider = "me"': "add api = 'openai'",
    '[upstreams.mine]\nbase_url = "http://x"\nprovider = "me"\napi = "y"': "api='y' is not known",
    '[upstreams."My/LLM"]\nbase_url = "http://x"\nprovider = "openai"': "small letters",
    '[upstreams.openai]\nkey = "hunter2"': "put the key in the environment",
    '[upstreams.openai]\nkey_env = "NOT_THERE"': "the environment variable NOT_THERE is not set",
    "[upstreams.openai]\nbase_url = 1": "base_url must be text",
    '[[tokens]]\nsecret = "hunter2"': "put the token in the environment",
    "[[tokens]]\ntags = {}": "name an environment variable",
    '[[tokens]]\nenv = "SHORT"': "at least 16 ASCII characters",
    '[[tokens]]\nenv = "LONG"\ntags = { a = 1 }': "tags must be text",
    "tokens = 1": "write each as a table",
    '[tag_headers]\n"x tenant" = "tenant"': "must name a header",
    '[tag_headers]\nAuthorization = "user"': "'authorization' is needed for something else",
    "x =": "Invalid value",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_settings_that_cannot_be_used_say_what_to_do(text: str, tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(text)
    environ = {"SHORT": "hunter2", "LONG": "hunter2-hunter2-hunter2"}
    with pytest.raises(ConfigError) as caught:
        ProxyConfig.from_file(file, environ)
    assert BAD_FILES[text] in str(caught.value)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_file_says_all_that_code_can(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(
        "built_in = false\naccept_tags_header = true\nread_timeout = 30\n"
        "max_request_bytes = 1000\n"
        '[tag_headers]\nX-Tenant = "tenant"\n'
        '[upstreams.openai]\nkey_env = "KEY"\n'
        '[upstreams.gateway]\nbase_url = "https://llm.internal/v1/"\nprovider = "acme"\n'
        'api = "openai"\n'
        '[upstreams.eu]\nbase_url = "https://api.eu.mistral.ai"\n'
        '[[tokens]]\nenv = "TOKEN"\ntags = { team = "blue" }\n'
    )
    assert ProxyConfig.from_file(file, {"KEY": KEY, "TOKEN": TOKEN}) == ProxyConfig(
        built_in=False,
        accept_tags_header=True,
        read_timeout=30,
        max_request_bytes=1000,
        tag_headers={"x-tenant": "tenant"},
        upstreams={
            "openai": Upstream("https://api.openai.com", "openai", key=KEY),
            "gateway": Upstream("https://llm.internal/v1/", "acme", "openai"),
            "eu": Upstream("https://api.eu.mistral.ai", "mistral_ai"),
        },
        tokens=[Token(TOKEN, {"team": "blue"})],
    )


def test_the_built_in_upstreams() -> None:
    addresses = {name: upstream.base_url for name, upstream in BUILT_IN.items()}
    assert {
        "openai": "https://api.openai.com",
        "anthropic": "https://api.anthropic.com",
        "google": "https://generativelanguage.googleapis.com",
        "mistral": "https://api.mistral.ai",
        "groq": "https://api.groq.com",
        "cohere": "https://api.cohere.com",
        "openrouter": "https://openrouter.ai",
        "deepseek": "https://api.deepseek.com",
    }.items() <= addresses.items()
    assert all(address.startswith("https://") for address in addresses.values())
    # The page in docs has the same.
    page = (Path(__file__).parents[1] / "docs" / "proxy.md").read_text("utf-8")
    for name, address in addresses.items():
        assert f"| `{name}` | `{address}` |" in page


def test_proxies_of_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    assert way_to("https", "api.openai.com") is None
    monkeypatch.setenv("https_proxy", "http://proxy.internal:3128")
    monkeypatch.setenv("no_proxy", "llm.internal")
    assert way_to("https", "api.openai.com") == "http://proxy.internal:3128"
    assert way_to("https", "llm.internal") is None
    assert way_to("http", "api.openai.com") is None


def test_requests_go_through_the_proxy_of_the_environment(
    meter: Meter, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawUpstream() as forward:
        address = forward.url.replace("http://", "http://me:secret@")
        monkeypatch.setenv("http_proxy", address)
        with serve(meter, to("http://llm.example/base")) as p:
            assert exchange(p.port, request("/openai/v1/chat/completions?a=%2F"))[0] == 200
    line, *headers = forward.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert line == "POST http://llm.example/base/v1/chat/completions?a=%2F HTTP/1.1"
    assert "host: llm.example" in headers
    assert any(header.lower().startswith("proxy-authorization: basic") for header in headers)


def test_encrypted_connections_work_and_wrong_certificates_do_not(
    meter: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-keyout", "key.pem", "-out", "cert.pem"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with RawUpstream() as upstream, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve_tls() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        upstream._open.add(connection)
                        upstream._serve(connection)
                except OSError:
                    plain.close()

        threading.Thread(target=serve_tls, daemon=True).start()
        base = f"https://localhost:{port}"
        with serve(meter, to(base)) as p:
            status, _, body = exchange(p.port, request())
            assert status == 502
            assert b"CERTIFICATE" not in body
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with serve(meter, to(base)) as p:
            assert [exchange(p.port, request())[0] for _ in range(3)] == [200] * 3
        listener.shutdown(socket.SHUT_RDWR)
    assert [e.status for e in events_of(meter)] == ["ok"] * 3


def test_which_addresses_only_this_machine_reaches() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "proxy.internal")))
