"""`@metered`: tags for everything that a function does, and calls that nothing else sees."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from costmw.capture.function_run import FunctionRun, ReadUsage, Recording
from costmw.errors import ConfigError
from costmw.money import MAX_PICO, parse_usd, to_pico

if TYPE_CHECKING:
    from costmw.meter import Meter

P = ParamSpec("P")
R = TypeVar("R")


@overload
def metered(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def metered(
    function: None = None,
    /,
    *,
    usage: ReadUsage | None = None,
    max_cost_usd: Decimal | int | str | None = None,
    meter: Meter | None = None,
    **tags: object,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def metered(
    function: Any = None,
    /,
    *,
    usage: ReadUsage | None = None,
    max_cost_usd: Decimal | int | str | None = None,
    meter: Meter | None = None,
    **tags: object,
) -> Any:
    """Tag every call that a function makes: `@metered(feature="chat")`.

    Works on functions, coroutine functions, generators and async generators; in a
    generator the tags hold while its own code runs, not while its consumer's does.
    A bare `@metered` names the feature after the function.

    Args:
        function: the function, when used without brackets.
        usage: reads the return value (a generator's last item) and gives the arguments
            of `Meter.record()`, or None when nothing was billed. It is asked only when
            no client below recorded anything: for SDKs that cannot be instrumented. With it
            the function itself is a call to budgets that block: it does not run when they
            have no room, and has the tags that it starts with.
        max_cost_usd: what a run may cost at most, in USD: held in those budgets while it
            runs. Without it nothing is held, and only a budget that is used up refuses.
        meter: where to record; the request's own, or the newest, when left out.
        tags: the tags.

    Raises:
        ConfigError: when `max_cost_usd` is no amount, or there is no `usage` with it.
        BudgetExceeded: by the function, when it may not run.
    """
    if max_cost_usd is not None and usage is None:
        raise ConfigError("max_cost_usd needs usage=, which reads what was used of it")
    recording = None if usage is None else Recording(usage, _pico_usd(max_cost_usd), meter)
    if function is None:
        return functools.partial(_decorate, recording=recording, tags=tags)
    return _decorate(function, recording=recording, tags={"feature": _name_of(function)})


def _pico_usd(max_cost_usd: Decimal | int | str | None) -> int | None:
    if max_cost_usd is None:
        return None
    amount = parse_usd(max_cost_usd, "max_cost_usd")
    if not 0 <= to_pico(amount) <= MAX_PICO:
        raise ConfigError(f"max_cost_usd is {amount}; it must be from 0 to 9.2 million USD")
    return to_pico(amount)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _decorate(function: Any, *, recording: Recording | None, tags: Mapping[str, object]) -> Any:
    def run() -> FunctionRun:
        return FunctionRun(_name_of(function), tags, recording)

    # Frameworks ask what kind of function it is: each wrapper is of the kind that it wraps.
    if inspect.isasyncgenfunction(function):
        return _in_async_steps(run, function)
    if inspect.isgeneratorfunction(function):
        return _in_steps(run, function)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await _finish(run(), function(*args, **kwargs))

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        running = run()
        running.reserve()
        try:
            with running:
                result = function(*args, **kwargs)
        except BaseException:
            running.let_go()
            raise
        # A plain function may hand back what another made, and none of it has run yet.
        if inspect.iscoroutine(result):
            return _finish(running, result)
        if inspect.isgenerator(result):
            return _in_steps(lambda: running, lambda: result)()
        if inspect.isasyncgen(result):
            return _in_async_steps(lambda: running, lambda: result)()
        running.record(result)
        return result

    return call


async def _finish(running: FunctionRun, coroutine: Coroutine[Any, Any, R]) -> R:
    try:
        await running.areserve()
        with running:
            result = await coroutine
    except BaseException:
        coroutine.close()
        running.let_go()
        raise
    await running.record_async(result)
    return result


def _in_steps(
    run: Callable[[], FunctionRun], function: Any
) -> Callable[..., Generator[Any, Any, Any]]:
    """Run a generator step by step, each step inside the block."""

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        running, inner = run(), function(*args, **kwargs)
        last: Any = None
        resume: Callable[[], Any] = functools.partial(next, inner)
        running.reserve()
        while True:
            try:
                with running:
                    last = resume()
            except StopIteration as stop:
                running.record(last)
                return stop.value
            except BaseException:
                running.let_go()
                raise
            try:
                sent = yield last
            except GeneratorExit:
                with running:
                    inner.close()
                running.let_go()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the generator
                resume = functools.partial(inner.throw, error)
            else:
                resume = functools.partial(inner.send, sent)

    return steps


def _in_async_steps(
    run: Callable[[], FunctionRun], function: Any
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Run an async generator step by step, each step inside the block."""

    @functools.wraps(function)
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        running, inner = run(), function(*args, **kwargs)
        last: Any = None
        resume: Callable[[], Any] = inner.__anext__
        await running.areserve()
        while True:
            try:
                with running:
                    last = await resume()
            except StopAsyncIteration:
                await running.record_async(last)
                return
            except BaseException:
                running.let_go()
                raise
            try:
                sent = yield last
            except GeneratorExit:
                with running:
                    await inner.aclose()
                running.let_go()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the generator
                resume = functools.partial(inner.athrow, error)
            else:
                resume = functools.partial(inner.asend, sent)

    return steps
