"""Budgets and alerts in a TOML file, and `costmw alert test`, which tries their channels."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costmw import Budget, Meter
from costmw.alerts import Alerts, Callback, Log
from costmw.alerts.commands import try_channels
from costmw.alerts.file import load_alerts
from costmw.budget_file import combined, load_budgets
from costmw.errors import ConfigError
from costmw.store.alert_rows import AlertRow
from costmw.store.layers import alerts_of
from webhook_receiver import Receiver, receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "budgets.toml"


class TestBudgets:
    def test_all_fields(self, path: Path) -> None:
        path.write_text(
            """
            [[budgets]]
            name = "tenant cap"
            limit = 50.10
            per = "tenant"
            where = {feature = "chat"}
            period = "week"
            alert_at = [0.5, 1]
            action = "block"
            limits = {acme = "500", umbrella = 0.1}
            max_output_tokens = 800
            on_unpriced = "block"
            wait = 0.5
            fail = "open"

            [[budgets]]
            name = "user cap"
            limit = "5"
            per = ["tenant", "user"]
            [[budgets.limits]]
            tenant = "acme"
            user = "ann"
            limit = 7
            """
        )
        tenant, user = load_budgets(path)

        assert tenant == Budget(
            "tenant cap",
            Decimal("50.10"),
            per="tenant",
            where={"feature": "chat"},
            period="week",
            alert_at=[0.5, 1],
            action="block",
            limits={"acme": "500", "umbrella": Decimal("0.1")},
            max_output_tokens=800,
            on_unpriced="block",
            wait=0.5,
            fail="open",
        )
        assert all(type(share) is not Decimal for share in tenant.alert_at)
        assert {("acme", "ann"): 7} == user.limits

    def test_a_file_without_budgets(self, path: Path) -> None:
        path.write_text("[alerts]\n")
        assert () == load_budgets(path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[[budget]]\nname = 'x'", "has 'budget'; it may have"),
            ("budgets = 3", "budgets must be [[budgets]] tables"),
            ("budgets = [3]", "budgets must be [[budgets]] tables"),
            ("[[budgets]]\nlimit = 5", "each of [[budgets]] needs name"),
            ("[[budgets]]\nname = 'x'", "budget 'x' needs limit"),
            ("[[budgets]]\nname = 'x'\nlimit = 5\nlimt = 5", "budget 'x' has 'limt'; use one of"),
            ("[[budgets]]\nname = 'x'\nlimit = 'much'", "the limit of budget 'x'"),
            ("[[budgets]]\nname = 'x'\nlimit = 5\nperiod = 'year'", "the period of budget 'x'"),
            (
                "[[budgets]]\nname = 'x'\nlimit = 5\n[[budgets]]\nname = 'x'\nlimit = 6",
                "two budgets are named 'x'",
            ),
            (
                "[[budgets]]\nname = 'x'\nlimit = 5\nper = 'a'\n[[budgets.limits]]\na = 'b'",
                "limits of budget 'x' are tables, but per is not a list",
            ),
            (
                "[[budgets]]\nname = 'x'\nlimit = 5\nper = ['a']\n[[budgets.limits]]\na = 'b'",
                "limits of budget 'x': each needs a and limit",
            ),
            ("[[budgets]", "is not TOML"),
        ],
    )
    def test_what_is_wrong_names_file_and_key(self, path: Path, text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(message)) as raised:
            load_budgets(path)
        assert str(path) in str(raised.value)

    def test_a_file_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot read the budgets file .*: No such file"):
            load_budgets(path)

    def test_a_name_can_be_used_once(self) -> None:
        one, same = Budget("one", "1"), Budget("one", "2")
        assert [one, Budget("two", "1")] == combined([one], [Budget("two", "1")], "x.toml")
        with pytest.raises(ConfigError, match="budget 'one' is in the code and in x.toml"):
            combined([one], [same], "x.toml")


class TestAlerts:
    def test_everything(self, path: Path, receiver: Receiver) -> None:
        path.write_text(
            """
            [alerts]
            on_course = false
            velocity = false
            velocity_floor = 20.5
            models = false
            every = 30
            [[alerts.webhooks]]
            name = "ops"
            url_env = "OPS_URL"
            secret_env = "OPS_SECRETS"
            timeout = 3
            [[alerts.webhooks]]
            name = "plain"
            url = "https://example.com/hook"
            [alerts.log]
            level = "error"
            """
        )
        secrets = f"{SECRET} whsec_{'A' * 32}"
        environ = {"OPS_URL": receiver.url, "OPS_SECRETS": secrets}
        found = load_alerts(path, environ)

        assert found is not None
        assert (False, False, Decimal("20.5"), False, 30.0) == (
            found.on_course,
            found.velocity,
            found.velocity_floor,
            found.models,
            found.every,
        )
        assert ["ops", "plain", "log"] == [channel.name for channel in found.channels]
        assert ("ops: delivered", True) == tried(Alerts(found.channels[:1]))
        ((headers, _),) = receiver.requests
        assert 2 == len(headers["webhook-signature"].split())

    @pytest.mark.filterwarnings("ignore::DeprecationWarning:.*")  # of what apprise imports
    def test_apprise(self, path: Path, receiver: Receiver) -> None:
        path.write_text("[[alerts.apprise]]\nname = 'slack'\nurls_env = 'SLACK'\n")
        found = load_alerts(path, {"SLACK": receiver.url.replace("http://", "json://")})

        assert found is not None
        assert ("slack: delivered", True) == tried(found)
        assert 1 == len(receiver.requests)

    def test_a_file_without_alerts(self, path: Path) -> None:
        path.write_text("")
        assert load_alerts(path) is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("alerts = 3", "alerts must be a table"),
            ("[alerts]\nwebhook = 1", "[alerts] has 'webhook'; use one of"),
            ("[alerts]\nmodels = 'yes'", "models of [alerts] is 'yes'; use true or false"),
            ("[alerts]\nevery = 'often'", "every is 'often'"),
            ("[alerts]\nevery = 0", "every is 0"),
            ("[alerts]\nvelocity_floor = -1", "velocity_floor is negative"),
            ("[alerts]\nwebhooks = {}", "webhooks of [alerts] must be [[alerts.webhooks]]"),
            ("[[alerts.webhooks]]\nname = 'x'", "[[alerts.webhooks]] needs one url"),
            ("[[alerts.webhooks]]\nuri = 'x'", "[[alerts.webhooks]] has 'uri'"),
            ("[[alerts.webhooks]]\nurl = 3", "url of [[alerts.webhooks]] must be text"),
            ("[[alerts.webhooks]]\nname = 3\nurl = 'https://x.y/'", "name of [[alerts.webhooks]]"),
            ("[[alerts.webhooks]]\nurl = 'https://x.y/'\nurl_env = 'X'", "has url and url_env"),
            ("[[alerts.webhooks]]\nurl_env = 'X'", "names 'X', which is not set"),
            ("[[alerts.webhooks]]\nurl = 'hunter2'", "the URL of 'webhook' is none of"),
            (
                "[[alerts.webhooks]]\nurl = 'https://x.y/'\nsecret = 'hunter2'",
                "begins with whsec_",
            ),
            ("[[alerts.apprise]]\nname = 'x'", "'x' has no URL"),
            ("[alerts]\nlog = true", "log of [alerts] must be a table"),
            ("[alerts.log]\nlevel = 'loud'", "level of [alerts.log] is 'loud'"),
        ],
    )
    def test_what_is_wrong_names_file_and_key(self, path: Path, text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(message)) as raised:
            load_alerts(path, {})
        assert str(path) in str(raised.value)
        assert "hunter2" not in str(raised.value)


def tried(alerts: Alerts, url: str = "sqlite:///nowhere/llmcost.db") -> tuple[str, bool]:
    meter = Meter(url, alerts=alerts)
    try:
        return try_channels("", [meter])
    finally:
        meter.close()


class TestTrying:
    def test_each_channel_says_what_happened(self) -> None:
        def fails(_: object) -> None:
            raise OSError("https://hooks/hunter2")

        alerts = Alerts([Callback(fails, name="mine"), Log(logging.INFO)])
        assert ("mine: not delivered: OSError\nlog: delivered", False) == tried(alerts)

    def test_a_closed_channel_is_opened_again(self, store_url: str) -> None:
        got: list[Any] = []
        alerts = Alerts([Callback(got.append, name="ops")])
        meter = Meter(store_url, alerts=alerts)
        meter.store.open()
        rows = alerts_of(meter.store)
        assert rows is not None
        rows.register("ops", "address")
        rows.add([AlertRow("some.kind")])
        given = rows.next_for("ops")
        assert given is not None
        rows.failed("ops", given, None)
        meter.store.close()

        assert ("ops: delivered", True) == tried(alerts, store_url)
        opened = rows.next_for("ops")
        assert opened is not None
        assert 0 == opened.due_in
        assert ["test"] == [alert.kind for alert in got]
        meter.store.close()

    def test_nothing_to_try(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COSTMW_BUDGETS", raising=False)
        for meters in (None, [Meter("sqlite:///x.db")]):
            with pytest.raises(ConfigError, match="no channel is set up: name an app"):
                try_channels("", meters)

    @pytest.mark.parametrize(
        ("status", "code", "said"),
        [(204, 0, "ops: delivered\n"), (500, 1, "ops: not delivered: 127.0.0.1 answers 500\n")],
    )
    def test_the_command(
        self, tmp_path: Path, receiver: Receiver, status: int, code: int, said: str
    ) -> None:
        """By an app and by a file alike; a store that is not there is not made."""
        receiver.status = status
        (tmp_path / "main.py").write_text(
            "import os\n"
            "from costmw import Meter\n"
            "from costmw.alerts import Webhook\n"
            f"ops = Webhook({receiver.url!r}, name='ops')\n"
            "meter = Meter('sqlite:///llmcost.db', alerts=[ops])\n"
            "app = print\n"
        )
        path = tmp_path / "budgets.toml"
        path.write_text(f"[[alerts.webhooks]]\nname = 'ops'\nurl = {receiver.url!r}\n")
        for arguments, environ in (
            (["main:app"], {}),
            ([], {"COSTMW_BUDGETS": str(path), "COSTMW_STORE": "sqlite:///llmcost.db"}),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "costmw.cli", "alert", "test", *arguments],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
            )
            assert (code, said, "") == (done.returncode, done.stdout, done.stderr)
        assert 2 == len(receiver.requests)
        assert not (tmp_path / "llmcost.db").exists()
