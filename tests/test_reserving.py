"""Calls under blocking budgets: held before they are sent, settled after, or refused.

The provider's own count says how many were sent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from conftest import events_of, outcomes_of
from costmw import Budget, BudgetExceeded, Config, Meter, bind, tag
from costmw.caps.book import Balance
from costmw.context import Scope, enter_scope
from costmw.errors import ConfigError, StoreError
from costmw.events import Reservation
from costmw.price_overrides import PriceOverride
from costmw.store.holds import EXPIRED
from costmw.testing import FakeProvider, Reply
from test_later_results import ANTHROPIC, OPENAI, USAGE, Answers, answers, response
from test_later_results import COST as LATER_COST

__all__ = ["answers"]

PRICE = PriceOverride("own", {"input": "1", "output": "1"})
"""A token costs a millionth of a USD, whichever way it goes."""

TOKENS = 1_000
"""Tokens that an answer may have."""

USED = Reply(usage={"prompt_tokens": 100, "completion_tokens": 900, "total_tokens": 1_000})
COST = Decimal("0.001")
ROOM_FOR_ONE = Decimal("0.0018")
"""A call of these costs 1,000 tokens and is held at 1,000 and the bytes of its request."""

PATIENT = Config(ack_timeout=30, prices=(PRICE,))


def a_cap(limit: Decimal | str = ROOM_FOR_ONE, **settings: Any) -> Budget:
    return Budget("cap", limit=limit, **{"period": "total", "action": "block", **settings})


@pytest.fixture
def capped(make_meter: Callable[..., Meter], provider: FakeProvider) -> Callable[..., Meter]:
    """Makes meters with one budget."""
    provider.default = USED

    def make(limit: Decimal | str = ROOM_FOR_ONE, *, config: Config = PATIENT, **how: Any) -> Meter:
        return make_meter(budgets=[a_cap(limit, **how)], config=config)

    return make


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    """A chat call whose answer is limited."""
    request = {
        "model": "own",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_completion_tokens": TOKENS,
        **changes,
    }
    return client.chat.completions.create(**{k: v for k, v in request.items() if v is not None})


@contextmanager
def client_of(meter: Meter, provider: FakeProvider, **options: Any) -> Iterator[openai.OpenAI]:
    options = {"max_retries": 0, **options}
    with openai.OpenAI(base_url=provider.openai_url, api_key="k", **options) as client:
        yield meter.instrument(client, provider="openai")


def balance(meter: Meter, **tags: str) -> Balance:
    """What the budget has, once all is committed; it agrees with the ledger."""
    assert meter.flush(30)
    assert [] == list(meter.store.verify_balances())  # type: ignore[attr-defined]
    with meter.store.snapshot() as snapshot:
        uses = snapshot.limits(tags, datetime.now(UTC))
    return uses[0].balance if uses else Balance()


@contextmanager
def request_scope(meter: Meter, *tags: Any) -> Iterator[None]:
    """A web request, as a middleware makes one."""
    before = enter_scope(Scope(meter, tags))
    try:
        yield
    finally:
        enter_scope(before)


def pico(usd: Decimal) -> int:
    return int(usd * 10**12)


class TestOneCall:
    def test_it_is_held_while_it_is_in_flight_and_settled_by_its_row(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        held: list[Balance] = []
        provider.responder = lambda _: held.append(balance(meter))  # type: ignore[func-returns-value]
        with client_of(meter, provider) as client:
            ask(client)
        assert (0, 0) == (held[0].spent, held[0].assumed)
        assert pico(COST) < held[0].held <= pico(ROOM_FOR_ONE)
        assert Balance(spent=pico(COST)) == balance(meter)

    def test_one_that_does_not_fit_is_not_sent(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("0.001", per="tenant")
        with client_of(meter, provider) as client, tag(tenant="acme"):
            with pytest.raises(BudgetExceeded) as refusal:
                ask(client)
        error = refusal.value
        assert ("cap", {"tenant": "acme"}) == (error.budget, error.scope)
        assert (Decimal("0.001"), 0, 0) == (error.limit, error.spent, error.held)
        assert error.asked is not None
        assert COST < error.asked <= ROOM_FOR_ONE
        assert error.resets_at is None
        assert str(error).startswith("budget 'cap' tenant=acme has 0.001 of 0.001 USD left; this")
        assert 0 == len(provider.requests)
        assert [] == events_of(meter)
        assert {"refused": 1} == outcomes_of(meter)
        assert Balance() == balance(meter, tenant="acme")

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_an_error_gives_it_back(
        self, status: int, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        provider.reply(Reply(status=status))
        with client_of(meter, provider) as client:
            with pytest.raises(openai.APIStatusError):
                ask(client)
            assert Balance() == balance(meter)
            ask(client)

    def test_each_attempt_is_held_for_itself(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        provider.reply(Reply(status=429, headers={"retry-after-ms": "1"}))
        with client_of(meter, provider, max_retries=1) as client:
            ask(client)
        assert Balance(spent=pico(COST)) == balance(meter)

    def test_a_server_that_cannot_be_reached_gives_it_back(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        with client_of(meter, provider) as client:
            client.base_url = "http://127.0.0.1:9/v1"  # type: ignore[assignment]
            with pytest.raises(openai.APIConnectionError):
                ask(client)
        assert Balance() == balance(meter)

    def test_an_answer_that_breaks_off_is_charged_in_full(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        provider.reply(Reply(abort_after=0))
        with client_of(meter, provider) as client, pytest.raises(openai.APIConnectionError):
            ask(client)
        found = balance(meter)
        assert (0, 0) == (found.spent, found.held)
        assert found.assumed > pico(COST)
        assert ["incomplete"] == [event.status for event in events_of(meter)]

    def test_a_stream_is_held_until_it_ends(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        with client_of(meter, provider) as client:
            stream = ask(client, stream=True)
            assert 0 < balance(meter).held
            for _ in stream:
                pass
            assert Balance(spent=pico(COST)) == balance(meter)

    def test_a_stream_that_is_dropped_is_charged(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped()
        with client_of(meter, provider) as client:
            stream = ask(client, stream=True)
            next(iter(stream))
            stream.close()
        found = balance(meter)
        assert 0 == found.held
        assert found.assumed > pico(COST)

    def test_more_than_was_held_is_charged_and_said(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("1")
        provider.default = Reply(
            usage={"prompt_tokens": 100, "completion_tokens": 90_000, "total_tokens": 90_100}
        )
        with client_of(meter, provider) as client:
            ask(client)
        assert pico(Decimal("0.0901")) == balance(meter).spent
        (event,) = events_of(meter)
        assert "ok" == event.status
        assert event.reason is not None
        assert event.reason.startswith("overrun: it cost more than the 0.0011")

    def test_calls_that_are_in_no_budget_cost_nothing_more(
        self, make_meter: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = make_meter(budgets=[a_cap(where={"tenant": "acme"})], config=PATIENT)
        provider.default = USED
        with client_of(meter, provider) as client:
            ask(client)
        assert meter.flush(30)
        assert 1 == meter.status().committed

    def test_what_bills_nothing_is_not_held(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("0")
        with client_of(meter, provider) as client:
            client.models.list()
        assert Balance() == balance(meter)


class TestWaiting:
    def test_a_call_waits_for_others_to_give_back(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(COST + ROOM_FOR_ONE, wait=30)
        provider.default = Reply(usage=USED.usage, delay=0.2)
        with client_of(meter, provider) as client, ThreadPoolExecutor(2) as callers:
            for asked in [callers.submit(ask, client) for _ in range(2)]:
                asked.result()
        assert 2 == len(provider.requests)
        assert Balance(spent=2 * pico(COST)) == balance(meter)

    def test_a_task_waits_without_stopping_the_loop(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(COST + ROOM_FOR_ONE, wait=30)
        provider.default = Reply(usage=USED.usage, delay=0.3)

        async def main() -> int:
            turns = 0
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
                meter.instrument(client, provider="openai")
                both = asyncio.gather(*[ask(client) for _ in range(2)])  # type: ignore[arg-type]
                while not both.done():
                    await asyncio.sleep(0.01)
                    turns += 1
                await both
            return turns

        assert asyncio.run(main()) >= 20
        assert Balance(spent=2 * pico(COST)) == balance(meter)

    def test_not_for_longer_than_the_budget_says(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(wait=0.2)
        provider.default = Reply(usage=USED.usage, delay=2)
        with client_of(meter, provider) as client, ThreadPoolExecutor(1) as callers:
            first = callers.submit(ask, client)
            while not provider.requests:
                time.sleep(0.01)
            began = time.monotonic()
            with pytest.raises(BudgetExceeded, match="are held by calls in flight") as refusal:
                ask(client)
            assert 0.2 <= time.monotonic() - began < 1.5
            assert refusal.value.held > 0
            first.result()
        assert 1 == len(provider.requests)

    def test_not_at_all_for_what_can_never_fit(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("0.001", wait=60)
        began = time.monotonic()
        with client_of(meter, provider) as client, pytest.raises(BudgetExceeded):
            ask(client)
        assert time.monotonic() - began < 30

    def test_a_task_that_is_cancelled_while_it_waits_leaves_nothing_behind(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(wait=30)
        provider.default = Reply(usage=USED.usage, delay=1)

        async def main() -> None:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
                meter.instrument(client, provider="openai")
                first = asyncio.create_task(ask(client))  # type: ignore[arg-type]
                while not provider.requests:  # noqa: ASYNC110 - it is another thread's
                    await asyncio.sleep(0.01)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ask(client), 0.2)  # type: ignore[arg-type]
                await first

        asyncio.run(main())
        assert 1 == len(provider.requests)
        assert Balance(spent=pico(COST)) == balance(meter)

    def test_nor_one_that_is_cancelled_while_the_ledger_is_asked(
        self,
        capped: Callable[..., Meter],
        provider: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        meter = capped()
        meter.start()
        write = meter.store.write

        def slowly(records: Any) -> Any:
            time.sleep(0.3)
            return write(records)

        async def main() -> None:
            async with openai.AsyncOpenAI(base_url=provider.openai_url, api_key="k") as client:
                meter.instrument(client, provider="openai")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ask(client), 0.1)  # type: ignore[arg-type]

        with monkeypatch.context() as slow:
            slow.setattr(meter.store, "write", slowly)
            asyncio.run(main())
        assert 0 == len(provider.requests)
        assert Balance() == balance(meter)


class TestStoreAway:
    def broken(self, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(meter.store, "write", fail)

    def test_calls_are_refused(
        self,
        capped: Callable[..., Meter],
        provider: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        meter = capped(config=Config(ack_timeout=0.2, prices=(PRICE,)))
        with client_of(meter, provider) as client, monkeypatch.context() as away:
            self.broken(meter, away)
            with pytest.raises(BudgetExceeded, match="the ledger did not answer in time"):
                ask(client)
        assert 0 == len(provider.requests)
        assert Balance() == balance(meter)

    def test_or_pass_where_the_budget_says_so(
        self,
        capped: Callable[..., Meter],
        provider: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        meter = capped(config=Config(ack_timeout=0.2, prices=(PRICE,)), fail="open")
        with client_of(meter, provider) as client, monkeypatch.context() as away:
            self.broken(meter, away)
            ask(client)
        assert Balance(spent=pico(COST)) == balance(meter)

    def test_a_hold_that_cannot_be_stored_is_none(
        self,
        capped: Callable[..., Meter],
        provider: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        meter = capped()
        write = meter.store.write

        def write_rows(records: Any) -> Any:
            if any(isinstance(record, Reservation) for record in records):
                raise ValueError("it cannot be stored")
            return write(records)

        monkeypatch.setattr(meter.store, "write", write_rows)
        with client_of(meter, provider) as client:
            with pytest.raises(BudgetExceeded, match="did not answer .it cannot be stored."):
                ask(client)
        assert 0 == len(provider.requests)

    def test_a_fault_of_ours_refuses_too(
        self,
        capped: Callable[..., Meter],
        provider: FakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        meter = capped()
        monkeypatch.setattr(meter._reserver, "_bounds", None)
        with client_of(meter, provider) as client, pytest.raises(BudgetExceeded):
            ask(client)
        assert 0 == len(provider.requests)
        assert 1 == meter.status().faults


class TestTags:
    def test_a_tag_that_is_missing_is_no_way_round(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(per="tenant")
        with client_of(meter, provider) as client:
            ask(client)
            with pytest.raises(BudgetExceeded) as refusal:
                ask(client)
            assert {"tenant": "(missing)"} == refusal.value.scope
            with tag(tenant="acme"):
                ask(client)

    def test_nor_is_a_callable_that_raises(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("0", per="tenant")

        def tags(_: object) -> Mapping[str, object]:
            raise LookupError("no such user")

        with client_of(meter, provider) as client, request_scope(meter, tags):
            with pytest.raises(BudgetExceeded) as refusal:
                ask(client)
        assert {"tenant": "(missing)"} == refusal.value.scope

    def test_a_tag_that_changes_meanwhile_changes_nothing(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("1", per="user")
        with client_of(meter, provider) as client, request_scope(meter):
            bind(user="ann")
            stream = ask(client, stream=True)
            bind(user="bob")
            list(stream)
        assert Balance(spent=pico(COST)) == balance(meter, user="ann")
        assert Balance() == balance(meter, user="bob")


class TestOutputLimits:
    def test_a_budget_limits_answers_of_calls_that_do_not(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(max_output_tokens=TOKENS)
        with client_of(meter, provider) as client:
            ask(client, max_completion_tokens=None)
            assert TOKENS == provider.requests[-1].json["max_completion_tokens"]
        assert Balance(spent=pico(COST)) == balance(meter)

    def test_a_limit_of_the_calls_own_is_left_as_it_is(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(max_output_tokens=1)
        with client_of(meter, provider) as client:
            ask(client)
            assert TOKENS == provider.requests[-1].json["max_completion_tokens"]

    def test_without_any_the_most_is_held_and_said_once(
        self,
        make_meter: Callable[..., Meter],
        provider: FakeProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        meter = make_meter(budgets=[a_cap("10")])
        with caplog.at_level(logging.WARNING, "costmw"), client_of(meter, provider) as client:
            for _ in range(3):
                ask(client, model="gpt-5-mini", max_completion_tokens=None)
        said = [r.getMessage() for r in caplog.records if "a budget holds" in r.getMessage()]
        assert 1 == len(said)
        assert "max_output_tokens" in said[0]


class TestNoPrice:
    def test_the_dearest_price_is_held_and_charged(
        self, make_meter: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = make_meter(budgets=[a_cap("100")])
        with client_of(meter, provider) as client:
            ask(client, model="of-tomorrow")
        found = balance(meter)
        assert (0, 0) == (found.spent, found.held)
        assert found.assumed > 0
        assert [None] == [event.price.cost_pico_usd for event in events_of(meter)]

    def test_or_nothing(self, make_meter: Callable[..., Meter], provider: FakeProvider) -> None:
        meter = make_meter(budgets=[a_cap("0", on_unpriced="allow")])
        with client_of(meter, provider) as client:
            ask(client, model="of-tomorrow")
        assert Balance() == balance(meter)

    def test_or_it_is_refused_and_said_once(
        self,
        make_meter: Callable[..., Meter],
        provider: FakeProvider,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        meter = make_meter(budgets=[a_cap("100", on_unpriced="block")])
        with client_of(meter, provider) as client:
            for _ in range(2):
                with pytest.raises(BudgetExceeded, match="takes no model without") as refusal:
                    ask(client, model="of-tomorrow")
        said = [r.getMessage() for r in caplog.records if "refuses calls" in r.getMessage()]
        assert [f"costmw refuses calls: {refusal.value}"] == said
        assert refusal.value.asked is None
        assert 0 == len(provider.requests)


class TestLater:
    """Results that come later are held for until they are read."""

    def test_a_background_response(
        self, make_meter: Callable[..., Meter], answers: Answers
    ) -> None:
        meter = make_meter(budgets=[a_cap("10")])
        answers.answers["POST", "/v1/responses"] = response("queued")
        answers.answers["GET", "/v1/responses/resp_1"] = response("completed", usage=USAGE)
        request = {"model": "gpt-5-mini", "background": True, "max_output_tokens": TOKENS}
        with meter.instrument(httpx2.Client(transport=answers)) as client:
            client.post(f"{OPENAI}/responses", json=request)
            assert 0 < balance(meter).held
            for _ in range(2):
                client.get(f"{OPENAI}/responses/resp_1")
        assert Balance(spent=LATER_COST) == balance(meter)

    def test_a_batch(self, make_meter: Callable[..., Meter], answers: Answers) -> None:
        meter = make_meter(budgets=[a_cap("10")])
        path = "/v1/messages/batches"
        answers.answers["POST", path] = {
            "id": "msgbatch_1",
            "type": "message_batch",
            "processing_status": "in_progress",
        }
        message = {"id": "msg_1", "model": "claude-haiku-4-5", "usage": USAGE}
        line = {"custom_id": "a", "result": {"type": "succeeded", "message": message}}
        answers.answers["GET", f"{path}/msgbatch_1/results"] = httpx2.Response(
            200, content=json.dumps(line), headers={"content-type": "application/x-jsonl"}
        )
        params = {"model": "claude-haiku-4-5", "max_tokens": TOKENS, "messages": []}
        requests = [{"custom_id": name, "params": params} for name in "ab"]
        with meter.instrument(httpx2.Client(transport=answers)) as client:
            client.post(f"{ANTHROPIC}/messages/batches", json={"requests": requests})
            assert 0 < balance(meter).held
            client.get(f"{ANTHROPIC}/messages/batches/msgbatch_1/results")
        found = balance(meter)
        assert (0, 0) == (found.held, found.assumed)
        assert found.spent > 0

    def test_a_batch_that_nothing_bounds_is_refused(
        self, make_meter: Callable[..., Meter], answers: Answers
    ) -> None:
        meter = make_meter(budgets=[a_cap("10")])
        with (
            meter.instrument(httpx2.Client(transport=answers)) as client,
            pytest.raises(BudgetExceeded, match="nothing bounds that.*on_unpriced='allow'"),
        ):
            client.post(f"{OPENAI}/batches", json={"input_file_id": "file_1"})

    def test_unless_the_budget_lets_it_pass(
        self, make_meter: Callable[..., Meter], answers: Answers
    ) -> None:
        meter = make_meter(budgets=[a_cap("10", on_unpriced="allow")])
        answers.answers["POST", "/v1/batches"] = {"id": "batch_1", "object": "batch"}
        with meter.instrument(httpx2.Client(transport=answers)) as client:
            client.post(f"{OPENAI}/batches", json={"input_file_id": "file_1"})
        assert Balance() == balance(meter)


class TestExpiry:
    def test_calls_in_flight_keep_their_hold(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped(config=Config(ack_timeout=30, hold_ttl=0.6, prices=(PRICE,)))
        provider.default = Reply(usage=USED.usage, delay=2.5)
        with client_of(meter, provider) as client:
            ask(client)
        assert Balance(spent=pico(COST)) == balance(meter)
        assert [("ok", 0)] == [(event.status, event.amendments) for event in events_of(meter)]

    def test_what_a_killed_process_held_is_charged(
        self, capped: Callable[..., Meter], provider: FakeProvider, store_url: str
    ) -> None:
        provider.default = Reply(usage=USED.usage, delay=5)
        script = f"""
import openai
from costmw import Config, Meter
from test_reserving import PRICE, a_cap, ask
meter = Meter({store_url!r}, budgets=[a_cap()], config=Config(hold_ttl=1, prices=(PRICE,)))
client = meter.instrument(
    openai.OpenAI(base_url={provider.openai_url!r}, api_key="k"), provider="openai"
)
ask(client)
"""
        victim = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
        while not provider.requests:
            assert victim.poll() is None
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        killed_at = time.monotonic()
        meter = capped(config=Config(ack_timeout=30, hold_ttl=1, prices=(PRICE,)))
        meter.start()
        while not events_of(meter):
            assert time.monotonic() - killed_at < 10
            time.sleep(0.05)
        (event,) = events_of(meter)
        assert ("incomplete", EXPIRED, None) == (
            event.status,
            event.reason,
            event.price.cost_pico_usd,
        )
        found = balance(meter)
        assert (0, 0) == (found.spent, found.held)
        assert found.assumed > pico(COST)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    def test_a_forked_child_leaves_the_parents_calls_alone(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("1")
        with client_of(meter, provider) as client:
            stream = ask(client, stream=True)
            child = os.fork()
            if not child:
                os._exit(len(meter._reserver._in_flight))
            assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            list(stream)
        assert Balance(spent=pico(COST)) == balance(meter)


class TestBefore:
    def test_an_app_can_ask_what_is_left(
        self, capped: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        meter = capped("0.01", per="tenant")
        with client_of(meter, provider) as client, tag(tenant="acme"):
            ask(client)
            assert meter.flush(30)
            assert Decimal("0.009") == meter.remaining()
            assert Decimal("0.01") == meter.remaining(tenant="other")
            assert not meter.would_exceed("0.009")
            assert meter.would_exceed("0.009000000001")
            (found,) = meter.allowances()
            assert ("cap", {"tenant": "acme"}, Decimal("0.001")) == (
                found.budget,
                found.scope,
                found.spent,
            )
            assert 8_000 == meter.affordable_tokens("own", provider="openai", input_tokens=1_000)
            assert 0 == meter.affordable_tokens("own", provider="openai", input_tokens=10_000)

    def test_nothing_bars_a_call_without_budgets(self, meter: Meter) -> None:
        meter.start()
        assert meter.remaining() is None
        assert [] == meter.allowances()
        assert not meter.would_exceed("1000000")
        assert meter.affordable_tokens("gpt-5-mini") is None


class TestPage:
    def test_a_budget_that_is_made_meanwhile_bars_calls_of_all_meters(
        self, make_meter: Callable[..., Meter], provider: FakeProvider
    ) -> None:
        provider.default = USED
        meter, other = make_meter(config=PATIENT), make_meter(config=PATIENT)
        meter.start()
        with client_of(meter, provider) as client:
            ask(client)
            other.keep_budget(a_cap("0.0011"))
            ask(client)  # whose row makes this process learn of it
            with pytest.raises(BudgetExceeded) as refusal:
                ask(client)
            assert Decimal("0.002") == refusal.value.spent
            other.drop_budget("cap")
            meter.record(provider="openai", model="own", input_tokens=1, output_tokens=1)
            ask(client)

    def test_code_wins(
        self, capped: Callable[..., Meter], make_meter: Callable[..., Meter]
    ) -> None:
        meter = capped()
        for change in (lambda: meter.keep_budget(a_cap()), lambda: meter.drop_budget("cap")):
            with pytest.raises(ConfigError, match="is set in the app's code"):
                change()
        meter.record(provider="openai", model="own", input_tokens=1, output_tokens=1)
        with pytest.raises(ConfigError, match="is set in the app's code"):
            make_meter().keep_budget(a_cap("99"))


def test_many_callers_and_one_cap(capped: Callable[..., Meter], provider: FakeProvider) -> None:
    """Of fifty at once ten fit, by what they cost: nine are served, since each is held for more."""
    meter = capped(COST * 10, wait=30)
    provider.default = Reply(usage=USED.usage, delay=0.05)
    barrier = threading.Barrier(50)

    def call(client: openai.OpenAI) -> bool:
        barrier.wait()
        try:
            ask(client)
        except BudgetExceeded:
            return False
        return True

    with client_of(meter, provider) as client, ThreadPoolExecutor(50) as callers:
        served = sum(callers.map(call, [client] * 50))
    assert 9 == served == len(provider.requests)
    assert Balance(spent=9 * pico(COST)) == balance(meter)
