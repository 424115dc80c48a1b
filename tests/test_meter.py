"""A meter's own life: recording by hand, starting, flushing, closing, and what it says of it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from conftest import events_of
from costmw import Config, Meter, PriceOverride, tag
from costmw.errors import ConfigError, StoreBusy, StoreError
from costmw.events import Record, new_id
from costmw.store.sqlite import SqliteStore
from rows import opened, stored

SOON = 30.0
CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-5-mini", "cost": "0.01"}


def hold(meter: Meter, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let no write through until the event is set."""
    gate = threading.Event()
    write = meter.store.write

    def wait(records: Sequence[Record]) -> None:
        assert gate.wait(SOON)
        write(records)

    monkeypatch.setattr(meter.store, "write", wait)
    return gate


def refuse(meter: Meter, monkeypatch: pytest.MonkeyPatch, said: str = "the disk is full") -> None:
    """Let every write fail."""

    def fail(records: Sequence[Record]) -> None:
        raise StoreError(said)

    monkeypatch.setattr(meter.store, "write", fail)


class TestRecord:
    def test_a_call_is_committed_before_record_returns(self, meter: Meter, tmp_path: Path) -> None:
        started = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
        identifier = new_id()
        event = meter.record(
            provider="openai",
            model="gpt-5-mini",
            input_tokens=1000,
            output_tokens=200,
            cache_read_input_tokens=100,
            cache_write_input_tokens=50,
            reasoning_output_tokens=20,
            detail={"web_searches": 2},
            cost=Decimal("0.25"),
            operation="generate_content",
            tags={"tenant": "acme", "user": 42},
            created_at=started,
            latency_ms=1500,
            response_id="resp_1",
            id=identifier,
        )

        with opened(tmp_path / "llmcost.db") as other:
            (kept,) = stored(other)
        assert event == kept
        assert (identifier, started, UTC) == (kept.id, kept.created_at, kept.created_at.tzinfo)
        assert ("openai", "gpt-5-mini", "generate_content") == (
            kept.provider,
            kept.model,
            kept.operation,
        )
        usage = kept.usage
        assert (1000, 200, 100, 50, 20) == (
            usage.input_tokens,
            usage.output_tokens,
            usage.cache_read_input_tokens,
            usage.cache_write_input_tokens,
            usage.reasoning_output_tokens,
        )
        assert {"web_searches": 2} == usage.detail
        assert (250_000_000_000, "provider") == (kept.price.cost_pico_usd, kept.price.source)
        assert {"tenant": "acme", "user": "42"} == kept.tags
        assert ("ok", 1500, "resp_1") == (kept.status, kept.latency_ms, kept.response_id)

    def test_a_call_in_tokens_is_priced(self, make_meter: Callable[..., Meter]) -> None:
        prices = (PriceOverride("mine", {"input": "2", "output": "10"}),)
        meter = make_meter(config=Config(prices=prices, ack_timeout=SOON))

        event = meter.record(provider="me", model="mine", input_tokens=1000, output_tokens=10)

        assert (1000 * 2 + 10 * 10) * 10**6 == event.price.cost_pico_usd
        assert "override" == event.price.source

    def test_a_call_without_usage_is_unknown_and_never_free(self, meter: Meter) -> None:
        event = meter.record(provider="openai", model="gpt-5-mini")

        assert (None, "unmetered") == (event.price.cost_pico_usd, event.status)
        assert "recorded without usage" == event.reason
        assert [(event.id, None, "recorded without usage")] == [
            (kept.id, kept.price.cost_pico_usd, kept.reason) for kept in events_of(meter)
        ]

    def test_a_price_that_fails_leaves_a_row_without_a_cost(
        self, make_meter: Callable[..., Meter], caplog: pytest.LogCaptureFixture
    ) -> None:
        class Exploding(PriceOverride):
            def applies(self, *arguments: Any, **facts: Any) -> bool:
                raise ZeroDivisionError("boom")

        prices = (Exploding("gpt-5-mini", {"input": 1}),)
        meter = make_meter(config=Config(prices=prices, ack_timeout=SOON))
        meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)

        (kept,) = events_of(meter)
        assert kept.price.cost_pico_usd is None
        assert "boom" in str(kept.reason)
        assert "boom" in caplog.text

    def test_the_record_s_own_tags_win(self, make_meter: Callable[..., Meter]) -> None:
        meter = make_meter(tags={"environment": "test", "team": "a", "feature": "x"})
        with tag(team="b", feature="y"):
            event = meter.record(**CALL, tags={"feature": "z"})

        assert {"environment": "test", "team": "b", "feature": "z"} == event.tags

    def test_one_id_makes_one_row(self, meter: Meter) -> None:
        identifier = new_id()
        for cost in ("1", "2", "3"):
            meter.record(provider="openai", model="m", cost=cost, id=identifier)

        assert [10**12] == [event.price.cost_pico_usd for event in events_of(meter)]

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"provider": None}, "provider="),
            ({"provider": ""}, "provider="),
            ({"model": 5}, "model="),
            ({"cost": 0.1}, "cost is 0.1.*string or Decimal"),
            ({"cost": "ten"}, "cost is 'ten'"),
            ({"cost": "1e99"}, "cost is '1e99'"),
            ({"input_tokens": -1}, "input_tokens"),
            ({"input_tokens": 1.5}, "input_tokens"),
            ({"output_tokens": "many"}, "output_tokens"),
            ({"output_tokens": True}, "output_tokens"),
            ({"output_tokens": 2**63}, "output_tokens"),
            ({"input_tokens": 5, "cache_read_input_tokens": 6}, "exceed"),
            ({"output_tokens": 5, "reasoning_output_tokens": 6}, "exceed"),
            ({"detail": {"web_searches": -1}}, "web_searches"),
            ({"detail": 5}, "detail="),
            ({"tags": "tenant"}, "tags="),
            ({"operation": 5}, "operation="),
            ({"response_id": 5}, "response_id="),
            ({"latency_ms": -5}, "latency_ms"),
            ({"created_at": datetime(2026, 1, 1)}, "time zone"),
            ({"created_at": "today"}, "time zone"),
            ({"tokens": 5}, "no argument 'tokens'"),
        ],
        ids=str,
    )
    def test_what_cannot_be_recorded_is_refused_by_name(
        self, meter: Meter, changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            meter.record(**{**CALL, **changes})
        with pytest.raises(ConfigError, match=said):
            asyncio.run(meter.arecord(**{**CALL, **changes}))

        assert [] == events_of(meter)

    def test_a_task_records_without_blocking_its_loop(
        self, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = hold(meter, monkeypatch)

        async def run() -> int:
            calls = [asyncio.ensure_future(meter.arecord(**CALL)) for _ in range(50)]
            for _ in range(20):
                await asyncio.sleep(0)
            assert not any(call.done() for call in calls)
            gate.set()
            return len({event.id for event in await asyncio.gather(*calls)})

        assert 50 == asyncio.run(run()) == len(events_of(meter))
        assert 0 == meter.status().late

    def test_hundred_threads_record_at_once(self, meter: Meter) -> None:
        with ThreadPoolExecutor(100) as pool:
            recorded = list(pool.map(lambda n: meter.record(**CALL, tags={"n": n}), range(500)))

        assert {event.id for event in recorded} == {event.id for event in events_of(meter)}
        status = meter.status()
        assert (500, 0, 0) == (status.committed, status.waiting, status.late)


class TestDurability:
    @pytest.mark.parametrize("durability", ["commit", "process"])
    def test_record_waits_for_the_commit(
        self,
        make_meter: Callable[..., Meter],
        monkeypatch: pytest.MonkeyPatch,
        durability: Any,
    ) -> None:
        meter = make_meter(config=Config(durability=durability, ack_timeout=SOON))
        gate = hold(meter, monkeypatch)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(lambda: meter.record(**CALL))
            with pytest.raises(TimeoutError):
                call.result(0.05)
            gate.set()
            assert call.result(SOON).id

    def test_async_does_not_wait_and_says_what_waits(
        self, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = make_meter(config=Config(durability="async", ack_timeout=SOON, queue_size=3))
        gate = hold(meter, monkeypatch)
        started = time.monotonic()
        for _ in range(4):
            meter.record(**CALL)
        asyncio.run(meter.arecord(**CALL))

        assert SOON / 2 > time.monotonic() - started
        status = meter.status()
        assert (3, 2, 0, 0) == (status.waiting, status.dropped, status.late, status.committed)
        gate.set()
        assert 3 == len(events_of(meter))

    @pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError", "meter.close()"])
    def test_what_waits_when_the_app_ends_is_committed(
        self, store_url: str, tmp_path: Path, ending: str
    ) -> None:
        code = f"""
import sys
from costmw import Config, Meter
meter = Meter({store_url!r}, config=Config(durability="async"))
for n in range(2000):
    meter.record(provider="openai", model="m", cost=1)
{ending}
"""
        subprocess.run([sys.executable, "-c", code], timeout=60, stderr=subprocess.DEVNULL)

        with opened(tmp_path / "llmcost.db") as store:
            assert 2000 == len(stored(store))

    def test_what_is_lost_when_the_app_ends_is_said(self, tmp_path: Path) -> None:
        code = f"""
from costmw import Config, Meter
meter = Meter("sqlite:///{tmp_path}/none/llmcost.db", config=Config(ack_timeout=0.01))
meter.record(provider="openai", model="m", cost=1)
meter.record(provider="openai", model="m", cost=1)
"""
        ran = subprocess.run(
            [sys.executable, "-c", code], timeout=60, capture_output=True, text=True
        )

        assert 0 == ran.returncode
        assert "2 record(s) of costmw are lost as the process ends" in ran.stderr
        assert "No such file or directory" in ran.stderr


class TestStart:
    def test_making_a_meter_does_nothing(self, store_url: str, tmp_path: Path) -> None:
        threads = set(threading.enumerate())
        meter = Meter(store_url)

        assert [] == list(tmp_path.iterdir())
        assert set(threading.enumerate()) <= threads
        assert (False, 0, None) == (
            meter.status().started,
            meter.status().committed,
            meter.status().last_error,
        )
        meter.close()
        assert [] == list(tmp_path.iterdir())

    def test_starting_opens_the_store_once(
        self, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened_times: list[int] = []
        original = meter.store.open
        monkeypatch.setattr(meter.store, "open", lambda: (opened_times.append(1), original()))
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda _: meter.start(), range(50)))

        assert [1] == opened_times
        assert meter.started
        assert meter.status().started

    def test_the_first_call_opens_a_store_that_was_not_started(self, meter: Meter) -> None:
        meter.record(**CALL)
        assert 1 == len(events_of(meter))
        assert not meter.started

    def test_a_store_that_cannot_be_used_is_said_once_and_the_app_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        place = tmp_path / "later"
        meter = Meter(f"sqlite:///{place}/llmcost.db", config=Config(ack_timeout=0.01))
        with pytest.raises(StoreError, match=f"the directory {place} does not exist; make it"):
            meter.start()
        meter.start()
        assert "does not exist" in str(meter.status().last_error)

        for _ in range(3):
            meter.record(**CALL)
        status = meter.status()
        assert (3, 3, 0, 0) == (status.waiting, status.late, status.committed, status.dropped)
        assert "costmw cannot write to its store" in caplog.text

        place.mkdir()
        assert meter.flush(SOON)
        assert 3 == len(events_of(meter))
        assert (0, 3) == (meter.status().waiting, meter.status().committed)
        meter.close()

    def test_a_database_of_something_else_stays_as_it_was_whatever_is_recorded(
        self, tmp_path: Path
    ) -> None:
        import sqlite3

        path = tmp_path / "other.db"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE invoices (n)")
        connection.close()
        content = path.read_bytes()
        meter = Meter(f"sqlite:///{path}", config=Config(ack_timeout=0.05))
        with pytest.raises(StoreError, match="a database of something else"):
            meter.start()
        meter.record(**CALL)
        meter.close(timeout=0.05)

        assert content == path.read_bytes()
        assert 1 == meter.status().waiting

    def test_a_busy_store_is_no_reason_not_to_start(
        self, meter: Meter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def busy() -> None:
            raise StoreBusy("locked by another process")

        with monkeypatch.context() as locked:
            locked.setattr(meter.store, "open", busy)
            meter.start()

        assert ["costmw starts while its store is busy: locked by another process"] == [
            record.message for record in caplog.records
        ]
        meter.record(**CALL)
        assert 1 == len(events_of(meter))

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("mysql://user:s3cret@host/db", "store is a mysql: URL, which is not known"),
            ("llmcost.db", "use 'sqlite:///llmcost.db'"),
            ("sqlite://", "use 'sqlite:///llmcost.db' for a file in the working directory"),
        ],
    )
    def test_a_url_that_names_no_store_is_refused_at_once(self, url: str, said: str) -> None:
        with pytest.raises(ConfigError) as error:
            Meter(url)
        assert said in str(error.value)

    def test_a_store_can_be_given_as_an_object(self, store_url: str) -> None:
        store = SqliteStore(store_url, Config())
        meter = Meter(store, config=Config(ack_timeout=SOON))
        meter.record(**CALL)

        assert store is meter.store
        assert 1 == len(stored(store))
        meter.close()


class TestDisabled:
    @pytest.mark.parametrize("how", ["argument", "environment"])
    def test_a_meter_that_is_off_touches_nothing(
        self, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        if how == "environment":
            monkeypatch.setenv("COSTMW_ENABLED", "0")
        meter = Meter(store_url, enabled=how == "environment")
        meter.start()
        event = meter.record(**CALL)
        again = asyncio.run(meter.arecord(**CALL))

        assert 10**10 == event.price.cost_pico_usd == again.price.cost_pico_usd
        assert meter.flush(0)
        meter.close()
        assert [] == list(tmp_path.iterdir())
        assert (False, 0, 0) == (
            meter.status().started,
            meter.status().committed,
            meter.status().waiting,
        )


class TestFlushAndClose:
    def test_flush_waits_until_all_is_committed(
        self, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = make_meter(config=Config(durability="async"))
        gate = hold(meter, monkeypatch)
        for _ in range(5):
            meter.record(**CALL)

        assert not meter.flush(0.01)
        with ThreadPoolExecutor(1) as pool:
            flushed = pool.submit(meter.flush, SOON)
            with pytest.raises(TimeoutError):
                flushed.result(0.02)
            gate.set()
            assert flushed.result(SOON) is True
        assert 5 == meter.status().committed
        assert meter.flush(None)

    def test_flush_says_when_a_store_does_not_take_it(
        self, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = make_meter(config=Config(ack_timeout=0.01))
        with monkeypatch.context() as full:
            refuse(meter, full)
            meter.record(**CALL)
            assert not meter.flush(0.05)
        assert meter.flush(SOON)
        assert 1 == len(events_of(meter))

    def test_a_closed_meter_can_be_used_again(self, meter: Meter) -> None:
        for n in range(3):
            meter.record(**CALL)
            meter.close()
            assert n + 1 == len(meter.reports.calls())
        assert 3 == meter.status().committed

    def test_closing_with_events_that_cannot_be_committed_says_so_in_time(
        self,
        make_meter: Callable[..., Meter],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        meter = make_meter(config=Config(ack_timeout=0.01))
        with monkeypatch.context() as full:
            refuse(meter, full)
            meter.record(**CALL)
            caplog.clear()
            started = time.monotonic()
            meter.close(timeout=1)
            assert SOON > time.monotonic() - started
        assert "costmw closes with 1 event(s) not committed: the disk is full" in [
            record.message for record in caplog.records
        ]
        assert 1 == meter.status().waiting
        meter.close()
        assert (0, 1) == (meter.status().waiting, len(events_of(meter)))

    def test_closing_before_anything_was_recorded_is_fine(
        self, meter: Meter, caplog: pytest.LogCaptureFixture
    ) -> None:
        meter.close()
        meter.start()
        meter.close()
        assert [] == [r for r in caplog.records if r.levelno >= logging.WARNING]


class TestStatus:
    def test_the_status_counts_what_happened_here(
        self, make_meter: Callable[..., Meter], monkeypatch: pytest.MonkeyPatch, store_url: str
    ) -> None:
        meter = make_meter(config=Config(ack_timeout=0.02, queue_size=2))
        meter.start()
        meter.store.write([])
        with monkeypatch.context() as full:
            refuse(meter, full)
            for _ in range(3):
                meter.record(**CALL)
            status = meter.status()
        assert (store_url, True, 0, 2, 3, 1, 0, 0) == (
            status.store,
            status.started,
            status.committed,
            status.waiting,
            status.late,
            status.dropped,
            status.rejected,
            status.faults,
        )
        assert 0 < status.store_failures
        assert "the disk is full" == status.last_error

        assert meter.flush(SOON)
        assert (2, 0, 1) == (
            meter.status().committed,
            meter.status().waiting,
            meter.status().dropped,
        )

    def test_a_record_that_cannot_be_stored_is_counted(self, meter: Meter) -> None:
        from rows import an_event

        meter._writer.submit(an_event(2**63))
        meter.record(**CALL)

        assert meter.flush(SOON)
        assert 1 == len(events_of(meter))
        assert (1, 1) == (meter.status().rejected, meter.status().committed)
        assert "too large" in str(meter.status().last_error)

    def test_faults_are_said_less_and_less_often(
        self, meter: Meter, caplog: pytest.LogCaptureFixture
    ) -> None:
        for n in range(100):
            meter.fault(ValueError(str(n)), "a test")

        assert (100, "a test: ValueError: 99") == (
            meter.status().faults,
            meter.status().last_error,
        )
        assert [1, 2, 4, 8, 16, 32, 64] == [
            int(record.message.split("(")[1].split()[0]) for record in caplog.records
        ]
