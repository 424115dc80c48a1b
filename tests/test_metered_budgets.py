"""Functions that are calls themselves: held while they run, and not run without room."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from conftest import events_of, outcomes_of
from costmw import Budget, BudgetExceeded, Meter, bind, metered
from costmw.context import Scope, enter_scope
from costmw.errors import ConfigError
from costmw.testing import FakeProvider
from test_sdk_matrix import HELLO

Made = Callable[..., Meter]


def priced_at(usd: str) -> Callable[[Any], Any]:
    return lambda result: {"provider": "own", "model": "m", "cost": usd}


@pytest.fixture
def capped(make_meter: Made) -> Callable[[str], Meter]:
    """Makes a meter whose one budget has this limit in USD, and refuses at once."""

    def make(limit: str) -> Meter:
        cap = Budget("cap", limit=limit, per="feature", action="block", wait=0)
        return make_meter(budgets=[cap])

    return make


Work = Callable[[], None]
"""What a function does while it runs."""


def plain(work: Work) -> Any:
    def function() -> str:
        work()
        return "done"

    return function


def coroutine(work: Work) -> Any:
    async def function() -> str:
        work()
        return "done"

    return function


def generator(work: Work) -> Any:
    def function() -> Iterator[str]:
        yield "begun"
        work()
        yield "done"

    return function


def async_generator(work: Work) -> Any:
    async def function() -> AsyncIterator[str]:
        yield "begun"
        work()
        yield "done"

    return function


def returns_a_coroutine(work: Work) -> Any:
    inner = coroutine(work)
    return lambda: inner()


def returns_a_generator(work: Work) -> Any:
    inner = generator(work)
    return lambda: inner()


def returns_an_async_generator(work: Work) -> Any:
    inner = async_generator(work)
    return lambda: inner()


KINDS = [
    plain,
    coroutine,
    generator,
    async_generator,
    returns_a_coroutine,
    returns_a_generator,
    returns_an_async_generator,
]


def run(function: Callable[[], Any]) -> Any:
    """What it gives at last, whatever its kind."""

    async def finish() -> Any:
        result = function()
        if inspect.isawaitable(result):
            return await result
        if inspect.isgenerator(result):
            return list(result)[-1]
        if inspect.isasyncgen(result):
            return [item async for item in result][-1]
        return result

    return asyncio.run(finish())


def fits(meter: Meter, usd: str) -> bool:
    """Whether a run that may cost so much may begin now."""
    nothing = meter.metered(usage=lambda result: None, max_cost_usd=usd, feature="f")
    try:
        nothing(lambda: None)()
    except BudgetExceeded:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
class TestEachKind:
    def test_it_is_held_while_it_runs_and_charged_afterwards(
        self, kind: Any, capped: Callable[[str], Meter]
    ) -> None:
        meter = capped("0.10")
        seen: list[tuple[bool, bool]] = []
        mark = meter.metered(usage=priced_at("0.01"), max_cost_usd="0.06", feature="f")
        before = datetime.now(UTC)
        function = mark(kind(lambda: seen.append((fits(meter, "0.04"), fits(meter, "0.05")))))
        assert "done" == run(function)
        assert [(True, False)] == seen
        assert (True, False) == (fits(meter, "0.09"), fits(meter, "0.10"))
        (event,) = events_of(meter)
        assert (10**10, {"feature": "f"}) == (event.price.cost_pico_usd, dict(event.tags))
        assert before <= event.created_at <= datetime.now(UTC)

    def test_it_does_not_run_without_room(self, kind: Any, capped: Callable[[str], Meter]) -> None:
        meter = capped("0.05")
        ran: list[None] = []
        mark = meter.metered(usage=priced_at("0.01"), max_cost_usd="0.06", feature="f")
        with pytest.raises(BudgetExceeded) as caught:
            run(mark(kind(lambda: ran.append(None))))
        assert ("cap", {"feature": "f"}, Decimal("0.06"), Decimal("0.05")) == (
            caught.value.budget,
            caught.value.scope,
            caught.value.asked,
            caught.value.limit,
        )
        assert ([], [], {"refused": 1}) == (ran, events_of(meter), outcomes_of(meter))

    def test_one_that_fails_gives_it_back(self, kind: Any, capped: Callable[[str], Meter]) -> None:
        meter = capped("0.10")

        def fail() -> None:
            raise KeyError("bug")

        with pytest.raises(KeyError):
            run(meter.metered(usage=priced_at("0.01"), max_cost_usd="0.1", feature="f")(kind(fail)))
        assert fits(meter, "0.1")
        assert ([], 0) == (events_of(meter), meter.status().faults)

    def test_one_of_which_nobody_knows_what_it_cost_is_charged_in_full(
        self, kind: Any, capped: Callable[[str], Meter]
    ) -> None:
        meter = capped("0.10")

        def unreadable(result: Any) -> Any:
            raise KeyError("no usage")

        mark = meter.metered(usage=unreadable, max_cost_usd="0.1", feature="f")
        assert "done" == run(mark(kind(lambda: None)))
        assert not fits(meter, "0.01")
        assert (["unmetered"], 1) == ([e.status for e in events_of(meter)], meter.status().faults)

    def test_one_that_billed_nothing_gives_it_back(
        self, kind: Any, capped: Callable[[str], Meter]
    ) -> None:
        meter = capped("0.10")
        mark = meter.metered(usage=lambda result: None, max_cost_usd="0.1", feature="f")
        assert "done" == run(mark(kind(lambda: None)))
        assert fits(meter, "0.1")

    def test_without_an_amount_only_a_budget_that_is_used_up_refuses(
        self, kind: Any, capped: Callable[[str], Meter]
    ) -> None:
        meter = capped("0.10")
        function = meter.metered(usage=priced_at("0.05"), feature="f")(kind(lambda: None))
        assert ["done", "done"] == [run(function), run(function)]
        with pytest.raises(
            BudgetExceeded, match="has 0.00 of 0.10 USD left.*beyond that"
        ) as caught:
            run(function)
        assert (None, Decimal("0.10")) == (caught.value.asked, caught.value.spent)
        assert 2 == len(events_of(meter))


def test_a_stream_that_is_left_early_gives_it_back(capped: Callable[[str], Meter]) -> None:
    meter = capped("0.10")
    mark = meter.metered(usage=priced_at("0.01"), max_cost_usd="0.1", feature="f")
    steps = mark(generator(lambda: None))()
    next(steps)
    assert not fits(meter, "0.1")
    steps.close()
    assert fits(meter, "0.1")

    async def leave() -> None:
        steps = mark(async_generator(lambda: None))()
        await anext(steps)
        assert not fits(meter, "0.1")
        await steps.aclose()

    asyncio.run(leave())
    assert fits(meter, "0.1")


def test_a_stream_that_is_not_begun_holds_nothing(capped: Callable[[str], Meter]) -> None:
    meter = capped("0.10")
    mark = meter.metered(usage=priced_at("0.01"), max_cost_usd="0.1", feature="f")
    steps = mark(generator(lambda: None))()
    assert fits(meter, "0.1")
    steps.close()


def test_a_call_of_a_client_below_is_the_row_and_the_hold_of_the_function_ends(
    capped: Callable[[str], Meter], provider: FakeProvider
) -> None:
    meter = capped("5")
    url = f"{provider.openai_url}/chat/completions"
    with meter.instrument(httpx.Client(), provider="openai") as client:
        mark = meter.metered(usage=priced_at("0.01"), max_cost_usd="4", feature="f")
        mark(lambda: client.post(url, json={"model": "gpt-5-mini", "messages": HELLO}))()
    (event,) = events_of(meter)
    assert "gpt-5-mini" == event.request_model
    assert fits(meter, "4")


def test_a_function_inside_of_another_is_the_row(capped: Callable[[str], Meter]) -> None:
    meter = capped("1")
    inner = meter.metered(usage=priced_at("0.25"), max_cost_usd="0.3", feature="f")(lambda: 1)
    outer = meter.metered(usage=priced_at("0.5"), max_cost_usd="0.6", feature="f")(lambda: inner())
    outer()
    assert [25 * 10**10] == [event.price.cost_pico_usd for event in events_of(meter)]
    assert (True, False) == (fits(meter, "0.75"), fits(meter, "0.76"))


def test_an_id_of_its_own_settles_what_is_held(capped: Callable[[str], Meter]) -> None:
    from costmw.events import new_id

    meter, own = capped("1"), new_id()
    mark = meter.metered(
        usage=lambda result: {"provider": "own", "model": "m", "cost": "0.5", "id": own},
        max_cost_usd="1",
        feature="f",
    )
    mark(lambda: None)()
    assert [own] == [event.id for event in events_of(meter)]
    assert (True, False) == (fits(meter, "0.5"), fits(meter, "0.51"))


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ([], {"feature": "f", "user": "late"}),
        ([Budget("cap", limit="9", action="block")], {"feature": "f"}),
    ],
    ids=["no budget", "a budget"],
)
def test_what_was_held_by_some_tags_is_charged_by_them(
    budgets: list[Budget], expected: dict[str, str], make_meter: Made
) -> None:
    meter = make_meter(budgets=budgets)
    before = enter_scope(Scope(meter))
    try:
        mark = meter.metered(usage=priced_at("1"), feature="f")
        mark(lambda: bind(user="late"))()
    finally:
        enter_scope(before)
    assert [expected] == [dict(event.tags) for event in events_of(meter)]


def test_a_function_without_usage_is_no_call(capped: Callable[[str], Meter]) -> None:
    meter = capped("0")
    assert 7 == meter.metered(feature="f")(lambda: 7)()
    assert {} == outcomes_of(meter)


def test_a_meter_that_is_off_holds_nothing(make_meter: Made) -> None:
    meter = make_meter(budgets=[Budget("cap", limit="0", action="block")], enabled=False)
    assert 7 == meter.metered(usage=priced_at("1"), feature="f")(lambda: 7)()


def test_an_amount_that_makes_no_sense_is_told_where_it_stands() -> None:
    with pytest.raises(ConfigError, match="max_cost_usd needs usage="):
        metered(max_cost_usd="1")
    for amount in ("-1", "many", 0.5, "99999999"):
        with pytest.raises(ConfigError, match="max_cost_usd"):
            metered(usage=priced_at("1"), max_cost_usd=amount)  # type: ignore[call-overload]
