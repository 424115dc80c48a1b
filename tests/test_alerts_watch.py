"""Alerts that arrive: found by one process, kept in the ledger, delivered in order and again."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from costmw import Budget, Config, Meter
from costmw.alerts import Alert, Alerts, Callback, ChannelClosed, Log, Webhook
from costmw.alerts import courier as courier_module
from costmw.alerts import watch as watch_module
from costmw.alerts.courier import Courier, back_off
from costmw.alerts.watch import Watch
from costmw.errors import ConfigError, StoreBusy
from costmw.events import Record
from costmw.store.alert_rows import AlertRow, AlertRows
from costmw.store.layers import alerts_of
from postgres_server import postgres
from stores import Place, place, place_of, store
from webhook_receiver import Receiver, receiving

__all__ = ["place", "place_of", "postgres", "store"]

SOON = 20.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BUDGET = Budget("all", "10", period="total")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "FIRST_RETRY", 0.05)
    monkeypatch.setattr(courier_module, "LONGEST_RETRY", 0.2)


@pytest.fixture
def rows(store: Any) -> AlertRows:
    found = alerts_of(store)
    assert found is not None
    return found


def eventually(holds: Callable[[], object], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def thresholds_of(accepted: Sequence[Any]) -> list[str]:
    return [body["data"]["threshold"] for body in accepted if "threshold" in body["data"]]


def an_alert(number: int) -> AlertRow:
    return AlertRow("some.kind", scope={"number": str(number)})


class Collecting:
    """A channel that fails as often as it is told to."""

    def __init__(self, name: str = "ops", failures: Sequence[Exception | None] = ()) -> None:
        self.name = name
        self.address = "here"
        self.failures = list(failures)
        self.tried: list[str] = []
        self.got: list[Alert] = []

    def send(self, alert: Alert) -> None:
        self.tried.append(alert.scope["number"])
        if self.failures and (error := self.failures.pop(0)):
            raise error
        self.got.append(alert)

    def numbers(self) -> list[str]:
        return [alert.scope["number"] for alert in self.got]


def drain(courier: Courier) -> None:
    while (wait := courier.send_next()) is not None:
        time.sleep(wait)


class TestCourier:
    def test_all_are_delivered_in_order(self, rows: AlertRows) -> None:
        channel = Collecting()
        rows.register(channel.name, channel.address)
        kept = rows.add([an_alert(n) for n in range(5)])
        drain(Courier(channel, rows))

        assert ["0", "1", "2", "3", "4"] == channel.numbers()
        assert [row.id for row in kept] == [alert.id for alert in channel.got]

    def test_one_that_fails_is_tried_again_and_not_overtaken(self, rows: AlertRows) -> None:
        channel = Collecting(failures=[None, OSError("no"), ValueError("no"), None])
        rows.register(channel.name, channel.address)
        rows.add([an_alert(n) for n in range(3)])
        drain(Courier(channel, rows))

        assert ["0", "1", "1", "1", "2"] == channel.tried
        assert ["0", "1", "2"] == channel.numbers()

    def test_one_that_is_closed_gets_no_more(
        self, rows: AlertRows, caplog: pytest.LogCaptureFixture
    ) -> None:
        channel = Collecting(failures=[None, ChannelClosed("it is gone")])
        rows.register(channel.name, channel.address)
        rows.add([an_alert(n) for n in range(3)])
        courier = Courier(channel, rows)
        for _ in range(3):
            drain(courier)

        assert ["0", "1"] == channel.tried
        assert ["alerts end at ops: it is gone"] == [record.message for record in caplog.records]

    def test_of_two_processes_one_sends(self, rows: AlertRows) -> None:
        channel, other = Collecting(), Collecting()
        rows.register(channel.name, channel.address)
        rows.add([an_alert(n) for n in range(2)])
        assert Courier(channel, rows).send_next() == 0
        drain(Courier(other, rows))

        assert (["0"], []) == (channel.numbers(), other.numbers())

    def test_what_comes_as_it_ends_is_seen_to(
        self, rows: AlertRows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its thread has found nothing more, gives the channel up, and is still there."""
        channel, stop = Collecting(), threading.Event()
        rows.register(channel.name, channel.address)
        rows.add([an_alert(0)])
        courier, claim = Courier(channel, rows), rows.claim

        def claimed(task: str, owner: str, seconds: float) -> bool:
            if not seconds and rows.add([an_alert(1)]):
                courier.start(stop)
            return claim(task, owner, seconds)

        monkeypatch.setattr(rows, "claim", claimed)
        courier.start(stop)
        eventually(lambda: channel.numbers() == ["0", "1"], seconds=5)
        courier.join(SOON)

    def test_one_that_is_killed_has_another_send_it_again(
        self, rows: AlertRows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After it was delivered, and before that was written down: with the same id."""
        monkeypatch.setattr(courier_module, "CLAIMED_FOR", 0.3)

        class Killed(BaseException):
            pass

        class Dying(Collecting):
            def send(self, alert: Alert) -> None:
                super().send(alert)
                raise Killed

        killed, other = Dying(), Collecting()
        rows.register(killed.name, killed.address)
        rows.add([an_alert(n) for n in range(2)])
        with pytest.raises(Killed):
            Courier(killed, rows).send_next()
        assert Courier(other, rows).send_next() is None
        time.sleep(0.35)
        drain(Courier(other, rows))

        assert ["0", "1"] == other.numbers()
        assert killed.got[0].id == other.got[0].id

    def test_what_others_raise_is_not_repeated_in_the_log(
        self, rows: AlertRows, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It may hold a URL with a token. Said the 1st, 2nd, 4th time."""
        channel = Collecting(failures=[OSError("https://hooks/hunter2")] * 5)
        rows.register(channel.name, channel.address)
        rows.add([an_alert(1)])
        with caplog.at_level(logging.INFO, "costmw"):
            drain(Courier(channel, rows))

        assert 3 == len(caplog.records)
        assert caplog.records[0].message.endswith("is tried again in 0 s: OSError")
        assert "hunter2" not in caplog.text

    def test_an_alert_of_a_newer_version_is_told_as_it_is(self, rows: AlertRows) -> None:
        channel = Collecting()
        rows.register(channel.name, channel.address)
        rows.add([AlertRow("a.newer.kind", scope={"number": "1"}, details={"what": "é"})])
        drain(Courier(channel, rows))

        assert ("a.newer.kind", '{"what": "é"}') == (channel.got[0].title, channel.got[0].message)

    def test_waits_grow_up_to_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(courier_module, "FIRST_RETRY", 1.0)
        monkeypatch.setattr(courier_module, "LONGEST_RETRY", 300.0)
        for attempts, longest in ((0, 1), (1, 2), (5, 32), (9, 300), (10_000, 300)):
            waits = [back_off(attempts) for _ in range(50)]
            assert 0.75 * longest <= min(waits) < max(waits) <= longest


class TestWatch:
    @pytest.fixture
    def made(self, place: Place) -> Iterator[Callable[..., Meter]]:
        meters: list[Meter] = []

        def make(*budgets: Budget, **options: Any) -> Meter:
            config = options.pop("config", Config(ack_timeout=30.0))
            meters.append(Meter(place.url, budgets=budgets, config=config, **options))
            return meters[-1]

        yield make
        for meter in meters:
            meter.close()

    @staticmethod
    def spend(meter: Meter, usd: str, **tags: str) -> None:
        meter.record(provider="openai", model="gpt-5-mini", cost=usd, tags=tags)

    def test_thresholds_arrive_once_and_in_order(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        meter = made(BUDGET, alerts=Alerts([Webhook(receiver.url, SECRET)], every=0.1))
        self.spend(meter, "5.50")
        eventually(lambda: thresholds_of(receiver.accepted) == ["0.5"])
        self.spend(meter, "6")
        eventually(lambda: len(receiver.accepted) == 3)
        self.spend(meter, "6")
        time.sleep(0.5)

        assert ["0.5", "0.8", "1"] == thresholds_of(receiver.accepted)
        assert 3 == len(set(receiver.ids()))

    def test_two_meters_and_a_third_tell_it_once(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        """As two workers do, and one that is started later."""
        options = {"alerts": Alerts([Webhook(receiver.url, SECRET)], every=0.05)}
        meters = [made(BUDGET, **options) for _ in range(2)]
        for meter in meters:
            self.spend(meter, "4.5")
        eventually(lambda: len(receiver.accepted) == 2)
        meters[0].close()
        meters.append(made(BUDGET, **options))
        self.spend(meters[2], "4.5")
        eventually(lambda: len(receiver.accepted) == 3)
        time.sleep(0.3)

        assert ["0.5", "0.8", "1"] == thresholds_of(receiver.accepted)
        assert 3 == len(receiver.requests)

    def test_others_are_not_held_up_by_a_dead_one(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        dead = Receiver()
        dead.start()
        dead.stop()
        hangs = threading.Event()
        channels = [
            Callback(lambda _: hangs.wait(SOON), name="hangs"),
            Webhook(dead.url, SECRET, name="dead"),
            Webhook(receiver.url, SECRET, name="ops"),
        ]
        meter = made(BUDGET, alerts=Alerts(channels, every=0.1))
        self.spend(meter, "9")
        eventually(lambda: len(receiver.accepted) == 2, seconds=5)
        self.spend(meter, "9")
        eventually(lambda: len(receiver.accepted) == 3, seconds=5)

        dead.start_again()
        try:
            eventually(lambda: len(dead.accepted) == 3)
        finally:
            hangs.set()
            dead.stop()
        assert receiver.ids() == dead.ids()

    def test_what_was_found_survives_the_process(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        receiver.stop()
        options = {"alerts": Alerts([Webhook(receiver.url, SECRET)], every=0.1)}
        meter = made(BUDGET, **options)
        self.spend(meter, "9")
        rows = alerts_of(meter.store)
        assert rows is not None
        eventually(lambda: rows.next_for("webhook"))
        meter.close()

        receiver.start_again()
        made(BUDGET, **options).start()
        eventually(lambda: len(receiver.accepted) == 2)
        assert ["0.5", "0.8"] == thresholds_of(receiver.accepted)

    def test_closing_looks_once_more(
        self, made: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was spent a moment ago, and is not committed yet, is told before the end."""
        channel: list[Alert] = []
        alerts = Alerts([Callback(channel.append, name="ops")], every=600)
        meter = made(BUDGET, alerts=alerts, config=Config(durability="async"))
        meter.start()
        self.spend(meter, "1")
        eventually(lambda: meter._watch is not None and meter._watch._looks == 1)
        assert meter.flush(SOON)
        write = meter.store.write

        def slowly(records: Sequence[Record]) -> Any:
            time.sleep(0.5)
            return write(records)

        monkeypatch.setattr(meter.store, "write", slowly)
        self.spend(meter, "5")
        meter.close()

        assert ["0.5"] == [alert.details["threshold"] for alert in channel]

    def test_closing_waits_for_no_dead_channel(self, made: Callable[..., Meter]) -> None:
        with receiving() as receiver:
            receiver.delay = 60.0  # of a daemon
            meter = made(BUDGET, alerts=Alerts([Webhook(receiver.url, timeout=5)], every=0.1))
            self.spend(meter, "5")
            eventually(lambda: receiver.requests)
            began = time.monotonic()
            meter.close()
            assert time.monotonic() - began < 4
            receiver.delay = 0.0

    def test_it_goes_on_after_closing(self, made: Callable[..., Meter], receiver: Receiver) -> None:
        meter = made(BUDGET, alerts=Alerts([Webhook(receiver.url, SECRET)], every=0.1))
        self.spend(meter, "5")
        meter.close()
        assert ["0.5"] == thresholds_of(receiver.accepted)
        self.spend(meter, "3")
        eventually(lambda: len(receiver.accepted) == 2)

    def test_nothing_runs_without_need(self, made: Callable[..., Meter]) -> None:
        """No thread before the first call, none without a channel, and none when disabled."""
        channel = Callback(print, name="ops")
        before = set(threading.enumerate())

        def threads() -> int:
            new = set(threading.enumerate()) - before
            return sum(thread.name == "costmw-alerts" for thread in new)

        waits = made(BUDGET, alerts=[channel])
        silent = made(BUDGET, alerts=[])
        off = made(BUDGET, alerts=[channel], enabled=False)
        for meter in (silent, off):
            meter.start()
            self.spend(meter, "1")
        assert 0 == threads()
        self.spend(waits, "1")
        assert 1 == threads()
        waits.close()
        assert 0 == threads()
        assert made(BUDGET).alerts is None

    def test_it_survives_everything(
        self,
        made: Callable[..., Meter],
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """A lookout with an error holds up no other one; a store that is away comes back."""
        meter = made(BUDGET, alerts=Alerts([Webhook(receiver.url, SECRET)], every=0.05))
        away = threading.Event()
        away.set()
        snapshot = meter.store.snapshot

        def maybe() -> Any:
            if away.is_set():
                raise StoreBusy("away")
            return snapshot()

        def broken(_: object) -> Iterator[AlertRow]:
            raise ZeroDivisionError("of a lookout")

        monkeypatch.setattr(meter.store, "snapshot", maybe)
        lookouts = ((broken, 1), *watch_module.LOOKOUTS)
        monkeypatch.setattr(watch_module, "LOOKOUTS", lookouts)
        self.spend(meter, "5")
        time.sleep(0.3)
        assert [] == receiver.requests
        away.clear()
        eventually(lambda: thresholds_of(receiver.accepted) == ["0.5"])
        assert "ZeroDivisionError: of a lookout" in caplog.text

    def test_one_looks_at_a_time_and_another_goes_on(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        """The first one's claim is never given up, as if it were killed."""
        meter = made(BUDGET)
        meter.start()
        alerts = Alerts([Webhook(receiver.url, SECRET)], every=0.1)
        one, other = (Watch(meter.store, [BUDGET], alerts) for _ in range(2))
        stop = threading.Event()
        self.spend(meter, "5")
        one._take_turn(stop)
        other._take_turn(stop)
        assert (1, 0) == (one._looks, other._looks)
        time.sleep(0.45)
        other._take_turn(stop)
        assert (1, 1) == (one._looks, other._looks)
        stop.set()
        eventually(lambda: len(receiver.requests) == 1)

    def test_who_looks_for_something_else_is_not_kept_out(self, made: Callable[..., Meter]) -> None:
        """Two apps that share a ledger, each with a budget of its own."""
        meter = made()
        meter.start()
        got: list[Alert] = []
        alerts = Alerts([Callback(got.append, name="ops")], every=60)
        for budget in (BUDGET, Budget("other", "10")):
            watch = Watch(meter.store, [budget], alerts)
            watch._take_turn(threading.Event())
            assert 1 == watch._looks

    def test_nothing_new_is_looked_for_when_nothing_is_recorded(
        self, made: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def lookout(ground: object) -> Iterator[AlertRow]:
            asked.append(ground)
            yield from ()

        monkeypatch.setattr(watch_module, "LOOKOUTS", ((lookout, 1), (lambda _: iter(()), 3)))
        meter = made()
        meter.start()
        watch = Watch(meter.store, (), Alerts([Log()]))
        for calls in range(1, 4):
            self.spend(meter, "1")
            watch.look()
            watch.look()
            assert calls == len(asked)

    def test_a_store_that_answers_slowly_is_asked_less(
        self, made: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = made(BUDGET)
        watch = Watch(meter.store, (), Alerts([Log()], every=0.01))
        monkeypatch.setattr(watch, "_take_turn", lambda _: time.sleep(0.1))
        watch.start()
        time.sleep(0.5)
        assert 1.9 < watch._pause < 4
        watch.stop(SOON)

    def test_a_store_without_alerts_is_refused(self) -> None:
        class Other:
            url = "other://"

        with pytest.raises(ConfigError, match="other:// keeps no alerts"):
            Watch(Other(), (), Alerts([Log()]))  # type: ignore[arg-type]

    def test_alerts_take_no_time_of_a_call(
        self, made: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long they take: a call hands in its row, and goes on."""
        blocked = threading.Event()
        monkeypatch.setattr(watch_module, "LOOKOUTS", ((lambda _: iter((blocked.wait(SOON),)), 1),))
        meter = made(BUDGET, alerts=Alerts([Log()], every=0.05))
        self.spend(meter, "1")
        began = time.monotonic()
        for _ in range(20):
            self.spend(meter, "1")
        assert time.monotonic() - began < SOON / 4
        blocked.set()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_has_threads_of_its_own(
        self, made: Callable[..., Meter], receiver: Receiver
    ) -> None:
        """As under gunicorn --preload: what the child's calls cost is told too."""
        alerts = Alerts([Webhook(receiver.url, SECRET)], every=0.1)
        meter = made(BUDGET, alerts=alerts)
        self.spend(meter, "1")
        eventually(lambda: meter._watch is not None and meter._watch._looks > 0)
        child = os.fork()
        if not child:
            try:
                assert meter._watch is not None
                assert not meter._watch.running
                self.spend(meter, "5")
                assert meter._watch.running
                meter.close()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        eventually(lambda: thresholds_of(receiver.accepted) == ["0.5"])


WORKER = """
import sys, time
from costmw import Budget, Meter
from costmw.alerts import Alerts, Webhook
from costmw.alerts import courier
courier.CLAIMED_FOR = 1.0
courier.FIRST_RETRY, courier.LONGEST_RETRY = 0.05, 0.2
store, url = sys.argv[1:]
alerts = Alerts([Webhook(url)], every=0.1)
meter = Meter(store, budgets=[Budget("all", "10", period="total", alert_at=(.1,.2,.3,.4,.5))],
              alerts=alerts)
meter.start()
print("ready", flush=True)
for line in sys.stdin:
    meter.record(provider="openai", model="gpt-5-mini", cost=line.strip())
    print("recorded", flush=True)
"""


class TestProcesses:
    def test_whoever_is_killed_is_replaced(self, place: Place, receiver: Receiver) -> None:
        """Three workers, killed one after the other while the webhook comes and goes."""
        workers: list[subprocess.Popen[str]] = []

        def start() -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", WORKER, place.url, receiver.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            workers.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        def record(process: subprocess.Popen[str], usd: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{usd}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "recorded\n"

        place.open()
        try:
            for number in range(3):
                start()
                record(workers[-1], "0.50")
                if number:
                    workers[number - 1].kill()
                    receiver.stop()
                    record(workers[-1], "0.50")
                    time.sleep(0.3)
                    receiver.start_again()
            record(workers[-1], "2.50")
            eventually(lambda: len(set(receiver.ids())) == 5)
        finally:
            for process in workers:
                process.kill()
                process.communicate()
        first = list(dict.fromkeys(receiver.ids()))
        told = {body["data"]["id"]: body["data"]["threshold"] for body in receiver.accepted}
        assert ["0.1", "0.2", "0.3", "0.4", "0.5"] == [told[one] for one in first]


class TestMeter:
    FILE = """
        [[budgets]]
        name = "all"
        limit = "10"
        period = "total"

        [alerts]
        every = 0.1
        [alerts.log]
    """

    def test_budgets_and_alerts_of_a_file(
        self, tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "budgets.toml"
        path.write_text(self.FILE)
        mine = Budget("mine", "1")
        config = Config.from_environment({"COSTMW_BUDGETS": str(path)})
        meter = Meter(store_url, budgets=[mine], config=config)
        assert [mine, BUDGET] == list(meter.budgets)
        assert meter.alerts is not None
        assert ["log"] == [channel.name for channel in meter.alerts.channels]
        meter.record(provider="openai", model="m", cost="6")
        meter.close()

        assert "50% of budget 'all' is used" in caplog.text

    def test_what_the_code_says_holds(self, tmp_path: Path, store_url: str) -> None:
        path = tmp_path / "budgets.toml"
        path.write_text(self.FILE)
        config = Config(budgets_file=path)
        with pytest.raises(ConfigError, match="budget 'all' is in the code and in .*take it out"):
            Meter(store_url, budgets=[BUDGET], config=config)
        mine = Alerts([Log(name="mine")])
        assert Meter(store_url, alerts=mine, config=config).alerts is mine
        assert Meter(store_url, alerts=[], config=config).alerts == Alerts([])

    def test_what_is_no_channel_is_refused_when_it_is_made(self, store_url: str) -> None:
        with pytest.raises(ConfigError, match="channels of Alerts are a list"):
            Meter(store_url, alerts=["slack://x"])  # type: ignore[list-item]
