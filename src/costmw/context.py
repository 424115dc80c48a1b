"""Who is asking: the scope of a web request, and the tags of a block or function.

Two context variables carry it. The `Scope` is one mutable object a request, so
that what a dependency binds in a copied context is seen by the endpoint. The
blocks opened by `tag()` form an immutable chain, so that every task has its own.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextvars import Context, ContextVar, Token, copy_context
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from uuid import UUID

from costmw.events import new_id

if TYPE_CHECKING:
    from costmw.meter import Meter

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("costmw")

NAMED_TAGS = ("route", "user", "tenant", "feature", "team", "environment")
"""The tags that reports know by name; they are kept first when there are too many."""

MAX_TAGS = 32
MAX_KEY_LENGTH = 64
MAX_VALUE_LENGTH = 256

TagValue = object
Tags = Mapping[str, TagValue]
Sources = tuple[Callable[[Any], Tags], ...]


class Scope:
    """One web request: what is known of who asks.

    Most requests make no call, so that what only calls need is made when it is asked for.

    Args:
        meter: what `@metered` and `record` without a meter of their own record with.
        sources: give the route and the middleware's own tags. They are asked at every call,
            since a route is known only after routing.
        about: what they are asked about: the request, as its framework has it.
    """

    ended_calls: list[tuple[int | None, int]] | None = None
    """Of each call that made a row: its cost in pico-USD, if known, and milliseconds.

    Kept where somebody has put a list here.
    """
    has_answered = False
    """Whether its response has begun."""
    bound: Tags = MappingProxyType({})
    _request_id: UUID | None = None
    _warned = False

    def __init__(
        self, meter: Meter | None = None, sources: Sources = (), about: object = None
    ) -> None:
        self.meter = meter
        self.sources = sources
        self.about = about

    # Locks are no way here: the garbage collector may settle a call, which asks this, at any
    # point of any thread. `setdefault` is atomic by itself.

    @property
    def request_id(self) -> UUID:
        """The request's id, made when the first call needs it."""
        return self._request_id or self.__dict__.setdefault("_request_id", new_id())

    def claim_first(self) -> bool:
        """True for whoever asks first: the first call of this request that makes a row."""
        claim = object()
        return self.__dict__.setdefault("_first", claim) is claim

    def bind(self, tags: Tags) -> None:
        """Add tags to the request; the last value of a key wins."""
        bound: dict[str, TagValue] = self.__dict__.setdefault("bound", {})
        for key, value in tags.items():
            before = bound.setdefault(key, value)
            if not _same(before, value):
                bound[key] = value
                if not self._warned:
                    self._warned = True
                    logger.warning(
                        "bind(%s=...) was called twice in one request with different values; the "
                        "last one holds for the whole request. For tasks that run side by side "
                        "use: with tag(%s=...):",
                        key,
                        key,
                    )


def _same(one: TagValue, other: TagValue) -> bool:
    try:
        return one is other or bool(one == other)
    except Exception:  # noqa: BLE001 - a value's __eq__ may raise anything
        return False


class Block:
    """Tags of one `with tag(...)` block or metered function, and the calls seen in it."""

    __slots__ = ("captured", "tags")

    def __init__(self, tags: Tags) -> None:
        self.tags = tags
        self.captured = 0


class OpenBlock:
    """A block that is open, and what it was opened in; shared by tasks, so never changed."""

    __slots__ = ("block", "outer")

    def __init__(self, block: Block, outer: OpenBlock | None) -> None:
        self.block = block
        self.outer = outer

    def chain(self) -> Iterator[Block]:
        """This block and those around it, innermost first."""
        open_: OpenBlock | None = self
        while open_ is not None:
            yield open_.block
            open_ = open_.outer


class Origin:
    """Where a call comes from: the request, and the blocks of tags that it is made in."""

    __slots__ = ("_block", "scope")

    def __init__(self) -> None:
        self.scope = request_scope.get()
        self._block = _block.get()

    @property
    def request_id(self) -> UUID | None:
        """The id of the web request; None outside of any."""
        return None if self.scope is None else self.scope.request_id

    def is_first(self) -> bool:
        """True for the first row of the web request; asking counts."""
        return self.scope is not None and self.scope.claim_first()

    def note_cost(self, pico_usd: int | None, duration_ms: int) -> None:
        """Tell the web request what a call of it cost, None if that is unknown, and took."""
        ended = None if self.scope is None else self.scope.ended_calls
        if ended is not None:
            ended.append((pico_usd, duration_ms))

    def note_captured(self, calls: int) -> None:
        """Tell the blocks that so many calls were seen in them; negative to take it back."""
        for block in self._block.chain() if self._block is not None else ():
            block.captured += calls


request_scope: ContextVar[Scope | None] = ContextVar("costmw_scope", default=None)
"""The web request that code runs in; None outside of any."""

_block: ContextVar[OpenBlock | None] = ContextVar("costmw_block", default=None)


def current_block() -> OpenBlock | None:
    """The innermost open block of tags, or None."""
    return _block.get()


def current_scope() -> Scope | None:
    """The request that this code runs in, or None outside of any."""
    return request_scope.get()


def enter_scope(scope: Scope | None) -> Scope | None:
    """Make `scope` the current request; gives what was current before."""
    before = request_scope.get()
    request_scope.set(scope)
    return before


def leave_scope(token: Token[Scope | None]) -> None:
    """Make current again what was so before `request_scope.set()` gave this token."""
    try:
        request_scope.reset(token)
    except ValueError:
        return  # a request that was given up is ended by the garbage collector, in any context


def open_block(block: Block) -> None:
    """Put `block` around the code that runs next in the current context."""
    _block.set(OpenBlock(block, _block.get()))


def close_block(block: Block) -> None:
    """Take `block` out of the current context, wherever it stands there.

    A generator may be closed in another context than it was opened in, or after a
    block opened later: neither may raise, nor disturb the blocks that remain.
    """
    current = _block.get()
    if current is None:
        return
    if current.block is block:
        _block.set(current.outer)
        return
    blocks = list(current.chain())
    if block in blocks:
        blocks.remove(block)
        rest: OpenBlock | None = None
        for open_ in reversed(blocks):
            rest = OpenBlock(open_, rest)
        _block.set(rest)


class tag:  # noqa: N801 - reads as a statement: `with tag(feature="chat"):`
    """Tag every call made inside a `with` block: `with tag(feature="summary"):`.

    Holds for this task and the tasks and threads that carry its context. Inside a
    generator the block stays open between two yields: use `@metered` there.
    """

    def __init__(self, **tags: TagValue) -> None:
        self._block = Block(tags)

    def __enter__(self) -> None:
        open_block(self._block)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        close_block(self._block)


def bind(**tags: TagValue) -> None:
    """Add tags to the current web request: `bind(user=user.id)`.

    Seen by everything that the request does from here on, also when called from a
    dependency that runs in a thread. Outside a request it does nothing but warn
    once: use `with tag(...)` there.
    """
    scope = request_scope.get()
    if scope is None:
        _warn_unbound()
    else:
        scope.bind(tags)


@functools.cache
def _warn_unbound() -> None:
    logger.warning(
        "bind() was called outside a web request and has no effect: add CostMiddleware to the "
        "app, or use `with tag(...):` in jobs and scripts"
    )


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """Give `function` the current request and tags wherever it runs later.

    Threads and executors start with an empty context: `pool.submit(carry(work), x)`.
    The function may run any number of times, also at the same time.
    """
    context = copy_context()

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        own = context.copy()
        result = own.run(function, *args, **kwargs)
        # The methods of SDKs are plain functions that return coroutines.
        return _run_in(own, result) if inspect.iscoroutine(result) else result

    if not inspect.iscoroutinefunction(function):
        return run

    @functools.wraps(function)
    async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
        return await run(*args, **kwargs)

    return cast("Callable[P, R]", run_async)


async def _run_in(context: Context, coroutine: Coroutine[Any, Any, R]) -> R:
    import asyncio

    return await asyncio.get_running_loop().create_task(coroutine, context=context)


def resolve_tags(
    defaults: Tags, record: Tags | None, scope: Scope | None, block: OpenBlock | None
) -> tuple[dict[str, str], list[Exception]]:
    """Work out the tags of a call that starts now.

    Precedence: the record's own, then `tag()` and `@metered` from the inside out,
    then `bind()`, then the middleware, then the meter's `tags`.

    Returns:
        The tags as text, at most 32, and the errors of callables that failed.
    """
    faults: list[Exception] = []
    layers: list[Tags] = [defaults]
    if scope is not None:
        for source in scope.sources:
            try:
                layers.append(source(scope.about))
            except Exception as error:  # noqa: BLE001 - the user's callable may raise anything
                faults.append(error)
        layers.append(scope.bound)
    if block is not None:
        layers.extend(open_.tags for open_ in reversed(list(block.chain())))
    if record:
        layers.append(record)

    merged: dict[str, str] = {}
    for layer in layers:
        try:
            items = dict(layer or {}).items()
        except Exception as error:  # noqa: BLE001 - the user's callable may give anything
            faults.append(error)
            continue
        for key, value in items:
            try:
                text = _cut(str(key), MAX_KEY_LENGTH)
                if value is None:
                    merged.pop(text, None)
                else:
                    merged[text] = tag_value(str(value))
            except Exception as error:  # noqa: BLE001 - a value's __str__ may raise anything
                faults.append(error)
    if len(merged) > MAX_TAGS:
        faults.append(ValueError(f"{len(merged)} tags on one call; {MAX_TAGS} are kept"))
        first = [key for key in NAMED_TAGS if key in merged]
        rest = [key for key in merged if key not in NAMED_TAGS]
        merged = {key: merged[key] for key in (*first, *rest)[:MAX_TAGS]}
    return merged, faults


def tag_value(text: str) -> str:
    """A tag's value as it is stored; one that is cut ends in a hash."""
    return _cut(text, MAX_VALUE_LENGTH)


def _cut(text: str, limit: int) -> str:
    """Make text storable everywhere, at most `limit` characters; a cut text ends in a hash."""
    if not text.isascii() or "\0" in text:
        text = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if len(text) <= limit:
        return text
    import hashlib  # takes milliseconds, and few texts are as long

    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
    return f"{text[: limit - 13]}~{digest}"
