"""Where alerts go: signed webhooks, apprise, functions and logs, each against the real thing."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from costmw.alerts import (
    Alert,
    Alerts,
    Apprise,
    Callback,
    Channel,
    ChannelClosed,
    Log,
    NotDelivered,
    Webhook,
)
from costmw.alerts.signing import key_of, signature_of
from costmw.errors import ConfigError
from webhook_receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(b"another secret of 32 characters!").decode()

ALERT = Alert(
    kind="budget.threshold",
    title="80% of budget 'all' is used",
    message="40.00 of 50.00 USD (80%) is spent in 2026-11. Café",
    raised_at=datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC),
    budget="all",
    scope={"tenant": "acme"},
    details={"spent_usd": "40.000000000001"},
    id=UUID("01a20adc-d5fa-78ad-8fd2-21af9674a211"),
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


class TestSignature:
    def test_the_example_of_the_standard(self) -> None:
        """As in the tests of the reference libraries of Standard Webhooks."""
        assert "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" == signature_of(
            [key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
        )

    @pytest.mark.parametrize(
        ("secret", "message"),
        [
            ("hunter2-hunter2-hunter2-hunter2", "begins with whsec_"),
            ("whsec_hunter2!", "not base64"),
            ("whsec_aHVudGVyMg==", "7 bytes, and needs 24 to 64"),
        ],
    )
    def test_a_secret_that_is_none_says_how_to_make_one(self, secret: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as raised:
            Webhook("https://example.com/", secret)
        assert "secrets.token_bytes(32)" in str(raised.value)
        assert "hunter2" not in str(raised.value)


class TestWebhook:
    def test_what_arrives(self, receiver: Receiver) -> None:
        Webhook(receiver.url, SECRET).send(ALERT)

        ((headers, body),) = receiver.requests
        assert "application/json" == headers["content-type"]
        assert "msg_01a20adcd5fa78ad8fd221af9674a211" == headers["webhook-id"]
        assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
        assert {
            "type": "budget.threshold",
            "timestamp": "2026-11-24T12:00:00.000005Z",
            "data": {
                "id": "01a20adc-d5fa-78ad-8fd2-21af9674a211",
                "title": "80% of budget 'all' is used",
                "message": "40.00 of 50.00 USD (80%) is spent in 2026-11. Café",
                "budget": "all",
                "scope": {"tenant": "acme"},
                "spent_usd": "40.000000000001",
            },
        } == json.loads(body)

    def test_each_secret_signs(self, receiver: Receiver) -> None:
        Webhook(receiver.url, [SECRET, OTHER]).send(ALERT)

        ((headers, body),) = receiver.requests
        signed = b".".join(
            (headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body)
        )
        assert [
            "v1," + base64.b64encode(hmac.digest(key_of(one), signed, "sha256")).decode()
            for one in (SECRET, OTHER)
        ] == headers["webhook-signature"].split()

    def test_without_a_secret_nothing_is_signed(self, receiver: Receiver) -> None:
        Webhook(receiver.url).send(ALERT)

        assert "webhook-signature" not in receiver.requests[0][0]

    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_it_has_arrived(self, receiver: Receiver, status: int) -> None:
        receiver.status = status
        Webhook(receiver.url, SECRET).send(ALERT)

        assert [str(ALERT.id)] == receiver.ids()

    @pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
    def test_it_has_not_arrived(self, receiver: Receiver, status: int) -> None:
        receiver.status = status
        with pytest.raises(NotDelivered, match=f"^127.0.0.1 answers {status}$"):
            Webhook(receiver.url, SECRET).send(ALERT)

    def test_gone_closes_it(self, receiver: Receiver) -> None:
        receiver.status = 410
        with pytest.raises(ChannelClosed, match="gone"):
            Webhook(receiver.url, SECRET).send(ALERT)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirect_is_not_followed(self, receiver: Receiver, status: int) -> None:
        with receiving() as elsewhere:
            receiver.status, receiver.moved_to = status, elsewhere.url
            with pytest.raises(NotDelivered, match=f"answers {status}; name the URL") as raised:
                Webhook(receiver.url, SECRET).send(ALERT)
            assert [] == elsewhere.requests
        assert "secret-token" not in str(raised.value)

    def test_one_that_does_not_answer_in_time(self, receiver: Receiver) -> None:
        receiver.delay = 2.0
        began = time.monotonic()
        with pytest.raises(NotDelivered, match="^127.0.0.1 cannot be reached: "):
            Webhook(receiver.url, SECRET, timeout=0.2).send(ALERT)
        assert time.monotonic() - began < 1.5

    def test_one_that_is_away(self, receiver: Receiver) -> None:
        receiver.stop()
        with pytest.raises(NotDelivered) as raised:
            Webhook(receiver.url, SECRET).send(ALERT)
        assert "127.0.0.1 cannot be reached: Connection refused" == str(raised.value)

    def test_one_that_answers_something_else(self) -> None:
        """Whatever comes, it is tried again."""
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(NotDelivered, match="cannot be reached: BadStatusLine"):
                Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", SECRET).send(ALERT)
            thread.join()

    @pytest.mark.parametrize(
        "url", ["file:///etc/passwd", "ftp://host/", "hooks.example.com/x", "https:///x", ""]
    )
    def test_a_url_that_is_none(self, url: str) -> None:
        with pytest.raises(ConfigError, match="^the URL of 'ops' is none of https://host/path$"):
            Webhook(url, name="ops")

    def test_a_url_with_a_password(self) -> None:
        with pytest.raises(ConfigError, match="would not be sent") as raised:
            Webhook("https://user:hunter2@example.com/")
        assert "hunter2" not in str(raised.value)

    @pytest.mark.parametrize("timeout", [0, -1, 31, True])
    def test_a_timeout_that_is_none(self, timeout: Any) -> None:
        with pytest.raises(ConfigError, match="timeout of 'webhook'"):
            Webhook("https://example.com/", timeout=timeout)

    def test_its_address_tells_no_secret(self) -> None:
        one, other = Webhook("https://example.com/a"), Webhook("https://example.com/b")

        assert one.address != other.address
        assert 16 == len(one.address)
        assert one.address == Webhook("https://example.com/a", SECRET).address


@pytest.mark.filterwarnings("ignore::DeprecationWarning:.*")  # of what apprise imports
class TestApprise:
    def test_it_notifies(self, receiver: Receiver) -> None:
        """By apprise's own JSON notification, to a real server."""
        url = receiver.url.replace("http://", "json://")
        Apprise(url, name="ops").send(ALERT)

        ((_, body),) = receiver.requests
        told = json.loads(body)
        assert (ALERT.title, ALERT.message, "warning") == (
            told["title"],
            told["message"],
            told["type"],
        )

    def test_it_fails_when_one_fails(self, receiver: Receiver) -> None:
        url = receiver.url.replace("http://", "json://")
        with receiving() as away:
            gone = away.url.replace("http://", "json://")
        with pytest.raises(NotDelivered) as raised:
            Apprise(url, gone, name="ops").send(ALERT)
        assert "secret-token" not in str(raised.value)

    def test_a_url_that_apprise_does_not_know(self) -> None:
        with pytest.raises(ConfigError, match="URL 2 of 'ops'") as raised:
            Apprise("json://127.0.0.1/", "nonsense://hunter2", name="ops")
        assert "hunter2" not in str(raised.value)
        with pytest.raises(ConfigError, match="'apprise' has no URL"):
            Apprise()

    def test_without_apprise_it_says_what_to_install(self) -> None:
        script = (
            "import sys; sys.modules['apprise'] = None\n"
            "from costmw.alerts import Apprise\n"
            "Apprise('slack://x')"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert (
            "apprise is not installed. To enable this: pip install 'costmw[alerts]'" in done.stderr
        )


class TestOthers:
    def test_a_function_is_handed_the_alert(self) -> None:
        got: list[Alert] = []
        channel = Callback(got.append, name="mine")
        channel.send(ALERT)

        assert [ALERT] == got
        assert "mine" == channel.name

    def test_a_function_gives_its_name(self) -> None:
        def page_someone(alert: Alert) -> None: ...

        assert Callback(page_someone).name.endswith("page_someone")
        with pytest.raises(ConfigError, match="give it a function"):
            Callback("page_someone")  # type: ignore[arg-type]

    def test_a_line_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "costmw.alerts"):
            Log(logging.ERROR).send(ALERT)

        assert [
            (
                "costmw.alerts",
                logging.ERROR,
                (
                    "80% of budget 'all' is used. 40.00 of 50.00 USD (80%) is spent in 2026-11. "
                    "Café (01a20adc-d5fa-78ad-8fd2-21af9674a211)"
                ),
            )
        ] == caplog.record_tuples
        with pytest.raises(ConfigError, match="logging.WARNING"):
            Log("warning")  # type: ignore[arg-type]


class TestSettings:
    def test_what_is_a_channel(self) -> None:
        class Pager:
            name, address = "pager", "1"

            def send(self, alert: Alert) -> None: ...

        assert isinstance(Pager(), Channel)
        assert 1 == len(Alerts([Pager()]).channels)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": [print]}, "channels of Alerts are a list"),
            ({"channels": Log()}, "channels of Alerts are a list"),
            ({"channels": [Log(), Log()]}, "two channels of alerts are named 'log'"),
            ({"channels": [Log(name="")]}, "a channel has no name"),
            ({"channels": [], "velocity_floor": "-1"}, "velocity_floor is negative"),
            ({"channels": [], "velocity_floor": 0.5}, "velocity_floor is 0.5"),
            ({"channels": [], "every": 0}, "every is 0"),
            ({"channels": [], "every": 601}, "every is 601"),
            ({"channels": [], "every": True}, "every is True"),
        ],
    )
    def test_what_makes_no_sense(self, settings: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            Alerts(**settings)
