"""`@metered`: tags for everything that a function does, and calls that nothing else sees."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from costmw.capture.manual import RecordArguments, checked
from costmw.context import Block, close_block, open_block
from costmw.meter import current_meter

if TYPE_CHECKING:
    from costmw.meter import Meter

P = ParamSpec("P")
R = TypeVar("R")

ReadUsage = Callable[[Any], RecordArguments | None]

logger = logging.getLogger("costmw")


@overload
def metered(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def metered(
    function: None = None,
    /,
    *,
    usage: ReadUsage | None = None,
    meter: Meter | None = None,
    **tags: object,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def metered(
    function: Any = None,
    /,
    *,
    usage: ReadUsage | None = None,
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
            no client below recorded anything: for SDKs that cannot be instrumented.
        meter: where to record; the request's own, or the newest, when left out.
        tags: the tags.
    """
    if function is None:
        return functools.partial(_decorate, usage=usage, meter=meter, tags=tags)
    name = getattr(function, "__name__", type(function).__name__)
    return _decorate(function, usage=usage, meter=meter, tags={"feature": name})


def _decorate(
    function: Any, *, usage: ReadUsage | None, meter: Meter | None, tags: Mapping[str, object]
) -> Any:
    def run() -> _Run:
        return _Run(tags, usage, meter)

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
        with running:
            result = function(*args, **kwargs)
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


class _Run:
    """One run of a metered function: its block of tags, and what it may record."""

    def __init__(
        self, tags: Mapping[str, object], usage: ReadUsage | None, meter: Meter | None
    ) -> None:
        self._block = Block(tags)
        self._usage = usage
        self._meter = meter

    def __enter__(self) -> None:
        open_block(self._block)

    def __exit__(self, *error: object) -> None:
        close_block(self._block)

    def record(self, result: Any) -> None:
        if read := self._read(result):
            meter, call = read
            with self:
                meter.record(**call)

    async def record_async(self, result: Any) -> None:
        if read := self._read(result):
            meter, call = read
            with self:
                await meter.arecord(**call)

    def _read(self, result: Any) -> tuple[Meter, RecordArguments] | None:
        if self._usage is None or self._block.captured:
            return None
        meter = self._meter or current_meter()
        if meter is None:
            logger.warning("@metered(usage=...) has no Meter to record to: make one first")
            return None
        if not meter.enabled:
            return None
        try:
            call = self._usage(result)
            if call is not None:
                checked(**call)
        except Exception as error:  # noqa: BLE001 - the function itself went well
            meter.fault(error, "what usage= read from a metered function")
            return None
        return (meter, call) if call is not None else None


async def _finish(running: _Run, coroutine: Coroutine[Any, Any, R]) -> R:
    with running:
        result = await coroutine
    await running.record_async(result)
    return result


def _in_steps(run: Callable[[], _Run], function: Any) -> Callable[..., Generator[Any, Any, Any]]:
    """Run a generator step by step, each step inside the block."""

    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        running, inner = run(), function(*args, **kwargs)
        last: Any = None
        resume: Callable[[], Any] = functools.partial(next, inner)
        while True:
            try:
                with running:
                    last = resume()
            except StopIteration as stop:
                running.record(last)
                return stop.value
            try:
                sent = yield last
            except GeneratorExit:
                with running:
                    inner.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the generator
                resume = functools.partial(inner.throw, error)
            else:
                resume = functools.partial(inner.send, sent)

    return steps


def _in_async_steps(
    run: Callable[[], _Run], function: Any
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """Run an async generator step by step, each step inside the block."""

    @functools.wraps(function)
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        running, inner = run(), function(*args, **kwargs)
        last: Any = None
        resume: Callable[[], Any] = inner.__anext__
        while True:
            try:
                with running:
                    last = await resume()
            except StopAsyncIteration:
                await running.record_async(last)
                return
            try:
                sent = yield last
            except GeneratorExit:
                with running:
                    await inner.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the generator
                resume = functools.partial(inner.athrow, error)
            else:
                resume = functools.partial(inner.asend, sent)

    return steps
