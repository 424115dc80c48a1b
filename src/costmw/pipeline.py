"""The pipeline from a call's start to its committed row.

Read it from top to bottom: a call starts (`start_call`), what it may cost is held
(`reserve`), what it used is priced and becomes an event (`commit_call`), the writer
commits it, and the caller waits (`wait`).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

from costmw import context
from costmw.budgets import Budget
from costmw.capture.call import Call
from costmw.capture.in_flight import InFlight
from costmw.capture.key_ids import KeyIds
from costmw.capture.manual import RecordArguments, checked
from costmw.capture.reserving import Request, Reserver
from costmw.capture.settle import CallEnd, CallStart, Settler, reasons
from costmw.config import Config
from costmw.context import Origin, Tags
from costmw.events import Outcome, OutcomeKind, Reservation, Usage, UsageEvent, new_id
from costmw.price_overrides import load_overrides
from costmw.pricing import Pricing
from costmw.providers.base import Match, Reading
from costmw.store.acknowledgement import Acknowledgement, wait_anywhere
from costmw.store.writer import Writer

if TYPE_CHECKING:
    from costmw.bounds import Bounds
    from costmw.capture.tee import Tee
    from costmw.store.base import Store

logger = logging.getLogger("costmw")

PARTS_AT_ONCE = 500
"""Results of a batch that are priced and committed before the app goes on; more go to a thread."""


class Pipeline:
    """Takes calls in, and hands their rows to the writer.

    Args:
        store: where rows go.
        budgets: the app's own.
        tags: tags of every call.
        config: settings.
        enabled: False where everything passes untouched.
        when_recorded: called after every call that was recorded.
    """

    def __init__(
        self,
        store: Store,
        budgets: Sequence[Budget],
        tags: Tags,
        config: Config,
        *,
        enabled: bool,
        when_recorded: Callable[[], None],
    ) -> None:
        self.config = config
        self.enabled = enabled
        self.store = store
        self.tags = dict(tags)
        self._when_recorded = when_recorded
        self._writer = Writer(store, config)
        own = load_overrides(config.price_file) if config.price_file else ()
        self._pricing = Pricing((*config.prices, *own))
        self._in_flight = InFlight(config.idle_timeout)
        self._key_ids = KeyIds(
            store.fingerprint_key, lambda error: self.fault(error, "the id of an API key")
        )
        self._settler = Settler(self._pricing)
        self._bounds: Bounds | None = None
        self._reserver = Reserver(
            budgets, store, self._bounds_of_calls, config, self._writer.submit, self.fault
        )
        self._writer.holder = self._reserver
        self._faults = 0
        self._late = 0
        self._last_fault: str | None = None

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
        self._when_recorded()
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
        self._when_recorded()
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

    def forget_calls(self) -> None:
        """In a forked child: what is under way belongs to the parent."""
        self._in_flight.forget()
        self._reserver.forget()
        self._faults = self._late = 0
        self._last_fault = None

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


def _trace_id() -> str | None:
    """The trace that the app is in, when it uses OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    trace_id = trace.get_current_span().get_span_context().trace_id
    return f"{trace_id:032x}" if trace_id else None
