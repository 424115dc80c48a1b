"""What the rows of the last days say of the set-up that made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from costmw.doctor.case import Case, Ledger, counted, listed
from costmw.doctor.finding import Finding
from costmw.events import UsageEvent
from costmw.providers.known import find_provider

WHO = ("user", "tenant", "feature", "team")
"""Tags that say who a call is for."""

WORTH_SAYING = 0.01
"""The share of calls from which on something is worth a word."""


def check_calls_come_in(case: Case) -> Iterator[Finding]:
    """Whether anything was recorded of late."""
    for ledger in case.ledgers:
        if ledger.calls:
            continue
        if ledger.last is None:
            yield Finding(
                "info",
                "no-calls",
                f"{ledger.store.url} has no calls yet.",
                "Make one, and look again.",
            )
        else:
            yield Finding(
                "warning",
                "no-calls",
                f"{ledger.store.url} has no call of the last {counted(ledger.days, 'day')}; the "
                f"last one is of {ledger.last.created_at:%Y-%m-%d}.",
                "If the app has made some, it records elsewhere or not at all: costmw doctor "
                "main:app, with the app's environment, says why.",
            )


def check_requests(case: Case) -> Iterator[Finding]:
    """Whether calls know the web request, the route and the people that they are for."""
    for ledger in case.ledgers:
        lost = [one for one in ledger.newest if one.request_id is None and not _says_who(one)]
        if text := _share(lost, ledger):
            yield Finding(
                "warning",
                "context-not-bound",
                f"{text} outside of any web request, with no tag of who asked"
                f"{_most(lost, lambda one: one.model)}.",
                "In threads and executors: pool.submit(carry(work)). In jobs: with "
                "tag(feature='nightly'). If these are calls of web requests, CostMiddleware is "
                "not around the app.",
            )
        inside = [one for one in ledger.newest if one.request_id is not None]
        if text := _share([one for one in inside if "route" not in one.tags], ledger):
            yield Finding(
                "info",
                "route-unknown",
                f"{text} in web requests whose route is not known.",
                "Plain WSGI has no routes: CostMiddleware(app, meter, route=...) names them. "
                "Elsewhere these are calls of middlewares, made before the request is routed.",
            )
        if text := _share([one for one in inside if not _says_who(one)], ledger):
            yield Finding(
                "info",
                "no-tags",
                f"{text} with a route, and no user, tenant, feature or team.",
                "bind(user=..., tenant=...) where the user is known, or tags= of the middleware; "
                "@metered(feature=...) on a function.",
            )


def check_usage(case: Case) -> Iterator[Finding]:
    """Calls of which the provider did not say what they used."""
    for ledger in case.ledgers:
        for provider, model, calls, estimated in _by_model(ledger, ("estimated", "unmetered")):
            examples = [
                one
                for one in ledger.newest
                if one.status in ("estimated", "unmetered")
                and (one.provider, one.model) == (provider, model)
            ]
            streams = [one for one in examples if _is_stream_without_usage(one)]
            kept = "estimated from bytes" if estimated else "unknown, and have no cost"
            if streams:
                yield Finding(
                    "warning",
                    "streams-without-usage",
                    f"{counted(calls, 'call')} of {_named(provider, model)}, streams most of "
                    f"them, came without usage: their tokens are {kept}.",
                    "meter.instrument(client) and instrument_all() ask for usage where the "
                    "provider is known to take that: leave include_usage on, and say "
                    "provider= of own gateways. Elsewhere, and with event_hooks(), ask "
                    "yourself: stream_options={'include_usage': True}.",
                )
            elif any("costmw[compression]" in (one.reason or "") for one in examples):
                yield Finding(
                    "warning",
                    "extra-missing",
                    f"{counted(calls, 'call')} of {_named(provider, model)} came in an encoding "
                    "that cannot be read here.",
                    "pip install 'costmw[compression]'",
                )
            else:
                yield Finding(
                    "warning",
                    "usage-unknown",
                    f"The tokens of {counted(calls, 'call')} of {_named(provider, model)} are "
                    f"{kept}{_most(examples, lambda one: one.reason)}.",
                    "The page lists such calls with their reasons. What the app itself knows can "
                    "be recorded by meter.record(...) or @metered(usage=...).",
                )
        for provider, model, calls, _ in _by_model(ledger, ("incomplete",)):
            if calls >= ledger.calls * WORTH_SAYING:
                yield Finding(
                    "info",
                    "calls-incomplete",
                    f"{counted(calls, 'call')} of {_named(provider, model)} did not reach "
                    "their end; the provider bills for what it had made by then.",
                    "Read streams to their end, or leave them by `with`. Users who go away make "
                    "such calls too.",
                )


def check_prices(case: Case) -> Iterator[Finding]:
    """Calls whose usage is known, and whose cost is not."""
    for ledger in case.ledgers:
        unpriced: Counter[tuple[str | None, str | None]] = Counter()
        flagged = 0
        for (provider, model, status), totals in ledger.groups.items():
            if status in ("ok", "estimated"):
                unpriced[_text(provider), _text(model)] += totals.unpriced
            if status == "ok":
                flagged += totals.flagged
        for (provider, model), calls in unpriced.most_common():
            if calls:
                yield _unpriced(case, ledger, provider, model, calls)
        if flagged:
            partly = [one for one in ledger.newest if one.status == "ok" and one.reason]
            yield Finding(
                "info",
                "cost-incomplete",
                f"The cost of {counted(flagged, 'call')} leaves something out"
                f"{_most(partly, lambda one: one.reason)}.",
                "An own price of the model ([[price]] in COSTMW_PRICES) may name what is missing.",
            )


def _unpriced(
    case: Case, ledger: Ledger, provider: str | None, model: str | None, calls: int
) -> Finding:
    problem = f"{counted(calls, 'call')} of {_named(provider, model)} have no cost"
    if provider is None:
        return Finding(
            "warning",
            "provider-unknown",
            f"{problem}: nobody knows who bills them.",
            "meter.instrument(client, provider='openai'), or "
            "COSTMW_HOSTS=llm.internal=openai, names who does.",
        )
    if model is None:
        return Finding(
            "warning",
            "model-unpriced",
            f"{problem}: neither the request nor the response names the model.",
            "meter.record(model=...) and @metered(usage=...) say it for calls of your own.",
        )
    if case.price(ledger.store, provider, model).cost_pico_usd is not None:
        since = min(
            (one.created_at for one in ledger.newest if one.price.cost_pico_usd is None),
            default=case.now,
        )
        return Finding(
            "warning",
            "model-unpriced",
            f"{problem}, and there is a price by now.",
            f"costmw reprice --since {since:%Y-%m-%d}"
            if case.price(None, provider, model).cost_pico_usd is not None
            else f"meter.reprice(since=datetime({since:%Y}, {since.month}, {since.day}, "
            "tzinfo=UTC)), in the app, whose code has the price.",
        )
    free = find_provider(provider).self_hosted
    amount = "0.00     # USD for a million tokens; 0 where it is free" if free else "0.00"
    return Finding(
        "warning",
        "model-unpriced",
        f"{problem}: the price list does not have the model.",
        "Put its price in a file, name that in COSTMW_PRICES, and run costmw reprice:\n"
        f"  [[price]]\n  model = {_toml(model)}\n  provider = {_toml(provider)}\n"
        f"  input = {amount}\n  output = 0.00",
    )


def check_counted_twice(case: Case) -> Iterator[Finding]:
    """One response in two rows: of the app, and of a proxy that it calls through."""
    for ledger in case.ledgers:
        seen = Counter(
            (one.response_id, one.model, one.usage.input_tokens, one.usage.output_tokens)
            for one in ledger.newest
            if one.response_id is not None
        )
        twice = sum(count - 1 for count in seen.values())
        if twice and twice >= len(ledger.newest) * WORTH_SAYING:
            yield Finding(
                "warning",
                "counted-twice",
                f"Of {ledger.span}, {twice:,} {'are' if twice > 1 else 'is'} there twice, by the "
                "provider's id of the response and its tokens.",
                "An instrumented client that calls through `costmw proxy` counts here and there: "
                "leave one of them. Two processes of one call do so too.",
            )


def check_faults(case: Case) -> Iterator[Finding]:
    """Calls that costmw itself failed to record."""
    for ledger in case.ledgers:
        if ledger.capture_faults:
            yield Finding(
                "warning",
                "faults",
                f"costmw failed to record {counted(ledger.capture_faults, 'call')} of the last "
                f"{counted(ledger.days, 'day')}.",
                "The app's log has the details, under the name costmw.",
            )


def _says_who(event: UsageEvent) -> bool:
    return any(key in event.tags for key in WHO)


def _is_stream_without_usage(event: UsageEvent) -> bool:
    """A body that was read to its end in pieces, and never said what it used."""
    said = event.reason or ""
    return event.time_to_first_chunk_ms is not None and "no usage" in said


def _by_model(
    ledger: Ledger, statuses: tuple[str, ...]
) -> Iterator[tuple[str | None, str | None, int, bool]]:
    """Provider, model, calls of these statuses, and whether most of them are estimated."""
    calls: Counter[tuple[str | None, str | None]] = Counter()
    estimated: Counter[tuple[str | None, str | None]] = Counter()
    for (provider, model, status), totals in ledger.groups.items():
        if status in statuses:
            calls[_text(provider), _text(model)] += totals.calls
            if status == "estimated":
                estimated[_text(provider), _text(model)] += totals.calls
    for key, count in calls.most_common():
        yield *key, count, estimated[key] * 2 >= count


def _share(some: Sequence[UsageEvent], ledger: Ledger) -> str:
    """`Of 20 calls, 3 were made`; empty when it is not worth a word."""
    if len(some) < max(1, len(ledger.newest) * WORTH_SAYING):
        return ""
    return f"Of {ledger.span}, {len(some):,} {'were' if len(some) > 1 else 'was'} made"


def _most(events: Sequence[UsageEvent], of: Callable[[UsageEvent], str | None]) -> str:
    """In brackets: what most of the events have."""
    found = Counter(value for one in events if (value := of(one)) is not None)
    return f" ({listed([value for value, _ in found.most_common()], 3)})" if found else ""


def _named(provider: str | None, model: str | None) -> str:
    return f"{provider or 'an unknown provider'}/{model or 'an unknown model'}"


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(value: str | int | None) -> str | None:
    return None if value is None else str(value)
