"""The meter: the pipeline from a call's start to its committed row.

Read it from top to bottom: a call starts (`start_call`), what it used is priced and
becomes an event (`commit_call`), the writer commits it, and the caller waits (`wait`).
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from costmw import context
from costmw.budget_file import combined, load_budgets
from costmw.budgets import Budget
from costmw.caps.rules import Rule
from costmw.capture.call import Call
from costmw.capture.in_flight import InFlight
from costmw.capture.key_ids import KeyIds
from costmw.capture.manual import RecordArguments, checked
from costmw.capture.reserving import Request, Reserver
from costmw.capture.settle import CallEnd, CallStart, Settler, reasons
from costmw.config import Config, enabled_from_environment
from costmw.context import Origin, Tags
from costmw.errors import ConfigError, CostmwError, StoreBusy
from costmw.events import (
    Outcome,
    OutcomeKind,
    Reservation,
    Usage,
    UsageEvent,
    new_id,
)
from costmw.headroom import Allowance, Headroom
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing
from costmw.providers.base import Reading
from costmw.providers.registry import Match
from costmw.store.acknowledgement import Acknowledgement, wait_anywhere
from costmw.store.greenlets import MadeLate
from costmw.store.layers import open_store
from costmw.store.writer import Writer

if TYPE_CHECKING:
    from costmw.alerts.channel import Channel
    from costmw.alerts.settings import Alerts
    from costmw.alerts.watch import Watch
    from costmw.bounds import Bounds
    from costmw.capture.tee import Tee
    from costmw.reports import Reports
    from costmw.reprice import Repricing
    from costmw.store.base import Store

logger = logging.getLogger("costmw")

PARTS_AT_ONCE = 500
"""Results of a batch that are priced and committed before the app goes on; more go to a thread."""

LAST_ALERTS = 2.0
"""Seconds that closing waits for the last alerts; those that do not arrive are kept."""

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """What happened in this process: numbers of records, and the last thing that went wrong.

    `waiting`: handed in, not committed yet; `waiting_seconds`: the longest of them. `late`:
    calls that went on before their commit. `dropped`: lost, since the queue was full.
    `rejected`: could not be stored. `faults`: errors of costmw that were kept from the app.
    """

    store: str
    started: bool
    committed: int
    waiting: int
    waiting_seconds: float
    late: int
    dropped: int
    rejected: int
    store_failures: int
    faults: int
    last_error: str | None


class Meter:
    """Meters the LLM calls of an app into a store.

    Making one does nothing: no file, no thread, no connection. The store is opened by
    `start()`, which the middlewares call, or by the first call.

    Args:
        store: where events are kept, `"sqlite:///llmcost.db"`; `COSTMW_STORE` when left out.
        budgets: budgets to report on, and to stay within where they block.
        alerts: where to alert of budgets, sudden spend and models, as in
            `alerts=[Webhook(...)]` (`costmw.alerts`); the file's when left out.
        tags: tags of every call, such as `{"environment": "production"}`.
        enabled: False makes everything pass untouched; `COSTMW_ENABLED=0` does too.
        config: settings; read from the environment when left out.

    Raises:
        ConfigError: when a setting cannot be used.
    """

    _start_lock = MadeLate(lambda: threading.Lock())

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        budgets: Sequence[Budget] = (),
        alerts: Alerts | Sequence[Channel] | None = None,
        tags: Tags | None = None,
        enabled: bool = True,
        config: Config | None = None,
    ) -> None:
        self.config = config or Config.from_environment()
        self.enabled = enabled and enabled_from_environment()
        self.store = open_store(store, self.config)
        path = self.config.budgets_file
        self.budgets = _distinct(combined(budgets, load_budgets(path), path) if path else budgets)
        self._watch = self._watch_of(alerts)
        self.tags = dict(tags or {})
        self._writer = Writer(self.store, self.config)
        self._pricing = Pricing(
            (*self.config.prices, *load_overrides(self.config.price_file))
            if self.config.price_file
            else self.config.prices
        )
        self._in_flight = InFlight(self.config.idle_timeout)
        self._key_ids = KeyIds(
            self.store.fingerprint_key, lambda error: self.fault(error, "the id of an API key")
        )
        self._settler = Settler(self._pricing)
        self._bounds: Bounds | None = None
        self._reserver = Reserver(
            self.budgets,
            self.store,
            self._bounds_of_calls,
            self.config,
            self._writer.submit,
            self.fault,
        )
        self._headroom = Headroom(self.store, self._bounds_of_calls, self._reserver.rules_for)
        self._writer.holder = self._reserver
        self._start_error: CostmwError | None = None
        self._started = False
        self._faults = 0
        self._late = 0
        self._last_fault: str | None = None
        _remember(self)

    def _watch_of(self, alerts: Alerts | Sequence[Channel] | None) -> Watch | None:
        if alerts is None and not self.config.budgets_file:
            return None
        from costmw.alerts.watch import watch_of

        return watch_of(self.store, self.budgets, alerts, self.config.budgets_file)

    # Where calls come from.

    def instrument(
        self,
        client: C,
        *,
        api: str | None = None,
        provider: str | None = None,
        include_usage: bool = True,
    ) -> C:
        """Record every call of an SDK's client, or of an HTTP client.

        Args:
            client: a client of openai, anthropic, google-genai, mistralai, groq, cohere,
                ollama or boto3 (bedrock-runtime), a session of boto3, requests or aiohttp,
                or a client of httpx or httpx2; sync or async. It is changed in place;
                copies made by `with_options()` are recorded too.
            api: the wire format (`"openai"`, `"anthropic.messages"`); an SDK's class implies it.
            provider: who bills (`"openai"`); a known host implies it.
            include_usage: ask chat streams for usage, which they leave out otherwise.

        Returns:
            The same client.

        Raises:
            ConfigError: when it is not a client that we know, or `api` is unknown.
        """
        from costmw.capture.clients.base import Capture
        from costmw.capture.clients.sdk import find_http_clients
        from costmw.providers.registry import find_provider, formats_of

        found = find_http_clients(client)
        if api is not None:
            formats_of(api)
        for http in found:
            implied = api or http.api
            if implied is None and provider is not None and not find_provider(provider).families:
                raise ConfigError(f"provider={provider!r} is not known: pass api= too, as 'openai'")
            capture = Capture(
                self, implied, provider, usual=http.usual, include_usage=include_usage
            )
            http.instrument(http.client, capture)
        return client

    def instrument_all(self, *, include_usage: bool = True) -> None:
        """Record the LLM calls of every HTTP client of the process, made before or after.

        Followed are httpx, httpx2, requests, aiohttp and botocore, whatever SDK or
        framework is above them, now or when they are imported. Requests to hosts of no
        provider, nor of `Config(hosts=...)`, pass untouched. One meter at a time: the last
        one to ask.

        Args:
            include_usage: ask chat streams for usage, which they leave out otherwise.
        """
        from costmw.capture.clients.base import Capture
        from costmw.capture.clients.process import follow_all

        if self.enabled:
            follow_all(Capture(self, include_usage=include_usage))

    def uninstrument_all(self) -> None:
        """End what `instrument_all()` began; clients of `instrument()` are recorded on."""
        from costmw.capture.clients.process import unfollow_all

        unfollow_all(self)

    def event_hooks(
        self, *, api: str | None = None, provider: str | None = None
    ) -> dict[str, list[Callable[[Any], Any]]]:
        """Hooks for `httpx.Client(event_hooks=...)` and its async and httpx2 kin.

        Chat streams are read as they come: ask for their usage with `stream_options`.
        """
        from costmw.capture.clients.base import Capture
        from costmw.capture.clients.httpx_hooks import event_hooks

        return event_hooks(Capture(self, api, provider))

    def metered(
        self,
        *,
        usage: Callable[[Any], RecordArguments | None] | None = None,
        max_cost_usd: Decimal | int | str | None = None,
        **tags: object,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Tag what a function does, as `costmw.metered`, and record to this meter."""
        from costmw.capture.decorator import metered

        return metered(usage=usage, max_cost_usd=max_cost_usd, meter=self, **tags)

    def record(self, **call: Unpack[RecordArguments]) -> UsageEvent:
        """Record a call by hand and wait for its commit; see `RecordArguments`.

        Returns:
            The event, committed unless the store is late (`ack_timeout`).

        Raises:
            ConfigError: when an argument cannot be used; nothing is recorded then.
        """
        event = self._recorded(call)
        if self.enabled:
            self.wait(self._writer.submit(event))
        return event

    async def arecord(self, **call: Unpack[RecordArguments]) -> UsageEvent:
        """Record a call by hand and wait for its commit without blocking; see `record`."""
        event = self._recorded(call)
        if self.enabled:
            await self.wait_async(self._writer.submit(event))
        return event

    def priced(self, **call: Unpack[RecordArguments]) -> UsageEvent:
        """Make the event that `record()` would commit, without committing it."""
        stated = checked(**call)
        origin = Origin()
        price = (
            self._pricing.own(stated.cost_usd)
            if stated.cost_usd is not None
            else self._pricing.price(
                stated.usage,
                provider=stated.provider,
                model=stated.model,
                at=stated.created_at,
                context={},
            )
        )
        return UsageEvent(
            id=stated.id,
            created_at=stated.created_at,
            request_id=origin.request_id,
            operation=stated.operation,
            provider=stated.provider,
            request_model=stated.model,
            response_model=stated.model,
            usage=stated.usage,
            price=price,
            status=stated.status,
            reason=reasons(stated.reason, price),
            latency_ms=stated.latency_ms,
            tags=self._resolve_tags(stated.tags),
            response_id=stated.response_id,
            trace_id=_trace_id(),
        )

    def _recorded(self, call: RecordArguments) -> UsageEvent:
        event, origin = self.priced(**call), Origin()
        if not self.enabled:
            return event
        self._watch_for_alerts()
        origin.note_captured(1)
        origin.note_cost(event.price.cost_pico_usd, event.latency_ms or 0)
        return replace(event, first_in_request=origin.is_first())

    def commit_stated(
        self, start: CallStart, stated: RecordArguments, reservation: Reservation | None
    ) -> Acknowledgement:
        """Hand the row of a call that was stated by hand to the writer.

        Raises:
            ConfigError: when an argument cannot be used; nothing is recorded then.
        """
        event = self._recorded({"id": start.id, "created_at": start.created_at, **stated})
        if reservation is None:
            return self._writer.submit(event)
        if not stated.get("tags"):
            event = replace(event, tags=start.tags)  # those that it was held by
        return [self._writer.submit(r) for r in self._reserver.settling(reservation, [event])][-1]

    # Before a call.

    def remaining(self, **tags: object) -> Decimal | None:
        """USD that a call may cost at most, by the tightest of its blocking budgets.

        Args:
            tags: tags of the call, beside those of the present request and block.

        Returns:
            What is left now, with what calls in flight may cost taken off; None when no
            blocking budget counts such a call.

        Raises:
            StoreError: when the ledger cannot be asked.
        """
        return self._headroom.remaining(self._resolve_tags(tags))

    def allowances(self, **tags: object) -> list[Allowance]:
        """The limits of all blocking budgets that count a call, the tightest first.

        Args and errors are those of `remaining`.
        """
        return self._headroom.allowances(self._resolve_tags(tags))

    def would_exceed(self, cost_usd: Decimal | int | str, **tags: object) -> bool:
        """Whether a call that may cost so many USD would be refused now.

        Raises:
            ConfigError: when `cost_usd` is no amount of money.
            StoreError: when the ledger cannot be asked.
        """
        return self._headroom.would_exceed(cost_usd, self._resolve_tags(tags))

    def affordable_tokens(
        self, model: str, *, provider: str | None = None, input_tokens: int = 0, **tags: object
    ) -> int | None:
        """Tokens that an answer of a model may have, so that the call fits its budgets now.

        Args:
            model: the model to ask.
            provider: who bills; needed where a price goes by it.
            input_tokens: tokens of the question, at most.
            tags: tags of the call, beside those of the present request and block.

        Returns:
            0 when not even the question fits; None when no blocking budget counts such a
            call, the model has no price, or its answers cost nothing.

        Raises:
            StoreError: when the ledger cannot be asked.
        """
        return self._headroom.affordable_tokens(
            model, provider, input_tokens, self._resolve_tags(tags)
        )

    # Budgets that are made while the app runs.

    def keep_budget(self, budget: Budget) -> None:
        """Make or change a budget for all who write to this ledger, until it is dropped.

        Raises:
            ConfigError: when an app's code has one of this name.
            StoreError: when it cannot be kept.
        """
        if any(budget.name == own.name for own in self.budgets):
            raise ConfigError(f"budget {budget.name!r} is set in the app's code; change it there")
        self.store.keep_budget(Rule.of(budget))

    def drop_budget(self, name: str) -> None:
        """Take away a budget that `keep_budget` made, or that no app has in its code any more.

        Raises:
            ConfigError: when this app's code has it.
            StoreError: when it cannot be done.
        """
        if any(name == own.name for own in self.budgets):
            raise ConfigError(f"budget {name!r} is set in the app's code; remove it there")
        self.store.drop_budget(name)

    # The pipeline.

    def start_call(
        self,
        match: Match,
        request_model: str | None,
        api_key: str | None,
        *,
        request_bytes: int = 0,
        request_usage: Usage | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Call:
        """Settle who asks, now: the tags of a call do not change once it runs."""
        origin = Origin()
        origin.note_captured(1)
        tags = self._resolve_tags(None)
        return Call(
            self,
            CallStart(
                id=new_id(),
                created_at=datetime.now(UTC),
                match=match,
                request_model=request_model,
                tags=tags,
                origin=origin,
                api_key_id=self._key_ids.id_of(api_key),
                trace_id=_trace_id(),
                monotonic_ns=time.monotonic_ns(),
                request_bytes=request_bytes,
                request_usage=request_usage,
            ),
            Request(body or {}, request_bytes),
            self._reserver.rules_for(tags),
        )

    def reserve(self, call: Call) -> Iterator[tuple[Acknowledgement, float]]:
        """The steps of holding what a call may cost; see `Call.reserve`."""
        return self._reserver.steps(call)

    def give_back(self, reservation: Reservation) -> None:
        """Release what was held for a call that billed nothing."""
        self._reserver.give_back(reservation)

    def follow(self, stream: Tee) -> None:
        """Remember a stream that is being read, so that it does not end without a row."""
        self._in_flight.add(stream)

    def commit_call(
        self,
        start: CallStart,
        reading: Reading,
        end: CallEnd,
        reservation: Reservation | None = None,
    ) -> Acknowledgement | None:
        """Price what a call used and hand its rows to the writer; None when it makes none.

        `reservation` is what was held for it.
        """
        if len(reading.parts) > PARTS_AT_ONCE:
            # A batch has up to 50,000 results: too many to price while the app waits. They
            # can be read again, and the interpreter waits for this thread.
            threading.Thread(
                target=self._commit_parts,
                args=(start, reading, end, reservation),
                name="costmw-batch",
            ).start()
            return None
        acknowledgement = None
        rows = self._settler.rows(start, reading, end)
        if not rows:
            start.origin.note_captured(-1)
        for row in rows:
            if isinstance(row, UsageEvent):
                start.origin.note_cost(row.price.cost_pico_usd, row.latency_ms or 0)
        for record in rows if reservation is None else self._reserver.settling(reservation, rows):
            acknowledgement = self._writer.submit(record)
        if reading.parts:
            self._reserver.results_read(start)
        self._watch_for_alerts()
        return acknowledgement

    def _commit_parts(
        self, start: CallStart, reading: Reading, end: CallEnd, reservation: Reservation | None
    ) -> None:
        try:
            parts = reading.parts
            for first in range(0, len(parts), PARTS_AT_ONCE):
                some = Reading(parts=parts[first : first + PARTS_AT_ONCE])
                for row in self._settler.rows(start, some, end):
                    self._writer.submit(row)
                self._writer.flush(None)
            self._reserver.results_read(start)
            if reservation is not None:
                self._reserver.give_back(reservation)
        except Exception as error:  # noqa: BLE001 - in a thread of its own, for the log
            self.fault(error, "the results of a batch")

    def count_outcome(self, start: CallStart, kind: OutcomeKind) -> None:
        """Count an attempt that bills nothing."""
        self._writer.submit(
            Outcome(
                kind=kind,
                at=start.created_at,
                provider=start.provider,
                model=start.request_model,
                tags={key: start.tags[key] for key in ("route", "tenant") if key in start.tags},
            )
        )

    def wait(self, acknowledgement: Acknowledgement) -> None:
        """Wait for a commit, at most `ack_timeout` seconds; a delay is counted."""
        if self.config.durability == "async":
            return
        if acknowledgement.dropped or not acknowledgement.wait(self.config.ack_timeout):
            self._is_late()

    async def wait_async(self, acknowledgement: Acknowledgement) -> None:
        """Wait for a commit without blocking the event loop."""
        if self.config.durability == "async" or acknowledgement.committed:
            return
        if acknowledgement.dropped:
            self._is_late()
            return
        if not await wait_anywhere(acknowledgement, self.config.ack_timeout):
            self._is_late()

    def fault(self, error: BaseException, where: str) -> None:
        """Count and log an error of ours that is kept from the app; 1st, 2nd, 4th, 8th time."""
        self._faults += 1
        self._last_fault = f"{where}: {type(error).__name__}: {error}"
        if (self._faults & (self._faults - 1)) == 0:
            logger.error(
                "costmw could not record %s (%d such errors so far); the app goes on",
                where,
                self._faults,
                exc_info=error,
            )

    # The meter's own life.

    @property
    def started(self) -> bool:
        """Whether `start()` has been tried."""
        return self._started

    def start(self) -> None:
        """Open and check the store, once.

        Raises:
            StoreError: when the store cannot be used; said once, the app then goes on
                without a store, and events wait in memory.
        """
        if self._started or not self.enabled:
            return
        with self._start_lock:
            if self.started:
                return
            self._started = True
            try:
                self.store.open()
                self._key_ids.prepare()
                if self._reserver.is_used:
                    self._writer.keep_holds(self._reserver)
            except StoreBusy as error:
                logger.warning("costmw starts while its store is busy: %s", error)
            except CostmwError as error:
                self._start_error = error
                raise
        self._watch_for_alerts()

    def _watch_for_alerts(self) -> None:
        """Have a thread look for what is worth an alert; costs nothing once it does."""
        if self._watch is not None and self.enabled:
            self._watch.start()

    def reprice(
        self, *, since: datetime, everything: bool = False, dry_run: bool = False
    ) -> Repricing:
        """Price recorded calls again by today's prices; see `costmw.reprice.reprice`."""
        from costmw.reprice import reprice

        self.start()
        return reprice(
            self.store, self._pricing, since=since, everything=everything, dry_run=dry_run
        )

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait up to `timeout` seconds until all events are committed; False if some are not."""
        return self._writer.flush(timeout)

    def end_streams(self) -> None:
        """Settle the streams that nobody will read on, as `incomplete`: the app ends."""
        self._in_flight.end_all()

    def close(self, timeout: float = 10.0) -> None:
        """Settle and commit what waits, and release the store; a later call opens it again."""
        self.end_streams()
        if self._watch is not None and self._watch.running:
            self._writer.flush(timeout)
            self._watch.stop(LAST_ALERTS)
        if not self._writer.close(timeout):
            logger.error(
                "costmw closes with %d event(s) not committed: %s",
                self._writer.waiting,
                self._writer.counts.last_error,
            )

    def status(self) -> MeterStatus:
        """What happened in this process so far."""
        counts = self._writer.counts
        return MeterStatus(
            store=self.store.url,
            started=self._started,
            committed=counts.committed,
            waiting=self._writer.waiting,
            waiting_seconds=round(self._writer.waiting_seconds, 1),
            late=self._late,
            dropped=counts.dropped,
            rejected=counts.rejected,
            store_failures=counts.failures,
            faults=self._faults,
            last_error=self._last_fault
            or (str(self._start_error) if self._start_error else counts.last_error),
        )

    @property
    def alerts(self) -> Alerts | None:
        """What is alerted of, and where to; None for nothing."""
        return None if self._watch is None else self._watch.alerts

    @property
    def reports(self) -> Reports:
        """Questions to the ledger: what was spent, on what, by whom."""
        from costmw.reports import Reports

        return Reports(self.store, self.budgets)

    # Helpers.

    def _bounds_of_calls(self) -> Bounds:
        # Apps without caps need not load what knows every provider's limits.
        if self._bounds is None:
            from costmw.bounds import Bounds

            self._bounds = Bounds(self._pricing)
        return self._bounds

    def _resolve_tags(self, record: Tags | None) -> dict[str, str]:
        tags, faults = context.resolve_tags(
            self.tags, record, context.current_scope(), context.current_block()
        )
        for error in faults:
            self.fault(error, "the tags of a call")
        return tags

    def _after_fork_in_child(self) -> None:
        """What is under way belongs to the parent; its locks may be held for ever here."""
        self._in_flight.forget()
        self._reserver.forget()
        if self._watch is not None:
            self._watch.after_fork_in_child()
        self._faults = self._late = 0
        self._last_fault = None
        MadeLate.forget(self, "_start_lock")

    def _is_late(self) -> None:
        self._late += 1
        if (self._late & (self._late - 1)) == 0:
            logger.warning(
                "a commit took longer than ack_timeout (%s s), %d time(s) so far; the call went "
                "on, its event waits. Last error of the store: %s",
                self.config.ack_timeout,
                self._late,
                self._writer.counts.last_error,
            )


_meters: weakref.WeakSet[Meter] = weakref.WeakSet()
_newest: weakref.ref[Meter] | None = None


def _remember(meter: Meter) -> None:
    global _newest
    _newest = weakref.ref(meter)
    _meters.add(meter)


def _after_fork_in_child() -> None:
    for meter in list(_meters):
        meter._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@atexit.register
def _end_all_streams() -> None:
    # Registered after the writers' own hook, and so run before it.
    for meter in list(_meters):
        meter.end_streams()


def all_meters() -> list[Meter]:
    """The meters of this process, in no order."""
    return list(_meters)


def current_meter() -> Meter | None:
    """The meter of the current request, or else the one made last."""
    scope = context.current_scope()
    if scope is not None and scope.meter is not None:
        return scope.meter
    return _newest() if _newest is not None else None


def _distinct(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    names = [budget.name for budget in budgets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two budgets are named {name!r}")
    return tuple(budgets)


def _trace_id() -> str | None:
    """The trace that the app is in, when it uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    trace_id = trace.get_current_span().get_span_context().trace_id
    return f"{trace_id:032x}" if trace_id else None
