"""Who asks: scopes, blocks of tags, what threads carry, and what becomes of a call's tags."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from openai import AsyncOpenAI, OpenAI
from opentelemetry import trace

from conftest import events_of
from costmw import Meter, bind, carry, context, metered, tag
from costmw.capture.function_run import FunctionRun
from costmw.context import Scope, current_block, enter_scope, resolve_tags
from costmw.errors import ConfigError
from costmw.testing import FakeProvider, Reply


@pytest.fixture
def client(meter: Meter, provider: FakeProvider) -> Iterator[OpenAI]:
    with OpenAI(base_url=provider.openai_url, api_key="k") as client:
        yield meter.instrument(client, provider="openai")


@pytest.fixture
def async_client(meter: Meter, provider: FakeProvider) -> AsyncOpenAI:
    # No connection outlives its call: every test has event loops of its own.
    http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
    client = AsyncOpenAI(base_url=provider.openai_url, api_key="k", http_client=http)
    return meter.instrument(client, provider="openai")


@pytest.fixture(autouse=True)
def unwarned() -> None:
    context._warn_unbound.cache_clear()


def source(given: Any) -> Callable[[object], Any]:
    """A callable of a middleware: gives tags, or raises."""

    def give(about: object) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    return give


@contextmanager
def request(meter: Meter, *given: Any) -> Iterator[Scope]:
    """What a middleware does around a request."""
    scope = Scope(meter, tuple(map(source, given)))
    before = enter_scope(scope)
    try:
        yield scope
    finally:
        enter_scope(before)


def ask(client: OpenAI) -> None:
    client.responses.create(model="gpt-5-mini", input="hello")


async def ask_async(client: AsyncOpenAI) -> str:
    await client.responses.create(model="gpt-5-mini", input="hello")
    return "done"


def recorded(meter: Meter, tags: Mapping[str, object] | None = None) -> dict[str, str]:
    """The tags that a call gets here and now, as they are in the store."""
    event = meter.record(
        provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1, tags=tags or {}
    )
    (kept,) = [stored for stored in events_of(meter) if stored.id == event.id]
    assert kept.tags == event.tags
    return dict(kept.tags)


def tags_here() -> dict[str, str]:
    """The tags that the open blocks alone would give to a call."""
    tags, faults = resolve_tags({}, None, None, current_block())
    assert faults == []
    return tags


# Which value wins.


@pytest.mark.parametrize(
    ("layers", "winner"),
    [
        ("meter", "meter"),
        ("meter middleware", "middleware"),
        ("meter middleware bind", "bind"),
        ("meter middleware bind metered", "metered"),
        ("meter middleware bind metered tag", "tag"),
        ("meter middleware bind metered tag record", "record"),
        ("meter tag", "tag"),
        ("middleware metered", "metered"),
        ("meter record", "record"),
        ("bind record", "record"),
    ],
)
def test_precedence_is_record_then_blocks_then_bind_then_middleware_then_meter(
    layers: str, winner: str, make_meter: Callable[..., Meter]
) -> None:
    present = layers.split()
    own = {layer: {"who": layer, f"by_{layer}": "yes"} for layer in present}
    expected = {"who": winner} | {f"by_{layer}": "yes" for layer in present}
    meter = make_meter(tags=own.get("meter"))

    @metered(**own.get("metered", {}))
    def work() -> dict[str, str]:
        with tag(**own.get("tag", {})):
            return recorded(meter, own.get("record"))

    with request(meter, own.get("middleware", {})):
        bind(**own.get("bind", {}))
        tags = work()

    assert tags == expected


def test_the_innermost_of_nested_blocks_wins_and_outer_ones_come_back() -> None:
    seen = []
    with tag(feature="outer", team="blue"):
        seen.append(tags_here())
        with tag(feature="inner"):
            seen.append(tags_here())
        seen.append(tags_here())
    seen.append(tags_here())

    outer = {"feature": "outer", "team": "blue"}
    assert seen == [outer, outer | {"feature": "inner"}, outer, {}]


def test_none_takes_a_tag_of_an_outer_layer_away(make_meter: Callable[..., Meter]) -> None:
    meter = make_meter(tags={"team": "blue", "environment": "test"})
    with request(meter, {"tenant": "acme"}), tag(tenant=None, team=None):
        tags = recorded(meter)

    assert tags == {"environment": "test"}


def test_values_of_any_type_become_their_text(meter: Meter) -> None:
    assert recorded(meter, {"a": 7, "b": True, "c": 1.5, "d": b"x"}) == {
        "a": "7",
        "b": "True",
        "c": "1.5",
        "d": "b'x'",
    }


def test_a_calls_tags_are_those_of_its_start_even_when_it_ends_elsewhere(
    meter: Meter, client: OpenAI
) -> None:
    with tag(feature="start"):
        stream = client.responses.create(model="gpt-5-mini", input="hello", stream=True)
    with tag(feature="end"):
        for _ in stream:
            pass

    assert [event.tags for event in events_of(meter)] == [{"feature": "start"}]


# bind()


def test_binding_a_key_to_another_value_warns_once_and_names_tag(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    with request(meter):
        bind(user="ann", tenant="acme")
        bind(user="ann")
        assert caplog.records == []

        bind(user="bob")
        bind(user="eve", tenant="other")
        tags = recorded(meter)

    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "bind(user=...)" in warning.getMessage()
    assert "with tag(user=...)" in warning.getMessage()
    assert tags == {"user": "eve", "tenant": "other"}


def test_each_request_may_bind_its_own_value_without_a_warning(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    users = []
    for user in ("ann", "bob"):
        with request(meter):
            bind(user=user)
            users.append(recorded(meter))

    assert users == [{"user": "ann"}, {"user": "bob"}]
    assert caplog.records == []


def test_bind_outside_a_request_warns_once_and_does_nothing(
    meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    bind(user="ann")
    bind(user="bob")

    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "outside a web request" in warning.getMessage()
    assert "with tag(...)" in warning.getMessage()
    assert recorded(meter) == {}


class Incomparable:
    """Like arrays and missing values of the data libraries: no answer to `==`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return self.text


def test_values_that_cannot_be_compared_can_be_bound_twice(meter: Meter) -> None:
    with request(meter):
        bind(user=Incomparable("one"))
        bind(user=Incomparable("two"))
        assert recorded(meter) == {"user": "two"}


def test_what_a_thread_or_task_of_the_request_binds_holds_for_the_whole_request(
    meter: Meter,
) -> None:
    async def serve() -> dict[str, str]:
        await asyncio.to_thread(bind, user="ann")
        await asyncio.create_task(bind_tenant())
        return recorded(meter)

    async def bind_tenant() -> None:
        bind(tenant="acme")

    with request(meter):
        tags = asyncio.run(serve())

    assert tags == {"user": "ann", "tenant": "acme"}


# One request.


def test_calls_of_one_request_share_its_id_and_exactly_one_is_first(
    meter: Meter, client: OpenAI
) -> None:
    calls = 8
    with request(meter), ThreadPoolExecutor(calls) as pool:
        together = threading.Barrier(calls)

        def work() -> None:
            together.wait(10)
            ask(client)

        for done in [pool.submit(carry(work)) for _ in range(calls)]:
            done.result(10)

    events = events_of(meter)
    assert len(events) == calls
    assert len({event.request_id for event in events}) == 1
    assert None not in {event.request_id for event in events}
    assert sum(event.first_in_request for event in events) == 1


def test_the_first_billed_call_of_a_request_is_the_first_one_even_after_a_retry(
    meter: Meter, client: OpenAI, provider: FakeProvider
) -> None:
    not_now = Reply(status=429, headers={"retry-after-ms": "1"})
    provider.reply(not_now, Reply(), not_now, Reply())
    with request(meter):
        ask(client)
        ask(client)

    assert [event.first_in_request for event in events_of(meter)] == [True, False]


def test_two_requests_have_two_ids_and_a_call_outside_has_none(
    meter: Meter, client: OpenAI
) -> None:
    for _ in range(2):
        with request(meter):
            ask(client)
            ask(client)
    ask(client)

    events = events_of(meter)
    assert [event.first_in_request for event in events] == [True, False, True, False, False]
    first, again, second, _, outside = [event.request_id for event in events]
    assert first == again != second
    assert outside is None


# Blocks of tags.


def test_gathered_tasks_each_have_their_own_block(meter: Meter, async_client: AsyncOpenAI) -> None:
    users = [f"user-{n}" for n in range(10)]

    async def work(user: str, entered: asyncio.Barrier) -> None:
        with tag(user=user):
            await entered.wait()
            await ask_async(async_client)

    async def main() -> None:
        entered = asyncio.Barrier(len(users))
        with tag(feature="batch"):
            await asyncio.gather(*(work(user, entered) for user in users))
        await ask_async(async_client)

    asyncio.run(main())

    tags = sorted((dict(event.tags) for event in events_of(meter)), key=lambda t: t.get("user", ""))
    assert tags == [{}, *({"feature": "batch", "user": user} for user in users)]


def test_a_task_keeps_the_blocks_that_it_was_started_in() -> None:
    async def main() -> dict[str, str]:
        closed = asyncio.Event()

        async def background() -> dict[str, str]:
            await closed.wait()
            return tags_here()

        with tag(feature="job"):
            task = asyncio.create_task(background())
        assert tags_here() == {}
        closed.set()
        return await task

    assert asyncio.run(main()) == {"feature": "job"}


def test_blocks_closed_out_of_order_leave_the_others_as_they_are() -> None:
    outer, inner = tag(a=1), tag(b=2)
    outer.__enter__()
    inner.__enter__()

    outer.__exit__(None, None, None)
    assert tags_here() == {"b": "2"}
    inner.__exit__(None, None, None)
    assert tags_here() == {}


def test_a_block_closed_out_of_order_stays_in_the_tasks_started_inside_of_it() -> None:
    outer, inner = tag(a=1), tag(b=2)
    outer.__enter__()
    inner.__enter__()
    task = copy_context()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)

    assert task.run(tags_here) == {"a": "1", "b": "2"}


def test_a_block_closed_in_another_context_neither_raises_nor_disturbs_either() -> None:
    block = tag(a=1)
    here, there = Context(), Context()
    here.run(block.__enter__)
    there.run(tag(b=2).__enter__)

    there.run(block.__exit__, None, None, None)

    assert here.run(tags_here) == {"a": "1"}
    assert there.run(tags_here) == {"b": "2"}


def test_one_tag_object_may_be_open_in_several_tasks_at_once() -> None:
    shared = tag(a=1)

    async def work(entered: asyncio.Barrier) -> tuple[dict[str, str], dict[str, str]]:
        with shared:
            await entered.wait()
            inside = tags_here()
        return inside, tags_here()

    async def main() -> list[tuple[dict[str, str], dict[str, str]]]:
        entered = asyncio.Barrier(3)
        return await asyncio.gather(*(work(entered) for _ in range(3)))

    assert asyncio.run(main()) == [({"a": "1"}, {})] * 3


def test_one_tag_object_may_be_open_twice_in_one_task() -> None:
    twice = tag(a=1)
    with twice:
        with twice:
            assert tags_here() == {"a": "1"}
        assert tags_here() == {"a": "1"}
    assert tags_here() == {}


def test_a_thousand_nested_blocks_close_in_any_order() -> None:
    blocks = [tag(**{f"k{n % 10}": n}) for n in range(1000)]
    for block in blocks:
        block.__enter__()
    assert len(tags_here()) == 10
    for block in blocks[::2] + blocks[1::2]:
        block.__exit__(None, None, None)
    assert tags_here() == {}


def test_a_block_passes_the_hosts_exception_on() -> None:
    error = LookupError("the host's own")
    with pytest.raises(LookupError) as raised, tag(a=1):  # noqa: PT012
        assert tags_here() == {"a": "1"}
        raise error
    assert raised.value is error
    assert tags_here() == {}


class Contexts(RuleBasedStateMachine):
    """Contexts that open, close, copy and run blocks in any order, against plain lists."""

    contexts = Bundle("contexts")
    tags = Bundle("tags")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[Context, list[object]]] = []
        self.tags_of: dict[object, dict[str, str]] = {}
        self.made = 0

    def add(self, real: Context, model: list[object]) -> int:
        self.open.append((real, model))
        return len(self.open) - 1

    def new_tags(self, key: str) -> dict[str, str]:
        self.made += 1
        return {key: str(self.made), f"only{self.made}": "x"}

    def close(self, model: list[object], block: object) -> None:
        """Take the innermost opening of a block away, if there is one."""
        for at in reversed(range(len(model))):
            if model[at] is block:
                del model[at]
                return

    @initialize(target=contexts)
    def first_context(self) -> int:
        return self.add(Context(), [])

    @rule(target=contexts, at=contexts)
    def start_task(self, at: int) -> int:
        real, model = self.open[at]
        return self.add(real.copy(), list(model))

    @rule(target=tags, key=st.sampled_from("abc"))
    def make_tag(self, key: str) -> tag:
        tags = self.new_tags(key)
        made = tag(**tags)
        self.tags_of[made] = tags
        return made

    @rule(target=runs, key=st.sampled_from("abc"))
    def call_metered_generator(self, key: str) -> FunctionRun:
        tags = self.new_tags(key)
        run = FunctionRun("f", tags, None)
        self.tags_of[run] = tags
        return run

    @rule(at=contexts, block=st.one_of(tags, runs))
    def enter(self, at: int, block: tag | FunctionRun) -> None:
        real, model = self.open[at]
        real.run(block.__enter__)
        model.append(block)

    @rule(at=contexts, block=st.one_of(tags, runs))
    def leave(self, at: int, block: tag | FunctionRun) -> None:
        real, model = self.open[at]
        real.run(block.__exit__, None, None, None)
        self.close(model, block)

    @invariant()
    def every_context_has_exactly_its_own_tags(self) -> None:
        for real, model in self.open:
            expected: dict[str, str] = {}
            for block in model:
                expected |= self.tags_of[block]
            if len(expected) <= context.MAX_TAGS:
                assert real.run(tags_here) == expected


TestContexts = Contexts.TestCase
TestContexts.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


# What threads carry.


def test_a_thread_without_carry_has_no_tags_and_with_it_has_both_request_and_block(
    meter: Meter, client: OpenAI
) -> None:
    with (
        request(meter, {"route": "/jobs"}),
        tag(feature="batch"),
        ThreadPoolExecutor(1) as pool,
    ):
        bind(user="ann")
        pool.submit(ask, client).result(10)
        pool.submit(carry(ask), client).result(10)

    bare, carried = events_of(meter)
    assert bare.tags == {}
    assert bare.request_id is None
    assert carried.tags == {"route": "/jobs", "user": "ann", "feature": "batch"}
    assert carried.request_id is not None


def test_one_carried_function_runs_in_many_threads_at_the_same_time(
    meter: Meter, client: OpenAI
) -> None:
    calls = 12
    together = threading.Barrier(calls)

    def work(n: int) -> int:
        with tag(n=n):
            together.wait(10)
            ask(client)
        return n

    with request(meter, {"tenant": "acme"}), tag(feature="batch"), ThreadPoolExecutor(calls) as p:
        carried = carry(work)
        results = list(p.map(carried, range(calls)))

    assert results == list(range(calls))
    tags = sorted((dict(event.tags) for event in events_of(meter)), key=lambda t: int(t["n"]))
    assert tags == [{"tenant": "acme", "feature": "batch", "n": str(n)} for n in range(calls)]


def test_a_carried_function_still_knows_its_request_when_that_is_over(
    meter: Meter, client: OpenAI
) -> None:
    over = threading.Event()

    def work() -> None:
        over.wait(10)
        ask(client)

    with ThreadPoolExecutor(1) as pool:
        with request(meter, {"route": "/late"}):
            later = pool.submit(carry(work))
        over.set()
        later.result(10)

    assert [event.tags for event in events_of(meter)] == [{"route": "/late"}]


def test_a_carried_function_leaves_nothing_behind_in_its_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        with tag(feature="batch"):
            assert pool.submit(carry(tags_here)).result(10) == {"feature": "batch"}
        assert pool.submit(tags_here).result(10) == {}


def test_a_carried_coroutine_function_runs_concurrently_with_its_tags(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    async def work(n: int, together: asyncio.Barrier) -> int:
        await together.wait()
        with tag(n=n):
            await ask_async(async_client)
        return n

    with request(meter), tag(feature="batch"):
        carried = carry(work)
    assert inspect.iscoroutinefunction(carried)

    async def main() -> list[int]:
        together = asyncio.Barrier(3)
        return await asyncio.gather(*(carried(n, together) for n in range(3)))

    assert asyncio.run(main()) == [0, 1, 2]
    tags = sorted((dict(event.tags) for event in events_of(meter)), key=lambda t: t["n"])
    assert tags == [{"feature": "batch", "n": str(n)} for n in range(3)]


def test_a_carried_coroutine_function_runs_in_the_event_loop_of_a_thread(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    with request(meter), tag(feature="batch"), ThreadPoolExecutor(1) as pool:
        carried = carry(ask_async)
        pool.submit(lambda: asyncio.run(carried(async_client))).result(10)

    assert [event.tags for event in events_of(meter)] == [{"feature": "batch"}]


def test_a_carried_function_that_returns_a_coroutine_runs_all_of_it_with_its_tags(
    meter: Meter, async_client: AsyncOpenAI
) -> None:
    # Like methods of the SDKs, which are not coroutine functions and are awaited.
    def work() -> Coroutine[Any, Any, str]:
        return ask_async(async_client)

    assert not inspect.iscoroutinefunction(work)
    with tag(feature="batch"):
        carried = carry(work)

    assert asyncio.run(carried()) == "done"
    assert [event.tags for event in events_of(meter)] == [{"feature": "batch"}]


def test_cancelling_a_carried_coroutine_cancels_its_work() -> None:
    async def main() -> str:
        started = asyncio.Event()
        ended = "not at all"

        async def work() -> None:
            nonlocal ended
            started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ended = "cancelled"
                raise

        task = asyncio.create_task(carry(work)())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ended

    assert asyncio.run(main()) == "cancelled"


def test_carry_keeps_name_signature_result_and_exception() -> None:
    def halve(number: int, *, by: int = 2) -> float:
        """Divide."""
        return number / by

    carried = carry(halve)
    assert carried.__name__ == "halve"
    assert carried.__doc__ == "Divide."
    assert inspect.signature(carried) == inspect.signature(halve)
    assert carried(3) == 1.5
    with pytest.raises(ZeroDivisionError):
        carried(1, by=0)


# Limits, and values that nobody expects.

ODD_TEXT = st.text(st.characters(codec=None), max_size=600)


@given(st.lists(st.tuples(ODD_TEXT, ODD_TEXT | st.none() | st.integers()), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_becomes_tags_that_every_database_takes(
    pairs: list[tuple[str, str | int | None]],
) -> None:
    tags, faults = resolve_tags(dict(pairs), None, None, None)

    assert faults == []
    for text, limit in [(key, 64) for key in tags] + [(value, 256) for value in tags.values()]:
        assert len(text) <= limit
        assert "\0" not in text
        text.encode("utf-8")


@given(st.lists(st.text("ab", min_size=250, max_size=400), min_size=2, max_size=8, unique=True))
@settings(max_examples=60, deadline=None)
def test_two_long_values_or_keys_never_merge(texts: list[str]) -> None:
    values = {resolve_tags({"k": text}, None, None, None)[0]["k"] for text in texts}
    keys, _ = resolve_tags(dict.fromkeys(texts, 1), None, None, None)

    assert len(values) == len(texts)
    assert len(keys) == len(texts)


@pytest.mark.parametrize(("limit", "of"), [(64, "key"), (256, "value")])
def test_text_at_the_limit_stays_and_longer_text_is_cut_and_ends_in_a_hash(
    limit: int, of: str
) -> None:
    def cut(text: str) -> str:
        pair = (text, "x") if of == "key" else ("x", text)
        tags, _ = resolve_tags(dict([pair]), None, None, None)
        ((key, value),) = tags.items()
        return key if of == "key" else value

    exact = "e" * limit
    assert cut(exact) == exact
    longer = cut(exact + "!")
    assert len(longer) == limit
    start, mark, digest = longer.rpartition("~")
    assert (start, mark) == ("e" * (limit - 13), "~")
    assert len(bytes.fromhex(digest)) == 6
    assert cut(exact + "?") != longer
    assert cut(exact + "!") == longer


def test_a_value_of_a_megabyte_is_stored_cut(meter: Meter) -> None:
    tags = recorded(meter, {"note": "é" * 1_000_000})

    assert len(tags["note"]) == 256
    assert meter.status().faults == 0


def test_nul_and_surrogates_are_stored_as_replacements(meter: Meter) -> None:
    assert recorded(meter, {"a": "x\0y", "b": "x\ud800y", "c\0": "żółć 💸"}) == {
        "a": "x\ufffdy",
        "b": "x?y",
        "c\ufffd": "żółć 💸",
    }


def test_32_tags_are_kept_and_the_named_ones_among_them(meter: Meter) -> None:
    exactly = {f"k{n}": "x" for n in range(32)}
    assert recorded(meter, exactly) == exactly
    assert meter.status().faults == 0

    many = {f"k{n}": "x" for n in range(10_000)}
    named = {"route": "/r", "user": "u", "tenant": "t", "feature": "f", "team": "x"}
    tags = recorded(meter, many | named)

    assert len(tags) == 32
    assert tags.items() >= named.items()
    status = meter.status()
    assert status.faults == 1
    assert "10005 tags on one call; 32 are kept" in (status.last_error or "")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def test_a_value_whose_str_raises_costs_only_that_tag(meter: Meter, client: OpenAI) -> None:
    with tag(bad=Unprintable(), good="yes"):
        ask(client)

    assert [event.tags for event in events_of(meter)] == [{"good": "yes"}]
    status = meter.status()
    assert status.faults == 1
    assert "no text for you" in (status.last_error or "")


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_tags_callable_that_gives_nothing_is_no_fault(
    nothing: Any, meter: Meter, client: OpenAI
) -> None:
    with request(meter, {"route": "/r"}, nothing):
        ask(client)

    assert [event.tags for event in events_of(meter)] == [{"route": "/r"}]
    assert meter.status().faults == 0


class Unreadable(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError("not readable")

    def __iter__(self) -> Iterator[str]:
        return iter(["user"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("wrong", [7, "user=ann", [1, 2], Unreadable()])
def test_a_tags_callable_that_gives_something_else_costs_only_its_own_tags(
    wrong: Any, meter: Meter, client: OpenAI
) -> None:
    with request(meter, {"route": "/r"}, wrong), tag(feature="chat"):
        ask(client)
        tags = recorded(meter, {"team": "blue"})

    kept = {"route": "/r", "feature": "chat"}
    assert tags == kept | {"team": "blue"}
    assert [event.tags for event in events_of(meter)] == [kept, tags]
    assert meter.status().faults == 2


def test_a_callable_that_raises_costs_only_its_own_tags(meter: Meter, client: OpenAI) -> None:
    error = LookupError("nobody is logged in")
    with request(meter, {"route": "/r"}, error, {"team": "blue"}):
        bind(tenant="acme")
        ask(client)

    assert [event.tags for event in events_of(meter)] == [
        {"route": "/r", "team": "blue", "tenant": "acme"}
    ]
    status = meter.status()
    assert status.faults == 1
    assert "nobody is logged in" in (status.last_error or "")


def test_tags_of_a_record_that_are_no_mapping_are_refused(meter: Meter) -> None:
    with pytest.raises(ConfigError, match="tags= as a mapping"):
        meter.record(provider="openai", model="m", tags=["user"])  # type: ignore[arg-type]
    assert events_of(meter) == []


# Traces.


def test_the_trace_of_the_current_span_is_recorded(meter: Meter, client: OpenAI) -> None:
    trace_id = 0x0123456789ABCDEF0123456789ABCDEF
    span = trace.NonRecordingSpan(
        trace.SpanContext(trace_id, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    with trace.use_span(span):
        ask(client)
        meter.record(provider="openai", model="gpt-5-mini", input_tokens=1, output_tokens=1)
    ask(client)

    expected = "0123456789abcdef0123456789abcdef"
    assert [event.trace_id for event in events_of(meter)] == [expected, expected, None]
