"""Holding what a call may cost at most, before it is sent; giving it back, or charging it.

The steps of a reservation are a generator that says what to wait for, so that a thread and
a task of an event loop wait for the same, each in its own way.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from costmw.budgets import Budget
from costmw.caps.book import Refusal
from costmw.caps.rules import Rule
from costmw.capture.refusing import beyond_limit, no_bound, no_price, not_asked
from costmw.capture.settle import CallStart, hold_of_result
from costmw.errors import BudgetExceeded
from costmw.events import (
    Price,
    Record,
    Release,
    Renewal,
    Reservation,
    Submission,
    Usage,
    UsageEvent,
)
from costmw.money import format_usd
from costmw.store.acknowledgement import Acknowledgement, release_all

if TYPE_CHECKING:
    from costmw.bounds import Bound, Bounds
    from costmw.capture.call import Call
    from costmw.config import Config
    from costmw.store.base import Store

logger = logging.getLogger("costmw")

ASK_AGAIN_AFTER = 0.05
"""Seconds after which a call that waits asks again: other processes give back too."""

SAID_AT_MOST = 1_000
"""Warnings that a process logs in its life: models are named by whoever asks."""

RESULTS_HELD_FOR = timedelta(days=2)
"""How long a hold waits for a result that comes later, a batch's above all."""

_NO_PRICE = Price(cost_pico_usd=None, source="none")


@dataclass(frozen=True, slots=True)
class Request:
    """What is about to be sent, as far as its cost goes by it; `size` is in bytes."""

    body: Mapping[str, Any]
    size: int


class Reserver:
    """The blocking budgets of one meter."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        store: Store,
        bounds: Callable[[], Bounds],
        config: Config,
        submit: Callable[[Record], Acknowledgement],
        fault: Callable[[BaseException, str], None],
    ) -> None:
        self._rules = tuple(Rule.of(budget) for budget in budgets if budget.action == "block")
        self._names = frozenset(rule.name for rule in self._rules)
        self._store = store
        self._bounds = bounds
        self._ttl = timedelta(seconds=config.hold_ttl)
        self._patience = config.ack_timeout
        self._submit = submit
        self._fault = fault
        self.is_used = bool(self._rules)
        """Whether there is any blocking budget that calls count in."""
        self._said: set[tuple[str | None, str]] = set()
        self.forget()
        if self._rules:
            store.declare(self._rules)

    def forget(self) -> None:
        """Begin empty, as in a forked child: what is in flight is the parent's."""
        self._in_flight: dict[UUID, weakref.ref[Call]] = {}
        self._bells: list[Acknowledgement] = []

    def rules_for(self, tags: Mapping[str, str]) -> tuple[Rule, ...]:
        """The blocking budgets that a call with these tags counts in."""
        if not self.is_used:
            self.is_used = bool(self._store.page_rules(tags))
            if not self.is_used:
                return ()
        own = [rule for rule in self._rules if rule.scope_of(tags) is not None]
        page = [rule for rule in self._store.page_rules(tags) if rule.name not in self._names]
        return (*own, *page)

    # A call, from before it is sent until it is settled.

    def steps(self, call: Call) -> Iterator[tuple[Acknowledgement, float]]:
        """Reserve for a call; gives what to wait for, and for how many seconds at most.

        Raises:
            BudgetExceeded: when it may not be sent.
        """
        try:
            reservation = self._reservation(call)
        except BudgetExceeded as refusal:
            self._say_once(call.start, f"costmw refuses calls: {refusal}")
            raise
        except Exception as error:  # noqa: BLE001 - no fault of ours is told as the host's
            self._fault(error, "what a call may cost")
            return self._go_on_or_raise(call, error)
        if reservation is None:
            return None
        call.reservation = reservation
        waits_until: float | None = None
        while True:
            asked = self._submit(reservation)
            if not asked.dropped:
                yield asked, self._patience
            answer = asked.refusal
            if asked.dropped or not asked.committed or isinstance(answer, Exception):
                self._submit(Release(reservation.id))
                call.reservation = None
                return self._go_on_or_raise(call, answer)
            if answer is None:
                self._in_flight[reservation.id] = weakref.ref(call)
                return None
            now = time.monotonic()
            waits_until = waits_until or now + answer.rule.wait
            if not answer.may_fit or now >= waits_until:
                call.reservation = None
                raise self._refused(call.start, answer)
            yield self._bell(), min(ASK_AGAIN_AFTER, waits_until - now)

    def _go_on_or_raise(self, call: Call, error: object) -> None:
        """The ledger cannot be asked: what the budgets say of that."""
        closed = [rule for rule in call.rules if rule.fail == "closed"]
        if closed:
            refusal = not_asked(closed[0], call.start, error)
            self._say_once(call.start, f"costmw refuses calls: {refusal}")
            raise refusal

    def _refused(self, start: CallStart, refusal: Refusal) -> Exception:
        if refusal.unpriced:
            barred = no_price(refusal.rule, start)
            self._say_once(start, f"costmw refuses calls: {barred}")
            return barred
        return beyond_limit(refusal, start)

    def _reservation(self, call: Call) -> Reservation | None:
        start, request = call.start, call.request
        bound = call.bound or self._bounds().bound(
            start.match, start.request_model, request.body, request.size, start.created_at
        )
        self._warn(start, bound)
        pico_usd = bound.pico_usd
        if pico_usd == 0 and not bound.unpriced:
            return None  # it bills nothing
        if pico_usd is None:
            barred = [rule for rule in call.rules if rule.on_unpriced != "allow"]
            if barred and bound.unpriced:
                raise no_price(barred[0], start, bound.reason)
            if barred:
                raise no_bound(barred[0], start, bound.reason)
            return None
        return Reservation(
            event=UsageEvent(
                id=start.id,
                created_at=start.created_at,
                operation=start.match.format.operation,
                api=start.match.format.api,
                provider=start.provider,
                request_model=start.request_model,
                response_model=None,
                usage=Usage(),
                price=_NO_PRICE,
                status="incomplete",
                tags=start.tags,
                request_id=start.origin.request_id,
                api_key_id=start.api_key_id,
                trace_id=start.trace_id,
            ),
            pico_usd=pico_usd,
            expires_at=datetime.now(UTC) + self._ttl,
            checked=tuple(rule.name for rule in call.rules),
            unpriced=bound.unpriced,
        )

    def _warn(self, start: CallStart, bound: Bound) -> None:
        if bound.warning:
            said = f"a budget holds much for a call of {start.request_model}: {bound.warning}"
            self._say_once(start, said)

    def _say_once(self, start: CallStart, said: str) -> None:
        """Log something once for a model: it is true of all of its calls."""
        key = (start.request_model, said)
        if key not in self._said and len(self._said) < SAID_AT_MOST:
            self._said.add(key)
            logger.warning("%s", said)

    def give_back(self, reservation: Reservation) -> None:
        """Nothing was billed; or the app does not wait for an answer any more."""
        self._in_flight.pop(reservation.id, None)
        self._submit(Release(reservation.id))

    def settling(
        self, reservation: Reservation, rows: Sequence[UsageEvent | Submission]
    ) -> list[Record]:
        """The records that settle a call: its rows, and what becomes of its hold."""
        self._in_flight.pop(reservation.id, None)
        match rows:
            case [UsageEvent() as event]:
                event = _with_overrun(event, reservation)
                if event.id == reservation.id:
                    return [event]
                # A row under the result's own id settles what is held under that id.
                later = datetime.now(UTC) + self._ttl
                return [Renewal(reservation.id, later, as_id=event.id), event]
            case [Submission() as submission, *_]:
                later = datetime.now(UTC) + RESULTS_HELD_FOR
                as_id = hold_of_result(submission.provider, submission.result_id)
                return [Renewal(reservation.id, later, as_id=as_id), *rows]
            case _:
                return [*rows, Release(reservation.id)]

    def results_read(self, start: CallStart) -> None:
        """The results of a batch have rows of their own: nothing is held for it any more."""
        if self.is_used and start.match.submission:
            self._submit(Release(hold_of_result(start.provider, start.match.submission)))

    # Calls in flight.

    def renew(self) -> None:
        """Let the holds of all calls in flight last longer."""
        until = datetime.now(UTC) + self._ttl
        for hold_id, call in list(self._in_flight.items()):
            if call() is None:  # nobody will settle it: it ends in its time
                self._in_flight.pop(hold_id, None)
            else:
                self._submit(Renewal(hold_id, until))

    def _bell(self) -> Acknowledgement:
        bell = Acknowledgement()
        self._bells.append(bell)
        return bell

    def ring(self) -> None:
        """Wake the calls that wait for others to give something back."""
        bells, self._bells = self._bells, []
        release_all(bells)


def _with_overrun(event: UsageEvent, reservation: Reservation) -> UsageEvent:
    cost, held = event.price.cost_pico_usd, reservation.pico_usd
    if cost is None or cost <= held or reservation.unpriced:
        return event
    overrun = f"overrun: it cost more than the {format_usd(held)} USD held for it"
    return replace(event, reason=f"{event.reason}; {overrun}" if event.reason else overrun)
