"""The meter: what an app has to do with, above the pipeline that its calls take."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from costmw import meters
from costmw.budgets import Budget
from costmw.caps.rules import Rule
from costmw.capture.manual import RecordArguments
from costmw.config import Config, enabled_from_environment
from costmw.context import Tags
from costmw.errors import ConfigError, CostmwError, StoreBusy
from costmw.events import UsageEvent
from costmw.headroom import Allowance, Headroom
from costmw.pipeline import Pipeline
from costmw.store.greenlets import MadeLate

if TYPE_CHECKING:
    from costmw.alerts.channel import Channel
    from costmw.alerts.settings import Alerts
    from costmw.alerts.watch import Watch
    from costmw.reports import Reports
    from costmw.reprice import Repricing
    from costmw.store.base import Store

logger = logging.getLogger("costmw")

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


class Meter(Pipeline):
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
        config = config or Config.from_environment()
        from costmw.store.layers import open_store

        opened = open_store(store, config)
        path = config.budgets_file
        if path:
            from costmw.budget_file import combined, load_budgets

            budgets = combined(budgets, load_budgets(path), path)
        self.budgets = _distinct(budgets)
        super().__init__(
            opened,
            self.budgets,
            tags or {},
            config,
            enabled=enabled and enabled_from_environment(),
            when_recorded=self._watch_for_alerts,
        )
        self._watch = self._watch_of(alerts)
        self._headroom = Headroom(self.store, self._bounds_of_calls, self._reserver.rules_for)
        self._start_error: CostmwError | None = None
        self.started = False
        """Whether `start()` has been tried."""
        meters.remember(self)

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
        from costmw.providers.known import find_provider
        from costmw.providers.registry import formats_of

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

    # The meter's own life.

    def start(self) -> None:
        """Open and check the store, once.

        Raises:
            StoreError: when the store cannot be used; said once, the app then goes on
                without a store, and events wait in memory.
        """
        if not self.enabled or not self._is_first_to_start():
            return
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

    def _is_first_to_start(self) -> bool:
        with self._start_lock:
            was_started, self.started = self.started, True
        return not was_started

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
            started=self.started,
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

        return Reports(self.store, self.budgets, pricing=self._pricing)

    def after_fork_in_child(self) -> None:
        """What is under way belongs to the parent; its locks may be held for ever here."""
        self.forget_calls()
        if self._watch is not None:
            self._watch.after_fork_in_child()
        MadeLate.forget(self, "_start_lock")


def _distinct(budgets: Sequence[Budget]) -> tuple[Budget, ...]:
    names = [budget.name for budget in budgets]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two budgets are named {name!r}")
    return tuple(budgets)


@atexit.register
def _end_all_streams() -> None:
    # Registered after the writers' own hook, and so run before it.
    for meter in meters.all_meters():
        meter.end_streams()
