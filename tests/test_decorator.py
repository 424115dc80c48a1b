"""`@metered`: tags for what a function does, and calls that no client sees."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextvars import Context, copy_context
from functools import partial
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from conftest import events_of
from costmw import Meter, metered, tag
from costmw.capture.manual import RecordArguments
from costmw.context import Scope, current_block, enter_scope, resolve_tags
from costmw.testing import FakeProvider, Reply


@pytest.fixture
def client(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k", max_retries=0) as client:
        yield meter.instrument(client, provider="openai")


@pytest.fixture
def async_client(meter: Meter, provider: FakeProvider) -> AsyncOpenAI:
    # No connection outlives its call: every test has event loops of its own.
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
    return meter.instrument(client, provider="openai")


def ask(client: OpenAI) -> str:
    return client.responses.create(model="gpt-5-mini", input="hello").output_text


async def ask_async(client: AsyncOpenAI) -> str:
    return (await client.responses.create(model="gpt-5-mini", input="hello")).output_text


def tags_here() -> dict[str, str]:
    return resolve_tags({}, None, None, current_block())[0]


def tags_of(meter: Meter) -> list[dict[str, str]]:
    return [dict(event.tags) for event in events_of(meter)]


CHAT = {"feature": "chat"}


# Every kind of function.


def test_a_functions_calls_are_tagged_and_those_after_it_are_not(
    meter: Meter, client: OpenAI
) -> None:
    @metered(feature="chat")
    def work(*, loud: bool) -> str:
        text = ask(client)
        return text.upper() if loud else text

    assert work(loud=True).startswith("HELLO")
    ask(client)

    assert tags_of(meter) == [CHAT, {}]


def test_a_coroutine_functions_calls_are_tagged_in_every_task(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    @metered(feature="chat")
    async def work() -> str:
        inner = asyncio.create_task(ask_async(async_client))
        return await ask_async(async_client) + await inner

    async def main() -> None:
        await asyncio.gather(work(), work())
        await ask_async(async_client)

    asyncio.run(main())

    assert tags_of(meter) == [CHAT] * 4 + [{}]


def test_bare_metered_names_the_feature_after_the_function(
    meter: Meter, client: OpenAI, async_client: AsyncOpenAI
) -> None:
    @metered
    def summarise() -> None:
        ask(client)

    @metered
    async def translate() -> None:
        await ask_async(async_client)

    summarise()
    asyncio.run(translate())

    assert tags_of(meter) == [{"feature": "summarise"}, {"feature": "translate"}]


def test_bare_metered_takes_callables_without_a_name(meter: Meter, client: OpenAI) -> None:
    class Agent:
        def __call__(self) -> str:
            return ask(client)

    metered(Agent())()
    metered(partial(ask, client))()

    assert tags_of(meter) == [{"feature": "Agent"}, {"feature": "partial"}]


def test_metered_without_tags_adds_none(meter: Meter, client: OpenAI) -> None:
    metered()(ask)(client)
    assert tags_of(meter) == [{}]


def test_nested_functions_add_up_and_the_inner_one_wins(meter: Meter, client: OpenAI) -> None:
    @metered(feature="inner", step=2)
    def inner() -> None:
        ask(client)

    @metered(feature="outer", team="blue")
    def outer() -> None:
        inner()
        ask(client)

    outer()

    assert tags_of(meter) == [
        {"feature": "inner", "team": "blue", "step": "2"},
        {"feature": "outer", "team": "blue"},
    ]


def test_a_recursive_function_closes_every_one_of_its_blocks(meter: Meter, client: OpenAI) -> None:
    @metered(feature="tree")
    def walk(depth: int) -> None:
        if depth:
            walk(depth - 1)
        ask(client)

    walk(2)
    ask(client)

    assert tags_of(meter) == [{"feature": "tree"}] * 3 + [{}]


def test_methods_are_metered_like_functions(meter: Meter, client: OpenAI) -> None:
    class Agent:
        name = "bot"

        @metered(feature="method")
        def run(self, suffix: str) -> str:
            ask(client)
            return self.name + suffix

        @staticmethod
        @metered(feature="static")
        def look() -> None:
            ask(client)

    assert Agent().run("!") == "bot!"
    Agent.look()
    assert tags_of(meter) == [{"feature": "method"}, {"feature": "static"}]


def test_the_functions_own_exception_passes_through_and_closes_the_block() -> None:
    error = LookupError("the host's own")

    @metered(feature="chat")
    def fail() -> None:
        raise error

    @metered(feature="chat")
    async def fail_async() -> None:
        raise error

    with pytest.raises(LookupError) as raised:
        fail()
    assert raised.value is error

    async def main() -> dict[str, str]:
        with pytest.raises(LookupError) as raised:
            await fail_async()
        assert raised.value is error
        return tags_here()

    assert asyncio.run(main()) == {}
    assert tags_here() == {}


def plain(a: int, b: str = "x") -> str:
    """Do."""
    return b * a


async def coroutine(a: int, b: str = "x") -> str:
    """Do."""
    return b * a


def generator(a: int, b: str = "x") -> Iterator[str]:
    """Do."""
    yield from b * a


async def async_generator(a: int, b: str = "x") -> AsyncIterator[str]:
    """Do."""
    for letter in b * a:
        yield letter


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_the_decorated_function_looks_like_the_function(function: Callable[..., Any]) -> None:
    decorated = metered(feature="chat")(function)

    assert decorated is not function
    for kind in ("iscoroutinefunction", "isgeneratorfunction", "isasyncgenfunction"):
        assert getattr(inspect, kind)(decorated) is getattr(inspect, kind)(function)
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated.__name__ == function.__name__
    assert decorated.__doc__ == "Do."
    assert decorated.__module__ == __name__
    assert decorated.__wrapped__ is function


# Generators.


def test_a_generators_tags_hold_in_each_step_and_never_in_its_consumer(
    meter: Meter, client: OpenAI
) -> None:
    @metered(feature="stream")
    def numbers() -> Iterator[int]:
        ask(client)
        yield 1
        ask(client)
        yield 2
        ask(client)

    for _ in numbers():
        ask(client)

    stream = {"feature": "stream"}
    assert tags_of(meter) == [stream, {}, stream, {}, stream]


def test_an_async_generators_tags_hold_in_each_step_and_never_in_its_consumer(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    @metered(feature="stream")
    async def numbers() -> AsyncIterator[int]:
        await ask_async(async_client)
        yield 1
        await ask_async(async_client)
        yield 2
        await ask_async(async_client)

    async def main() -> None:
        async for _ in numbers():
            await ask_async(async_client)

    asyncio.run(main())

    stream = {"feature": "stream"}
    assert tags_of(meter) == [stream, {}, stream, {}, stream]


def test_a_generators_step_also_has_the_tags_of_who_asks_for_it() -> None:
    @metered(feature="stream")
    def steps() -> Iterator[dict[str, str]]:
        while True:
            yield tags_here()

    running = steps()
    with tag(user="ann"):
        assert next(running) == {"feature": "stream", "user": "ann"}
    with tag(user="bob"):
        assert next(running) == {"feature": "stream", "user": "bob"}
    assert next(running) == {"feature": "stream"}
    running.close()


def test_a_task_started_in_one_step_keeps_that_steps_tags_in_later_steps() -> None:
    @metered(feature="stream")
    def steps() -> Iterator[Context]:
        yield copy_context()  # what a task started here would run in
        yield copy_context()

    running = steps()
    with tag(user="ann"):
        first = next(running)
    with tag(user="bob"):
        second = next(running)

    assert first.run(tags_here) == {"feature": "stream", "user": "ann"}
    assert second.run(tags_here) == {"feature": "stream", "user": "bob"}


def test_a_generator_may_be_stepped_and_closed_from_inside_of_its_own_block() -> None:
    # A task that a step has started, or the garbage collector while such a task runs.
    @metered(feature="stream")
    def steps() -> Iterator[Context]:
        while True:
            yield copy_context()

    running = steps()
    inside = next(running)
    again = inside.run(next, running)
    assert again.run(tags_here) == {"feature": "stream"}
    again.run(running.close)  # type: ignore[attr-defined]

    assert again.run(tags_here) == {"feature": "stream"}
    assert inside.run(tags_here) == {"feature": "stream"}
    assert tags_here() == {}


def test_a_generator_gets_what_is_sent_and_thrown_and_returns_its_value() -> None:
    @metered(feature="stream")
    def echo() -> Generator[object, object, str]:
        heard: object = "ready"
        while heard != "stop":
            try:
                heard = yield (heard, tags_here())
            except LookupError as error:
                heard = error
        return "done"

    chat = {"feature": "stream"}
    running = echo()
    error = LookupError("thrown in")
    assert next(running) == ("ready", chat)
    assert running.send("hello") == ("hello", chat)
    assert running.throw(error) == (error, chat)
    with pytest.raises(StopIteration) as stopped:
        running.send("stop")
    assert stopped.value.value == "done"
    assert tags_here() == {}


def test_yield_from_a_metered_generator_gives_its_return_value() -> None:
    @metered(feature="stream")
    def inner() -> Generator[int, None, str]:
        yield 1
        return "done"

    def outer() -> Generator[object, None, None]:
        yield (yield from inner())

    assert list(outer()) == [1, "done"]


def test_an_async_generator_gets_what_is_sent_and_thrown() -> None:
    @metered(feature="stream")
    async def echo() -> AsyncIterator[object]:
        heard: object = "ready"
        while heard != "stop":
            try:
                heard = yield (heard, tags_here())
            except LookupError as error:
                heard = error

    async def main() -> None:
        running: Any = echo()
        error = LookupError("thrown in")
        assert await anext(running) == ("ready", {"feature": "stream"})
        assert await running.asend("hello") == ("hello", {"feature": "stream"})
        assert await running.athrow(error) == (error, {"feature": "stream"})
        with pytest.raises(StopAsyncIteration):
            await running.asend("stop")
        assert tags_here() == {}

    asyncio.run(main())


def test_an_exception_that_a_generator_does_not_catch_comes_out_of_throw() -> None:
    @metered(feature="stream")
    def numbers() -> Generator[int, None, None]:
        yield 1

    error = LookupError("thrown in")
    running = numbers()
    next(running)
    with pytest.raises(LookupError) as raised:
        running.throw(error)
    assert raised.value is error
    assert next(running, "over") == "over"


def test_closing_a_generator_early_runs_its_cleanup_with_its_tags(
    meter: Meter, client: OpenAI
) -> None:
    @metered(feature="stream")
    def numbers() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            ask(client)

    running = numbers()
    next(running)
    running.close()

    assert tags_of(meter) == [{"feature": "stream"}]
    assert tags_here() == {}


def test_closing_a_generator_that_never_ran_does_nothing() -> None:
    @metered(feature="stream")
    def numbers() -> Generator[int, None, None]:
        raise AssertionError("it ran")
        yield 1

    running = numbers()
    running.close()
    assert list(running) == []


def test_a_generator_stepped_in_one_thread_and_closed_in_another_leaves_both_clean() -> None:
    seen: dict[str, object] = {}

    @metered(feature="stream")
    def numbers() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            seen["cleanup"] = tags_here()

    running = numbers()

    def step() -> None:
        next(running)
        seen["stepper"] = tags_here()

    def close() -> None:
        with tag(user="bob"):
            running.close()
            seen["closer"] = tags_here()

    for work in (step, close):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)

    assert seen == {
        "stepper": {},
        "cleanup": {"feature": "stream", "user": "bob"},
        "closer": {"user": "bob"},
    }


def test_an_async_generator_closed_in_another_task_raises_nothing_and_leaks_nothing() -> None:
    cleanup: list[dict[str, str]] = []

    @metered(feature="stream")
    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            cleanup.append(tags_here())

    async def main() -> list[dict[str, str]]:
        running: Any = numbers()

        async def step() -> dict[str, str]:
            await anext(running)
            return tags_here()

        async def close() -> dict[str, str]:
            with tag(user="bob"):
                await running.aclose()
                return tags_here()

        return [await asyncio.create_task(step()), await asyncio.create_task(close())]

    assert asyncio.run(main()) == [{}, {"user": "bob"}]
    assert cleanup == [{"feature": "stream", "user": "bob"}]


def test_an_async_generator_left_to_the_garbage_collector_is_closed_by_its_loop() -> None:
    async def main() -> dict[str, str]:
        closed: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        @metered(feature="stream")
        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                closed.set_result(tags_here())

        async for _ in numbers():
            break
        gc.collect()
        return await asyncio.wait_for(closed, 10)

    assert asyncio.run(main()) == {"feature": "stream"}


# Plain functions that hand back what another one made: nothing of it has run yet.


def test_a_plain_function_that_returns_a_coroutine_is_metered_to_its_end(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    create = async_client.chat.completions.create
    assert not inspect.iscoroutinefunction(create)
    metered_create = metered(feature="chat")(create)

    completion = asyncio.run(
        metered_create(model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}])
    )

    assert completion.choices
    assert tags_of(meter) == [CHAT]


def test_an_object_with_an_async_call_is_metered_to_its_end(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    class Agent:
        async def __call__(self) -> str:
            return await ask_async(async_client)

    assert asyncio.run(metered(feature="chat")(Agent())())
    assert tags_of(meter) == [CHAT]


def test_a_plain_function_that_returns_a_generator_is_metered_to_its_end(
    meter: Meter, client: OpenAI
) -> None:
    def numbers() -> Iterator[int]:
        ask(client)
        yield 1

    @metered(feature="stream")
    def work() -> Iterator[int]:
        return numbers()

    assert list(work()) == [1]
    assert tags_of(meter) == [{"feature": "stream"}]


def test_a_plain_function_that_returns_an_async_generator_is_metered_to_its_end(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    async def numbers() -> AsyncIterator[int]:
        await ask_async(async_client)
        yield 1

    @metered(feature="stream")
    def work() -> AsyncIterator[int]:
        return numbers()

    async def main() -> list[int]:
        return [number async for number in work()]

    assert asyncio.run(main()) == [1]
    assert tags_of(meter) == [{"feature": "stream"}]


# usage=


def billed(result: Any) -> RecordArguments:
    return {"provider": "openai", "model": "gpt-5-mini", "input_tokens": 40, "output_tokens": 2}


def rows(meter: Meter) -> list[tuple[dict[str, str], int | None, int | None]]:
    return [
        (dict(event.tags), event.usage.input_tokens, event.usage.output_tokens)
        for event in events_of(meter)
    ]


def test_usage_records_what_a_function_returned(meter: Meter) -> None:
    @metered(feature="chat", usage=lambda result: {**billed(result), "input_tokens": len(result)})
    def work() -> str:
        return "seven.."

    assert work() == "seven.."
    assert rows(meter) == [(CHAT, 7, 2)]


def test_usage_records_what_a_coroutine_returned(meter: Meter) -> None:
    @metered(feature="chat", usage=lambda result: {**billed(result), "input_tokens": len(result)})
    async def work() -> str:
        return "seven.."

    assert asyncio.run(work()) == "seven.."
    assert rows(meter) == [(CHAT, 7, 2)]


def test_usage_records_the_last_item_of_a_generator(meter: Meter) -> None:
    @metered(feature="chat", usage=lambda last: {**billed(last), "output_tokens": last})
    def work() -> Iterator[int]:
        yield from (1, 2, 3)

    assert list(work()) == [1, 2, 3]
    assert rows(meter) == [(CHAT, 40, 3)]


def test_usage_records_the_last_item_of_an_async_generator(meter: Meter) -> None:
    @metered(feature="chat", usage=lambda last: {**billed(last), "output_tokens": last})
    async def work() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            yield number

    async def main() -> list[int]:
        return [number async for number in work()]

    assert asyncio.run(main()) == [1, 2, 3]
    assert rows(meter) == [(CHAT, 40, 3)]


def test_usage_that_gives_none_records_nothing(meter: Meter) -> None:
    work = metered(feature="chat", usage=lambda result: None)(lambda: "cached")

    assert work() == "cached"
    assert events_of(meter) == []


def test_usage_is_not_asked_when_a_client_below_recorded_the_call(
    meter: Meter, client: OpenAI, async_client: AsyncOpenAI
) -> None:
    def must_not_be_asked(result: object) -> RecordArguments:
        raise AssertionError("asked")

    @metered(feature="sync", usage=must_not_be_asked)
    def work() -> None:
        ask(client)

    @metered(feature="async", usage=must_not_be_asked)
    async def work_async() -> None:
        await asyncio.gather(ask_async(async_client), ask_async(async_client))

    @metered(feature="generator", usage=must_not_be_asked)
    def steps() -> Iterator[int]:
        yield 1
        ask(client)
        yield 2

    @metered(feature="async generator", usage=must_not_be_asked)
    async def async_steps() -> AsyncIterator[int]:
        await asyncio.to_thread(ask, client)
        yield 1

    async def main() -> None:
        await work_async()
        async for _ in async_steps():
            pass

    work()
    list(steps())
    asyncio.run(main())

    assert [tags["feature"] for tags in tags_of(meter)] == [
        "sync",
        "generator",
        "async",
        "async",
        "async generator",
    ]
    assert meter.status().faults == 0


def test_each_run_of_a_function_is_asked_on_its_own(meter: Meter, client: OpenAI) -> None:
    @metered(usage=billed)
    def work(*, seen: bool) -> None:
        if seen:
            ask(client)

    work(seen=True)
    work(seen=False)
    work(seen=True)

    assert [event.usage.input_tokens == 40 for event in events_of(meter)] == [False, True, False]


def test_what_an_inner_usage_recorded_is_not_recorded_by_the_outer_one_again(
    meter: Meter,
) -> None:
    @metered(step="inner", usage=billed)
    def inner() -> str:
        return "answer"

    @metered(step="outer", usage=billed)
    def outer() -> str:
        return inner()

    @metered(step="async inner", usage=billed)
    async def async_inner() -> str:
        return "answer"

    @metered(step="async outer", usage=billed)
    async def async_outer() -> str:
        return await async_inner()

    outer()
    asyncio.run(async_outer())

    assert tags_of(meter) == [{"step": "inner"}, {"step": "async inner"}]


WRONG_USAGE: list[Any] = [
    lambda result: result.no_such_attribute,
    lambda result: {"provider": "openai"},
    lambda result: {**billed(result), "input_tokens": -1},
    lambda result: {**billed(result), "colour": "red"},
    lambda result: {**billed(result), "tags": ["a"]},
    lambda result: {**billed(result), "cost": "a lot"},
    lambda result: "not a mapping",
    lambda result: 7,
]


@pytest.mark.parametrize("usage", WRONG_USAGE)
def test_errors_of_usage_are_counted_and_never_reach_the_caller(usage: Any, meter: Meter) -> None:
    @metered(usage=usage)
    def work() -> str:
        return "answer"

    @metered(usage=usage)
    async def work_async() -> str:
        return "answer"

    @metered(usage=usage)
    def steps() -> Iterator[str]:
        yield "answer"

    assert work() == "answer"
    assert asyncio.run(work_async()) == "answer"
    assert list(steps()) == ["answer"]
    assert events_of(meter) == []
    status = meter.status()
    assert status.faults == 3
    assert "usage= read from a metered function" in (status.last_error or "")


def test_usage_is_not_asked_when_the_function_fails(meter: Meter) -> None:
    @metered(usage=billed)
    def fail() -> None:
        raise LookupError

    @metered(usage=billed)
    def fail_later() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        fail()
    with pytest.raises(LookupError):
        list(fail_later())
    assert events_of(meter) == []


def test_usage_is_not_asked_while_the_meter_is_off(make_meter: Callable[..., Meter]) -> None:
    asked: list[object] = []
    off = make_meter(enabled=False)

    @off.metered(usage=asked.append)
    def work() -> str:
        return "answer"

    assert work() == "answer"
    assert asked == []


def test_a_call_that_failed_at_the_provider_leaves_usage_to_tell_of_the_fallback(
    meter: Meter, client: OpenAI, provider: FakeProvider
) -> None:
    provider.reply(Reply(status=500))

    @metered(feature="chat", usage=billed)
    def work() -> str:
        try:
            return ask(client)
        except openai.InternalServerError:
            return "from a provider whose SDK cannot be instrumented"

    work()

    assert rows(meter) == [(CHAT, 40, 2)]


# Which meter.


def test_usage_goes_to_the_meter_of_the_decorator_then_of_the_request_then_the_newest(
    make_meter: Callable[..., Meter],
) -> None:
    named = make_meter(tags={"by": "decorator"})
    of_request = make_meter(tags={"by": "request"})
    newest = make_meter(tags={"by": "newest"})

    @named.metered(usage=billed, feature="named")
    def to_named() -> None: ...

    @metered(usage=billed)
    def anywhere() -> None: ...

    before = enter_scope(Scope(of_request))
    try:
        to_named()
        anywhere()
    finally:
        enter_scope(before)
    anywhere()
    for meter in (named, of_request):
        assert meter.flush(10)

    assert tags_of(newest) == [
        {"by": "decorator", "feature": "named"},
        {"by": "request"},
        {"by": "newest"},
    ]


def test_usage_without_any_meter_warns_and_the_function_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("costmw.meters._newest", None)
    work = metered(usage=billed)(lambda: "answer")

    assert work() == "answer"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no Meter" in caplog.text
